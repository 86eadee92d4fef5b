//! Answers a Fetch: gathers, waits for news, gathers again, and tells.

use std::sync::Arc;

use kafka_protocol::messages::ApiKey;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ahead::read_ahead;
use super::gather::{Entry, Gathering};
use super::request::{FetchRequest, read};
use super::response::{Answered, encode, encode_error};
use super::session::{Service, Session};
use crate::kafka::data::{Body, DataPlane};
use crate::kafka::frame::{FrameError, check};

impl DataPlane {
    /// Checks and answers a Fetch request: at once if there are `min_bytes` over all partitions, or
    /// an error; else when there are, or after `max_wait` (K7). Dropping the future ends the request, and with it a session that it used.
    ///
    /// # Errors
    /// [`FrameError`]: the request can't be read; close the connection.
    pub async fn fetch(&self, version: i16, body: &[u8]) -> Result<Body, FrameError> {
        check(ApiKey::Fetch, version, body)?;
        let mut request = read(version, body, self.topics())?;
        let service = match self.sessions().serve(&mut request) {
            Ok(service) => service,
            Err(error) => return Ok(encode_error(version, error.code())),
        };
        Ok(match service {
            Service::Full(mut session) => {
                self.gather(&request, &mut session).await;
                answer(version, 0, &request, &mut session, |_| true)
            }
            Service::First(mut session) => {
                self.gather(&request, &mut session).await;
                match self.sessions().begin(session) {
                    Ok(mut lent) => {
                        let id = lent.id();
                        let body = answer(version, id, &request, lent.session(), |_| true);
                        lent.give_back();
                        body
                    }
                    Err(mut session) => answer(version, 0, &request, &mut session, |_| true),
                }
            }
            Service::Incremental(mut lent) => {
                self.gather(&request, lent.session()).await;
                let id = lent.id();
                let body = answer(version, id, &request, lent.session(), Entry::is_news);
                lent.give_back();
                body
            }
        })
    }

    async fn gather(&self, request: &FetchRequest, session: &mut Session) {
        let deadline = Instant::now() + request.max_wait;
        let mut gathering = Gathering {
            read_committed: request.read_committed,
            max_bytes: request.max_bytes.min(self.limits().fetch_max_bytes),
            bytes: 0,
            last_read: 0,
            has_error: false,
        };
        let min_bytes = request.min_bytes.min(gathering.max_bytes);
        session.entries.iter_mut().for_each(Entry::begin);
        let mut waiting: Option<Waiting> = None;
        loop {
            let count = session.entries.len();
            let begin = session.begin.checked_rem(count).unwrap_or(0);
            let mut last_with_data = None;
            for at in (begin..count).chain(0..begin) {
                read_ahead(self, &gathering, &mut session.entries, at).await;
                let Some(entry) = session.entries.get_mut(at) else { continue };
                let before = gathering.bytes;
                entry.gather(self, &mut gathering).await;
                if gathering.bytes > before {
                    last_with_data = Some(at);
                }
            }
            if let Some(at) = last_with_data {
                session.begin = at + 1;
            }
            // Of no partition there is no news to wait for: a consumer that only ends its session.
            let is_enough = gathering.bytes >= min_bytes || gathering.has_error || count == 0;
            if is_enough || Instant::now() >= deadline {
                break;
            }
            let waiting = waiting.get_or_insert_with(Waiting::default);
            if !waiting.wait(&session.entries, deadline).await {
                break;
            }
        }
    }
}

/// The response of what was gathered, and what it tells noted.
fn answer(
    version: i16,
    session_id: i32,
    request: &FetchRequest,
    session: &mut Session,
    is_told: impl Fn(&Entry) -> bool,
) -> Body {
    let told: Vec<Answered<'_>> = session
        .entries
        .iter()
        .filter(|entry| is_told(entry))
        .map(|entry| (&entry.wanted.topic, entry.wanted.partition, &entry.answer))
        .collect();
    let body = encode(version, 0, session_id, request.read_committed, &told);
    session.entries.iter_mut().for_each(Entry::end);
    body
}

/// The one thing that a request waits by, whatever the number of its partitions.
#[derive(Debug, Default)]
struct Waiting(Arc<Notify>);

impl Waiting {
    /// Waits for news of any partition; `false` when the time is up.
    async fn wait(&self, entries: &[Entry], deadline: Instant) -> bool {
        let registered = Registered { waiter: &self.0, entries };
        for entry in entries {
            if !entry.wait(&self.0) {
                return true;
            }
        }
        let woken = tokio::time::timeout_at(deadline, self.0.notified()).await.is_ok();
        drop(registered);
        woken
    }
}

/// Takes the waiter back from every feed, also when the request is dropped.
struct Registered<'a> {
    waiter: &'a Arc<Notify>,
    entries: &'a [Entry],
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for entry in self.entries {
            entry.forget(self.waiter);
        }
    }
}
