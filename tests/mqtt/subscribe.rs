//! S: SUBSCRIBE, UNSUBSCRIBE, filters.

use crate::broker::{is_reference, unique};
use crate::client::{Client, Connect};
use crate::wire::*;

const NO_LOCAL: u8 = 0x04;
const AS_PUBLISHED: u8 = 0x08;
const ONLY_NEW: u8 = 0x10;
const NONE: u8 = 0x20;

fn v5() -> Client {
    Connect::v5(&unique("s")).open()
}

fn sub_id(n: u32) -> Prop {
    Prop::Var(id::SUBSCRIPTION_ID, n)
}

#[test]
fn s1_no_filter() {
    for connect in [Connect::v5(&unique("s1")), Connect::v4(&unique("s1"))] {
        for kind in [SUBSCRIBE, UNSUBSCRIBE] {
            let mut client = connect.open();
            let body = bytes().u16(5);
            let body = if connect.version == 5 { body.props(&[]) } else { body };
            client.send(&packet(kind, body));
            client.expect_disconnect(&[0x82, 0x81]);
        }
    }
}

#[test]
fn s2_subscription_options() {
    for options in [0x03, 0x30, 0x40, 0x80, 0xC0] {
        let mut client = v5();
        client.send(&client.subscribe_bytes(5, &[("s2", options)], &[]));
        client.expect_disconnect(&[0x81, 0x82]);
    }
    for options in [0x03, 0x04, 0x08, 0x10, 0x40, 0x80] {
        let mut client = Connect::v4(&unique("s2")).open();
        client.send(&client.subscribe_bytes(5, &[("s2", options)], &[]));
        client.expect_disconnect(&[]);
    }
}

#[test]
fn s3_ill_formed_filters() {
    for filter in ["a/#/b", "a+", "+a", "a#", "a/b#", "#/a", "", "a/\0", "a/+b/c"] {
        for connect in [Connect::v5(&unique("s3")), Connect::v4(&unique("s3"))] {
            let mut client = connect.open();
            client.send(&client.subscribe_bytes(5, &[(filter, 0)], &[]));
            client.expect_disconnect(&[0x8F, 0x81]);
        }
    }
}

#[test]
fn s4_one_code_per_filter_in_order() {
    for connect in [Connect::v5(&unique("s4")), Connect::v4(&unique("s4"))] {
        let base = unique("s4");
        let mut client = connect.open();
        let filters: Vec<_> = (0..30).map(|n| (format!("{base}/{n}"), n % 3)).collect();
        let request: Vec<_> = filters.iter().map(|(f, q)| (f.as_str(), *q)).collect();
        let granted = client.subscribe(&request);
        assert_eq!(granted, filters.iter().map(|(_, q)| *q).collect::<Vec<_>>());
    }
}

#[test]
fn s4_a_refused_filter_leaves_the_others() {
    if is_reference() {
        return;
    }
    // Well-formed, but not served yet.
    let topic = unique("s4");
    for (connect, refusal) in
        [(Connect::v5(&unique("s4")), 0x8F), (Connect::v4(&unique("s4")), 0x80)]
    {
        let mut client = connect.open();
        assert_eq!(
            client.subscribe(&[(&topic, 1), ("$kafka/t/#", 1), (&topic, 2)]),
            [1, refusal, 2]
        );
    }
}

#[test]
fn s5_resubscribing_replaces_the_options() {
    let topic = unique("s5");
    let mut client = v5();
    client.subscribe_with(&[(&topic, 0)], &[sub_id(1)]);
    client.subscribe_with(&[(&topic, 2 | AS_PUBLISHED)], &[sub_id(2)]);
    v5().publish(Publish::new(&topic, "x", 2).retain());
    let messages = client.collect(&topic);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!((messages[0].qos, messages[0].retain), (2, true));
    assert_eq!(messages[0].props.numbers(id::SUBSCRIPTION_ID), [2]);
    // Without an identifier there is none any more; No Local takes effect, too.
    client.subscribe(&[(&topic, 1 | NO_LOCAL)]);
    client.recv_message(); // the retained one
    client.publish(Publish::new(&topic, "mine", 1));
    v5().publish(Publish::new(&topic, "other's", 1));
    let messages = client.collect(&topic);
    assert_eq!(messages.iter().map(Publish::text).collect::<Vec<_>>(), ["other's"]);
    assert_eq!(messages[0].props.numbers(id::SUBSCRIPTION_ID), []);
}

