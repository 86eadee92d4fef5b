// kafkajs: `produce BROKER TOPIC KEY VALUE` or `consume BROKER TOPIC KEY` (prints values of KEY, one a line, until killed).
const { Kafka, logLevel } = require('kafkajs')

const [action, broker, topic, key, value] = process.argv.slice(2)
const kafka = new Kafka({ clientId: 'kafkajs', brokers: [broker], logLevel: logLevel.ERROR })

async function main () {
  if (action === 'produce') {
    const producer = kafka.producer({ idempotent: true })
    await producer.connect()
    await producer.send({ topic, messages: [{ key, value }] })
    await producer.disconnect()
    return
  }
  const consumer = kafka.consumer({ groupId: `kafkajs-${process.pid}-${Date.now()}` })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ message }) => {
      if (message.key && message.key.toString() === key) console.log(message.value.toString())
    }
  })
}

main().catch((error) => { console.error(error); process.exit(1) })
