//! MQTT loads: publishers with a window in flight, subscribers that count, and an open loop with
//! intended send times.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use bytes::{Buf, BytesMut};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::latency::Latencies;
use crate::mqtt_wire::{self, Packet, Reader};

/// How long receivers wait for what is still missing after the last publish.
const DRAIN: Duration = Duration::from_secs(20);

/// Publishers, each with its own topic, and subscribers, each with a filter.
#[derive(Clone, Debug)]
pub struct Load {
    /// The broker.
    pub address: String,
    /// Publishing clients; number `n` publishes to `load/n`.
    pub publishers: usize,
    /// The filters of the subscribing clients.
    pub filters: Vec<String>,
    /// 0 or 1, for publishes and subscriptions.
    pub qos: u8,
    /// Publishes a client has in flight at QoS 1.
    pub in_flight: usize,
    /// Publishes in all, spread over the publishers.
    pub messages: u64,
    /// Bytes of a payload (at least 8: the send time).
    pub payload_bytes: usize,
}

/// What a load brought.
#[derive(Debug)]
pub struct Outcome {
    /// Publishes a second: acknowledged ones at QoS 1, sent ones at QoS 0.
    pub published_per_s: f64,
    /// Deliveries a second, from the first publish to the last delivery.
    pub delivered_per_s: f64,
    /// Deliveries in all.
    pub delivered: u64,
    /// Deliveries that were expected and never came.
    pub lost: u64,
    /// From (intended) sending to delivery.
    pub latencies: Latencies,
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64)
}

/// Counts deliveries over all subscribers, and wakes whoever waits for the last one.
#[derive(Default)]
struct Count {
    seen: AtomicU64,
    last_us: AtomicU64,
    enough: Notify,
}

async fn receive(
    mut reader: Reader,
    mut write: OwnedWriteHalf,
    count: Arc<Count>,
    expected: u64,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let mut answers = BytesMut::new();
    let mut packet = reader.next().await?;
    while let Some(found) = packet {
        if let Packet::Publish { qos, id, payload } = found {
            let now = now_us();
            if let Some(sent) = payload.get(..8).and_then(|bytes| bytes.try_into().ok()) {
                latencies.record_us(now.saturating_sub(u64::from_be_bytes(sent)));
            }
            if qos > 0 {
                mqtt_wire::put_puback(&mut answers, id);
            }
            let seen = count.seen.fetch_add(1, Ordering::Relaxed) + 1;
            count.last_us.fetch_max(now, Ordering::Relaxed);
            if seen == expected {
                count.enough.notify_one();
            }
        }
        packet = match reader.buffered()? {
            Some(packet) => Some(packet),
            None => {
                if !answers.is_empty() {
                    write.write_all(&answers.split()).await?;
                }
                tokio::select! {
                    packet = reader.next() => packet?,
                    _ = stop.changed() => None,
                }
            }
        };
    }
    Ok(latencies)
}

/// Publishes `messages` as fast as the window (QoS 1) or the socket (QoS 0) takes them.
async fn publish(load: Load, number: usize, messages: u64) -> anyhow::Result<()> {
    let (mut reader, mut write) =
        mqtt_wire::connect(&load.address, &format!("pub-{number}"), 60).await?;
    let topic = format!("load/{number}");
    let mut payload = vec![7u8; load.payload_bytes.max(8)];
    let (mut sent, mut acked) = (0u64, 0u64);
    let mut out = BytesMut::with_capacity(128 * 1024);
    while sent < messages || (load.qos > 0 && acked < messages) {
        let room = if load.qos > 0 { load.in_flight as u64 - (sent - acked) } else { 64 };
        for _ in 0..room.min(messages - sent) {
            put_publish(&mut out, &topic, load.qos, sent, &mut payload, now_us());
            sent += 1;
        }
        if !out.is_empty() {
            write.write_all(&out).await?;
            out.clear();
        }
        if load.qos == 0 {
            tokio::task::yield_now().await;
            continue;
        }
        acked += acknowledged(&mut reader).await?;
    }
    if load.qos == 0 {
        // A round trip behind the last publish: the broker has read them all.
        write.write_all(&[0xc0, 0]).await?;
        loop {
            match reader.next().await? {
                Some(Packet::Other(13)) => break,
                Some(_) => {}
                None => bail!("closed before PINGRESP"),
            }
        }
    }
    Ok(())
}

/// Appends a publish that carries `stamp`, number `sent` of its connection.
fn put_publish(
    out: &mut BytesMut,
    topic: &str,
    qos: u8,
    sent: u64,
    payload: &mut [u8],
    stamp: u64,
) {
    if let Some(head) = payload.get_mut(..8) {
        head.copy_from_slice(&stamp.to_be_bytes());
    }
    let id = (sent % 65_535 + 1) as u16;
    mqtt_wire::put_publish(out, topic, qos, id, payload);
}