#[test]
fn s5_resubscribing_loses_and_doubles_nothing() {
    let topic = unique("s5");
    let mut client = v5();
    client.subscribe(&[(&topic, 1 | NONE)]);
    let publishing = topic.clone();
    let publisher = std::thread::spawn(move || {
        let mut publisher = v5();
        for n in 0..200 {
            publisher.publish(Publish::new(&publishing, format!("{n}"), 1));
        }
    });
    for n in 0..20 {
        let options = if n % 2 == 0 { 2 } else { 1 };
        client.subscribe(&[(&topic, options | NONE)]);
    }
    publisher.join().unwrap();
    let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
    assert_eq!(client.collect_texts(&topic), expected);
}

#[test]
fn s6_retain_handling() {
    let topic = unique("s6");
    v5().publish(Publish::new(&topic, "kept", 1).retain());
    let mut client = v5();
    client.subscribe(&[(&topic, 1)]);
    assert_eq!(client.collect_texts(&topic), ["kept"]);
    client.subscribe(&[(&topic, 1)]);
    assert_eq!(client.collect_texts(&topic), ["kept"], "RH 0: at each subscribe");
    client.subscribe(&[(&topic, 1 | ONLY_NEW)]);
    client.expect_nothing(&topic);
    client.subscribe(&[(&topic, 1 | NONE)]);
    client.expect_nothing(&topic);
    let mut client = v5();
    client.subscribe(&[(&topic, 1 | NONE)]);
    client.expect_nothing(&topic);
    client.unsubscribe(&[&topic]);
    client.subscribe(&[(&topic, 1 | ONLY_NEW)]);
    assert_eq!(client.collect_texts(&topic), ["kept"], "RH 1: the subscription is new");
}

#[test]
fn s7_retain_as_published() {
    let topic = unique("s7");
    let (mut plain, mut kept) = (v5(), v5());
    plain.subscribe(&[(&topic, 1)]);
    kept.subscribe(&[(&topic, 1 | AS_PUBLISHED)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "retained", 1).retain());
    publisher.publish(Publish::new(&topic, "plain", 1));
    for (client, flags) in [(&mut plain, [false, false]), (&mut kept, [true, false])] {
        let got = client.collect(&topic);
        assert_eq!(got.iter().map(|message| message.retain).collect::<Vec<_>>(), flags);
    }
    // What is sent because of a SUBSCRIBE is marked whatever the option.
    for options in [1, 1 | AS_PUBLISHED] {
        let mut client = v5();
        client.subscribe(&[(&topic, options)]);
        assert!(client.recv_message().retain);
    }
}

#[test]
fn s8_options_of_3_1_1() {
    let topic = unique("s8");
    v5().publish(Publish::new(&topic, "kept", 1).retain());
    let mut client = Connect::v4(&unique("s8")).open();
    for _ in 0..2 {
        client.subscribe(&[(&topic, 1)]);
        let message = client.recv_message();
        assert!((message.text(), message.retain) == ("kept", true), "retain handling 0");
    }
    client.publish(Publish::new(&topic, "mine", 1).retain());
    let message = client.recv_message();
    assert!((message.text(), message.retain) == ("mine", false), "local, not as published");
}

#[test]
fn s9_no_local_goes_by_client_id() {
    let (me, topic) = (unique("s9"), unique("s9"));
    let mut client = Connect::v5(&me).expiry(60).open();
    client.subscribe(&[(&topic, 1 | NO_LOCAL)]);
    client.publish(Publish::new(&topic, "mine", 1));
    client.expect_nothing(&topic);
    client.disconnect();
    let mut client = Connect::v5(&me).resume().expiry(60).open();
    client.publish(Publish::new(&topic, "still mine", 1));
    v5().publish(Publish::new(&topic, "other's", 1));
    assert_eq!(client.collect_texts(&topic), ["other's"]);
}

#[test]
fn s9_no_local_on_a_shared_subscription() {
    let mut client = v5();
    client.send(&client.subscribe_bytes(5, &[("$share/g/s9", NO_LOCAL)], &[]));
    client.expect_disconnect(&[0x82]);
}

#[test]
fn s10_no_local_and_another_filter() {
    let topic = unique("s10");
    let mut client = v5();
    client.subscribe(&[(&topic, 1 | NO_LOCAL), (&format!("{topic}/#"), 1)]);
    client.publish(Publish::new(&topic, "mine", 1));
    assert_eq!(client.collect_texts(&topic), ["mine"]);
}

