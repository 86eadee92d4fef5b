//! From an accepted stream to a connected client, and to the connection's end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::timeout;

use super::run::{Close, Connection, Core};
use super::shared::ConnShared;
use super::wire::Wire;
use crate::auth::Refused;
use crate::mqtt::broker::Broker;
use crate::mqtt::codec::{
    ConnAck, Connect, Diagnostics, Disconnect, FrameRules, PacketKind, Reason, Receiver, Version,
};
use crate::mqtt::lifecycle::Accepted;
use crate::net::{Peer, Stream};

/// The longest that an ending connection may take to take its last packet, and to close.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of a client that are read and thrown away after the last packet to it.
const LINGER_BYTES: usize = 1 << 20;

/// Serves one stream until it ends.
pub(crate) async fn serve(broker: Arc<Broker>, stream: Stream, peer: Peer) {
    let metrics = broker.metrics.clone();
    metrics.connections_total.inc();
    metrics.connections.inc();
    let mut wire = Wire::new(stream);
    let limit = Duration::from_millis(broker.config.connect_timeout_ms);
    // Boxed, so that a connected client's task doesn't keep the room that it took to get there.
    let opened = Box::pin(async {
        tokio::select! {
            opened = timeout(limit, open(&broker, &mut wire, &peer)) => opened.ok().flatten(),
            () = broker.stop.cancelled() => None,
        }
    })
    .await;
    match opened {
        Some(core) => {
            if broker.stop.is_cancelled() {
                // It may have come too late to be told with the others.
                core.shared.close(Reason::ServerShuttingDown);
            }
            let mut connection = Connection { core, wire };
            let close = connection.run().await;
            connection.core.shared.set_drained();
            Box::pin(finish(connection, close)).await;
        }
        None => Box::pin(bye(&mut wire)).await,
    }
    metrics.connections.sub(1);
}

/// Reads CONNECT and answers it. `None`: the connection is over, its answer (if any) in `wire`.
async fn open(broker: &Arc<Broker>, wire: &mut Wire, peer: &Peer) -> Option<Core> {
    let packet = read_connect(broker, wire).await?;
    let rules = FrameRules::server(Version::V5, broker.config.max_packet_bytes);
    let (frame, _) = rules.split(&packet).ok()??;
    let connect = match Connect::decode(frame.body) {
        Ok(connect) => connect,
        Err(refused) => {
            broker.metrics.connects_refused.inc();
            if let Some(version) = refused.answer {
                // A client of another version may not be able to read more than the code.
                let diagnostics = match refused.error.reason {
                    Reason::UnsupportedProtocolVersion => Diagnostics::default(),
                    _ => Diagnostics::reason(refused.error.what),
                };
                let answer = ConnAck { diagnostics, ..ConnAck::new(refused.error.reason) };
                write_connack(wire, &answer, &Receiver::new(version));
            }
            return None;
        }
    };
    if let Err(reason) = check(broker, &connect, peer).await {
        broker.metrics.connects_refused.inc();
        tracing::debug!(client = connect.client_id, peer = %peer.address, ?reason, "refused");
        write_connack(wire, &ConnAck::new(reason), &connect.receiver());
        return None;
    }
    broker.displace(connect.client_id).await;
    let shared = ConnShared::new();
    let Accepted { session, number, keep_alive_s, is_told } =
        broker.accept(&connect, shared.clone());
    if !is_told {
        // It would wait for CONNACK for ever.
        broker.leave(&session, number, true);
        return None;
    }
    let (receiver, expiry_s) = (connect.receiver(), connect.session_expiry_s);
    Some(Core::new(broker.clone(), session, number, shared, receiver, keep_alive_s, expiry_s))
}

