//! Clusters: a store for each cluster file, and the faults that are planned for it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use interflow_meta::{
    EmbeddedOptions, EmbeddedStore, Env, MetaError, RemoteOptions, RemoteStore, Snapshot, Store,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::error::{
    CONNECTION_STRING_INVALID, Code, FUTURE_VERSION, INTERNAL_ERROR, NO_CLUSTER_FILE,
    TRANSACTION_TOO_OLD,
};
use crate::select::code;

/// A set of this key plans faults, separated by commas, for what comes after it:
///
/// - `commit:1021` the next commit isn't made and fails with this code;
/// - `commit:1021+made` it is made and fails all the same;
/// - `commit:hang` it isn't made and never answered;
/// - `version:1037`, `version:hang` the next read version;
/// - `batch:1051` the next read version of batch priority;
/// - `read:1009` the next read of a key or range;
/// - `watch:1039` the next watch, when it has begun.
pub(crate) const FAULTS_KEY: &[u8] = b"\xff\xff/stand-in/faults";

/// Versions can be read for so long; FoundationDB's five seconds, and some more for slow tests.
const VERSIONS_LIVE: Duration = Duration::from_secs(10);

/// What can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Version,
    Batch,
    Read,
    Commit,
    Watch,
}

/// A planned failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    place: Place,
    /// `None` never answers.
    pub(crate) code: Option<Code>,
    /// Only the answer is lost.
    pub(crate) is_made: bool,
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let (place, what) = text.split_once(':')?;
        let place = match place {
            "version" => Place::Version,
            "batch" => Place::Batch,
            "read" => Place::Read,
            "commit" => Place::Commit,
            "watch" => Place::Watch,
            _ => return None,
        };
        let (code, is_made) = match what.strip_suffix("+made") {
            Some(code) => (code, true),
            None => (what, false),
        };
        let code = if code == "hang" { None } else { Some(code.parse().ok()?) };
        Some(Self { place, code, is_made })
    }

    /// The failure: its code, or never.
    pub(crate) async fn fail(self) -> Code {
        match self.code {
            Some(code) => code,
            None => std::future::pending().await,
        }
    }
}

/// Description and coordinators of a cluster file: `description:id@host:port,host:port,…`, between
/// comments.
fn parse(file: &str) -> Option<(&str, &str)> {
    let mut lines =
        file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (name, coordinators) = line.split_once('@')?;
    let (description, id) = name.split_once(':')?;
    let is_word = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let is_good = is_word(description) && is_word(id) && !id.contains('_');
    let is_reachable = coordinators.split(',').all(|one| address(one).is_some());
    (is_good && is_reachable).then_some((description, coordinators))
}

/// Host and port of a coordinator.
fn address(text: &str) -> Option<(&str, u16)> {
    let text = text.strip_suffix(":tls").unwrap_or(text);
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some((host, port))
}

/// Versions that were handed out, with the time of that.
type Versions = BTreeMap<u64, (Instant, Arc<dyn Snapshot>)>;

/// What one cluster file stands for.
pub(crate) struct Cluster {
    /// A shared one is opened where its connection is to live: on the network thread.
    store: OnceCell<Arc<dyn Store>>,
    /// Where a shared one is served.
    server: Option<RemoteOptions>,
    is_unreachable: bool,
    versions: Mutex<Versions>,
    faults: Mutex<VecDeque<Fault>>,
}

/// All clusters of the process; they live as long as it.
static CLUSTERS: Mutex<BTreeMap<PathBuf, Arc<Cluster>>> = Mutex::new(BTreeMap::new());