#[test]
fn s11_subscription_identifiers_come_back() {
    let topic = unique("s11");
    let mut client = v5();
    let wide = format!("{topic}/#");
    client.subscribe_with(&[(&topic, 1)], &[sub_id(1)]);
    client.subscribe_with(&[(&wide, 1)], &[sub_id(268_435_455)]);
    v5().publish(Publish::new(&topic, "x", 1));
    let messages = client.collect(&topic);
    let mut ids: Vec<_> =
        messages.iter().flat_map(|message| message.props.numbers(id::SUBSCRIPTION_ID)).collect();
    ids.sort();
    assert_eq!(ids, [1, 268_435_455], "{messages:?}");
}

#[test]
fn s11_identifiers_of_retained_and_queued_messages() {
    let (me, topic) = (unique("s11"), unique("s11"));
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "retained", 1).retain());
    let mut client = Connect::v5(&me).expiry(60).open();
    client.subscribe_with(&[(&topic, 1)], &[sub_id(200)]);
    assert_eq!(client.recv_message().props.numbers(id::SUBSCRIPTION_ID), [200]);
    client.disconnect();
    publisher.publish(Publish::new(&topic, "queued", 1));
    let mut client = Connect::v5(&me).resume().expiry(60).open();
    let message = client.recv_message();
    assert_eq!((message.text(), message.props.numbers(id::SUBSCRIPTION_ID)), ("queued", vec![200]));
}

#[test]
fn s12_two_subscription_identifiers_or_zero() {
    for ids in [&[sub_id(1), sub_id(2)][..], &[sub_id(0)]] {
        let mut client = v5();
        client.send(&client.subscribe_bytes(5, &[("s12", 0)], ids));
        client.expect_disconnect(&[0x82]);
    }
}

#[test]
fn s13_unsubscribe_compares_filters_byte_by_byte() {
    let topic = unique("s13");
    let mut client = v5();
    client.subscribe(&[(&format!("{topic}/+"), 1), (&topic, 1)]);
    let upper = topic.to_uppercase();
    let filters = [format!("{topic}/#"), format!("{topic}/+"), upper, topic.clone()];
    let filters: Vec<_> = filters.iter().map(String::as_str).collect();
    assert_eq!(client.unsubscribe(&filters), [0x11, 0x00, 0x11, 0x00]);
    let mut client = Connect::v4(&unique("s13")).open();
    client.subscribe(&[(&topic, 1)]);
    assert_eq!(client.unsubscribe(&[&topic, "s13/none"]), [], "3.1.1 has no payload");
}

#[test]
fn s14_unsubscribe_stops_new_and_completes_started_deliveries() {
    let topic = unique("s14");
    let mut client = v5();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "one", 1));
    publisher.publish(Publish::new(&topic, "two", 2));
    let (one, two) = (client.recv_publish(), client.recv_publish());
    client.unsubscribe(&[&topic]);
    publisher.publish(Publish::new(&topic, "three", 1));
    client.complete(&one);
    client.complete(&two);
    client.expect_nothing(&topic);
}

#[test]
fn s15_suback_comes_before_retained_messages() {
    let topic = unique("s15");
    let mut publisher = v5();
    for n in 0..10 {
        publisher.publish(Publish::new(format!("{topic}/{n}"), "x", 1).retain());
    }
    let mut client = v5();
    client.send(&client.subscribe_bytes(5, &[(&format!("{topic}/#"), 1)], &[]));
    assert_eq!(client.recv().first, SUBACK);
    for _ in 0..10 {
        client.recv_message();
    }
}

#[test]
fn s16_no_gap_between_suback_and_delivery() {
    for round in 0..20 {
        let topic = unique("s16");
        let mut client = v5();
        // In one write: what is published behind the SUBSCRIBE must come back.
        let subscribe = client.subscribe_bytes(5, &[(&topic, 1)], &[]);
        let publish = Publish::new(&topic, format!("{round}"), 1).id(6).bytes(5);
        client.send(&[subscribe, publish].concat());
        client.recv_ack(SUBACK);
        client.recv_ack(PUBACK);
        assert_eq!(client.recv_message().text(), round.to_string());
        // And what another connection publishes as soon as the SUBACK is there.
        let (other, mut publisher) = (unique("s16"), v5());
        client.subscribe(&[(&other, 1)]);
        publisher.publish(Publish::new(&other, "at once", 1));
        assert_eq!(client.recv_message().text(), "at once");
    }
}

/// Subscribes to `filter` (with `base` before it), publishes to `topics`, and returns those that came.
fn matching(filter: &str, topics: &[&str]) -> Vec<String> {
    let base = unique("s17");
    let mut client = v5();
    client.subscribe(&[(&format!("{base}{filter}"), 1)]);
    let mut publisher = v5();
    let mut got = Vec::new();
    for topic in topics {
        let topic = format!("{base}{topic}");
        publisher.publish(Publish::new(&topic, "x", 1));
        got.extend(client.collect(&topic).iter().map(|m| m.topic[base.len()..].to_owned()));
    }
    got
}

