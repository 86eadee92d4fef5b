//! The member that this process is, and its view of the others.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::own::{LifeOver, OwnLease};
use super::registration::{RegisterError, Registration};
use super::roster::{Roster, differs};
use super::view::{Member, View};
use crate::env::Clock;
use crate::error::MetaError;
use crate::ids::NodeId;
use crate::meta::Meta;
use crate::nodes::{self, DEFAULT_LEASE, Node, NodeState};

/// Bumps in the time of a lease.
const BUMPS: u32 = 3;
/// The shortest pause between two rounds.
const MIN_PAUSE: Duration = Duration::from_millis(10);

/// Times of the own lease.
#[derive(Clone, Copy, Debug)]
pub struct MembersOptions {
    /// How long it lasts after a bump. Others learn it from the node's record.
    pub lease: Duration,
    /// How much earlier the holder stops: for clocks that run differently, and for what it has
    /// begun when it looked at the lease.
    pub margin: Duration,
}

impl MembersOptions {
    /// A lease of this length, and a margin of a sixth of it.
    #[must_use]
    pub fn lease(lease: Duration) -> Self {
        Self { lease, margin: lease / 6 }
    }

    fn interval(&self) -> Duration {
        self.lease / BUMPS
    }
}

impl Default for MembersOptions {
    fn default() -> Self {
        Self::lease(DEFAULT_LEASE)
    }
}

/// This process among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its node.
    pub id: NodeId,
    /// Which life of that node.
    pub incarnation: u64,
}

