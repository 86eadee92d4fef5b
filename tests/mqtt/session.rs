//! C: what a session keeps, how long, and how another connection takes it over.

use std::time::Duration;

use crate::broker::{Broker, is_reference, unique};
use crate::client::{Client, Connect};
use crate::wire::*;

const NEVER: u32 = u32::MAX;

fn publisher() -> Client {
    Connect::v5(&unique("publisher")).open()
}

#[test]
fn c9_clean_start_discards_the_session() {
    let (me, topic) = (unique("c9"), unique("c9"));
    let mut client = Connect::v5(&me).expiry(60).open();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = publisher();
    // One message in flight, one queued while offline.
    publisher.publish(Publish::new(&topic, "in flight", 2));
    client.recv_publish();
    client.cut();
    publisher.publish(Publish::new(&topic, "queued", 1));
    let mut client = Connect::v5(&me).expiry(60).open();
    assert!(!client.session_present);
    publisher.publish(Publish::new(&topic, "not subscribed", 1));
    client.expect_nothing(&topic);
    // The old subscription is really gone, not only silent.
    assert_eq!(client.unsubscribe(&[&topic]), [0x11]);
}

#[test]
fn c9_clean_start_ends_the_old_will_delay() {
    let (me, topic) = (unique("c9"), unique("c9/will"));
    let mut watcher = publisher();
    watcher.subscribe(&[(&topic, 1)]);
    let will = Publish::new(&topic, "ended", 1).prop(Prop::Long(id::WILL_DELAY, 3600));
    Connect::v5(&me).expiry(NEVER).will(will).open().cut();
    Connect::v5(&me).open();
    // The session ended, so its will doesn't wait for the delay.
    assert_eq!(watcher.recv_message().text(), "ended");
}

#[test]
fn c10_session_present() {
    let me = unique("c10");
    let first = Connect::v5(&me).resume().expiry(60).open();
    assert!(!first.session_present, "there was none");
    first.disconnect();
    let second = Connect::v5(&me).resume().expiry(60).open();
    assert!(second.session_present);
    second.disconnect();
    assert!(!Connect::v5(&me).clean().open().session_present);
    let me = unique("c10");
    assert!(!Connect::v4(&me).resume().open().session_present);
    assert!(Connect::v4(&me).resume().open().session_present);
    // A refusal never says that a session is present.
    let mut client = Client::tcp(5);
    client.send(&Connect::v5(&me).resume().prop(Prop::Short(id::RECEIVE_MAX, 0)).bytes());
    client.expect_refused(&[0x82]);
}

#[test]
fn c11_expiry_absent_ends_with_the_connection() {
    for connect in [Connect::v5(&unique("c11")), Connect::v5(&unique("c11")).expiry(0)] {
        connect.open().disconnect();
        assert!(!connect.resume().open().session_present);
    }
}

#[test]
fn c11_expiry_runs_from_the_close() {
    let (me, kept) = (unique("c11"), unique("c11"));
    let client = Connect::v5(&me).expiry(1).open();
    std::thread::sleep(Duration::from_millis(1500));
    // Longer than the expiry, but the connection was open: the clock starts now.
    client.disconnect();
    let client = Connect::v5(&me).resume().expiry(1).open();
    assert!(client.session_present);
    client.disconnect();
    Connect::v5(&kept).expiry(NEVER).open().cut();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!Connect::v5(&me).resume().open().session_present);
    assert!(Connect::v5(&kept).resume().open().session_present);
}

#[test]
fn c12_no_clean_start_and_no_expiry_still_resumes() {
    let (me, topic) = (unique("c12"), unique("c12"));
    let mut client = Connect::v5(&me).expiry(60).open();
    client.subscribe(&[(&topic, 1)]);
    client.disconnect();
    publisher().publish(Publish::new(&topic, "kept", 1));
    let mut client = Connect::v5(&me).resume().open();
    assert!(client.session_present);
    assert_eq!(client.recv_message().text(), "kept");
    client.disconnect();
    assert!(!Connect::v5(&me).resume().open().session_present, "its own expiry was 0");
}

#[test]
fn c13_disconnect_changes_the_expiry() {
    let expiry = |seconds| [Prop::Long(id::SESSION_EXPIRY, seconds)];
    let me = unique("c13");
    Connect::v5(&me).expiry(60).open().disconnect_with(0, &expiry(0));
    assert!(!Connect::v5(&me).resume().open().session_present);
    let me = unique("c13");
    Connect::v5(&me).expiry(1).open().disconnect_with(0, &expiry(60));
    std::thread::sleep(Duration::from_millis(2500));
    assert!(Connect::v5(&me).resume().open().session_present);
    let mut client = Connect::v5(&unique("c13")).open();
    client.send(&packet(DISCONNECT, bytes().u8(0).props(&expiry(60))));
    client.expect_disconnect(&[0x82]);
}

#[test]
fn c13_server_sends_no_expiry_in_disconnect() {
    let me = unique("c13");
    let mut old = Connect::v5(&me).expiry(60).open();
    let _new = Connect::v5(&me).resume().expiry(60).open();
    let (code, props) = old.recv_kind(DISCONNECT).reason();
    assert_eq!((code, props.number(id::SESSION_EXPIRY)), (0x8E, None));
}