impl Cluster {
    /// The cluster of this file, new at the first time.
    pub(crate) fn open(file: &Path) -> Result<Arc<Self>, Code> {
        let text = std::fs::read_to_string(file).map_err(|_| NO_CLUSTER_FILE)?;
        let (description, coordinators) = parse(&text).ok_or(CONNECTION_STRING_INVALID)?;
        let mut clusters = CLUSTERS.lock();
        if let Some(cluster) = clusters.get(file) {
            return Ok(Arc::clone(cluster));
        }
        let (store, server) = match description {
            "shared" => {
                let (host, port) = address(coordinators).ok_or(CONNECTION_STRING_INVALID)?;
                (None, Some(RemoteOptions::new(host, port)))
            }
            "durable" => {
                let data = file.with_extension("data");
                (
                    Some(EmbeddedStore::open(&data, &EmbeddedOptions::default(), Env::default())),
                    None,
                )
            }
            _ => (Some(EmbeddedStore::in_memory(Env::default())), None),
        };
        let store = store.transpose().map_err(|_| INTERNAL_ERROR)?;
        let cluster = Arc::new(Self {
            store: OnceCell::new_with(store.map(|store| Arc::new(store) as Arc<dyn Store>)),
            server,
            is_unreachable: description == "unreachable",
            versions: Mutex::default(),
            faults: Mutex::default(),
        });
        clusters.insert(file.to_owned(), Arc::clone(&cluster));
        Ok(cluster)
    }

    /// Adds to what will fail. False if it isn't understood.
    pub(crate) fn plan(&self, faults: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(faults) else {
            return false;
        };
        let parsed: Option<Vec<Fault>> = text.split(',').map(Fault::parse).collect();
        let is_good = parsed.is_some();
        self.faults.lock().extend(parsed.into_iter().flatten());
        is_good
    }

    /// The next fault planned for `place`.
    pub(crate) fn fault(&self, place: Place) -> Option<Fault> {
        let mut faults = self.faults.lock();
        let next = faults.iter().position(|fault| fault.place == place)?;
        faults.remove(next)
    }

    async fn store(&self) -> Result<&Arc<dyn Store>, Code> {
        let opened = self.store.get_or_try_init(|| async {
            let server = self.server.clone().ok_or(INTERNAL_ERROR)?;
            let store = RemoteStore::open(server).map_err(|_| INTERNAL_ERROR)?;
            Ok(Arc::new(store) as Arc<dyn Store>)
        });
        opened.await
    }

    /// The store as it is now. A server that can't be reached is waited for, as FoundationDB's client
    /// waits for its cluster: the transaction's timeout ends that. The remote store has its own pauses.
    async fn now(&self) -> Result<Arc<dyn Snapshot>, Code> {
        let store = self.store().await?;
        loop {
            match store.snapshot().await {
                Err(MetaError::Unavailable(_)) => {}
                other => return other.map_err(|error| code(&error)),
            }
        }
    }

    /// The newest version.
    pub(crate) async fn latest(&self, is_batch: bool) -> Result<Arc<dyn Snapshot>, Code> {
        if self.is_unreachable {
            return std::future::pending().await;
        }
        let batch = if is_batch { self.fault(Place::Batch) } else { None };
        if let Some(fault) = batch.or_else(|| self.fault(Place::Version)) {
            return Err(fault.fail().await);
        }
        let snapshot = self.now().await?;
        self.remember(snapshot.version(), &snapshot);
        Ok(snapshot)
    }

    /// A version that was handed out before.
    pub(crate) async fn at(&self, version: u64) -> Result<Arc<dyn Snapshot>, Code> {
        if self.is_unreachable {
            return std::future::pending().await;
        }
        let newest = self.now().await?;
        if version > newest.version() {
            return Err(FUTURE_VERSION);
        }
        let versions = self.versions.lock();
        let known = versions.get(&version).filter(|(since, _)| since.elapsed() < VERSIONS_LIVE);
        known.map(|(_, snapshot)| Arc::clone(snapshot)).ok_or(TRANSACTION_TOO_OLD)
    }

    /// `version` was made: what shows it can be read at it, or what came at the same moment.
    pub(crate) async fn made(&self, version: u64) {
        if let Ok(snapshot) = self.now().await {
            self.remember(version, &snapshot);
        }
    }

    fn remember(&self, version: u64, snapshot: &Arc<dyn Snapshot>) {
        let now = Instant::now();
        let mut versions = self.versions.lock();
        versions.retain(|_, (since, _)| since.elapsed() < VERSIONS_LIVE);
        let (since, known) = versions.entry(version).or_insert_with(|| (now, Arc::clone(snapshot)));
        *since = now;
        // What came after a commit may show more than its version: whoever read that version itself
        // would miss conflicts with what lies between.
        if snapshot.version() < known.version() {
            *known = Arc::clone(snapshot);
        }
    }
}
