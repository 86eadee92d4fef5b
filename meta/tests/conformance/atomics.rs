//! Atomic operations, byte for byte.
//!
//! Numbers are little-endian and as wide as the operand: a longer value is cut, a shorter one padded
//! with zeros.

use std::sync::Arc;

use interflow_meta::AtomicOp::{
    self, Add, And, AppendIfFits, ByteMax, ByteMin, CompareAndClear, Max, Min, Or, Xor,
};
use interflow_meta::MAX_VALUE_BYTES;

use super::Bed;

/// The value before, the operand, the value after; `None` is no value.
type Case<'a> = (AtomicOp, Option<&'a [u8]>, &'a [u8], Option<&'a [u8]>);

/// Each case as it is read in its own transaction, and as it is stored.
async fn check(bed: &Bed, cases: &[Case<'_>]) {
    let key = &bed.key("k");
    for (op, old, operand, expected) in cases {
        bed.meta
            .transact(|tx| async move {
                match old {
                    Some(old) => tx.set(key.clone(), old.to_vec()),
                    None => tx.clear(key.clone()),
                }
            })
            .await
            .unwrap();
        let tx = bed.meta.begin();
        tx.atomic(*op, key.clone(), operand.to_vec()).unwrap();
        let own = tx.get(key).await.unwrap();
        tx.commit().await.unwrap();
        let stored = bed.value("k").await;
        assert_eq!(own.as_deref(), *expected, "own {op:?} {old:?} {operand:?}");
        assert_eq!(stored.as_deref(), *expected, "stored {op:?} {old:?} {operand:?}");
    }
}

/// C API, `FDB_MUTATION_TYPE_ADD`.
pub(super) async fn add_is_little_endian_and_as_wide_as_its_operand(bed: Arc<Bed>) {
    let cases: &[Case<'_>] = &[
        (Add, None, &[5, 0], Some(&[5, 0])),
        (Add, Some(&[]), &[5, 0], Some(&[5, 0])),
        (Add, Some(&[1, 0]), &[2, 3], Some(&[3, 3])),
        (Add, Some(&[255, 0]), &[1, 0], Some(&[0, 1])),
        (Add, Some(&[255, 255]), &[1, 0], Some(&[0, 0])),
        (Add, Some(&[255, 255, 255]), &[255, 255, 255], Some(&[254, 255, 255])),
        (Add, Some(&[1]), &[1, 1], Some(&[2, 1])),
        (Add, Some(&[255]), &[1, 1], Some(&[0, 2])),
        (Add, Some(&[1, 2, 3]), &[1, 1], Some(&[2, 3])),
        (Add, Some(&[1]), &[], Some(&[])),
        (Add, Some(&7_u64.to_le_bytes()), &u64::MAX.to_le_bytes(), Some(&6_u64.to_le_bytes())),
    ];
    check(&bed, cases).await;
}

/// C API, `FDB_MUTATION_TYPE_MAX`, `FDB_MUTATION_TYPE_MIN`; a missing value is not zero to a minimum.
pub(super) async fn max_and_min_compare_little_endian_numbers(bed: Arc<Bed>) {
    let cases: &[Case<'_>] = &[
        (Max, None, &[3], Some(&[3])),
        (Max, Some(&[]), &[3, 0], Some(&[3, 0])),
        (Max, Some(&[0, 1]), &[255, 0], Some(&[0, 1])),
        (Max, Some(&[255, 0]), &[0, 1], Some(&[0, 1])),
        (Max, Some(&[9]), &[1, 1], Some(&[1, 1])),
        (Max, Some(&[9]), &[1, 0], Some(&[9, 0])),
        (Max, Some(&[0, 0, 9]), &[1, 0], Some(&[1, 0])),
        (Max, Some(&[1]), &[], Some(&[])),
        (Min, None, &[3], Some(&[3])),
        (Min, Some(&[]), &[3, 1], Some(&[0, 0])),
        (Min, Some(&[0, 1]), &[255, 0], Some(&[255, 0])),
        (Min, Some(&[255, 0]), &[0, 1], Some(&[255, 0])),
        (Min, Some(&[4]), &[1, 1], Some(&[4, 0])),
        (Min, Some(&[4]), &[1, 0], Some(&[1, 0])),
        (Min, Some(&[0, 0, 9]), &[1, 0], Some(&[0, 0])),
        (Min, Some(&[1]), &[], Some(&[])),
    ];
    check(&bed, cases).await;
}

/// C API, `FDB_MUTATION_TYPE_BYTE_MAX`, `FDB_MUTATION_TYPE_BYTE_MIN`: lengths stay.
pub(super) async fn byte_max_and_byte_min_compare_bytes_in_order(bed: Arc<Bed>) {
    let cases: &[Case<'_>] = &[
        (ByteMax, None, &[3], Some(&[3])),
        (ByteMax, Some(&[]), &[], Some(&[])),
        (ByteMax, Some(&[1, 9]), &[2], Some(&[2])),
        (ByteMax, Some(&[2, 0]), &[2], Some(&[2, 0])),
        (ByteMax, Some(&[2]), &[2, 0], Some(&[2, 0])),
        (ByteMin, None, &[3], Some(&[3])),
        (ByteMin, Some(&[]), &[3], Some(&[])),
        (ByteMin, Some(&[1, 9]), &[2], Some(&[1, 9])),
        (ByteMin, Some(&[2, 0]), &[2], Some(&[2])),
        (ByteMin, Some(&[2]), &[2, 0], Some(&[2])),
    ];
    check(&bed, cases).await;
}

/// C API, `FDB_MUTATION_TYPE_BIT_AND`, `…_BIT_OR`, `…_BIT_XOR`; a missing value is not zero to an
/// and.
pub(super) async fn and_or_xor_are_as_wide_as_their_operand(bed: Arc<Bed>) {
    let cases: &[Case<'_>] = &[
        (And, None, &[6], Some(&[6])),
        (And, Some(&[]), &[6, 6], Some(&[0, 0])),
        (And, Some(&[3]), &[6, 6], Some(&[2, 0])),
        (And, Some(&[3, 3, 3]), &[6, 6], Some(&[2, 2])),
        (Or, None, &[6], Some(&[6])),
        (Or, Some(&[1]), &[6, 6], Some(&[7, 6])),
        (Or, Some(&[1, 1, 1]), &[6, 6], Some(&[7, 7])),
        (Xor, None, &[6], Some(&[6])),
        (Xor, Some(&[7]), &[6, 6], Some(&[1, 6])),
        (Xor, Some(&[7, 7, 7]), &[6, 6], Some(&[1, 1])),
        (Xor, Some(&[7]), &[], Some(&[])),
    ];
    check(&bed, cases).await;
}

/// C API, `FDB_MUTATION_TYPE_COMPARE_AND_CLEAR`.
pub(super) async fn compare_and_clear_compares_the_whole_value(bed: Arc<Bed>) {
    let cases: &[Case<'_>] = &[
        (CompareAndClear, None, &[1], None),
        (CompareAndClear, None, &[], None),
        (CompareAndClear, Some(&[]), &[], None),
        (CompareAndClear, Some(&[1]), &[1], None),
        (CompareAndClear, Some(&[1, 0]), &[1], Some(&[1, 0])),
        (CompareAndClear, Some(&[1]), &[1, 0], Some(&[1])),
    ];
    check(&bed, cases).await;
}

/// C API, `FDB_MUTATION_TYPE_APPEND_IF_FITS`: what would grow above the limit of values stays.
pub(super) async fn append_if_fits_appends_up_to_the_limit_of_values(bed: Arc<Bed>) {
    let almost = vec![7; MAX_VALUE_BYTES - 1];
    let full = [&almost[..], &[1]].concat();
    let cases: &[Case<'_>] = &[
        (AppendIfFits, None, &[1, 2], Some(&[1, 2])),
        (AppendIfFits, Some(&[]), &[1], Some(&[1])),
        (AppendIfFits, Some(&[1]), &[], Some(&[1])),
        (AppendIfFits, Some(&[1]), &[2, 3], Some(&[1, 2, 3])),
        (AppendIfFits, Some(&almost), &[1], Some(&full)),
        (AppendIfFits, Some(&almost), &[1, 2], Some(&almost)),
    ];
    check(&bed, cases).await;
}

/// Developer guide, “Transactions in FoundationDB”: mutations take effect in their order.
pub(super) async fn later_writes_of_a_transaction_win(bed: Arc<Bed>) {
    bed.fill(&["a", "b", "c"]).await;
    let tx = bed.meta.begin();
    tx.set(bed.key("a"), "1").unwrap();
    tx.set(bed.key("a"), "2").unwrap();
    tx.clear(bed.key("b")).unwrap();
    tx.set(bed.key("b"), "3").unwrap();
    tx.set(bed.key("c"), "4").unwrap();
    tx.clear_range(bed.range("c", "d")).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bed.value("a").await.unwrap(), b"2");
    assert_eq!(bed.value("b").await.unwrap(), b"3");
    assert_eq!(bed.value("c").await, None);
}

/// C API, `fdb_transaction_atomic_op`: operations on one key take effect one behind the other.
pub(super) async fn atomics_see_the_writes_before_them(bed: Arc<Bed>) {
    let key = || bed.key("k");
    bed.set("k", "zzzz").await;
    let tx = bed.meta.begin();
    tx.clear(key()).unwrap();
    tx.atomic(Add, key(), vec![250, 0]).unwrap();
    tx.atomic(Add, key(), vec![10, 0]).unwrap();
    tx.atomic(Xor, key(), vec![1, 0, 1]).unwrap();
    tx.atomic(AppendIfFits, key(), vec![9]).unwrap();
    assert_eq!(tx.get(&key()).await.unwrap().unwrap()[..], [5, 1, 1, 9]);
    tx.atomic(CompareAndClear, bed.key("other"), vec![1]).unwrap();
    tx.set(bed.key("gone"), vec![1]).unwrap();
    tx.atomic(CompareAndClear, bed.key("gone"), vec![1]).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bed.value("k").await.unwrap(), [5, 1, 1, 9]);
    assert_eq!(bed.value("gone").await, None);
}
