//! Questions to one place share a call: those that come while others are on their way go together
//! next. Nobody waits for a timer.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Questions to one place.
pub struct Gather<Q, A> {
    state: Mutex<Waiting<Q, A>>,
    /// Questions in one call.
    max: usize,
    /// Calls at a time: one that waits for something doesn't hold up all others.
    max_calls: usize,
}

struct Waiting<Q, A> {
    questions: VecDeque<Asked<Q, A>>,
    /// Calls on their way.
    calls: usize,
    /// Questions without an answer, on their way or not.
    unanswered: usize,
}

/// A question and who waits for its answer. Dropped, it has none.
pub type Asked<Q, A> = (Q, oneshot::Sender<A>);

/// A task that makes calls. Ended before it is through, nobody asks what waits.
struct Calling<Q, A>(Option<Arc<Gather<Q, A>>>);

impl<Q, A> Calling<Q, A> {
    fn finish(mut self) {
        self.0 = None;
    }
}

impl<Q, A> Drop for Calling<Q, A> {
    fn drop(&mut self) {
        let Some(gather) = self.0.take() else { return };
        let left = {
            let mut state = gather.state.lock();
            state.calls -= 1;
            state.unanswered -= state.questions.len();
            std::mem::take(&mut state.questions)
        };
        drop(left);
    }
}

