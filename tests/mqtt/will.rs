//! W: wills, from CONNECT to their publication.

use std::time::{Duration, Instant};

use crate::broker::{Broker, is_reference, unique};
use crate::client::{Client, Connect};
use crate::wire::*;

fn watch(topic: &str) -> Client {
    let mut watcher = Connect::v5(&unique("watcher")).open();
    watcher.subscribe(&[(topic, 2)]);
    watcher
}

fn delay(seconds: u32) -> Prop {
    Prop::Long(id::WILL_DELAY, seconds)
}

#[test]
fn w1_normal_disconnect_deletes_the_will() {
    let topic = unique("w1");
    let mut watcher = watch(&topic);
    Connect::v5(&unique("w1")).will(Publish::new(&topic, "no", 1)).open().disconnect();
    Connect::v4(&unique("w1")).will(Publish::new(&topic, "no", 1)).open().disconnect();
    watcher.expect_nothing(&topic);
    // Also for a session that goes on, when it ends later without another CONNECT's will.
    let me = unique("w1");
    Connect::v5(&me).expiry(60).will(Publish::new(&topic, "no", 1)).open().disconnect();
    Connect::v5(&me).resume().open().cut();
    watcher.expect_nothing(&topic);
}

#[test]
fn w1_disconnect_with_will_publishes() {
    let topic = unique("w1");
    let mut watcher = watch(&topic);
    let will = Publish::new(&topic, "wanted", 2);
    Connect::v5(&unique("w1")).will(will).open().disconnect_with(0x04, &[]);
    let message = watcher.recv_message();
    assert_eq!((message.text(), message.qos, message.retain), ("wanted", 2, false));
}

#[test]
fn w1_every_reason_but_a_normal_one_publishes() {
    let topic = unique("w1");
    let mut watcher = watch(&topic);
    for code in [0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99] {
        let text = format!("{code:#04x}");
        let will = Publish::new(&topic, &text, 1);
        Connect::v5(&unique("w1")).will(will).open().disconnect_with(code, &[]);
        assert_eq!(watcher.recv_message().text(), text);
    }
}

#[test]
fn w1_every_other_end_publishes() {
    let topic = unique("w1");
    let mut watcher = watch(&topic);
    for connect in [Connect::v5(&unique("w1")), Connect::v4(&unique("w1"))] {
        connect.clone().will(Publish::new(&topic, "cut", 1)).open().cut();
        assert_eq!(watcher.recv_message().text(), "cut");
        let mut client = connect.will(Publish::new(&topic, "protocol error", 0)).open();
        client.send(&packet(SUBACK, bytes().u16(1).u8(0)));
        client.expect_disconnect(&[0x82, 0x81]);
        assert_eq!(watcher.recv_message().text(), "protocol error");
    }
}

#[test]
fn w1_server_shutdown_publishes() {
    if is_reference() {
        return;
    }
    // The will outlives the broker that was told to stop: it is in the log, for Kafka to read, and
    // the client is told why (0x8B).
    let broker = Broker::start(&[], &[]);
    let will = Publish::new("w1/shutdown", "stopped", 1).retain();
    let mut client = Connect::v5("w1").will(will).open_at(Client::tcp_to(&broker, 5));
    let mut watcher = Connect::v5("w1w").open_at(Client::tcp_to(&broker, 5));
    watcher.subscribe(&[("w1/shutdown", 1)]);
    broker.terminate();
    client.expect_disconnect(&[0x8B]);
    watcher.expect_disconnect(&[0x8B]);
    let broker = broker.restart(&[]);
    let mut watcher = Connect::v5("w1w").open_at(Client::tcp_to(&broker, 5));
    watcher.subscribe(&[("w1/shutdown", 1)]);
    assert_eq!(watcher.recv_message().text(), "stopped");
}

#[test]
fn w2_will_waits_for_its_delay() {
    let topic = unique("w2");
    let mut watcher = watch(&topic);
    let will = Publish::new(&topic, "late", 1).prop(delay(1));
    let client = Connect::v5(&unique("w2")).expiry(60).will(will).open();
    let cut = Instant::now();
    client.cut();
    assert_eq!(watcher.recv_message().text(), "late");
    assert!(cut.elapsed() >= Duration::from_millis(900), "after {:?}", cut.elapsed());
}

#[test]
fn w2_session_end_comes_before_the_delay() {
    let topic = unique("w2");
    let mut watcher = watch(&topic);
    let will = |text: &str| Publish::new(&topic, text, 1).prop(delay(3600));
    // Expiry 0: the session ends at the close. Expiry 1: a second later.
    Connect::v5(&unique("w2")).will(will("at once")).open().cut();
    assert_eq!(watcher.recv_message().text(), "at once");
    Connect::v5(&unique("w2")).expiry(1).will(will("at expiry")).open().cut();
    assert_eq!(watcher.recv_message().text(), "at expiry");
    // The expiry that DISCONNECT states counts.
    let client = Connect::v5(&unique("w2")).expiry(3600).will(will("as it left")).open();
    client.disconnect_with(0x04, &[Prop::Long(id::SESSION_EXPIRY, 0)]);
    assert_eq!(watcher.recv_message().text(), "as it left");
}

