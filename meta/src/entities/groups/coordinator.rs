//! Who coordinates a group: `("group", tenant, group, "owner")`.
//!
//! ```text
//!   claim: epoch + 1, my node and life ──► every write of the group: hold, or fail ──► claimed by another
//! ```
//!
//! Whoever claims a group reads what it says in the same transaction. A write that *holds* the group
//! is in conflict with a claim, so it comes before the claim, and the claimer sees it, or it fails.

use bytes::Bytes;
use interflow_proto::meta as proto;

use crate::entities::codec::{corrupt, decode, encode};
use crate::error::{MetaError, TransactError};
use crate::ids::NodeId;
use crate::transaction::Transaction;

/// One life of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// The node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: u64,
}

/// Who coordinates a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinator {
    /// Rises with each claim, from 1; begins anew when the group is deleted, so it says something
    /// only together with the life.
    pub epoch: u32,
    /// Who claimed it.
    pub life: Life,
}

/// Why a group was not written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Another has claimed the group, or it was deleted: forget what is known of it. Nothing was
    /// written.
    #[error("the group has another coordinator")]
    Superseded,
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl TransactError for GroupError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Superseded => None,
            Self::Meta(error) => Some(error),
        }
    }
}

impl Coordinator {
    fn encode(self) -> Bytes {
        encode(&proto::GroupCoordinator {
            epoch: self.epoch,
            node: self.life.node.0,
            incarnation: self.life.incarnation,
        })
    }

    pub(in crate::entities) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::GroupCoordinator = decode(value, "group coordinator")?;
        let life = Life { node: NodeId(message.node), incarnation: message.incarnation };
        Ok(Self { epoch: message.epoch, life })
    }
}

fn key(tx: &Transaction, tenant: &str, group: &str) -> Vec<u8> {
    tx.root().pack(&("group", tenant, group, "owner"))
}

/// Who has claimed the group last; `None` if nobody has since it is there.
///
/// # Errors
/// Meta's own.
pub async fn coordinator(
    tx: &Transaction,
    tenant: &str,
    group: &str,
) -> Result<Option<Coordinator>, MetaError> {
    tx.get(&key(tx, tenant, group)).await?.map(Coordinator::decode).transpose()
}

/// Makes `life` the group's coordinator, with an epoch above all before it and above `epoch`, the
/// one that the group's metadata was written in. Writes nothing if it is that already, unless it
/// `renews` its claim: after that, what it has written before in transactions of unknown outcome is
/// made or never will be.
///
/// # Errors
/// Meta's own; [`MetaError::Corrupt`] when the epochs are used up.
pub async fn claim(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    life: Life,
    epoch: u32,
    renews: bool,
) -> Result<Coordinator, MetaError> {
    let before = coordinator(tx, tenant, group).await?;
    if let Some(before) = before.filter(|before| before.life == life && !renews) {
        return Ok(before);
    }
    let last = before.map_or(0, |before| before.epoch).max(epoch);
    let epoch = last.checked_add(1).ok_or_else(|| corrupt("group", "its epochs are used up"))?;
    let claimed = Coordinator { epoch, life };
    tx.set(key(tx, tenant, group), claimed.encode())?;
    Ok(claimed)
}

