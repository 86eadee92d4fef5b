//! The topics as this process knows them, and their changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use futures_util::{StreamExt, stream};
use interflow_logstore::LogClient;
use interflow_meta::logs::Opening;
use interflow_meta::{
    DEFAULT_TENANT, LogId, Meta, MetaError, NodeId, Transaction, levels, logs, topics,
};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::{ConfigChange, ConfigError, MIN_INSYNC_REPLICAS, Overrides, TopicConfig};
use super::error::TopicError;
use super::name;
use super::placement::Placement;
use super::snapshot::{Snapshot, Topic};

/// Topics in one read of meta.
const PAGE: usize = 500;
/// Logs that are asked for at a time.
const AT_ONCE: usize = 256;
/// The pause after meta couldn't be read.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What bounds topics, and where their logs begin.
#[derive(Clone, Debug)]
pub struct TopicsOptions {
    /// Where new logs are kept.
    pub placement: Placement,
    /// Partitions of one topic.
    pub max_partitions_per_topic: u32,
    /// Partitions of all topics together.
    pub max_partitions: u32,
}

impl Default for TopicsOptions {
    fn default() -> Self {
        Self {
            placement: Placement::Fixed { node: NodeId(1), incarnation: 0 },
            max_partitions_per_topic: topics::MAX_PARTITIONS,
            max_partitions: 100_000,
        }
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas; -1 leaves it to the system.
    pub replication_factor: i16,
    /// What is set explicitly.
    pub config: Overrides,
}

/// The directory of topics. Look-ups never wait; what another process changed shows a moment
/// later, what was changed through this one at once.
pub struct Topics {
    current: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    /// Held while the snapshot is exchanged, with the count of changes that it shows.
    known: Mutex<u64>,
    store: Option<Store>,
}

struct Store {
    meta: Meta,
    logs: Arc<dyn LogClient>,
    options: TopicsOptions,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topics").field("current", &self.current.load()).finish_non_exhaustive()
    }
}

impl Topics {
    /// Reads all topics and follows their changes until `shutdown`. The handle is of the task that
    /// follows.
    ///
    /// # Errors
    /// Meta's own.
    pub async fn start(
        meta: Meta,
        logs: Arc<dyn LogClient>,
        options: TopicsOptions,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Self>, JoinHandle<()>), MetaError> {
        let topics = Arc::new(Self::empty(Some(Store { meta, logs, options })));
        topics.reload().await?;
        let follower = tokio::spawn({
            let topics = topics.clone();
            async move {
                tokio::select! {
                    () = topics.follow() => {}
                    () = shutdown.cancelled() => {}
                }
            }
        });
        Ok((topics, follower))
    }

    /// A directory of fixed topics, for tests of what reads it.
    pub fn fixed(topics: impl IntoIterator<Item = Topic>) -> Arc<Self> {
        let directory = Self::empty(None);
        directory.current.store(Arc::new(Snapshot::new(topics.into_iter().map(Arc::new))));
        Arc::new(directory)
    }

