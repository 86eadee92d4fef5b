//! Transactions, as the C API promises them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_meta::{
    AtomicOp, KeyRange, MAX_KEY_BYTES, MAX_VALUE_BYTES, Mutation, STAMP_BYTES, Snapshot,
};
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cluster::{FAULTS_KEY, Place};
use crate::database::{Database, Options, WatchPlace};
use crate::error::{
    CLIENT_INVALID_OPERATION, Code, INTERNAL_ERROR, INVERTED_RANGE, KEY_OUTSIDE_LEGAL_RANGE,
    KEY_TOO_LARGE, OPERATION_CANCELLED, READ_VERSION_ALREADY_SET, TRANSACTION_CANCELLED,
    TRANSACTION_TIMED_OUT, UNSUPPORTED_OPERATION, USED_DURING_COMMIT, VALUE_TOO_LARGE,
    WATCHES_DISABLED, is_maybe_committed, is_retryable_not_committed,
};
use crate::future::{Future, Value};
use crate::network::post;
use crate::select::{RangeRead, Selector, code};

/// The first pause of `on_error`.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A future that nobody waits for in vain: dropped unfulfilled, it is cancelled.
pub(crate) struct Promise(pub(crate) Arc<Future>);

impl Drop for Promise {
    fn drop(&mut self) {
        self.0.fulfil(Err(TRANSACTION_CANCELLED));
    }
}

/// A watch that waits for its commit.
pub(crate) struct PendingWatch {
    pub(crate) key: Bytes,
    pub(crate) promise: Promise,
    pub(crate) place: WatchPlace,
}

type View = Arc<OnceCell<Result<Arc<dyn Snapshot>, Code>>>;

/// What a transaction has gathered, from its beginning or last reset.
pub(crate) struct State {
    /// Ends with a cancel, a reset, or the transaction.
    life: CancellationToken,
    began: Instant,
    pub(crate) options: Options,
    view: View,
    pinned: Option<u64>,
    pub(crate) reads: Vec<KeyRange>,
    pub(crate) writes: Vec<KeyRange>,
    pub(crate) mutations: Vec<Mutation>,
    pub(crate) watches: Vec<PendingWatch>,
    pub(crate) stamps: Vec<Promise>,
    /// An error of a write: the commit's.
    pub(crate) deferred: Option<Code>,
    pub(crate) is_committing: bool,
    pub(crate) committed: Option<i64>,
    retries: u32,
}

impl State {
    fn new(options: Options) -> Self {
        Self {
            life: CancellationToken::new(),
            began: Instant::now(),
            options,
            view: View::default(),
            pinned: None,
            reads: Vec::new(),
            writes: Vec::new(),
            mutations: Vec::new(),
            watches: Vec::new(),
            stamps: Vec::new(),
            deferred: None,
            is_committing: false,
            committed: None,
            retries: 0,
        }
    }

    /// All that goes on ends.
    fn end(&mut self) {
        self.life.cancel();
        self.watches.clear();
        self.stamps.clear();
    }

    pub(crate) fn size(&self) -> usize {
        let ranges = self.reads.iter().chain(&self.writes);
        self.mutations.iter().map(Mutation::byte_size).sum::<usize>()
            + ranges.map(|range| range.begin.len() + range.end.len()).sum::<usize>()
    }

    pub(crate) fn check_use(&self) -> Result<(), Code> {
        if self.is_committing { Err(USED_DURING_COMMIT) } else { Ok(()) }
    }

    fn check_read(&self) -> Result<(), Code> {
        self.check_use()?;
        if !self.mutations.is_empty() && !self.options.is_ryw_disabled {
            return Err(UNSUPPORTED_OPERATION);
        }
        Ok(())
    }
}

/// A transaction.
pub(crate) struct Transaction {
    pub(crate) database: Arc<Database>,
    pub(crate) state: Arc<Mutex<State>>,
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.state.lock().end();
    }
}

fn check_key(key: &[u8]) -> Result<(), Code> {
    if key.len() > MAX_KEY_BYTES {
        return Err(KEY_TOO_LARGE);
    }
    if key.first() == Some(&0xff) && key != FAULTS_KEY {
        return Err(KEY_OUTSIDE_LEGAL_RANGE);
    }
    Ok(())
}

fn check_range(begin: &[u8], end: &[u8]) -> Result<KeyRange, Code> {
    if begin > end {
        return Err(INVERTED_RANGE);
    }
    if end > &[0xff][..] {
        return Err(KEY_OUTSIDE_LEGAL_RANGE);
    }
    Ok(KeyRange::new(begin.to_vec(), end.to_vec()))
}

/// `bytes` without the four bytes at its end, and the place of a stamp that they name.
fn without_offset(bytes: &[u8]) -> Result<(Bytes, usize), Code> {
    let (bytes, offset) = bytes.split_last_chunk::<4>().ok_or(CLIENT_INVALID_OPERATION)?;
    let offset = usize::try_from(u32::from_le_bytes(*offset)).map_err(|_| INTERNAL_ERROR)?;
    if offset.checked_add(STAMP_BYTES).is_none_or(|end| end > bytes.len()) {
        return Err(CLIENT_INVALID_OPERATION);
    }
    Ok((Bytes::copy_from_slice(bytes), offset))
}