/// See the module. It must be ended with [`Members::leave`].
#[derive(Debug)]
pub struct Members {
    me: Me,
    /// `None` for one that is alone.
    meta: Option<Meta>,
    clock: Option<Arc<dyn Clock>>,
    options: MembersOptions,
    own: Mutex<OwnLease>,
    roster: Mutex<Roster>,
    view: RwLock<Arc<View>>,
    changes: watch::Sender<u64>,
    over: watch::Sender<Option<LifeOver>>,
    rounds: tokio::sync::Mutex<()>,
    /// Somebody wants a round before its time.
    wanted: Notify,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl Members {
    /// Registers a new life of the node, and keeps its lease and the view until `shutdown`. When
    /// this returns, the view shows all members.
    ///
    /// # Errors
    /// See [`RegisterError`].
    pub async fn start(
        meta: Meta,
        registration: Registration,
        options: MembersOptions,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, RegisterError> {
        let members = Self::register(meta, registration, options, shutdown.child_token()).await?;
        members.tasks.spawn(Arc::clone(&members).run());
        Ok(members)
    }

    /// As [`Members::start`], without the task that goes on.
    pub(super) async fn register(
        meta: Meta,
        registration: Registration,
        options: MembersOptions,
        closing: CancellationToken,
    ) -> Result<Arc<Self>, RegisterError> {
        let clock = Arc::clone(&meta.env().clock);
        let sent = clock.now();
        let registration = &registration;
        let (id, node) = meta
            .transact(|tx| async move { registration.register(&tx, options.lease).await })
            .await?;
        let me = Me { id, incarnation: node.incarnation };
        let own = OwnLease::new(options.lease, options.margin, sent);
        let members = Arc::new(Self {
            meta: Some(meta),
            clock: Some(clock),
            closing,
            ..Self::unshared(me, own, options)
        });
        members.settle().await?;
        Ok(members)
    }

    /// The only member: it has metadata of its own, and needs no lease.
    #[must_use]
    pub fn alone(id: NodeId, node: Node) -> Arc<Self> {
        let options = MembersOptions::default();
        let me = Me { id, incarnation: node.incarnation };
        let own = OwnLease::new(options.lease, options.margin, Duration::ZERO);
        let view = View::new(vec![Member { id, node, is_live: true }]);
        Arc::new(Self { view: RwLock::new(Arc::new(view)), ..Self::unshared(me, own, options) })
    }

    fn unshared(me: Me, own: OwnLease, options: MembersOptions) -> Self {
        Self {
            me,
            meta: None,
            clock: None,
            options,
            own: Mutex::new(own),
            roster: Mutex::new(Roster::new(options.interval() * 2)),
            view: RwLock::default(),
            changes: watch::Sender::new(0),
            over: watch::Sender::new(None),
            rounds: tokio::sync::Mutex::new(()),
            wanted: Notify::new(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Who this process is.
    #[must_use]
    pub fn me(&self) -> Me {
        self.me
    }

    /// The members as they were read last.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Tells of each change of the view; bumps of leases are none.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Nobody can have taken this process for dead yet. What only the lease allows ends when this
    /// is false; it may be true again later, for a process that was cut off for a while.
    #[must_use]
    pub fn lease_holds(&self) -> bool {
        match &self.clock {
            Some(clock) => self.own.lock().holds(clock.now()),
            None => true,
        }
    }

    /// Waits until this life is over, which may be for ever; the process must end then.
    pub async fn over(&self) -> LifeOver {
        let mut over = self.over.subscribe();
        let ended = over.wait_for(Option::is_some).await.map(|over| *over);
        match ended {
            Ok(Some(over)) => over,
            _ => std::future::pending().await,
        }
    }

    /// Reads the members again, soon; [`changes`](Members::changes) tells of what is new.
    pub fn refresh(&self) {
        self.wanted.notify_one();
    }

    /// This process serves: a log store takes segments from now on, unless it was drained.
    ///
    /// # Errors
    /// Meta's own.
    pub async fn ready(&self) -> Result<(), MetaError> {
        let Some(meta) = &self.meta else { return Ok(()) };
        let me = self.me;
        meta.transact(|tx| async move {
            match nodes::get(&tx, me.id).await? {
                Some(node)
                    if node.incarnation == me.incarnation
                        && node.state == NodeState::Provisioning =>
                {
                    nodes::set_state(&tx, me.id, NodeState::ReadWrite).await.map(|_| ())
                }
                _ => Ok::<_, MetaError>(()),
            }
        })
        .await?;
        // At once: who asks this process next is to see it.
        self.settle().await
    }

    /// Tells whether the disk takes anything: while it is full, no new segments come here.
    ///
    /// # Errors
    /// Meta's own.
    pub async fn set_full(&self, is_full: bool) -> Result<(), MetaError> {
        let Some(meta) = &self.meta else { return Ok(()) };
        let me = self.me;
        meta.transact(
            |tx| async move { nodes::set_full(&tx, me.id, me.incarnation, is_full).await },
        )
        .await?;
        self.settle().await
    }

    /// A round that gets through.
    async fn settle(&self) -> Result<(), MetaError> {
        let Some(meta) = &self.meta else { return Ok(()) };
        let mut retries = meta.retries();
        while let Err(error) = self.round().await {
            if !error.is_retryable() {
                return Err(error);
            }
            retries.pause_after(&error).await?;
        }
        Ok(())
    }

    /// Ends the membership in order: others see at their next read that this process is gone.
    pub async fn leave(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let Some(meta) = &self.meta else { return };
        if self.own.lock().over().is_some() {
            return;
        }
        let me = self.me;
        let leaving = meta.transact(|tx| async move {
            nodes::leave(&tx, me.id, me.incarnation).await.map(|_| ())
        });
        // Others find out by themselves after a lease.
        match tokio::time::timeout(self.options.interval(), leaving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "could not sign off from the cluster"),
            Err(_) => tracing::warn!("could not sign off from the cluster in time"),
        }
    }

    async fn run(self: Arc<Self>) {
        let interval = self.options.interval();
        let mut was_held = true;
        while self.own.lock().over().is_none() {
            // One that hangs would let the lease lapse, and the next may get through.
            let round = tokio::time::timeout(self.options.lease, self.round());
            let pause = match self.closing.run_until_cancelled(round).await {
                None => return,
                Some(Ok(Ok(pause))) => pause,
                Some(failed) => {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => "no answer in time".to_owned(),
                    };
                    tracing::debug!(error, "the lease could not be bumped");
                    interval / 8
                }
            };
            let is_held = self.lease_holds();
            match (was_held, is_held) {
                (true, false) => tracing::warn!(
                    "the lease of this node has lapsed: the metadata could not be written in time"
                ),
                (false, true) => tracing::info!("this node has its lease again"),
                _ => {}
            }
            was_held = is_held;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
                () = self.closing.cancelled() => return,
            }
        }
    }

    /// Bumps the lease and reads all members; returns how long to wait for the next round.
    pub(super) async fn round(&self) -> Result<Duration, MetaError> {
        let (Some(meta), Some(clock)) = (&self.meta, &self.clock) else {
            return Ok(self.options.interval());
        };
        // In their order, so that what is shown never goes back.
        let _turn = self.rounds.lock().await;
        let (me, began) = (self.me, clock.now());
        let tx = meta.begin();
        let bumped = nodes::bump_lease(&tx, me.id, me.incarnation).await?;
        let rows = nodes::list_snapshot(&tx).await?;
        tx.commit().await?;
        let ended = clock.now();
        if bumped.is_some() {
            self.own.lock().bumped(began);
        } else {
            let own = rows.iter().find(|(id, _)| *id == me.id);
            self.end(match own {
                Some((id, node)) if node.incarnation != me.incarnation => {
                    LifeOver::Replaced { id: id.0, incarnation: node.incarnation }
                }
                _ => LifeOver::Removed { id: me.id.0 },
            });
        }
        let reading = self.roster.lock().read(began, ended, rows);
        let dead: Vec<_> = reading
            .dead
            .into_iter()
            .filter(|(id, _)| *id >= nodes::FIRST_ALLOCATED && *id != me.id)
            .collect();
        self.show(reading.view);
        self.bury(meta, &dead).await;
        let lapse = reading.next_lapse.map_or(Duration::MAX, |lapse| lapse.saturating_sub(ended));
        Ok(self.options.interval().min(lapse).max(MIN_PAUSE))
    }

    fn show(&self, view: View) {
        let mut shown = self.view.write();
        let has_changed = differs(&shown, &view);
        *shown = Arc::new(view);
        drop(shown);
        if has_changed {
            self.changes.send_modify(|version| *version += 1);
        }
    }

    fn end(&self, over: LifeOver) {
        self.own.lock().end(over);
        self.over.send_replace(Some(over));
    }

    /// Frees the numbers of gateways that are dead for long. Several may try: one is enough.
    async fn bury(&self, meta: &Meta, dead: &[(NodeId, u64)]) {
        for (id, lease) in dead {
            let tx = meta.begin();
            let buried = async {
                nodes::bury(&tx, *id, *lease).await?;
                tx.commit().await
            };
            if let Err(error) = buried.await {
                tracing::debug!(%error, node = %id, "a dead gateway's number stays in use");
            }
        }
    }
}