/// The bytes of CONNECT; `None` if something else came, or nothing.
async fn read_connect(broker: &Broker, wire: &mut Wire) -> Option<Bytes> {
    let rules = FrameRules::server(Version::V5, broker.config.max_packet_bytes);
    loop {
        let len = match rules.header(&wire.input) {
            Ok(Some(header)) if header.kind != PacketKind::Connect => return None,
            Ok(Some(header)) => Some(header.packet_bytes()),
            Ok(None) if wire.input.first().is_some_and(|first| *first != 0x10) => return None,
            Ok(None) => None,
            Err(_) => return None,
        };
        if let Some(len) = len
            && wire.input.len() >= len
        {
            let packet = wire.input.split_to(len);
            // What came along is not to keep the whole buffer.
            wire.input = BytesMut::from(&*wire.input);
            return Some(packet.freeze());
        }
        poll_fn(|cx| wire.poll_read(cx, |_| (0, ()))).await.ok()??;
    }
}

/// Everything that can be wrong with a well-formed CONNECT.
async fn check(broker: &Broker, connect: &Connect<'_>, peer: &Peer) -> Result<(), Reason> {
    if connect.auth_method.is_some() {
        return Err(Reason::BadAuthenticationMethod);
    }
    if connect.client_id.len() > broker.config.max_client_id_bytes {
        return Err(Reason::ClientIdNotValid);
    }
    if let Some(will) = &connect.will
        && (!broker.topic_limits.admit(will.topic) || will.topic.starts_with('$'))
    {
        return Err(Reason::TopicNameInvalid);
    }
    if broker.registry.len() >= broker.config.max_sessions
        && !broker.registry.contains(connect.client_id)
    {
        return Err(Reason::QuotaExceeded);
    }
    if !broker.auth.is_required() {
        return Ok(());
    }
    match broker.auth.verify(connect.user_name, connect.password, peer).await {
        Ok(_) => Ok(()),
        Err(Refused::BadCredentials) => Err(Reason::BadUserNameOrPassword),
        Err(Refused::Unavailable) => Err(Reason::ServerUnavailable),
    }
}

fn write_connack(wire: &mut Wire, connack: &ConnAck<'_>, receiver: &Receiver) {
    let mut out = BytesMut::new();
    // One that is too large for the client must not be sent.
    if connack.encode(receiver, &mut out).is_ok() {
        wire.output().push_back(out.freeze());
    }
}

/// The end of a connected client.
async fn finish(mut connection: Connection, close: Close) {
    let Connection { core, wire } = &mut connection;
    core.flush_publishes();
    // Acknowledgements that are ready go out before the end.
    core.take_output(wire);
    let with_will = close != Close::Disconnected { with_will: false };
    let is_taken_over = close == Close::Ended(Reason::SessionTakenOver);
    if !is_taken_over {
        core.broker.leave(&core.session, core.number, with_will);
    }
    let disconnect = match close {
        Close::Lost | Close::Disconnected { .. } => None,
        Close::Broken(error) => {
            core.broker.metrics.protocol_errors.inc();
            tracing::debug!(client = %core.session.client_id, %error, "closed for a broken rule");
            Some((error.reason, error.what))
        }
        Close::Ended(reason) => Some((reason, "")),
    };
    if let Some((reason, what)) = disconnect
        && core.version.is_v5()
    {
        let mut packet = Disconnect::new(reason);
        packet.diagnostics.reason_string = (!what.is_empty()).then_some(what);
        let mut out = BytesMut::new();
        if packet.encode(&core.receiver, &mut out).is_ok() {
            wire.output().push_back(out.freeze());
        }
    }
    if close == Close::Lost {
        return;
    }
    bye(wire).await;
    if is_taken_over {
        // If whoever displaced it went away before it took the session.
        core.broker.leave(&core.session, core.number, true);
    }
}

/// Writes what is left, ends the writing side, and waits for the client to end its own: closing
/// with unread bytes would reset the connection and lose the last packet.
async fn bye(wire: &mut Wire) {
    let _ = timeout(LINGER, async {
        poll_fn(|cx| wire.poll_write(cx)).await?;
        poll_fn(|cx| wire.poll_shutdown(cx)).await?;
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            loop {
                match wire.poll_read(cx, |bytes| (bytes.len(), bytes.len())) {
                    Poll::Ready(Ok(Some(bytes))) if bytes < left => left -= bytes,
                    Poll::Ready(_) => return Poll::Ready(Ok::<_, std::io::Error>(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    })
    .await;
}
