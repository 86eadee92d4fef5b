//! Topics: `("topic", tenant, name)`, and `("topic_id", tenant, id)` for the way back.
//!
//! Each change adds one to `("change", "topics")`, which a gateway watches to read its directory
//! anew.

mod opening;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use interflow_proto::meta as proto;
use uuid::Uuid;

use super::codec::{bad_key, counter, decode, encode};
use super::logs::{self, Opening, Policy};
use crate::error::{MetaError, TransactError};
use crate::ids::{Durability, NodeId};
use crate::store::{KeyRange, key_after};
use crate::transaction::{RangeOptions, Transaction, Watch};
pub use opening::Placement;
use opening::open_logs;
pub use value::Topic;

/// Partitions of a topic at most: their heads are written in one transaction.
pub const MAX_PARTITIONS: u32 = 10_000;
/// Keys and values of a topic's configuration at most, in bytes.
pub const MAX_CONFIG_BYTES: usize = 32 * 1024;
/// A topic's name at most, in bytes (Kafka's limit).
pub const MAX_NAME_BYTES: usize = 249;

/// Why a change of a topic was refused.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The name is taken.
    #[error("topic exists already")]
    AlreadyExists,
    /// There is no such topic.
    #[error("no such topic")]
    NotFound,
    /// Not between 1 and [`MAX_PARTITIONS`], or fewer than there are.
    #[error("a topic has 1 to 10,000 partitions, and never fewer than before")]
    InvalidPartitions,
    /// Empty, or above [`MAX_NAME_BYTES`]. Which characters are allowed is the protocols' matter.
    #[error("a topic's name has 1 to 249 bytes")]
    InvalidName,
    /// A log found no nodes.
    #[error("there are too few nodes that take new logs")]
    TooFewNodes,
    /// The placement chose a node that takes no new segments, or is not known: choose without it.
    #[error("node {0} takes no new segments")]
    NotWritable(NodeId),
    /// Above [`MAX_CONFIG_BYTES`].
    #[error("a topic's configuration of {0} bytes; 32,768 are allowed")]
    ConfigTooLarge(usize),
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl TransactError for TopicError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Meta(error) => Some(error),
            _ => None,
        }
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Its id, drawn at random once for all attempts: by it, one that was committed is known again.
    pub id: Uuid,
    /// How many partitions.
    pub partitions: u32,
    /// What is set explicitly.
    pub config: BTreeMap<String, String>,
    /// How its logs are kept.
    pub logs: NewLogs,
}

/// How new logs are kept, and where their first segment is opened.
#[derive(Clone, Debug)]
pub struct NewLogs {
    /// When appends are acknowledged.
    pub durability: Durability,
    /// How they are kept otherwise.
    pub policy: Policy,
    /// How many replicas their segments are to have.
    pub replication_factor: u32,
    /// Their first segments; base and leader epoch are 0 whatever is said here, and nodes are those
    /// of the placement where there is one.
    pub opening: Opening,
}

fn topic_key(tx: &Transaction, tenant: &str, name: &str) -> Vec<u8> {
    tx.root().pack(&("topic", tenant, name))
}

fn id_key(tx: &Transaction, tenant: &str, id: Uuid) -> Vec<u8> {
    tx.root().pack(&("topic_id", tenant, &id.as_bytes()[..]))
}

fn change_key(tx: &Transaction) -> Vec<u8> {
    tx.root().pack(&("change", "topics"))
}

/// Creates a topic with its logs, segment 0 of each open, all of them where [`NewLogs::opening`] says.
///
/// # Errors
/// [`TopicError::AlreadyExists`] (unless it has this very id: then it is returned),
/// [`TopicError::InvalidPartitions`], [`TopicError::InvalidName`], [`TopicError::ConfigTooLarge`];
/// meta's own.
pub async fn create(tx: &Transaction, tenant: &str, new: &NewTopic) -> Result<Topic, TopicError> {
    create_placed(tx, tenant, new, None).await
}

/// As [`create`], each log on the nodes that `placement` chooses for it. The sequencers' incarnations
/// are those of this transaction, and all nodes are read-write in it.
///
/// # Errors
/// Also [`TopicError::TooFewNodes`], [`TopicError::NotWritable`].
pub async fn create_placed(
    tx: &Transaction,
    tenant: &str,
    new: &NewTopic,
    placement: Option<&dyn Placement>,
) -> Result<Topic, TopicError> {
    if !(1..=MAX_PARTITIONS).contains(&new.partitions) {
        return Err(TopicError::InvalidPartitions);
    }
    if !(1..=MAX_NAME_BYTES).contains(&new.name.len()) {
        return Err(TopicError::InvalidName);
    }
    check_config(&new.config)?;
    match get(tx, tenant, &new.name).await? {
        Some(topic) if topic.id == new.id => return Ok(topic),
        Some(_) => return Err(TopicError::AlreadyExists),
        None => {}
    }
    let mut topic = Topic {
        name: new.name.clone(),
        id: new.id,
        logs: Vec::new(),
        config: new.config.clone(),
        created_ms: new.logs.opening.opened_ms,
    };
    open_logs(tx, tenant, &mut topic, new.partitions, &new.logs, placement).await?;
    store(tx, tenant, &topic)?;
    let name = proto::TopicName { name: topic.name.clone() };
    tx.set(id_key(tx, tenant, topic.id), encode(&name))?;
    Ok(topic)
}

