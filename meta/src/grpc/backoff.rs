//! When a server that can't be reached is tried again.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// The pause after failed attempts, shared by all callers, so that many of them don't try more often
/// than one.
#[derive(Debug, Default)]
pub struct Backoff {
    pause: Mutex<Option<Pause>>,
}

#[derive(Clone, Copy, Debug)]
struct Pause {
    length: Duration,
    until: Instant,
}

impl Backoff {
    /// Waits until the next attempt may be made.
    pub async fn ready(&self) {
        let until = self.pause.lock().map(|pause| pause.until);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Whether the next attempt is to wait.
    pub fn is_pausing(&self) -> bool {
        self.pause.lock().is_some_and(|pause| pause.until > Instant::now())
    }

    /// The server couldn't be reached.
    pub fn failed(&self) {
        let now = Instant::now();
        let mut pause = self.pause.lock();
        let length = match *pause {
            // Another caller's attempt of the same moment: its failure is counted already.
            Some(pause) if pause.until > now => return,
            Some(pause) => (pause.length * 2).min(MAX_PAUSE),
            None => FIRST_PAUSE,
        };
        *pause = Some(Pause { length, until: now + length });
    }

    /// The server answered.
    pub fn worked(&self) {
        *self.pause.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_second_and_end_with_an_answer() {
        let backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            backoff.failed();
            backoff.failed();
            assert!(backoff.is_pausing());
            let began = Instant::now();
            backoff.ready().await;
            assert!(!backoff.is_pausing());
            pauses.push(began.elapsed().as_millis());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        backoff.worked();
        let began = Instant::now();
        backoff.ready().await;
        assert!(began.elapsed().is_zero());
    }
}