    fn empty(store: Option<Store>) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::default()),
            version: watch::Sender::new(0),
            known: Mutex::new(0),
            store,
        }
    }

    /// All topics at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.current.load().get(name).cloned()
    }

    /// The topic of that id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.current.load().by_id(id).cloned()
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.current.load().all().to_vec()
    }

    /// Tells of each change: take a new [`snapshot`](Topics::snapshot) then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Whether `new` could be created now, and with which configuration. Changes nothing.
    ///
    /// # Errors
    /// The rule that it breaks, or meta's own.
    pub async fn check_new(&self, new: &NewTopic) -> Result<TopicConfig, TopicError> {
        name::check(&new.name)?;
        let snapshot = self.current.load();
        if snapshot.get(&new.name).is_some() {
            return Err(TopicError::Exists(new.name.clone()));
        }
        if let Some(other) = snapshot.collision(&new.name) {
            return Err(TopicError::Collision(other.clone()));
        }
        let replicas = self.replicas(new.replication_factor)?;
        let options = self.store.as_ref().map(|store| store.options.clone()).unwrap_or_default();
        let max = options.max_partitions_per_topic.min(topics::MAX_PARTITIONS);
        if !(1..=max).contains(&new.partitions) {
            return Err(TopicError::Partitions { max });
        }
        let have = u32::try_from(snapshot.partition_count()).unwrap_or(u32::MAX);
        if have.saturating_add(new.partitions) > options.max_partitions {
            return Err(TopicError::TooManyPartitions { max: options.max_partitions });
        }
        let mut overrides = new.config.clone();
        if replicas > 1 && !overrides.contains_key(MIN_INSYNC_REPLICAS) {
            let acks = options.placement.acks(replicas).to_string();
            overrides.insert(MIN_INSYNC_REPLICAS.to_owned(), acks);
        }
        let config = TopicConfig::new(overrides)?;
        config.check_replicas(replicas)?;
        if let Some(store) = self.store.as_ref().filter(|_| !is_plain(&config)) {
            let checked = &config;
            store.meta.transact(|tx| async move { check_level(&tx, checked).await }).await?;
        }
        Ok(config)
    }

    /// How many replicas a topic gets that asks for `asked` now; -1 leaves it to the system.
    ///
    /// # Errors
    /// [`TopicError::ReplicationFactor`].
    pub fn replicas(&self, asked: i16) -> Result<u32, TopicError> {
        match &self.store {
            Some(store) => store.options.placement.replicas(asked),
            None => TopicsOptions::default().placement.replicas(asked),
        }
    }

    /// Creates a topic; when this returns, its partitions take appends.
    ///
    /// # Errors
    /// The rule that it breaks, or meta's own.
    pub async fn create(&self, new: NewTopic) -> Result<Arc<Topic>, TopicError> {
        let config = self.check_new(&new).await?;
        let store = self.store()?;
        let placement = &store.options.placement;
        let replicas = placement.replicas(new.replication_factor)?;
        let new = topics::NewTopic {
            name: new.name,
            id: Uuid::new_v4(),
            partitions: new.partitions,
            config: config.overrides().clone(),
            logs: topics::NewLogs {
                durability: config.durability,
                policy: config.policy(),
                replication_factor: replicas,
                opening: opening(placement, store.meta.random_u64()),
            },
        };
        let (attempt, mut excluded) = (&new, BTreeSet::new());
        let created = loop {
            let choice = &placement.choice((replicas, config.min_insync_replicas), &excluded);
            let created = store
                .meta
                .transact(|tx| async move {
                    let placement = choice.as_ref().map(|choice| choice as &dyn topics::Placement);
                    topics::create_placed(&tx, DEFAULT_TENANT, attempt, placement).await
                })
                .await;
            match created {
                // It was drained, or is starting anew, since the members were read.
                Err(topics::TopicError::NotWritable(node)) if excluded.insert(node) => {
                    placement.refresh();
                }
                created => break created,
            }
        };
        let created = created.map_err(|error| TopicError::from_entity(error, &new.name))?;
        let topic = Arc::new(decoded(created));
        self.refresh_logs(&topic.partitions).await;
        self.reread(&topic.name).await?;
        Ok(topic)
    }

    /// Deletes the topic of that name, with `id` only if it has that id. Returns what it was.
    ///
    /// # Errors
    /// [`TopicError::NotFound`], or meta's own.
    pub async fn delete(&self, name: &str, id: Option<Uuid>) -> Result<Arc<Topic>, TopicError> {
        let store = self.store()?;
        let gone = store
            .meta
            .transact(|tx| async move {
                topics::delete(&tx, DEFAULT_TENANT, name, id)
                    .await
                    .map_err(|error| TopicError::from_entity(error, name))
            })
            .await;
        let topic = match gone {
            Ok(topic) => Arc::new(decoded(topic)),
            Err(error) => {
                // What others deleted is to show by now.
                self.reread(name).await?;
                return Err(error);
            }
        };
        self.reread(name).await?;
        self.refresh_logs(&topic.partitions).await;
        Ok(topic)
    }

    /// Changes a topic's configuration, and with it how its logs are kept.
    ///
    /// # Errors
    /// [`TopicError::NotFound`], [`TopicError::Config`], or meta's own.
    pub async fn alter_config(
        &self,
        name: &str,
        changes: &[(String, ConfigChange)],
    ) -> Result<Arc<Topic>, TopicError> {
        let store = self.store()?;
        let altered = store
            .meta
            .transact(|tx| async move {
                let entity = |error| TopicError::from_entity(error, name);
                let (present, config) = altered(&tx, name, changes).await?;
                let keys = changes
                    .iter()
                    .map(|(key, _)| (key.clone(), config.overrides().get(key).cloned()));
                let topic = topics::alter_config(&tx, DEFAULT_TENANT, name, &keys.collect())
                    .await
                    .map_err(entity)?;
                if present.config.policy() != config.policy() {
                    for log in &topic.logs {
                        logs::set_policy(&tx, *log, config.policy())
                            .await
                            .map_err(TopicError::from_chain)?;
                    }
                }
                Ok::<_, TopicError>(topic)
            })
            .await?;
        let topic = Arc::new(decoded(altered));
        self.refresh_logs(&topic.partitions).await;
        self.reread(name).await?;
        Ok(topic)
    }

    /// Whether [`alter_config`](Self::alter_config) would take `changes` now. Changes nothing.
    ///
    /// # Errors
    /// As that.
    pub async fn check_alter(
        &self,
        name: &str,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), TopicError> {
        let store = self.store()?;
        store.meta.transact(|tx| async move { altered(&tx, name, changes).await.map(drop) }).await
    }

    fn store(&self) -> Result<&Store, TopicError> {
        self.store.as_ref().ok_or_else(|| {
            TopicError::Unavailable(MetaError::Unavailable("the topics are fixed".to_owned()))
        })
    }

    async fn refresh_logs(&self, partitions: &[LogId]) {
        let Some(store) = &self.store else { return };
        let asked: Vec<_> = partitions.iter().map(|log| store.logs.refresh(*log)).collect();
        let mut told = stream::iter(asked).buffered(AT_ONCE).zip(stream::iter(partitions));
        while let Some((told, log)) = told.next().await {
            if let Err(error) = told {
                // It reads meta again when it is used next.
                tracing::warn!(%log, %error, "a log could not be refreshed");
            }
        }
    }

    /// Takes over what meta has for `name` now.
    async fn reread(&self, name: &str) -> Result<(), MetaError> {
        let Some(store) = &self.store else { return Ok(()) };
        // Held over the read: what an exchange shows is never older than what the last one did.
        let mut known = self.known.lock().await;
        let (count, topic) = store
            .meta
            .transact(|tx| async move {
                let count = topics::changes(&tx).await?;
                Ok::<_, MetaError>((count, topics::get(&tx, DEFAULT_TENANT, name).await?))
            })
            .await?;
        let topic = topic.map(|topic| Arc::new(decoded(topic)));
        let mut next: Vec<Arc<Topic>> = self.current.load().all().to_vec();
        next.retain(|topic| &*topic.name != name);
        next.extend(topic);
        if *known + 1 == count {
            *known = count;
        }
        self.exchange(next);
        Ok(())
    }

    async fn reload(&self) -> Result<(), MetaError> {
        let Some(store) = &self.store else { return Ok(()) };
        let mut known = self.known.lock().await;
        let tx = store.meta.begin();
        let count = topics::changes(&tx).await?;
        if count == *known && count > 0 {
            return Ok(());
        }
        let mut all: Vec<Arc<Topic>> = Vec::new();
        loop {
            let after = all.last().map(|topic| topic.name.clone());
            let page = topics::list(&tx, DEFAULT_TENANT, after.as_deref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            all.extend(page.into_iter().map(|topic| Arc::new(decoded(topic))));
            if is_last {
                break;
            }
        }
        *known = count;
        self.exchange(all);
        Ok(())
    }

    fn exchange(&self, topics: Vec<Arc<Topic>>) {
        self.current.store(Arc::new(Snapshot::new(topics)));
        self.version.send_modify(|version| *version += 1);
    }

    async fn follow(&self) {
        let Some(store) = &self.store else { return };
        loop {
            let watching = store.meta.transact(|tx| async move { topics::watch(&tx).await }).await;
            // The watch first, then the read: a change between the two fires it.
            let outcome = match watching {
                Ok(watching) => match self.reload().await {
                    Ok(()) => watching.changed().await,
                    Err(error) => Err(error),
                },
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                tracing::debug!(%error, "changes of topics can't be followed at present");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// A topic, and what `changes` make of its configuration.
async fn altered(
    tx: &Transaction,
    name: &str,
    changes: &[(String, ConfigChange)],
) -> Result<(Topic, TopicConfig), TopicError> {
    let present = topics::get(tx, DEFAULT_TENANT, name).await?;
    let present = decoded(present.ok_or(TopicError::NotFound)?);
    let config = present.config.altered(changes)?;
    if config.min_insync_replicas != present.config.min_insync_replicas {
        check_level(tx, &config).await?;
        if let Some(log) = present.partitions.first()
            && let Some(head) = logs::load_head(tx, *log).await?
        {
            config.check_replicas(head.replication_factor)?;
        }
    }
    Ok((present, config))
}

/// Whether all versions acknowledge alike under it.
fn is_plain(config: &TopicConfig) -> bool {
    config.min_insync_replicas <= logs::PLAIN_ACKS
}

/// Refuses what a version would misread that the metadata's feature level admits. A level is never
/// lowered: what it has once stays.
async fn check_level(tx: &Transaction, config: &TopicConfig) -> Result<(), TopicError> {
    if is_plain(config) || levels::is_in_use(tx, levels::ACKS).await? {
        return Ok(());
    }
    Err(TopicError::Config(ConfigError::Value {
        name: MIN_INSYNC_REPLICAS,
        value: config.min_insync_replicas.to_string(),
        why: "more than 2 come with feature level 2: see `interflow meta upgrade`",
    }))
}

/// How first segments are opened; where the placement chooses, their nodes are its matter.
fn opening(placement: &Placement, token: u64) -> Opening {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (sequencer, incarnation) = match placement {
        Placement::Fixed { node, incarnation } => (*node, *incarnation),
        Placement::Members { .. } => (NodeId(0), 0),
    };
    Opening {
        base: 0,
        leader_epoch: 0,
        sequencer,
        incarnation,
        replicas: vec![sequencer],
        token,
        opened_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
    }
}

fn decoded(topic: topics::Topic) -> Topic {
    Topic {
        id: topic.id,
        name: topic.name.into(),
        partitions: topic.logs.into(),
        config: TopicConfig::stored(topic.config),
    }
}
