// mqtt.js: `pub URL VERSION TOPIC PAYLOAD QOS` or `sub URL VERSION FILTER COUNT`; CA in $CA.
const fs = require('node:fs')
const mqtt = require('mqtt')

const [action, url, version, topic, last, qos] = process.argv.slice(2)
const options = { protocolVersion: Number(version), reconnectPeriod: 0, clientId: `mqttjs-${process.pid}` }
if (process.env.CA) options.ca = fs.readFileSync(process.env.CA)
const client = mqtt.connect(url, options)
client.on('error', (error) => { console.error(error); process.exit(1) })

client.on('connect', () => {
  if (action === 'pub') {
    client.publish(topic, last, { qos: Number(qos) }, (error) => {
      if (error) throw error
      client.end()
    })
    return
  }
  let left = Number(last)
  client.on('message', (from, payload) => {
    console.log(JSON.stringify([from, payload.toString()]))
    left -= 1
    if (left === 0) client.end()
  })
  client.subscribe(topic, { qos: 2 }, (error, granted) => {
    if (error || granted[0].qos !== 2) throw error || new Error('not granted')
    console.log('subscribed')
  })
})