#[test]
fn c14_a_shortened_expiry_is_announced() {
    let client = Connect::v5(&unique("c14")).expiry(60).open();
    assert_eq!(client.connack.number(id::SESSION_EXPIRY), None, "60 s is not shortened");
    if !is_reference() {
        let broker = Broker::start(&[("INTERFLOW_MQTT__MAX_SESSION_EXPIRY_S", "100")], &[]);
        for (asked, said) in [(99, None), (101, Some(100)), (NEVER, Some(100))] {
            let connect = Connect::v5(&unique("c14")).expiry(asked);
            let client = connect.open_at(Client::tcp_to(&broker, 5));
            assert_eq!(client.connack.number(id::SESSION_EXPIRY), said, "asked for {asked} s");
        }
    }
    let client = Connect::v5(&unique("c14")).expiry(NEVER).open();
    if let Some(granted) = client.connack.number(id::SESSION_EXPIRY) {
        assert!(granted > 60 && granted < NEVER, "granted {granted} s");
    }
}

#[test]
fn c15_sessions_of_both_versions() {
    let topic = unique("c15");
    // 3.1.1 with CleanSession 0 is stored, with 1 never; 5.0 with Clean Start 1 and an expiry is.
    for (connect, stored) in [
        (Connect::v4(&unique("c15")).resume(), true),
        (Connect::v4(&unique("c15")), false),
        (Connect::v5(&unique("c15")).expiry(60), true),
    ] {
        let mut client = connect.open();
        client.subscribe(&[(&topic, 1)]);
        client.disconnect();
        publisher().publish(Publish::new(&topic, "offline", 1));
        let mut client = connect.resume().open();
        assert_eq!(client.session_present, stored);
        let expected: &[&str] = if stored { &["offline"] } else { &[] };
        assert_eq!(client.collect_texts(&topic), expected);
    }
}

#[test]
fn c16_session_carries_over_between_versions() {
    let (me, topic) = (unique("c16"), unique("c16"));
    let mut client = Connect::v4(&me).resume().open();
    client.subscribe(&[(&topic, 1)]);
    client.disconnect();
    publisher().publish(Publish::new(&topic, "to five", 1));
    let mut client = Connect::v5(&me).resume().expiry(60).open();
    assert!(client.session_present);
    assert_eq!(client.recv_message().text(), "to five");
    client.disconnect();
    publisher().publish(Publish::new(&topic, "back to four", 1));
    let mut client = Connect::v4(&me).resume().open();
    assert!(client.session_present);
    assert_eq!(client.recv_message().text(), "back to four");
}

#[test]
fn c17_session_lives_while_connected() {
    let (me, topic) = (unique("c17"), unique("c17"));
    let mut client = Connect::v5(&me).expiry(0).open();
    client.subscribe(&[(&topic, 1)]);
    // Another session with expiry 0 ends meanwhile.
    Connect::v5(&unique("c17")).open().disconnect();
    publisher().publish(Publish::new(&topic, "alive", 1));
    assert_eq!(client.recv_message().text(), "alive");
}

#[test]
fn c18_takeover_of_v5() {
    let (me, topic) = (unique("c18"), unique("c18"));
    let mut old = Connect::v5(&me).expiry(60).open();
    old.subscribe(&[(&topic, 1)]);
    publisher().publish(Publish::new(&topic, "not acknowledged", 1));
    let first = old.recv_publish();
    let mut new = Connect::v5(&me).resume().expiry(60).open();
    assert!(new.session_present);
    old.expect_disconnect(&[0x8E]);
    // Nothing is lost: what the old connection didn't acknowledge comes again.
    let again = new.recv_message();
    assert_eq!((again.text(), again.dup, again.id), ("not acknowledged", true, first.id));
    publisher().publish(Publish::new(&topic, "next", 1));
    assert_eq!(new.recv_message().text(), "next");
}

#[test]
fn c18_takeover_of_v4() {
    let me = unique("c18");
    let mut old = Connect::v4(&me).resume().open();
    let mut new = Connect::v4(&me).resume().open();
    // 3.1.1 knows no DISCONNECT from the server: it is just closed.
    assert_eq!(old.poll(), None);
    new.ping_next();
}

#[test]
fn c18_takeovers_in_a_row_end_with_one_connection() {
    let me = unique("c18");
    let mut clients: Vec<_> =
        (0..20).map(|_| Connect::v5(&me).resume().expiry(60).open()).collect();
    let mut last = clients.pop().unwrap();
    for old in &mut clients {
        old.expect_disconnect(&[0x8E]);
    }
    last.ping_next();
}

#[test]
fn c19_takeover_publishes_the_will_without_delay() {
    for (resume, delay, expected) in
        [(true, 0, &["will"][..]), (false, 0, &["will"]), (false, 60, &["will"]), (true, 60, &[])]
    {
        let (me, topic) = (unique("c19"), unique("c19/will"));
        let mut watcher = publisher();
        watcher.subscribe(&[(&topic, 1)]);
        let will = Publish::new(&topic, "will", 1).prop(Prop::Long(id::WILL_DELAY, delay));
        let mut old = Connect::v5(&me).expiry(60).will(will).open();
        let connect = Connect::v5(&me).expiry(60);
        let mut new = if resume { connect.resume().open() } else { connect.open() };
        old.expect_disconnect(&[0x8E]);
        new.ping_next();
        if expected.is_empty() {
            watcher.expect_nothing(&topic);
        } else {
            assert_eq!(watcher.recv_message().text(), "will");
        }
    }
}