impl Transaction {
    pub(crate) fn new(database: Arc<Database>) -> Self {
        let state = State::new(*database.defaults.lock());
        Self { database, state: Arc::new(Mutex::new(state)) }
    }

    /// Changes options.
    pub(crate) fn set_options(&self, change: impl FnOnce(&mut Options)) {
        change(&mut self.state.lock().options);
    }

    /// Runs `work` on the network thread until it ends, the transaction does, or its time is up.
    pub(crate) fn start(
        &self,
        work: impl std::future::Future<Output = Result<Value, Code>> + Send + 'static,
    ) -> Arc<Future> {
        let future = Arc::new(Future::default());
        let (life, deadline) = {
            let state = self.state.lock();
            (state.life.clone(), state.options.timeout.map(|timeout| state.began + timeout))
        };
        let fulfilled = Arc::clone(&future);
        post(async move {
            let timed_out = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let result = tokio::select! {
                biased;
                () = fulfilled.cancelled.cancelled() => Err(OPERATION_CANCELLED),
                () = life.cancelled() => Err(TRANSACTION_CANCELLED),
                result = work => result,
                () = timed_out => Err(TRANSACTION_TIMED_OUT),
            };
            fulfilled.fulfil(result);
        });
        future
    }

    pub(crate) fn failed(code: Code) -> Arc<Future> {
        let future = Arc::new(Future::default());
        future.fulfil(Err(code));
        future
    }