impl<Q, A> std::fmt::Debug for Gather<Q, A> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { max, max_calls, .. } = self;
        out.debug_struct("Gather").field("max", max).field("max_calls", max_calls).finish()
    }
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    /// So many questions in a call at most, and so many calls at a time.
    #[must_use]
    pub fn new(max: usize, max_calls: usize) -> Arc<Self> {
        let state = Mutex::new(Waiting { questions: VecDeque::new(), calls: 0, unanswered: 0 });
        Arc::new(Self { state, max, max_calls })
    }

    /// The answer to `question`, which goes with others by `call`: one answer each, in their order.
    /// The calls are made in a task that `spawn` starts. `None`: that task was ended.
    pub async fn ask<F>(
        self: &Arc<Self>,
        spawn: impl FnOnce(BoxFuture<'static, ()>),
        question: Q,
        call: impl Fn(Vec<Q>) -> F + Send + 'static,
    ) -> Option<A>
    where
        F: Future<Output = Vec<A>> + Send,
    {
        let (answered, is_first) = self.enter(question);
        if is_first {
            let this = Arc::clone(self);
            let calling = Calling(Some(Arc::clone(self)));
            let calls = async move {
                while let Some(asked) = this.take() {
                    let (questions, askers): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
                    let answers = call(questions).await;
                    this.state.lock().unanswered -= askers.len();
                    for (asker, answer) in askers.into_iter().zip(answers) {
                        // It may have lost its patience.
                        let _ = asker.send(answer);
                    }
                }
                calling.finish();
            };
            spawn(calls.boxed());
        }
        answered.await.ok()
    }

    /// The same with a call that answers each question in its own time.
    pub async fn ask_each<F>(
        self: &Arc<Self>,
        spawn: impl FnOnce(BoxFuture<'static, ()>),
        question: Q,
        call: impl Fn(Vec<Asked<Q, A>>) -> F + Send + 'static,
    ) -> Option<A>
    where
        F: Future<Output = ()> + Send,
    {
        let (answered, is_first) = self.enter(question);
        if is_first {
            let this = Arc::clone(self);
            let calling = Calling(Some(Arc::clone(self)));
            let calls = async move {
                while let Some(asked) = this.take() {
                    let count = asked.len();
                    call(asked).await;
                    this.state.lock().unanswered -= count;
                }
                calling.finish();
            };
            spawn(calls.boxed());
        }
        answered.await.ok()
    }

    /// Puts a question behind the others, and says whether there is room for another call.
    fn enter(&self, question: Q) -> (oneshot::Receiver<A>, bool) {
        let (asker, answered) = oneshot::channel();
        let mut state = self.state.lock();
        state.questions.push_back((question, asker));
        state.unanswered += 1;
        let has_room = state.calls < self.max_calls;
        state.calls += usize::from(has_room);
        (answered, has_room)
    }

    /// What goes next; `None` ends the call.
    fn take(&self) -> Option<Vec<Asked<Q, A>>> {
        let mut state = self.state.lock();
        let waiting = state.questions.len();
        // Those whose askers are gone need no answer.
        state.questions.retain(|(_, asker)| !asker.is_closed());
        state.unanswered -= waiting - state.questions.len();
        if state.questions.is_empty() {
            state.calls -= 1;
            return None;
        }
        let count = state.questions.len().min(self.max);
        Some(state.questions.drain(..count).collect())
    }

    /// Questions without an answer.
    pub fn unanswered(&self) -> usize {
        self.state.lock().unanswered
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    fn spawn(calls: BoxFuture<'static, ()>) {
        tokio::spawn(calls);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_while_calls_are_on_their_way_goes_together() {
        let gather = Gather::new(100, 2);
        let (gate, calls) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let ask = |question: usize| {
            let (gate, calls) = (Arc::clone(&gate), Arc::clone(&calls));
            let call = move |questions: Vec<usize>| {
                let (gate, calls) = (Arc::clone(&gate), Arc::clone(&calls));
                async move {
                    calls.fetch_add(1, Ordering::Relaxed);
                    gate.acquire().await.unwrap().forget();
                    questions.into_iter().map(|question| question * 2).collect()
                }
            };
            let gather = Arc::clone(&gather);
            tokio::spawn(async move { gather.ask(spawn, question, call).await })
        };
        let mut first = Vec::new();
        for question in 0..2 {
            first.push(ask(question));
            while calls.load(Ordering::Relaxed) <= question {
                tokio::task::yield_now().await;
            }
        }
        let later: Vec<_> = (2..252).map(&ask).collect();
        while gather.unanswered() < 252 {
            tokio::task::yield_now().await;
        }
        assert_eq!(calls.load(Ordering::Relaxed), 2, "no more than that at a time");
        gate.add_permits(100);
        for (question, answer) in
            join_all(first.into_iter().chain(later)).await.into_iter().enumerate()
        {
            assert_eq!(answer.unwrap(), Some(question * 2));
        }
        assert_eq!(calls.load(Ordering::Relaxed), 5, "100, 100 and 50 behind the first two");
        assert_eq!(gather.unanswered(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_come_in_their_own_time_and_who_left_is_not_asked_for() {
        let gather = Gather::new(100, 1);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ask = |question: u32| {
            let asked = Arc::clone(&asked);
            let call = move |questions: Vec<Asked<u32, u32>>| {
                let asked = Arc::clone(&asked);
                async move {
                    asked.lock().extend(questions.iter().map(|(question, _)| *question));
                    for (question, asker) in questions {
                        if question == 13 {
                            // It is never answered; nobody waits for it any more at last.
                            let mut asker: oneshot::Sender<u32> = asker;
                            asker.closed().await;
                        } else {
                            let _ = asker.send(question);
                        }
                    }
                }
            };
            let gather = Arc::clone(&gather);
            tokio::spawn(async move { gather.ask_each(spawn, question, call).await })
        };
        let stuck = ask(13);
        while asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let (left, stays) = (ask(1), ask(2));
        while gather.unanswered() < 3 {
            tokio::task::yield_now().await;
        }
        left.abort();
        assert!(left.await.unwrap_err().is_cancelled());
        stuck.abort();
        assert_eq!(stays.await.unwrap(), Some(2));
        assert_eq!(*asked.lock(), [13, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_call_that_is_ended_has_no_answer() {
        let gather: Arc<Gather<u32, u32>> = Gather::new(1, 1);
        let calling = Arc::new(Mutex::new(None));
        let ask = |question| {
            let (gather, calling) = (Arc::clone(&gather), Arc::clone(&calling));
            let spawn = move |calls| *calling.lock() = Some(tokio::spawn(calls).abort_handle());
            tokio::spawn(async move {
                gather.ask(spawn, question, |_| std::future::pending::<Vec<u32>>()).await
            })
        };
        let first = ask(1);
        while calling.lock().is_none() {
            tokio::task::yield_now().await;
        }
        let second = ask(2);
        while gather.unanswered() < 2 {
            tokio::task::yield_now().await;
        }
        calling.lock().take().expect("it is on its way").abort();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (None, None));
        // Never begun, as in a store that has stopped.
        assert_eq!(gather.ask(drop, 3, |_| std::future::pending::<Vec<u32>>()).await, None);
    }
}