#[test]
fn s17_filters_match_levels() {
    let topics = ["", "/", "/a", "/b", "/a/b", "/a/", "/a//b", "/a/c/b", "/A"];
    for (filter, expected) in [
        ("/#", &topics[..]),
        ("", &[""]),
        ("/a", &["/a"]),
        ("/a/#", &["/a", "/a/b", "/a/", "/a//b", "/a/c/b"]),
        ("/+", &["/", "/a", "/b", "/A"]),
        ("/a/+", &["/a/b", "/a/"]),
        ("/a/+/b", &["/a//b", "/a/c/b"]),
        ("/+/+", &["/a/b", "/a/"]),
        ("/a//b", &["/a//b"]),
        ("/a/", &["/a/"]),
    ] {
        assert_eq!(matching(filter, &topics), expected, "filter {filter:?}");
    }
}

#[test]
fn s17_leading_slash_and_long_filters() {
    let name = unique("s17");
    let mut client = v5();
    client.subscribe(&[(&format!("/{name}"), 1)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&name, "other", 1));
    client.expect_nothing(&name);
    publisher.publish(Publish::new(format!("/{name}"), "x", 1));
    assert_eq!(client.recv_message().topic, format!("/{name}"));
    // The longest topic that is promised.
    let long = format!("{name}/{}", "x".repeat(4096 - name.len() - 1));
    assert_eq!(client.subscribe(&[(&long, 1)]), [1]);
    publisher.publish(Publish::new(&long, "long", 1));
    assert_eq!(client.recv_message().topic, long);
}

#[test]
fn s18_wildcards_do_not_match_dollar_topics() {
    let name = unique("s18");
    let mut client = v5();
    client.subscribe(&[("#", NONE), (&format!("+/{name}"), 1), (&format!("$share/g/+/{name}"), 1)]);
    let mut publisher = v5();
    let topic = format!("$s18/{name}");
    let code = publisher.publish(Publish::new(&topic, "hidden", 1).retain());
    let visible = format!("s18/{name}");
    publisher.publish(Publish::new(&visible, "visible", 1));
    let mut seen = Vec::new();
    while !seen.contains(&visible) {
        seen.push(client.recv_message().topic);
    }
    let rest = client.collect(&topic);
    assert!(seen.iter().chain(rest.iter().map(|m| &m.topic)).all(|t| !t.starts_with('$')));
    // Retained ones neither.
    let mut late = v5();
    late.subscribe(&[(&format!("+/{name}"), 1)]);
    assert!(late.collect(&topic).is_empty());
    if code < 0x80 {
        late.subscribe(&[(&format!("$s18/{name}"), 1)]);
        assert_eq!(late.recv_message().text(), "hidden", "by its name it is found");
    }
}

#[test]
fn s19_sys_topics() {
    let mut client = v5();
    assert_eq!(client.subscribe(&[("$SYS/#", 0)]), [0]);
    // Publishing there is refused or ignored, by policy, but never a way to fake the broker's values.
    let topic = format!("$SYS/{}", unique("s19"));
    let mut watcher = v5();
    watcher.subscribe(&[(&topic, 1)]);
    v5().publish(Publish::new(&topic, "fake", 1));
    if !is_reference() {
        watcher.expect_nothing(&topic);
    }
    // $share and $queue are prefixes of filters, never of topics.
    let mut client = v5();
    let share = format!("$share/g/{}", unique("s19"));
    client.send_publish(&Publish::new(&share, "x", 1));
    if let Some(answer) = client.poll() {
        assert!(matches!(answer.kind(), PUBACK | DISCONNECT), "{answer:02x?}");
    }
}

#[test]
fn s20_no_normalisation() {
    let name = unique("s20");
    // Composed and decomposed ä, both cases, with and without a byte order mark.
    let topics = ["\u{e4}", "a\u{308}", "\u{c4}", "\u{feff}\u{e4}"].map(|t| format!("{name}/{t}"));
    let mut publisher = v5();
    for topic in &topics {
        let mut client = v5();
        client.subscribe(&[(topic, 1)]);
        for other in &topics {
            publisher.publish(Publish::new(other, "x", 1));
            let got: Vec<_> = client.collect(other).into_iter().map(|m| m.topic).collect();
            assert_eq!(got, if other == topic { vec![topic.clone()] } else { vec![] });
        }
    }
}