    /// The version that this transaction reads, chosen at the first call.
    pub(crate) fn view(
        &self,
    ) -> impl std::future::Future<Output = Result<Arc<dyn Snapshot>, Code>> + Send + 'static {
        let cluster = self.database.cluster.clone();
        let (view, pinned, is_batch) = {
            let state = self.state.lock();
            (Arc::clone(&state.view), state.pinned, state.options.is_batch)
        };
        async move {
            let cluster = cluster?;
            let chosen = view.get_or_init(|| async {
                match pinned {
                    Some(version) => cluster.at(version).await,
                    None => cluster.latest(is_batch).await,
                }
            });
            chosen.await.clone()
        }
    }

    fn read_fault(&self) -> impl std::future::Future<Output = Result<(), Code>> + Send + 'static {
        let cluster = self.database.cluster.clone();
        async move {
            match cluster?.fault(Place::Read) {
                Some(fault) => Err(fault.fail().await),
                None => Ok(()),
            }
        }
    }

    pub(crate) fn read_version(&self) -> Arc<Future> {
        let view = self.view();
        self.start(async move {
            let version = view.await?.version();
            Ok(Value::Int64(i64::try_from(version).map_err(|_| INTERNAL_ERROR)?))
        })
    }

    pub(crate) fn set_read_version(&self, version: i64) {
        let mut state = self.state.lock();
        match u64::try_from(version) {
            Ok(version) if state.pinned.is_none() => state.pinned = Some(version),
            _ => state.deferred = Some(READ_VERSION_ALREADY_SET),
        }
    }

    pub(crate) fn get(&self, key: Bytes, is_snapshot: bool) -> Arc<Future> {
        let checked = check_key(&key).and_then(|()| {
            let mut state = self.state.lock();
            state.check_read()?;
            if !is_snapshot {
                state.reads.push(KeyRange::key(&key));
            }
            Ok(())
        });
        if let Err(code) = checked {
            return Self::failed(code);
        }
        let (view, fault) = (self.view(), self.read_fault());
        self.start(async move {
            fault.await?;
            let value = view.await?.get(&key).await;
            Ok(Value::Found(value.map_err(|error| code(&error))?))
        })
    }

    pub(crate) fn get_key(&self, selector: Selector, is_snapshot: bool) -> Arc<Future> {
        if let Err(code) = self.state.lock().check_read() {
            return Self::failed(code);
        }
        let (view, state) = (self.view(), Arc::clone(&self.state));
        self.start(async move {
            let key = selector.resolve(&*view.await?).await?;
            if !is_snapshot {
                // All between the two keys was looked at.
                let mut ends = [selector.key, key.clone()];
                ends.sort();
                let [begin, end] = ends;
                state.lock().reads.push(KeyRange::new(begin, KeyRange::key(&end).end));
            }
            Ok(Value::Key(key))
        })
    }

    pub(crate) fn get_range(&self, read: RangeRead, is_snapshot: bool) -> Arc<Future> {
        if let Err(code) = self.state.lock().check_read() {
            return Self::failed(code);
        }
        let (view, fault, state) = (self.view(), self.read_fault(), Arc::clone(&self.state));
        self.start(async move {
            fault.await?;
            let (range, rows, more) = read.read(&*view.await?).await?;
            if !is_snapshot {
                state.lock().reads.push(range);
            }
            Ok(Value::Rows(rows, more))
        })
    }

    fn write(&self, mutation: Result<Mutation, Code>) {
        let mut state = self.state.lock();
        match state.check_use().and(mutation) {
            Ok(mutation) => state.mutations.push(mutation),
            Err(code) => {
                state.deferred.get_or_insert(code);
            }
        }
    }

    pub(crate) fn set(&self, key: Bytes, value: Bytes) {
        let checked = check_key(&key).and_then(|()| match value.len() {
            0..=MAX_VALUE_BYTES => Ok(Mutation::Set(key, value)),
            _ => Err(VALUE_TOO_LARGE),
        });
        self.write(checked);
    }

    pub(crate) fn clear(&self, key: Bytes) {
        self.write(check_key(&key).map(|()| Mutation::Clear(key)));
    }

    pub(crate) fn clear_range(&self, begin: &[u8], end: &[u8]) {
        self.write(check_range(begin, end).map(Mutation::ClearRange));
    }

    pub(crate) fn stamped_key(&self, key: &[u8], value: Bytes) {
        let stamped = without_offset(key).and_then(|(key, offset)| {
            check_key(&key)?;
            Ok(Mutation::SetStampedKey { key, offset, value })
        });
        self.write(stamped);
    }

    pub(crate) fn stamped_value(&self, key: Bytes, value: &[u8]) {
        let stamped = without_offset(value).and_then(|(value, offset)| {
            check_key(&key)?;
            Ok(Mutation::SetStampedValue { key, value, offset })
        });
        self.write(stamped);
    }

    pub(crate) fn atomic(&self, op: Result<AtomicOp, Code>, key: Bytes, operand: Bytes) {
        let checked = op.and_then(|op| {
            check_key(&key)?;
            match operand.len() {
                0..=MAX_VALUE_BYTES => Ok(Mutation::Atomic(op, key, operand)),
                _ => Err(VALUE_TOO_LARGE),
            }
        });
        self.write(checked);
    }

    pub(crate) fn add_conflict(
        &self,
        begin: &[u8],
        end: &[u8],
        is_write: bool,
    ) -> Result<(), Code> {
        let range = check_range(begin, end)?;
        let mut state = self.state.lock();
        state.check_use()?;
        if is_write {
            state.writes.push(range)
        } else {
            state.reads.push(range)
        }
        Ok(())
    }

    pub(crate) fn watch(&self, key: Bytes) -> Arc<Future> {
        let mut state = self.state.lock();
        let refused = match (state.check_read(), check_key(&key)) {
            _ if state.options.is_ryw_disabled => Err(WATCHES_DISABLED),
            (refused, Ok(())) | (_, refused) => refused,
        };
        let place = refused.and_then(|()| WatchPlace::take(&self.database));
        let place = match place {
            Ok(place) => place,
            Err(code) => return Self::failed(code),
        };
        let future = Arc::new(Future::default());
        state.watches.push(PendingWatch { key, promise: Promise(Arc::clone(&future)), place });
        future
    }

    pub(crate) fn versionstamp(&self) -> Arc<Future> {
        let future = Arc::new(Future::default());
        self.state.lock().stamps.push(Promise(Arc::clone(&future)));
        future
    }

    pub(crate) fn approximate_size(&self) -> Arc<Future> {
        let size = i64::try_from(self.state.lock().size()).unwrap_or(i64::MAX);
        self.start(async move { Ok(Value::Int64(size)) })
    }

    pub(crate) fn committed_version(&self) -> Result<i64, Code> {
        self.state.lock().committed.ok_or(CLIENT_INVALID_OPERATION)
    }

    /// Waits and begins anew after an error that allows that.
    pub(crate) fn on_error(&self, code: Code) -> Arc<Future> {
        let shared = Arc::clone(&self.state);
        let pause = {
            let mut state = self.state.lock();
            let may_retry = is_maybe_committed(code) || is_retryable_not_committed(code);
            if !may_retry || state.options.retry_limit.is_some_and(|limit| state.retries >= limit) {
                return Self::failed(code);
            }
            state.retries += 1;
            let doubled = FIRST_PAUSE.saturating_mul(1 << (state.retries - 1).min(16));
            doubled.min(state.options.max_retry_delay)
        };
        self.start(async move {
            tokio::time::sleep(pause).await;
            let mut state = shared.lock();
            let (began, retries) = (state.began, state.retries);
            // Timeout, limit and pauses outlast it; the rest are options of one attempt.
            let options = Options { is_ryw_disabled: false, is_batch: false, ..state.options };
            // Whoever waits for this very future must not be cancelled by it.
            let life = state.life.clone();
            state.life = CancellationToken::new();
            state.end();
            *state = State { life, began, retries, ..State::new(options) };
            Ok(Value::Unit)
        })
    }

    pub(crate) fn reset(&self) {
        let mut state = self.state.lock();
        state.end();
        *state = State::new(*self.database.defaults.lock());
    }

    pub(crate) fn cancel(&self) {
        self.state.lock().end();
    }
}
