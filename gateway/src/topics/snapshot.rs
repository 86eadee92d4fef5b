//! All topics at one moment.

use std::sync::Arc;

use hashbrown::HashMap;
use interflow_meta::LogId;
use uuid::Uuid;

use super::config::TopicConfig;
use super::name;

/// A topic. Another one of the same name, made after this was deleted, has another id.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: Arc<str>,
    /// The log of each partition.
    pub partitions: Arc<[LogId]>,
    /// Its configuration.
    pub config: TopicConfig,
}

impl Topic {
    /// The log of a partition; `None` if there is no such partition.
    pub fn log(&self, partition: i32) -> Option<LogId> {
        self.partitions.get(usize::try_from(partition).ok()?).copied()
    }
}

/// All topics at one moment: look-ups without a lock.
#[derive(Debug, Default)]
pub struct Snapshot {
    by_name: HashMap<Arc<str>, Arc<Topic>, foldhash::fast::RandomState>,
    by_id: HashMap<Uuid, Arc<Topic>, foldhash::fast::RandomState>,
    folded: HashMap<String, Arc<str>, foldhash::fast::RandomState>,
    sorted: Vec<Arc<Topic>>,
    partitions: usize,
}

impl Snapshot {
    pub(super) fn new(topics: impl IntoIterator<Item = Arc<Topic>>) -> Self {
        let mut snapshot = Self::default();
        for topic in topics {
            snapshot.partitions += topic.partitions.len();
            snapshot.by_name.insert(topic.name.clone(), topic.clone());
            snapshot.by_id.insert(topic.id, topic.clone());
            snapshot.folded.insert(name::folded(&topic.name), topic.name.clone());
            snapshot.sorted.push(topic);
        }
        snapshot.sorted.sort_by(|a, b| a.name.cmp(&b.name));
        snapshot
    }

    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Topic>> {
        self.by_name.get(name)
    }

    /// The topic of that id.
    pub fn by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.by_id.get(&id)
    }

    /// All topics, by name.
    pub fn all(&self) -> &[Arc<Topic>] {
        &self.sorted
    }

    /// Partitions of all topics together.
    pub fn partition_count(&self) -> usize {
        self.partitions
    }

    /// The name of a topic that can't be told from `name` where dots aren't known (K13).
    pub fn collision(&self, name: &str) -> Option<&Arc<str>> {
        self.folded.get(&name::folded(name))
    }
}