/// Makes sure that what this transaction writes of the group is written by its coordinator: `held`
/// as it was claimed or held before; `None` for a group of which nothing was stored, which `life`
/// then claims here. Returns what is to be held from now on.
///
/// After an attempt whose answer was lost it writes what it reads: should that attempt still be under
/// way it is in conflict with this one, and can't be made behind later writes.
///
/// # Errors
/// [`GroupError::Superseded`]; meta's own.
pub async fn hold(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    life: Life,
    held: Option<Coordinator>,
) -> Result<Coordinator, GroupError> {
    let now = match (coordinator(tx, tenant, group).await?, held) {
        (Some(now), Some(held)) if now == held => now,
        // An earlier attempt of this transaction may have been committed.
        (Some(now), None) if now.life == life => now,
        (None, None) => return Ok(claim(tx, tenant, group, life, 0, false).await?),
        _ => return Err(GroupError::Superseded),
    };
    if tx.is_maybe_committed() {
        tx.set(key(tx, tenant, group), now.encode())?;
    }
    Ok(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entities::groups;
    use crate::testing::TestBed;

    fn life(node: u32, incarnation: u64) -> Life {
        Life { node: NodeId(node), incarnation }
    }

    async fn held(bed: &TestBed, life: Life, held: Option<Coordinator>) -> Result<(), GroupError> {
        bed.meta
            .transact(|tx| async move {
                hold(&tx, "", "g", life, held).await?;
                Ok(tx.set(b"written".to_vec(), life.incarnation.to_le_bytes().to_vec())?)
            })
            .await
    }

    async fn claimed(bed: &TestBed, life: Life, epoch: u32) -> Coordinator {
        let claim = |tx| async move { claim(&tx, "", "g", life, epoch, false).await };
        bed.meta.transact(claim).await.unwrap()
    }

    #[tokio::test]
    async fn each_claim_has_its_epoch_and_ends_the_one_before() {
        let bed = TestBed::new();
        let first = claimed(&bed, life(1, 1), 0).await;
        assert_eq!(first, Coordinator { epoch: 1, life: life(1, 1) });
        assert_eq!(claimed(&bed, life(1, 1), 0).await, first);
        assert_eq!(held(&bed, life(1, 1), Some(first)).await, Ok(()));
        // The next life of the same node is another coordinator.
        let second = claimed(&bed, life(1, 2), 0).await;
        assert_eq!(second.epoch, 2);
        assert_eq!(held(&bed, life(1, 1), Some(first)).await, Err(GroupError::Superseded));
        assert_eq!(held(&bed, life(1, 2), Some(second)).await, Ok(()));
        // So is one that comes back.
        let third = claimed(&bed, life(1, 1), 0).await;
        assert_eq!(third.epoch, 3);
        assert_eq!(held(&bed, life(1, 1), Some(first)).await, Err(GroupError::Superseded));
        assert_eq!(claimed(&bed, life(2, 1), 9).await.epoch, 10);
    }

    #[tokio::test]
    async fn a_renewed_claim_ends_what_is_still_under_way() {
        let bed = TestBed::new();
        let first = claimed(&bed, life(1, 1), 0).await;
        let late = bed.meta.begin();
        hold(&late, "", "g", life(1, 1), Some(first)).await.unwrap();
        late.set(b"written".to_vec(), Bytes::new()).unwrap();
        let renew = |tx| async move { claim(&tx, "", "g", life(1, 1), 0, true).await };
        let renewed: Coordinator = bed.meta.transact(renew).await.unwrap();
        assert_eq!(renewed, Coordinator { epoch: 2, life: life(1, 1) });
        assert_eq!(late.commit().await.err(), Some(MetaError::Conflict));
        assert_eq!(held(&bed, life(1, 1), Some(first)).await, Err(GroupError::Superseded));
    }

    #[tokio::test]
    async fn a_new_group_is_claimed_by_its_first_write() {
        let bed = TestBed::new();
        assert_eq!(held(&bed, life(1, 1), None).await, Ok(()));
        let now = coordinator(&bed.meta.begin(), "", "g").await.unwrap();
        assert_eq!(now, Some(Coordinator { epoch: 1, life: life(1, 1) }));
        // The same attempt once more; and another who found nothing stored either.
        assert_eq!(held(&bed, life(1, 1), None).await, Ok(()));
        assert_eq!(held(&bed, life(2, 1), None).await, Err(GroupError::Superseded));
    }

    #[tokio::test]
    async fn who_held_a_group_that_was_deleted_is_superseded() {
        let bed = TestBed::new();
        let first = claimed(&bed, life(1, 1), 0).await;
        bed.meta.transact(|tx| async move { groups::delete(&tx, "", "g") }).await.unwrap();
        assert_eq!(held(&bed, life(1, 1), Some(first)).await, Err(GroupError::Superseded));
        assert_eq!(groups::list(&bed.meta.begin(), "", None, 9).await.unwrap(), [""; 0]);
    }

    /// A write and a claim that don't see each other: one of them doesn't get through.
    #[tokio::test]
    async fn a_write_under_way_and_a_claim_are_in_conflict() {
        let bed = TestBed::new();
        let first = claimed(&bed, life(1, 1), 0).await;
        let (write, taking) = (bed.meta.begin(), bed.meta.begin());
        hold(&write, "", "g", life(1, 1), Some(first)).await.unwrap();
        write.set(b"written".to_vec(), Bytes::new()).unwrap();
        claim(&taking, "", "g", life(2, 1), 0, false).await.unwrap();
        taking.commit().await.unwrap();
        assert_eq!(write.commit().await.err(), Some(MetaError::Conflict));
        // Writes of one coordinator are in none.
        let (one, other) = (bed.meta.begin(), bed.meta.begin());
        for (tx, key) in [(&one, "one"), (&other, "other")] {
            let second = coordinator(tx, "", "g").await.unwrap();
            hold(tx, "", "g", life(2, 1), second).await.unwrap();
            tx.set(key, Bytes::new()).unwrap();
        }
        one.commit().await.unwrap();
        other.commit().await.unwrap();
    }

    #[test]
    fn epochs_do_not_wrap() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bed = TestBed::new();
            let refused = claim(&bed.meta.begin(), "", "g", life(1, 1), u32::MAX, false).await;
            assert!(matches!(refused, Err(MetaError::Corrupt(_))), "{refused:?}");
        });
    }

    proptest! {
        #[test]
        fn a_coordinator_comes_back_as_it_was(epoch: u32, node: u32, incarnation: u64) {
            let value = Coordinator { epoch, life: life(node, incarnation) };
            prop_assert_eq!(Coordinator::decode(value.encode()).unwrap(), value);
        }
    }
}
