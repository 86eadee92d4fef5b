//! What refers to something finds it, in both directions.

use std::collections::BTreeMap;

use super::Report;
use super::facts::Facts;
use crate::entities::levels::Levels;
use crate::entities::nodes::NodeState;

pub(super) fn check(facts: &Facts, report: &mut Report) {
    cluster(facts, report);
    topics(facts, report);
    logs(facts, report);
    groups(facts, report);
    retained(facts, report);
}

fn cluster(facts: &Facts, report: &mut Report) {
    if facts.is_restoring {
        report.problems.add("a restore was interrupted: restore again, with --replace");
    }
    match facts.level {
        Some(level) if !Levels::SUPPORTED.contains(level) => {
            report.problems.add(format!("feature level {level} is not known to this build"));
        }
        None if !report.families.is_empty() => report.problems.add("there is no cluster"),
        _ => {}
    }
    levels(facts, report);
}

/// Every node that isn't gone can work with the level in use, and with what the others can.
fn levels(facts: &Facts, report: &mut Report) {
    let mut by_levels: BTreeMap<(u32, u32), (Levels, Vec<u32>)> = BTreeMap::new();
    for (id, (state, levels)) in &facts.nodes {
        if *state == NodeState::Gone {
            continue;
        }
        if let Some(level) = facts.level
            && !levels.contains(level)
        {
            report
                .problems
                .add(format!("node {id} works with feature level {levels}, and {level} is in use"));
        }
        let (_, nodes) =
            by_levels.entry((levels.min(), levels.max())).or_insert_with(|| (*levels, Vec::new()));
        nodes.push(*id);
    }
    if by_levels.len() > 1 {
        let groups = by_levels.values().map(|(levels, nodes)| match &nodes[..] {
            [node] => format!("{levels} (node {node})"),
            nodes => format!("{levels} ({} nodes)", nodes.len()),
        });
        let groups: Vec<_> = groups.collect();
        report
            .notes
            .add(format!("nodes work with different feature levels: {}", groups.join(", ")));
    }
}

/// Topic and id name one another, and its logs are there and know their place.
fn topics(facts: &Facts, report: &mut Report) {
    for ((tenant, name), (id, logs)) in &facts.topics {
        if facts.topic_ids.get(&(tenant.clone(), *id)) != Some(name) {
            report.problems.add(format!("topic {name:?}: its id {id} doesn't lead to it"));
        }
        for (log, partition) in logs.iter().zip(0_u32..) {
            let problem = match facts.logs.get(&log.0) {
                None => "which has no head",
                Some(head)
                    if head.topic_id != *id
                        || head.tenant != *tenant
                        || head.topic != *name
                        || head.partition != partition =>
                {
                    "whose head names another place"
                }
                Some(_) => continue,
            };
            report
                .problems
                .add(format!("topic {name:?}: partition {partition} is log {log}, {problem}"));
        }
    }
    for ((tenant, id), name) in &facts.topic_ids {
        let topic = facts.topics.get(&(tenant.clone(), name.clone()));
        if topic.is_none_or(|(own, _)| own != id) {
            report.problems.add(format!("topic id {id} leads to {name:?}, which isn't that topic"));
        }
    }
}

/// Every log belongs to a topic, was given out by the counter, and lies on nodes that are known.
fn logs(facts: &Facts, report: &mut Report) {
    for (log, head) in &facts.logs {
        let topic = facts.topics.get(&(head.tenant.clone(), head.topic.clone()));
        let place = usize::try_from(head.partition).unwrap_or(usize::MAX);
        let is_listed = topic
            .filter(|(id, _)| *id == head.topic_id)
            .and_then(|(_, logs)| logs.get(place))
            .is_some_and(|listed| listed.0 == *log);
        if !is_listed {
            report.problems.add(format!(
                "log {log} says that it is partition {} of {:?}, which doesn't know it",
                head.partition, head.topic
            ));
        }
        if *log >= facts.log_counter {
            report.problems.add(format!("log {log} was never given out; its id comes again"));
        }
        let closed = facts.segments.get(log).into_iter().flatten();
        let replicas = closed.flat_map(|segment| segment.replicas.iter().copied());
        let own = head.open.replicas.iter().chain([&head.open.sequencer]).map(|node| node.0);
        let unknown = replicas.chain(own).find(|node| !facts.nodes.contains_key(node));
        if let Some(node) = unknown {
            report.problems.add(format!("log {log} lies on node {node}, which isn't known"));
        }
    }
    for log in &facts.materialised {
        if !facts.logs.contains_key(log) {
            report
                .notes
                .add(format!("log {log} is gone; how far it was materialised is still kept"));
        }
    }
}

/// A group's metadata has the parts that it says. Offsets outlive their topic until the group
/// expires or deletes them: a leftover.
fn groups(facts: &Facts, report: &mut Report) {
    for ((_, group), parts) in &facts.group_parts {
        if parts.seen != parts.expected {
            let (seen, expected) = (parts.seen, parts.expected);
            report.problems.add(format!("group {group:?}: {seen} parts instead of {expected}"));
        }
    }
    for (topic, (partition, group)) in &facts.committed {
        let partitions = facts.topics.get(topic).map(|(_, logs)| logs.len());
        let place = usize::try_from(*partition).unwrap_or(usize::MAX);
        let name = &topic.1;
        match partitions {
            None => {
                report.notes.add(format!("group {group:?} has offsets of {name:?}, which is gone"));
            }
            Some(count) if place >= count => report.notes.add(format!(
                "group {group:?} has an offset of partition {partition} of {name:?}, which has {count}"
            )),
            Some(_) => {}
        }
    }
}

/// A retained message has the parts that it says, and lies in the index by its time.
fn retained(facts: &Facts, report: &mut Report) {
    for (topic, fact) in &facts.retained {
        let name = &topic.1;
        let parts = facts.retained_parts.get(topic).copied().unwrap_or_default();
        if parts != fact.parts {
            let expected = fact.parts;
            report.problems.add(format!("retained {name:?}: {parts} parts instead of {expected}"));
        }
        if let Some(due_ms) = fact.due_ms
            && !facts.retained_due.contains(&(topic.clone(), due_ms))
        {
            report.problems.add(format!("retained {name:?}: nothing ends it at its time"));
        }
    }
    for topic in facts.retained_parts.keys().filter(|topic| !facts.retained.contains_key(topic)) {
        report.problems.add(format!("retained {:?}: parts of a message that isn't there", topic.1));
    }
    for (topic, due_ms) in &facts.retained_due {
        if facts.retained.get(topic).is_none_or(|fact| fact.due_ms != Some(*due_ms)) {
            let name = &topic.1;
            report.problems.add(format!("retained {name:?}: a time of another message, {due_ms}"));
        }
    }
}