#[test]
fn w3_reconnect_cancels_the_will() {
    let (me, topic) = (unique("w3"), unique("w3"));
    let mut watcher = watch(&topic);
    let will = Publish::new(&topic, "cancelled", 1).prop(delay(2));
    Connect::v5(&me).expiry(60).will(will).open().cut();
    let mut client = Connect::v5(&me).resume().expiry(60).open();
    assert!(client.session_present);
    // A will with the same delay, set afterwards, is published; the cancelled one never is.
    let other = Publish::new(&topic, "other", 1).prop(delay(2));
    Connect::v5(&unique("w3")).expiry(60).will(other).open().cut();
    assert_eq!(watcher.recv_message().text(), "other");
    watcher.expect_nothing(&topic);
    client.ping_next();
}

#[test]
fn w4_retained_will_with_properties() {
    let topic = unique("w4");
    let mut watcher = watch(&topic);
    let will = Publish::new(&topic, "bye", 1)
        .retain()
        .prop(Prop::Byte(id::PAYLOAD_FORMAT, 1))
        .prop(Prop::Long(id::MESSAGE_EXPIRY, 100))
        .prop(text(id::CONTENT_TYPE, "text/plain"))
        .prop(text(id::RESPONSE_TOPIC, "w4/answer"))
        .prop(Prop::Data(id::CORRELATION, vec![0, 255, 1]))
        .prop(user("b", "1"))
        .prop(user("a", "2"))
        .prop(user("b", "1"));
    Connect::v5(&unique("w4")).will(will).open().cut();
    let mut late = Connect::v5(&unique("w4l")).open();
    let live = watcher.recv_message();
    late.subscribe(&[(&topic, 1)]);
    let retained = late.recv_message();
    for (message, retain) in [(live, false), (retained, true)] {
        assert_eq!((message.text(), message.qos, message.retain), ("bye", 1, retain));
        let props = &message.props;
        assert_eq!(props.number(id::PAYLOAD_FORMAT), Some(1));
        assert!((1..=100).contains(&props.number(id::MESSAGE_EXPIRY).unwrap()));
        assert_eq!(props.text(id::CONTENT_TYPE), Some("text/plain"));
        assert_eq!(props.text(id::RESPONSE_TOPIC), Some("w4/answer"));
        assert_eq!(props.data(id::CORRELATION), Some(&[0, 255, 1][..]));
        assert_eq!(props.user(), [("b", "1"), ("a", "2"), ("b", "1")]);
        assert_eq!(props.number(id::WILL_DELAY), None);
    }
}

#[test]
fn w6_empty_will_clears_the_retained_message() {
    let topic = unique("w6");
    let mut publisher = Connect::v5(&unique("w6p")).open();
    publisher.publish(Publish::new(&topic, "there", 1).retain());
    let mut watcher = watch(&topic);
    assert_eq!(watcher.recv_message().text(), "there");
    Connect::v5(&unique("w6")).will(Publish::new(&topic, "", 1).retain()).open().cut();
    assert_eq!(watcher.recv_message().text(), "");
    let mut late = Connect::v5(&unique("w6l")).open();
    late.subscribe(&[(&topic, 1)]);
    late.expect_nothing(&topic);
}

#[test]
fn w7_ill_formed_will_topics() {
    for version in [4, 5] {
        for topic in [&b"w7/#"[..], b"w7/+/x", b"", b"w7/\0", b"w7/\xC3\x28", b"w7/\xED\xA0\x80"] {
            let mut connect = Connect::v5(&unique("w7"));
            connect.version = version;
            // The will is spliced in by hand: its topic need not be text.
            let mut body = connect.body_with_flags(0x06);
            if version == 5 {
                body = body.props(&[]);
            }
            let mut client = Client::tcp(version);
            client.send(&packet(CONNECT, body.field(topic).field("x")));
            client.expect_refused(&[0x90, 0x81, 0x82]);
        }
    }
}

#[test]
fn w8_expiry_of_a_will_starts_at_its_publication() {
    let topic = unique("w8");
    let mut watcher = watch(&topic);
    let will = Publish::new(&topic, "fresh", 1).prop(Prop::Long(id::MESSAGE_EXPIRY, 1));
    let client = Connect::v5(&unique("w8")).will(will).open();
    std::thread::sleep(Duration::from_millis(2100));
    client.cut();
    let message = watcher.recv_message();
    assert_eq!((message.text(), message.props.number(id::MESSAGE_EXPIRY)), ("fresh", Some(1)));
}
