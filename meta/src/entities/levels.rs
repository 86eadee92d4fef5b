//! Feature levels: which formats are in use, and who can work with them.
//!
//! ```text
//!   ("config", "cluster")  the level in use          ("node", id)  the levels that it can work with
//!        ▲ written by upgrade, read by register            ▲ written by register, read by upgrade
//! ```
//!
//! *No node that isn't gone works without the level in use*: each of the two transactions reads what
//! the other writes, so of an upgrade and a registration that can't both be, one conflicts, and sees
//! the other when it runs again. A level is never lowered: what it brought may be in use.

use std::fmt;

use super::cluster::{self, Cluster, ClusterError};
use super::nodes::{self, NodeState};
use crate::error::{MetaError, TransactError};
use crate::ids::NodeId;
use crate::transaction::Transaction;

/// The levels that a build can work with: all from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    min: u32,
    max: u32,
}

impl Levels {
    /// What this build can work with. What an older build would misread comes with a new level; what
    /// a level needs is kept here until no cluster can be below it any more.
    pub const SUPPORTED: Self = Self { min: 1, max: ACKS };
    /// What builds could work with that did not say.
    pub(super) const UNSAID: Self = Self { min: 1, max: 1 };

    /// From `min` to `max`; `None` if there is no level in it. Levels begin at 1.
    #[must_use]
    pub fn new(min: u32, max: u32) -> Option<Self> {
        (1 <= min && min <= max).then_some(Self { min, max })
    }

    /// The lowest.
    #[must_use]
    pub fn min(self) -> u32 {
        self.min
    }

    /// The highest.
    #[must_use]
    pub fn max(self) -> u32 {
        self.max
    }

    /// `level` is one of them.
    #[must_use]
    pub fn contains(self, level: u32) -> bool {
        (self.min..=self.max).contains(&level)
    }
}

/// The first level at which a segment may want more acknowledgements than a majority of its replicas. A
/// build below it takes a majority, and writes the segment's row again without the number.
pub const ACKS: u32 = 2;

/// Whether what came with `level` may be written: it is in use, and stays so.
///
/// # Errors
/// Meta's own.
pub async fn is_in_use(tx: &Transaction, level: u32) -> Result<bool, MetaError> {
    Ok(cluster::get(tx).await?.is_some_and(|cluster| level <= cluster.feature_level))
}

impl Default for Levels {
    fn default() -> Self {
        Self::SUPPORTED
    }
}

/// `2`, or `1 to 3`.
impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            return self.min.fmt(f);
        }
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Why the level isn't raised. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// This build doesn't know the level: take a newer one for this.
    #[error(
        "this build works with feature level {supported}, not {to}: take a later version for it"
    )]
    UnknownHere {
        /// The level asked for.
        to: u32,
        /// The levels of this build.
        supported: Levels,
    },
    /// The level in use is higher.
    #[error("the feature level is {from}, and is never lowered: not to {to} either")]
    Lowers {
        /// The level in use.
        from: u32,
        /// The level asked for.
        to: u32,
    },
    /// Some nodes couldn't go on: start them with a later version first.
    #[error("{}", unready(*.to, .nodes))]
    NotReady {
        /// The level asked for.
        to: u32,
        /// They, and what they can work with.
        nodes: Vec<(NodeId, Levels)>,
    },
    /// There is no cluster, or one of a level that this build doesn't work with.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl From<MetaError> for UpgradeError {
    fn from(error: MetaError) -> Self {
        Self::Cluster(error.into())
    }
}

impl TransactError for UpgradeError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Cluster(error) => error.as_meta(),
            _ => None,
        }
    }
}

/// Nodes that an error names at most.
const MAX_NAMED: usize = 10;

fn unready(to: u32, nodes: &[(NodeId, Levels)]) -> String {
    let named = nodes.iter().take(MAX_NAMED);
    let mut named: Vec<_> =
        named.map(|(node, levels)| format!("node {node} works with {levels}")).collect();
    if let Some(more) = nodes.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        named.push(format!("and so on for {more} more"));
    }
    let named = named.join(", ");
    format!(
        "not every node can work with feature level {to}: {named}; start them with a later version first"
    )
}

/// What raising the level comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The level before.
    pub from: u32,
    /// The level after; the same if there is nothing to raise.
    pub to: u32,
    /// The nodes that it depends on, and what they can work with.
    pub nodes: Vec<(NodeId, Levels)>,
}

/// Raises the level in use to `to` (the highest that is `supported` if `None`), if every node can work
/// with it. Commit `tx` to do so; else it is known what it would come to.
///
/// # Errors
/// See [`UpgradeError`].
pub async fn upgrade(
    tx: &Transaction,
    to: Option<u32>,
    supported: Levels,
) -> Result<Upgrade, UpgradeError> {
    let cluster = cluster::get(tx).await?.ok_or(ClusterError::NoCluster)?;
    cluster.check(supported)?;
    let (from, to) = (cluster.feature_level, to.unwrap_or(supported.max));
    if to < from {
        return Err(UpgradeError::Lowers { from, to });
    }
    if !supported.contains(to) {
        return Err(UpgradeError::UnknownHere { to, supported });
    }
    let nodes = nodes::list(tx).await?;
    let nodes: Vec<_> = nodes
        .into_iter()
        .filter(|(_, node)| node.state != NodeState::Gone)
        .map(|(id, node)| (id, node.levels))
        .collect();
    let unready: Vec<_> =
        nodes.iter().filter(|(_, levels)| !levels.contains(to)).copied().collect();
    if !unready.is_empty() {
        return Err(UpgradeError::NotReady { to, nodes: unready });
    }
    if to > from {
        cluster::put(tx, &Cluster { feature_level: to, ..cluster })?;
    }
    Ok(Upgrade { from, to, nodes })
}

#[cfg(test)]
mod tests;
