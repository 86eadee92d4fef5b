//! Who is to wait for retained publishes that are under way.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A retained publish that is under way.
#[derive(Debug)]
pub(crate) struct GatePass {
    gate: Arc<Gate>,
    round: u64,
}

impl Drop for GatePass {
    fn drop(&mut self) {
        self.gate.leave(self.round);
    }
}

/// Counts retained publishes under way by rounds, so that a subscriber can wait for those that
/// came before it and for no others.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    rounds: Mutex<Rounds>,
    left: Notify,
}

#[derive(Debug, Default)]
struct Rounds {
    first: u64,
    under_way: VecDeque<usize>,
}

impl Gate {
    pub(crate) fn enter(self: &Arc<Self>) -> GatePass {
        let mut rounds = self.rounds.lock();
        if rounds.under_way.is_empty() {
            rounds.under_way.push_back(0);
        }
        let round = rounds.first + rounds.under_way.len() as u64 - 1;
        if let Some(count) = rounds.under_way.back_mut() {
            *count += 1;
        }
        GatePass { gate: self.clone(), round }
    }

    /// Something is under way.
    pub(crate) fn is_under_way(&self) -> bool {
        !self.rounds.lock().under_way.is_empty()
    }

    fn leave(&self, round: u64) {
        let mut rounds = self.rounds.lock();
        let index = usize::try_from(round.saturating_sub(rounds.first)).unwrap_or(usize::MAX);
        if let Some(count) = rounds.under_way.get_mut(index) {
            *count = count.saturating_sub(1);
        }
        while rounds.under_way.front() == Some(&0) {
            rounds.under_way.pop_front();
            rounds.first += 1;
        }
        drop(rounds);
        self.left.notify_waiters();
    }

    /// Closes the present round; `None` if nothing is under way.
    pub(crate) fn close_round(&self) -> Option<u64> {
        let mut rounds = self.rounds.lock();
        // Nobody came since the last one was closed: then they wait for the same.
        if *rounds.under_way.back()? > 0 {
            rounds.under_way.push_back(0);
        }
        Some(rounds.first + rounds.under_way.len() as u64 - 1)
    }

    pub(crate) async fn reached(&self, round: u64) {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if self.rounds.lock().first >= round {
                return;
            }
            left.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_round_ends_with_its_publishes_and_those_before_it() {
        let gate = Arc::<Gate>::default();
        assert_eq!(gate.close_round(), None);
        let (one, two) = (gate.enter(), gate.enter());
        let first = gate.close_round().unwrap();
        // However many ask, while nobody enters they wait for the same.
        assert!((0..100).all(|_| gate.close_round() == Some(first)));
        assert_eq!(gate.rounds.lock().under_way.len(), 2);
        let later = gate.enter();
        let second = gate.close_round().unwrap();
        assert_ne!(first, second);
        drop(one);
        let is_over = |round| gate.rounds.lock().first >= round;
        assert!(!is_over(first));
        drop(two);
        gate.reached(first).await;
        assert!(!is_over(second) && gate.is_under_way());
        drop(later);
        gate.reached(second).await;
        assert!(!gate.is_under_way());
    }
}