fn store(tx: &Transaction, tenant: &str, topic: &Topic) -> Result<(), MetaError> {
    tx.set(topic_key(tx, tenant, &topic.name), topic.encode())?;
    tx.add(change_key(tx), 1)
}

fn check_config(config: &BTreeMap<String, String>) -> Result<(), TopicError> {
    let bytes = config.iter().map(|(key, value)| key.len() + value.len());
    match bytes.sum() {
        bytes if bytes > MAX_CONFIG_BYTES => Err(TopicError::ConfigTooLarge(bytes)),
        _ => Ok(()),
    }
}

/// The topic `name`.
///
/// # Errors
/// Meta's own.
pub async fn get(tx: &Transaction, tenant: &str, name: &str) -> Result<Option<Topic>, MetaError> {
    let value = tx.get(&topic_key(tx, tenant, name)).await?;
    value.map(|value| Topic::decode(name, value)).transpose()
}

/// The topic whose id is `id`.
///
/// # Errors
/// Meta's own.
pub async fn get_by_id(
    tx: &Transaction,
    tenant: &str,
    id: Uuid,
) -> Result<Option<Topic>, MetaError> {
    let Some(value) = tx.get(&id_key(tx, tenant, id)).await? else {
        return Ok(None);
    };
    let proto::TopicName { name } = decode(value, "topic id")?;
    get(tx, tenant, &name).await
}

/// Up to `limit` topics by name, behind `after`; fewer mean that there are no more. Later changes
/// of what was read are no conflict.
///
/// # Errors
/// Meta's own.
pub async fn list(
    tx: &Transaction,
    tenant: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Topic>, MetaError> {
    let (first, end) = tx.root().subspace(&("topic", tenant)).range();
    let begin = match after {
        Some(name) => key_after(&topic_key(tx, tenant, name)),
        None => first.into(),
    };
    let mut scan = tx.scan(KeyRange::new(begin, end), RangeOptions::limit(limit).snapshot());
    let mut topics = Vec::new();
    while let Some(rows) = scan.next_page().await? {
        for (key, value) in rows {
            let (_, _, name): (String, String, String) =
                tx.root().unpack(&key).map_err(bad_key("topic"))?;
            topics.push(Topic::decode(&name, value)?);
        }
    }
    Ok(topics)
}

/// Removes a topic with its logs and their segments, and returns it: their bytes can go.
///
/// With `id`, only the topic that has it.
///
/// # Errors
/// [`TopicError::NotFound`]; meta's own.
pub async fn delete(
    tx: &Transaction,
    tenant: &str,
    name: &str,
    id: Option<Uuid>,
) -> Result<Topic, TopicError> {
    let Some(topic) = get(tx, tenant, name).await? else {
        return Err(TopicError::NotFound);
    };
    if id.is_some_and(|id| id != topic.id) {
        return Err(TopicError::NotFound);
    }
    for log in &topic.logs {
        logs::remove(tx, *log)?;
    }
    tx.clear(topic_key(tx, tenant, name))?;
    tx.clear(id_key(tx, tenant, topic.id))?;
    tx.add(change_key(tx), 1)?;
    Ok(topic)
}

/// Grows a topic to `total` partitions, on the nodes that `placement` chooses, or else those of
/// [`NewLogs::opening`]. At `total` already: nothing to do.
///
/// # Errors
/// [`TopicError::NotFound`], [`TopicError::InvalidPartitions`], [`TopicError::TooFewNodes`],
/// [`TopicError::NotWritable`]; meta's own.
pub async fn add_partitions(
    tx: &Transaction,
    tenant: &str,
    name: &str,
    total: u32,
    new: &NewLogs,
    placement: Option<&dyn Placement>,
) -> Result<Topic, TopicError> {
    let Some(mut topic) = get(tx, tenant, name).await? else {
        return Err(TopicError::NotFound);
    };
    let have = u32::try_from(topic.logs.len()).unwrap_or(u32::MAX);
    let more = total
        .checked_sub(have)
        .filter(|_| total <= MAX_PARTITIONS)
        .ok_or(TopicError::InvalidPartitions)?;
    if more > 0 {
        open_logs(tx, tenant, &mut topic, more, new, placement).await?;
        store(tx, tenant, &topic)?;
    }
    Ok(topic)
}

/// Sets and (with `None`) unsets configurations of a topic. What follows from it for its logs is
/// the caller's to set ([`logs::set_policy`]), in the same transaction.
///
/// # Errors
/// [`TopicError::NotFound`], [`TopicError::ConfigTooLarge`]; meta's own.
pub async fn alter_config(
    tx: &Transaction,
    tenant: &str,
    name: &str,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<Topic, TopicError> {
    let Some(mut topic) = get(tx, tenant, name).await? else {
        return Err(TopicError::NotFound);
    };
    for (key, value) in changes {
        match value {
            Some(value) => topic.config.insert(key.clone(), value.clone()),
            None => topic.config.remove(key),
        };
    }
    check_config(&topic.config)?;
    store(tx, tenant, &topic)?;
    Ok(topic)
}

/// How many changes of topics there were. Read before the topics, so that none is missed.
///
/// # Errors
/// Meta's own.
pub async fn changes(tx: &Transaction) -> Result<u64, MetaError> {
    counter(tx.get_snapshot(&change_key(tx)).await?, "topic changes")
}

/// Tells of the next change of any topic after what this transaction sees.
///
/// # Errors
/// Meta's own.
pub async fn watch(tx: &Transaction) -> Result<Watch, MetaError> {
    tx.watch(change_key(tx)).await
}
