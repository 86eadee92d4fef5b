//! MQTT loads: publishers with a window in flight, subscribers that count, and an open loop with
//! intended send times.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

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

/// Publishes `messages` as fast as the window (QoS 1) or the socket (QoS 0) takes them, or at
/// `per_second` by intended send times whatever the answers do.
async fn publish(
    load: Load,
    number: usize,
    messages: u64,
    per_second: Option<f64>,
) -> anyhow::Result<()> {
    let (mut reader, mut write) =
        mqtt_wire::connect(&load.address, &format!("pub-{number}"), 60).await?;
    let topic = format!("load/{number}");
    let mut payload = vec![7u8; load.payload_bytes.max(8)];
    let (begun, origin) = (tokio::time::Instant::now(), now_us());
    let (mut sent, mut acked) = (0u64, 0u64);
    let window = if load.qos == 0 || per_second.is_some() {
        u64::from(u16::MAX)
    } else {
        load.in_flight as u64
    };
    let mut out = BytesMut::with_capacity(128 * 1024);
    while sent < messages || (load.qos > 0 && acked < messages) {
        let in_flight = if load.qos > 0 { sent - acked } else { 0 };
        let mut room = window.saturating_sub(in_flight).min(messages - sent);
        if load.qos == 0 {
            room = room.min(64);
        }
        let mut next_due = None;
        while room > 0 {
            let mut stamp = now_us();
            if let Some(rate) = per_second {
                let due = Duration::from_secs_f64(sent as f64 / rate);
                if begun.elapsed() < due {
                    next_due = Some(begun + due);
                    break;
                }
                stamp = origin + due.as_micros() as u64;
            }
            if let Some(head) = payload.get_mut(..8) {
                head.copy_from_slice(&stamp.to_be_bytes());
            }
            let id = (sent % 65_535 + 1) as u16;
            mqtt_wire::put_publish(&mut out, &topic, load.qos, id, &payload);
            sent += 1;
            room -= 1;
        }
        if !out.is_empty() {
            write.write_all(&out).await?;
            out.clear();
        }
        if load.qos == 0 {
            match next_due {
                Some(due) => sleep_until(due).await,
                None => tokio::task::yield_now().await,
            }
            continue;
        }
        if acked == messages {
            break;
        }
        let next = tokio::select! {
            packet = reader.next() => Some(packet?),
            () = async { match next_due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            } } => None,
        };
        let Some(packet) = next else { continue };
        let Some(packet) = packet else { bail!("closed after {acked} of {messages}") };
        acked += u64::from(matches!(packet, Packet::PubAck(_)));
        while let Some(packet) = reader.buffered()? {
            acked += u64::from(matches!(packet, Packet::PubAck(_)));
        }
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
    let mut senders = JoinSet::new();
    let rate = per_second.map(|rate| rate / load.publishers.max(1) as f64);
    for number in 0..load.publishers {
        senders.spawn(publish(load.clone(), number, each, rate));
    }
    while let Some(done) = senders.join_next().await {
        done??;
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
