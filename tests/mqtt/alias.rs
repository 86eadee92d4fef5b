//! A: topic aliases, both ways.

use crate::broker::unique;
use crate::client::{Client, Connect};
use crate::wire::*;

fn alias(n: u16) -> Prop {
    Prop::Short(id::ALIAS, n)
}

fn v5() -> Client {
    Connect::v5(&unique("a")).open()
}

/// What the server lets clients use.
fn maximum(client: &Client) -> u16 {
    client.connack.number(id::ALIAS_MAX).unwrap_or(0) as u16
}

#[test]
fn a1_alias_out_of_range() {
    let mut client = v5();
    client.send_publish(&Publish::new("a1", "x", 0).prop(alias(0)));
    client.expect_disconnect(&[0x94]);
    let mut client = v5();
    let Some(above) = maximum(&client).checked_add(1) else { return };
    client.send_publish(&Publish::new("a1", "x", 1).prop(alias(above)));
    client.expect_disconnect(&[0x94]);
}

#[test]
fn a2_empty_topic_without_a_known_alias() {
    let mut client = v5();
    client.send_publish(&Publish::new("", "x", 0).prop(alias(1)));
    client.expect_disconnect(&[0x82]);
    let mut client = v5();
    client.send_publish(&Publish::new("", "x", 0));
    client.expect_disconnect(&[0x82, 0x90]);
}

#[test]
fn a3_aliases_are_set_used_and_remapped() {
    let (one, two) = (unique("a3"), unique("a3"));
    let mut watcher = v5();
    watcher.subscribe(&[(&one, 1), (&two, 1)]);
    let mut client = v5();
    let last = maximum(&client);
    assert!(last > 0, "the server takes topic aliases");
    for n in 1..=last {
        let topic = if n == last { one.as_str() } else { "a3/unused" };
        client.send_publish(&Publish::new(topic, "set", 0).prop(alias(n)));
    }
    client.publish(Publish::new("", "used", 1).prop(alias(last)));
    client.publish(Publish::new(&two, "remapped", 1).prop(alias(last)));
    client.publish(Publish::new("", "other", 1).prop(alias(last)));
    let mut got: Vec<_> = (0..4).map(|_| watcher.recv_message()).collect();
    got.sort_by_key(|message| message.topic != one);
    let of = |topic: &str| -> Vec<_> {
        got.iter().filter(|m| m.topic == topic).map(Publish::text).collect()
    };
    // Between qualities of service there is no order, within one there is.
    assert_eq!(of(&two), ["remapped", "other"]);
    let mut first = of(&one);
    first.sort();
    assert_eq!(first, ["set", "used"]);
}

#[test]
fn a4_aliases_end_with_the_connection() {
    let (me, topic) = (unique("a4"), unique("a4"));
    let mut client = Connect::v5(&me).expiry(60).open();
    client.publish(Publish::new(&topic, "x", 1).prop(alias(1)));
    client.cut();
    let mut client = Connect::v5(&me).resume().expiry(60).open();
    assert!(client.session_present);
    client.send_publish(&Publish::new("", "x", 1).prop(alias(1)));
    client.expect_disconnect(&[0x82]);
}

/// Receives `n` messages and resolves their topics as a client does.
fn resolved(client: &mut Client, n: usize, maximum: u16) -> Vec<(String, String)> {
    let mut table = std::collections::HashMap::new();
    let receive = |_| {
        let message = client.recv_message();
        let topic = match message.props.number(id::ALIAS) {
            None => message.topic.clone(),
            Some(n) => {
                assert!((1..=maximum.into()).contains(&n), "alias {n} of {maximum}");
                if !message.topic.is_empty() {
                    table.insert(n, message.topic.clone());
                }
                table.get(&n).expect("the alias was set before").clone()
            }
        };
        (topic, message.text().to_owned())
    };
    (0..n).map(receive).collect()
}

#[test]
fn a5_server_keeps_to_the_clients_maximum() {
    let base = unique("a5");
    let topics: Vec<_> = (0..5).map(|n| format!("{base}/{n}")).collect();
    for maximum in [0, 2] {
        let limit = Prop::Short(id::ALIAS_MAX, maximum);
        let mut client = Connect::v5(&unique("a5")).prop(limit).open();
        client.subscribe(&[(&format!("{base}/#"), 1)]);
        let mut publisher = v5();
        for round in 0..4 {
            for topic in &topics {
                publisher.publish(Publish::new(topic, format!("{round}"), 1).prop(alias(1)));
            }
        }
        let got = resolved(&mut client, 20, maximum);
        for topic in &topics {
            let of: Vec<_> = got.iter().filter(|(t, _)| t == topic).map(|(_, p)| p).collect();
            assert_eq!(of, ["0", "1", "2", "3"]);
        }
    }
}

#[test]
fn a5_the_publishers_alias_is_not_passed_on() {
    let topic = unique("a5");
    let mut four = Connect::v4(&unique("a5")).open();
    let mut five = v5();
    for client in [&mut four, &mut five] {
        client.subscribe(&[(&topic, 1)]);
    }
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "set", 1).prop(alias(1)));
    publisher.publish(Publish::new("", "used", 1).prop(alias(1)));
    for client in [&mut four, &mut five] {
        for text in ["set", "used"] {
            let message = client.recv_message();
            assert_eq!((message.topic.as_str(), message.text()), (topic.as_str(), text));
            assert_eq!(message.props.number(id::ALIAS), None);
        }
    }
}

#[test]
fn a6_a_resent_publish_has_its_full_topic() {
    let (me, topic) = (unique("a6"), unique("a6"));
    let aliases = Prop::Short(id::ALIAS_MAX, 10);
    let connect = Connect::v5(&me).expiry(60).prop(aliases);
    let mut client = connect.open();
    client.subscribe(&[(&topic, 1)]);
    let mut publisher = v5();
    for n in 0..3 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 1));
    }
    for _ in 0..3 {
        client.recv_publish();
    }
    client.cut();
    let mut client = connect.resume().open();
    let got = resolved(&mut client, 3, 10);
    // `resolved` fails on an alias that this connection hasn't seen.
    assert_eq!(got, (0..3).map(|n| (topic.clone(), n.to_string())).collect::<Vec<_>>());
}

#[test]
fn a7_a_dropped_packet_sets_no_alias() {
    let topic = format!("{}/{}", unique("a7"), "t".repeat(100));
    let limits = [Prop::Short(id::ALIAS_MAX, 10), Prop::Long(id::MAX_PACKET, 400)];
    let [aliases, size] = limits;
    let mut client = Connect::v5(&unique("a7")).prop(aliases).prop(size).open();
    client.subscribe(&[(&topic, 1)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "x".repeat(1000), 1));
    publisher.publish(Publish::new(&topic, "fits", 1));
    publisher.publish(Publish::new(&topic, "again", 1));
    let got = resolved(&mut client, 2, 10);
    assert_eq!(got, [(topic.clone(), "fits".to_owned()), (topic, "again".to_owned())]);
}

#[test]
fn a8_the_servers_maximum_bounds_its_memory() {
    // Aliases of the longest topics: what one connection can make the server keep.
    let client = v5();
    assert!(usize::from(maximum(&client)) * 4096 <= 4 << 20, "{}", maximum(&client));
}
