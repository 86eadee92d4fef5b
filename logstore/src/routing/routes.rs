//! Where logs are, and the appends that wait until that is known. In a log they wait in the order
//! of the calls, and nothing overtakes them.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use interflow_meta::LogId;
use parking_lot::Mutex;

use super::directory::RouteError;
use crate::ticket::DeferredReply;
use crate::{Append, AppendError, AppendTicket, LogClient};

/// Routes that are remembered; beyond it all are forgotten but those that are looked for.
const MAX_ROUTES: usize = 1 << 20;

enum Route {
    Known(Arc<dyn LogClient>),
    /// Somebody looks for it.
    Looking(VecDeque<(Append, DeferredReply)>),
}

#[derive(Default)]
struct State {
    routes: HashMap<LogId, Route, foldhash::fast::RandomState>,
    waiting_bytes: usize,
}

/// See the module.
pub(super) struct Routes {
    state: Mutex<State>,
    max_waiting_bytes: usize,
}

/// What became of an append.
pub(super) enum Offered {
    /// It was sent, refused, or waits for a route that somebody looks for.
    Done(AppendTicket),
    /// It waits for a route that is to be looked for.
    Look(AppendTicket),
}

fn weight(append: &Append) -> usize {
    append.batch.len() + size_of::<Append>()
}

impl Routes {
    pub(super) fn new(max_waiting_bytes: usize) -> Self {
        Self { state: Mutex::default(), max_waiting_bytes }
    }

    pub(super) fn offer(&self, append: Append) -> Offered {
        let mut state = self.state.lock();
        let State { routes, waiting_bytes } = &mut *state;
        let log = append.log;
        if let Some(Route::Known(client)) = routes.get(&log) {
            let client = Arc::clone(client);
            drop(state);
            return Offered::Done(client.append(append));
        }
        let bytes = weight(&append);
        if waiting_bytes.saturating_add(bytes) > self.max_waiting_bytes {
            return Offered::Done(AppendTicket::ready(Err(AppendError::Busy)));
        }
        *waiting_bytes += bytes;
        let (reply, ticket) = AppendTicket::deferred();
        if let Some(Route::Looking(waiting)) = routes.get_mut(&log) {
            waiting.push_back((append, reply));
            return Offered::Done(ticket);
        }
        routes.insert(log, Route::Looking(VecDeque::from([(append, reply)])));
        Offered::Look(ticket)
    }

    /// The route of a log was looked for: those that wait are sent there, or told why not.
    pub(super) fn found(&self, log: LogId, found: Result<Arc<dyn LogClient>, RouteError>) {
        let mut state = self.state.lock();
        let Some(Route::Looking(waiting)) = state.routes.remove(&log) else { return };
        for (append, _) in &waiting {
            state.waiting_bytes -= weight(append);
        }
        match found {
            // Under the lock, so that none overtakes them.
            Ok(client) => {
                for (append, reply) in waiting {
                    reply.send(client.append(append));
                }
                state.keep(log, client);
            }
            Err(error) => {
                drop(state);
                for (_, reply) in waiting {
                    reply.send(AppendTicket::ready(Err(error.clone().into())));
                }
            }
        }
    }

    pub(super) fn client(&self, log: LogId) -> Option<Arc<dyn LogClient>> {
        match self.state.lock().routes.get(&log) {
            Some(Route::Known(client)) => Some(Arc::clone(client)),
            _ => None,
        }
    }

    /// A route that was found for a call.
    pub(super) fn remember(&self, log: LogId, client: Arc<dyn LogClient>) {
        let mut state = self.state.lock();
        // Those who look for it see to what waits.
        if !matches!(state.routes.get(&log), Some(Route::Looking(_))) {
            state.keep(log, client);
        }
    }

    /// The log may be elsewhere.
    pub(super) fn forget(&self, log: LogId) {
        let mut state = self.state.lock();
        if matches!(state.routes.get(&log), Some(Route::Known(_))) {
            state.routes.remove(&log);
        }
    }
}

impl State {
    fn keep(&mut self, log: LogId, client: Arc<dyn LogClient>) {
        if self.routes.len() >= MAX_ROUTES {
            self.routes.retain(|_, route| matches!(route, Route::Looking(_)));
        }
        self.routes.insert(log, Route::Known(client));
    }
}
