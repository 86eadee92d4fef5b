//! What each row says, as far as other rows refer to it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use foundationdb_tuple::{Element, PackError, Subspace};
use interflow_proto::meta as proto;
use uuid::Uuid;

use super::Report;
use crate::entities::cluster::decode_cluster;
use crate::entities::codec::{bad_key, corrupt, counter, decode, uuid};
use crate::entities::groups::{CommittedOffset, Coordinator, GroupMetadata};
use crate::entities::levels::Levels;
use crate::entities::logs::{ClosedSegment, LogHead};
use crate::entities::nodes::{Node, NodeState};
use crate::entities::retained::Row;
use crate::entities::topics::Topic;
use crate::entities::users::User;
use crate::error::MetaError;
use crate::ids::{LogId, Offset};

/// A name below a tenant.
pub(super) type Named = (String, String);

/// A retained message, as its other rows must match it.
#[derive(Debug)]
pub(super) struct RetainedFact {
    pub(super) due_ms: Option<i64>,
    pub(super) parts: u32,
}

/// A closed segment's place in its chain.
#[derive(Debug)]
pub(super) struct SegmentFact {
    pub(super) base: Offset,
    pub(super) end: Offset,
    pub(super) epoch: u32,
    pub(super) replicas: Vec<u32>,
}

/// A group's metadata that lies in parts.
#[derive(Debug, Default)]
pub(super) struct PartsFact {
    pub(super) expected: u32,
    pub(super) seen: u32,
    /// What was seen, until it is whole.
    bytes: BytesMut,
}

#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) level: Option<u32>,
    pub(super) log_counter: u64,
    pub(super) nodes: BTreeMap<u32, (NodeState, Levels)>,
    pub(super) topics: BTreeMap<Named, (Uuid, Vec<LogId>)>,
    pub(super) topic_ids: BTreeMap<(String, Uuid), String>,
    pub(super) logs: BTreeMap<u64, LogHead>,
    pub(super) segments: BTreeMap<u64, Vec<SegmentFact>>,
    pub(super) materialised: BTreeSet<u64>,
    /// The partitions of topics that groups have offsets of: the greatest, and a group.
    pub(super) committed: BTreeMap<Named, (u32, String)>,
    pub(super) group_parts: BTreeMap<Named, PartsFact>,
    pub(super) retained: BTreeMap<Named, RetainedFact>,
    pub(super) retained_due: BTreeSet<(Named, i64)>,
    pub(super) retained_parts: BTreeMap<Named, u32>,
    /// A restore was interrupted.
    pub(super) is_restoring: bool,
}

/// What became of a row.
enum Taken {
    Known,
    /// Another build's, or not looked at.
    Unknown,
}

