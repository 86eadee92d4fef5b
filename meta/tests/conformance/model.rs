//! A store against a model, in a repeatable order.

use std::sync::Arc;

use interflow_meta::{MetaError, Transaction};

use super::Bed;
use super::steps::{Map, Seed, Seen, Step, contents};

/// Makes `steps` on both; reads must agree.
async fn run_both(bed: &Bed, steps: &[Step], tx: &Transaction, model: &mut Map) {
    for step in steps {
        assert_eq!(step.run(bed, tx).await.unwrap(), step.apply(model), "{step:?}");
    }
}

/// What `steps` read, each on what those before it made of `model`.
fn replay(steps: &[Step], model: &mut Map) -> Vec<Seen> {
    steps.iter().map(|step| step.apply(model)).collect()
}

/// Developer guide, “Transactions in FoundationDB”: a store is an ordered map, and a transaction is
/// made whole or not at all.
pub(super) async fn transactions_one_after_the_other_do_what_the_model_does(bed: Arc<Bed>) {
    for mut seed in Seed::several(100) {
        bed.clear().await;
        let mut model = Map::new();
        for _ in 0..seed.steps(8).len() {
            let steps = seed.steps(12);
            let tx = bed.meta.begin();
            let mut mine = model.clone();
            run_both(&bed, &steps, &tx, &mut mine).await;
            if rand::RngExt::random(&mut seed.random) {
                tx.commit().await.unwrap();
                model = mine;
            }
            assert_eq!(contents(&bed).await, model);
        }
    }
}

/// Consistency, “Serializability”: if both of two interleaved transactions commit, all that they
/// read and wrote is as if the first had ended before the second began.
pub(super) async fn two_interleaved_transactions_are_serializable(bed: Arc<Bed>) {
    let (mut both, mut refused) = (0, 0);
    for mut seed in Seed::several(150) {
        bed.clear().await;
        let mut start = Map::new();
        let tx = bed.meta.begin();
        run_both(&bed, &seed.steps(6), &tx, &mut start).await;
        tx.commit().await.unwrap();

        let (a, b) = (seed.steps(6), seed.steps(6));
        let (first, second) = (bed.begun().await, bed.begun().await);
        let (mut after_first, mut alone) = (start.clone(), start.clone());
        run_both(&bed, &a, &first, &mut after_first).await;
        run_both(&bed, &b, &second, &mut alone).await;
        first.commit().await.unwrap();
        assert_eq!(contents(&bed).await, after_first);
        let ended = second.commit().await;
        // Without writes it belongs where its reads are: before the first.
        if !b.iter().any(Step::is_write) {
            ended.unwrap();
            continue;
        }
        match ended {
            Ok(_) => {
                let before = replay(&b, &mut start);
                assert_eq!(replay(&b, &mut after_first), before, "its reads are out of date");
                both += 1;
            }
            Err(error) => {
                assert_eq!(error, MetaError::Conflict);
                refused += 1;
            }
        }
        assert_eq!(contents(&bed).await, after_first);
    }
    if std::env::var_os("INTERFLOW_TEST_SEED").is_none() {
        assert!(both > 20 && refused > 20, "{both} pairs got through, {refused} did not");
    }
}
