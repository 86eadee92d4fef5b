//! R: retained messages.

use std::time::Duration;

use crate::broker::unique;
use crate::client::{Client, Connect};
use crate::wire::*;

fn v5() -> Client {
    Connect::v5(&unique("r")).open()
}

/// What a new subscriber to `filter` gets at once; `topic` lies on the shard that is waited for.
fn retained(filter: &str, topic: &str) -> Vec<Publish> {
    let mut client = v5();
    client.subscribe(&[(filter, 2)]);
    client.collect(topic)
}

fn texts(messages: &[Publish]) -> Vec<&str> {
    messages.iter().map(Publish::text).collect()
}

#[test]
fn r1_retain_replaces_and_clears() {
    let topic = unique("r1");
    let mut publisher = v5();
    let mut live = v5();
    live.subscribe(&[(&topic, 2 | 0x08)]);
    for (qos, text) in [(1, "one"), (2, "two"), (1, "three")] {
        publisher.publish(Publish::new(&topic, text, qos).retain());
        let got = retained(&topic, &topic);
        assert_eq!((texts(&got), got[0].qos, got[0].retain), (vec![text], qos, true));
    }
    publisher.publish(Publish::new(&topic, "", 1).retain());
    assert_eq!(retained(&topic, &topic), []);
    let got = live.collect(&topic);
    assert_eq!(texts(&got), ["one", "two", "three", ""], "the clearing one is a message, too");
    assert!(got.iter().all(|message| message.retain));
}

#[test]
fn r2_a_plain_message_changes_nothing() {
    let topic = unique("r2");
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "kept", 1).retain());
    publisher.publish(Publish::new(&topic, "plain", 1));
    publisher.publish(Publish::new(&topic, "", 1));
    assert_eq!(texts(&retained(&topic, &topic)), ["kept"]);
}

#[test]
fn r3_wildcards_find_each_once() {
    let base = unique("r3");
    let mut publisher = v5();
    let topics = ["", "/a", "/b", "/a/b", "/a/b/c", "//x"].map(|tail| format!("{base}{tail}"));
    for topic in &topics {
        publisher.publish(Publish::new(topic, topic, 1).retain());
    }
    for (filter, expected) in [
        ("/#", &["", "//x", "/a", "/a/b", "/a/b/c", "/b"][..]),
        ("/+", &["/a", "/b"]),
        ("/+/+", &["//x", "/a/b"]),
        ("/a/#", &["/a", "/a/b", "/a/b/c"]),
        ("/+/b/+", &["/a/b/c"]),
        ("/a/b", &["/a/b"]),
    ] {
        let got = retained(&format!("{base}{filter}"), &topics[0]);
        let mut found: Vec<_> = got.iter().map(|m| &m.topic[base.len()..]).collect();
        found.sort();
        assert_eq!(found, expected, "filter {filter}");
    }
}

#[test]
fn r3_once_for_each_subscription() {
    let topic = unique("r3");
    v5().publish(Publish::new(&topic, "x", 1).retain());
    let mut client = v5();
    client.subscribe(&[(&topic, 1), (&format!("{topic}/#"), 1)]);
    let copies = client.collect(&topic).len();
    assert!(matches!(copies, 1 | 2), "{copies} copies for two subscriptions");
}

#[test]
fn r4_qos_0_is_kept() {
    let topic = unique("r4");
    let mut live = v5();
    live.subscribe(&[(&topic, 0)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "kept", 0).retain());
    // Delivered early, perhaps; a second publish behind it is acknowledged when both are in the log.
    live.recv_message();
    publisher.publish(Publish::new(&topic, "plain", 1));
    let got = retained(&topic, &topic);
    assert_eq!((texts(&got), got[0].qos), (vec!["kept"], 0));
}

#[test]
fn r5_retained_messages_expire() {
    let (short, long) = (unique("r5"), unique("r5"));
    let mut publisher = v5();
    let expiry = |seconds| Prop::Long(id::MESSAGE_EXPIRY, seconds);
    publisher.publish(Publish::new(&short, "short", 1).retain().prop(expiry(1)));
    publisher.publish(Publish::new(&long, "long", 1).retain().prop(expiry(60)));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(retained(&short, &short), []);
    let got = retained(&long, &long);
    assert_eq!(texts(&got), ["long"]);
    let left = got[0].props.number(id::MESSAGE_EXPIRY).unwrap();
    assert!((1..=58).contains(&left), "{left} s left of 60 after 2.5 s");
}

#[test]
fn r6_no_step_back_after_a_subscribe() {
    let topic = unique("r6");
    let publishing = topic.clone();
    let publisher = std::thread::spawn(move || {
        let mut publisher = v5();
        for n in 0..150 {
            publisher.publish(Publish::new(&publishing, format!("{n}"), 1).retain());
        }
    });
    let mut first = true;
    while first || !publisher.is_finished() {
        first = false;
        let mut client = v5();
        client.subscribe(&[(&topic, 1)]);
        let seen: Vec<i32> =
            client.collect_texts(&topic).iter().map(|text| text.parse().unwrap()).collect();
        assert!(seen.is_sorted(), "{seen:?}");
        // From the retained one on nothing is missing.
        assert!(seen.windows(2).all(|pair| pair[1] - pair[0] <= 1), "a gap: {seen:?}");
    }
    publisher.join().unwrap();
    assert_eq!(texts(&retained(&topic, &topic)), ["149"]);
}

#[test]
fn r7_no_local_and_ones_own_retained_message() {
    // The specification is silent; like mosquitto and HiveMQ we apply No Local to it.
    let topic = unique("r7");
    let mut client = v5();
    client.publish(Publish::new(&topic, "mine", 1).retain());
    client.subscribe(&[(&topic, 1 | 0x04)]);
    client.expect_nothing(&topic);
    v5().publish(Publish::new(&topic, "other's", 1).retain());
    assert_eq!(client.collect_texts(&topic), ["other's"]);
}