impl Facts {
    /// Takes in the row of `key`; what is wrong with it alone goes into `report`.
    pub(super) fn take(&mut self, root: &Subspace, key: &[u8], value: Bytes, report: &mut Report) {
        let elements: Vec<Element<'_>> = match root.unpack(key) {
            Ok(elements) => elements,
            Err(error) => {
                return report.problems.add(format!("{}: no tuple: {error}", shown(root, key)));
            }
        };
        let family = elements.first().and_then(Element::as_str).unwrap_or("?").to_owned();
        match self.row(root, key, value, &family, &elements) {
            Ok(Taken::Known) => {}
            Ok(Taken::Unknown) if !report.families.contains_key(&family) => {
                report.notes.add(format!("rows of `{family}` are not known here, nor checked"));
            }
            Ok(Taken::Unknown) => {}
            Err(error) => report.problems.add(format!("{}: {error}", shown(root, key))),
        }
        *report.families.entry(family).or_default() += 1;
    }

    fn row(
        &mut self,
        root: &Subspace,
        key: &[u8],
        value: Bytes,
        family: &str,
        elements: &[Element<'_>],
    ) -> Result<Taken, MetaError> {
        let bad = || bad_key(family);
        let second = elements.get(1).and_then(Element::as_str);
        match (family, second) {
            ("config", Some("cluster")) => {
                self.level = Some(decode_cluster(value)?.feature_level);
            }
            ("counter", Some(name)) => {
                let count = counter(Some(value), "counter")?;
                if name == "log" {
                    self.log_counter = count;
                }
            }
            ("change", Some(_)) if elements.len() == 2 => {
                counter(Some(value), "change counter")?;
            }
            ("change", Some("node")) if elements.len() == 3 => {
                let _: (String, String, u32) = root.unpack(key).map_err(bad())?;
                counter(Some(value), "change counter")?;
            }
            ("node", _) => {
                let (_, id): (String, u32) = root.unpack(key).map_err(bad())?;
                let node = Node::decode(value)?;
                self.nodes.insert(id, (node.state, node.levels));
            }
            ("user", _) => {
                let _: (String, String) = root.unpack(key).map_err(bad())?;
                User::decode(value)?;
            }
            ("topic", _) => {
                let (_, tenant, name): (String, String, String) = root.unpack(key).map_err(bad())?;
                let topic = Topic::decode(&name, value)?;
                self.topics.insert((tenant, name), (topic.id, topic.logs));
            }
            ("topic_id", _) => {
                let (_, tenant, id): (String, String, Vec<u8>) = root.unpack(key).map_err(bad())?;
                let proto::TopicName { name } = decode(value, "topic id")?;
                self.topic_ids.insert((tenant, uuid(&id, "topic id")?), name);
            }
            ("log", _) => {
                let (_, log): (String, u64) = root.unpack(key).map_err(bad())?;
                self.logs.insert(log, LogHead::decode(value)?);
            }
            ("segment", _) => self.segment(root.unpack(key), value)?,
            ("materialised", _) => {
                let (_, log): (String, u64) = root.unpack(key).map_err(bad())?;
                counter(Some(value), "materialised")?;
                self.materialised.insert(log);
            }
            ("group", _) => return self.group(elements, value),
            ("retained", _) => self.retained(elements, value)?,
            ("retained_due", _) => {
                let (_, tenant, due_ms, topic): (String, String, i64, String) =
                    root.unpack(key).map_err(bad())?;
                self.retained_due.insert(((tenant, topic), due_ms));
            }
            ("retained_part", _) => {
                let (_, tenant, topic, _): (String, String, String, u32) =
                    root.unpack(key).map_err(bad())?;
                *self.retained_parts.entry((tenant, topic)).or_default() += 1;
            }
            ("restore", _) => self.is_restoring = true,
            _ => return Ok(Taken::Unknown),
        }
        Ok(Taken::Known)
    }

    fn segment(
        &mut self,
        key: Result<(String, u64, Offset), PackError>,
        value: Bytes,
    ) -> Result<(), MetaError> {
        let (_, log, base) = key.map_err(bad_key("segment"))?;
        let segment = ClosedSegment::decode(base, value)?;
        self.segments.entry(log).or_default().push(SegmentFact {
            base,
            end: segment.end,
            epoch: segment.epoch.0,
            replicas: segment.replicas.iter().map(|node| node.0).collect(),
        });
        Ok(())
    }

    fn group(&mut self, elements: &[Element<'_>], value: Bytes) -> Result<Taken, MetaError> {
        let text = |place: usize| {
            let text = elements.get(place).and_then(Element::as_str);
            text.ok_or_else(|| corrupt("group", "a key without a name"))
        };
        let (tenant, group) = (text(1)?, text(2)?);
        match text(3)? {
            "offset" => {
                let partition = match elements.get(5) {
                    Some(Element::Int(partition)) => u32::try_from(*partition).ok(),
                    _ => None,
                };
                let partition =
                    partition.ok_or_else(|| corrupt("group", "a key without a partition"))?;
                CommittedOffset::decode(value)?;
                let topic = (tenant.to_owned(), text(4)?.to_owned());
                let most = self.committed.entry(topic).or_insert((0, group.to_owned()));
                if partition >= most.0 {
                    *most = (partition, group.to_owned());
                }
            }
            "meta" if elements.len() == 4 => {
                let message: proto::Group = decode(value.clone(), "group")?;
                GroupMetadata::decode(value)?;
                if message.parts > 0 {
                    let name = (tenant.to_owned(), group.to_owned());
                    let parts = PartsFact { expected: message.parts, ..PartsFact::default() };
                    self.group_parts.insert(name, parts);
                }
            }
            "owner" if elements.len() == 4 => {
                Coordinator::decode(value)?;
            }
            // They come in their order, behind the row that says how many there are.
            "part" if elements.len() == 5 => {
                let name = (tenant.to_owned(), group.to_owned());
                let parts = self.group_parts.entry(name).or_default();
                parts.seen += 1;
                if parts.seen <= parts.expected {
                    parts.bytes.extend_from_slice(&value);
                }
                if parts.seen == parts.expected {
                    GroupMetadata::decode(std::mem::take(&mut parts.bytes).freeze())?;
                }
            }
            _ => return Ok(Taken::Unknown),
        }
        Ok(Taken::Known)
    }

    fn retained(&mut self, elements: &[Element<'_>], value: Bytes) -> Result<(), MetaError> {
        let texts: Option<Vec<&str>> = elements.iter().map(Element::as_str).collect();
        let texts = texts.filter(|texts| texts.len() > 2);
        let texts = texts.ok_or_else(|| corrupt("retained", "a key without a topic"))?;
        let row = Row::decode(value)?;
        let tenant = texts.get(1).copied().unwrap_or_default().to_owned();
        let topic = texts.get(2..).unwrap_or_default().join("/");
        let fact = RetainedFact { due_ms: row.due_ms(), parts: row.parts() };
        self.retained.insert((tenant, topic), fact);
        Ok(())
    }
}

/// A key for people: its tuple, or its bytes.
fn shown(root: &Subspace, key: &[u8]) -> String {
    let elements: Result<Vec<Element<'_>>, _> = root.unpack(key);
    let Ok(elements) = elements else {
        return format!("key {:02x?}", key.get(root.bytes().len()..).unwrap_or_default());
    };
    let parts: Vec<String> = elements
        .iter()
        .map(|element| match element {
            Element::String(text) => format!("{text:?}"),
            Element::Int(number) => number.to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    format!("({})", parts.join(", "))
}