/// Waits for a packet; returns how many acknowledgements came with it.
async fn acknowledged(reader: &mut Reader) -> anyhow::Result<u64> {
    let Some(packet) = reader.next().await? else { bail!("closed before the last PUBACK") };
    let mut acked = u64::from(matches!(packet, Packet::PubAck(_)));
    while let Some(packet) = reader.buffered()? {
        acked += u64::from(matches!(packet, Packet::PubAck(_)));
    }
    Ok(acked)
}

/// A publisher of the open loop, and what its socket has not taken yet.
struct Paced {
    topic: String,
    write: OwnedWriteHalf,
    pending: BytesMut,
}

impl Paced {
    fn send(&mut self) -> anyhow::Result<()> {
        while !self.pending.is_empty() {
            match self.write.try_write(&self.pending) {
                Ok(written) => self.pending.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Publishes at `per_second`, publisher after publisher, at intended times whatever the answers do.
/// From a thread that does nothing else: the runtime's timers are exact to a millisecond only, and
/// what the generator is late would count as the broker's latency.
fn pace(load: &Load, mut publishers: Vec<Paced>, per_second: f64) -> anyhow::Result<Vec<Paced>> {
    let mut payload = vec![7u8; load.payload_bytes.max(8)];
    let (begun, origin) = (Instant::now(), now_us());
    let count = publishers.len() as u64;
    for number in 0..load.messages / count * count {
        let due = Duration::from_secs_f64(number as f64 / per_second);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
        let Some(publisher) = publishers.get_mut((number % count) as usize) else { break };
        let stamp = origin + due.as_micros() as u64;
        let Paced { topic, pending, .. } = publisher;
        put_publish(pending, topic, load.qos, number / count, &mut payload, stamp);
        publisher.send()?;
    }
    Ok(publishers)
}

/// Publishes `each` from every publisher at `per_second` in all, and waits for the answers.
async fn publish_paced(load: &Load, each: u64, per_second: f64) -> anyhow::Result<Vec<Paced>> {
    let (mut publishers, mut answers) = (Vec::new(), JoinSet::new());
    for number in 0..load.publishers {
        let (mut reader, write) =
            mqtt_wire::connect(&load.address, &format!("pub-{number}"), 60).await?;
        publishers.push(Paced { topic: format!("load/{number}"), write, pending: BytesMut::new() });
        if load.qos > 0 {
            answers.spawn(async move {
                let mut acked = 0;
                while acked < each {
                    acked += acknowledged(&mut reader).await?;
                }
                anyhow::Ok(reader)
            });
        }
    }
    let thread_load = load.clone();
    let pacing = move || pace(&thread_load, publishers, per_second);
    let mut publishers = tokio::task::spawn_blocking(pacing).await??;
    for publisher in &mut publishers {
        publisher.write.write_all(&publisher.pending.split()).await?;
    }
    while let Some(answered) = answers.join_next().await {
        answered??;
    }
    Ok(publishers)
}

/// Runs the load; `per_second` (over all publishers) makes it an open loop.
pub async fn run(load: &Load, per_second: Option<f64>) -> anyhow::Result<Outcome> {
    let each = load.messages / load.publishers.max(1) as u64;
    let messages = each * load.publishers as u64;
    let matching = |filter: &str| -> u64 { if filter.ends_with('#') { messages } else { each } };
    let expected: u64 = load.filters.iter().map(|filter| matching(filter)).sum();
    let count = Arc::new(Count::default());
    let mut receivers = JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    for (number, filter) in load.filters.iter().enumerate() {
        let (mut reader, mut write) =
            mqtt_wire::connect(&load.address, &format!("sub-{number}"), 60).await?;
        mqtt_wire::subscribe(&mut reader, &mut write, filter, load.qos).await?;
        receivers.spawn(receive(reader, write, count.clone(), expected, stopped.clone()));
    }
    let (begun, begun_us) = (Instant::now(), now_us());
    let mut connected = Vec::new();
    match per_second {
        Some(rate) => connected = publish_paced(load, each, rate).await?,
        None => {
            let mut senders = JoinSet::new();
            for number in 0..load.publishers {
                senders.spawn(publish(load.clone(), number, each));
            }
            while let Some(done) = senders.join_next().await {
                done??;
            }
        }
    }
    let publishing = begun.elapsed().as_secs_f64();
    if expected > 0 && count.seen.load(Ordering::Relaxed) < expected {
        // What is missing after this is lost: brokers may drop at QoS 0.
        let _ = timeout(DRAIN, count.enough.notified()).await;
    }
    let delivered = count.seen.load(Ordering::Relaxed);
    let last = count.last_us.load(Ordering::Relaxed).saturating_sub(begun_us) as f64 / 1e6;
    let mut latencies = Latencies::new()?;
    stop.send_replace(true);
    drop(connected);
    while let Some(done) = receivers.join_next().await {
        latencies.merge(&done??)?;
    }
    Ok(Outcome {
        published_per_s: messages as f64 / publishing,
        delivered_per_s: if last > 0.0 { delivered as f64 / last } else { 0.0 },
        delivered,
        lost: expected.saturating_sub(delivered),
        latencies,
    })
}
