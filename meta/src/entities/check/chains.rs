//! A log's segments lie one behind the other, from what can be read up to the open one (I3).

use super::Report;
use super::facts::{Facts, SegmentFact};
use crate::entities::logs::LogHead;
use crate::ids::Durability;

pub(super) fn check(facts: &Facts, report: &mut Report) {
    for (log, head) in &facts.logs {
        let closed = facts.segments.get(log).map(Vec::as_slice).unwrap_or_default();
        for why in wrong(head, closed) {
            report.problems.add(format!("log {log}: {why}"));
        }
    }
    for (log, segments) in &facts.segments {
        if !facts.logs.contains_key(log) {
            let count = segments.len();
            report.problems.add(format!("log {log}: {count} segments of a log that has no head"));
        }
    }
}

/// What is wrong with a chain; `closed` is in the order of bases.
fn wrong(head: &LogHead, closed: &[SegmentFact]) -> Vec<String> {
    let mut found = Vec::new();
    let mut before: Option<(u64, u32)> = None;
    let open = (head.open.base, head.open.epoch.0, None);
    let all = closed.iter().map(|segment| (segment.base, segment.epoch, Some(segment.end)));
    for (base, epoch, end) in all.chain([open]) {
        let name =
            if end.is_some() { format!("segment {base}") } else { "the open segment".into() };
        match before {
            Some((previous, _)) if base < previous => {
                found.push(format!("{name} begins at {base}, inside of the one before it"));
            }
            // After a crash close of a log that isn't durable offsets may be skipped.
            Some((previous, _)) if base > previous && head.durability == Durability::Durable => {
                found.push(format!("offsets {previous}..{base} have no segment"));
            }
            None if base > head.trim && head.durability == Durability::Durable => {
                found.push(format!("offsets {}..{base} have no segment", head.trim));
            }
            _ => {}
        }
        if before.is_some_and(|(_, previous)| epoch <= previous) {
            found.push(format!("{name} has epoch {epoch}, not after the one before it"));
        }
        if let Some(end) = end {
            if end <= base {
                found.push(format!("{name} ends at {end}, with nothing in it"));
            } else if end <= head.trim {
                found.push(format!("{name} ends at {end}, below the trim offset {}", head.trim));
            }
            before = Some((end.max(base), epoch));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::entities::logs::{OpenSegment, Opening, Policy};
    use crate::ids::{Epoch, NodeId};

    fn head(base: u64, epoch: u32, trim: u64, durability: Durability) -> LogHead {
        let opening = Opening {
            base,
            leader_epoch: 0,
            sequencer: NodeId(1),
            incarnation: 1,
            replicas: vec![NodeId(1)],
            token: 1,
            opened_ms: 0,
        };
        LogHead {
            open: OpenSegment::new(Epoch(epoch), &opening, &Policy::default()),
            trim,
            durability,
            policy: Policy::default(),
            tenant: String::new(),
            topic: "t".to_owned(),
            topic_id: Uuid::nil(),
            partition: 0,
            replication_factor: 1,
        }
    }

    fn segment(base: u64, end: u64, epoch: u32) -> SegmentFact {
        SegmentFact { base, end, epoch, replicas: vec![1] }
    }

    #[test]
    fn a_chain_has_no_holes_and_no_overlaps() {
        use Durability::{Durable, Volatile};
        let cases = [
            (head(0, 0, 0, Durable), vec![], None),
            (head(20, 4, 0, Durable), vec![segment(0, 10, 0), segment(10, 20, 3)], None),
            (head(20, 4, 15, Durable), vec![segment(10, 20, 3)], None),
            (head(20, 4, 20, Durable), vec![], None),
            (head(20, 4, 0, Durable), vec![segment(0, 10, 0)], Some("offsets 10..20 have")),
            (head(20, 4, 0, Volatile), vec![segment(0, 10, 0)], None),
            (head(20, 4, 5, Durable), vec![segment(10, 20, 0)], Some("offsets 5..10 have")),
            (head(20, 4, 0, Durable), vec![], Some("offsets 0..20 have")),
            (head(8, 4, 0, Durable), vec![segment(0, 10, 0)], Some("inside of the one before")),
            (head(10, 4, 0, Durable), vec![segment(0, 10, 4)], Some("not after the one before")),
            (head(10, 4, 10, Durable), vec![segment(0, 10, 1)], Some("below the trim offset 10")),
            (head(0, 4, 0, Durable), vec![segment(0, 0, 1)], Some("with nothing in it")),
        ];
        for (head, closed, expected) in cases {
            let found = wrong(&head, &closed);
            match expected {
                None => assert!(found.is_empty(), "{found:?}"),
                Some(part) => assert!(found.len() == 1 && found[0].contains(part), "{found:?}"),
            }
        }
    }
}
