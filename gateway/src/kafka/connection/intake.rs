//! From bytes to requests in the queue.

use std::task::{Context, Poll};

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use tokio::time::Instant;

use super::driver::{Connection, End, FREE_BYTES, TOKEN};
use super::pending::{Pending, Work};
use crate::kafka::budget::Share;
use crate::kafka::frame::{self, RequestHeader};
use crate::kafka::route::{Refusal, Request, Route, Run};

/// The first bytes of a Produce request: its API key.
const PRODUCE: [u8; 2] = [0, 0];
/// No request but Produce has reason to be larger.
const MAX_CONTROL_BYTES: usize = 16 * 1024 * 1024;
/// The largest request before authentication, as Kafka's `sasl.server.max.receive.size`.
const MAX_STRANGER_BYTES: usize = 512 * 1024;

impl Connection {
    /// Cuts requests from what was read.
    pub(super) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while self.takes_more() && !self.is_handshaking() {
            let Some(size) = self.frames.size()? else { break };
            if size > MAX_CONTROL_BYTES && self.frames.peek().len() < 2 {
                break;
            }
            let is_produce = self.frames.peek().starts_with(&PRODUCE);
            let is_trusted = self.principal.is_some() || !self.broker.auth.is_required();
            if size > MAX_CONTROL_BYTES && !is_produce || size > MAX_STRANGER_BYTES && !is_trusted {
                self.broker.metrics.refused_requests.add(1);
                return Err(End::TooLarge(size));
            }
            let is_whole = self.frames.has_next()?;
            if self.share.is_none() && (is_whole || self.frames.needs_share(FREE_BYTES)?) {
                match self.broker.budget.poll_take(size, &mut self.budget, cx) {
                    Poll::Ready(share) => self.share = share,
                    Poll::Pending => break,
                }
                if self.share.is_none() {
                    return Err(End::Closed);
                }
                self.share_since = Instant::now();
                moved = true;
            }
            if !is_whole {
                break;
            }
            let (Some(frame), Some(share)) = (self.frames.next()?, self.share.take()) else {
                break;
            };
            moved = true;
            if let Err(end) = self.take(frame, share) {
                self.broker.metrics.refused_requests.add(1);
                return Err(end);
            }
        }
        Ok(moved)
    }

    /// Queues a request; begins it if it is a Produce that nothing stands before.
    fn take(&mut self, frame: Bytes, share: Share) -> Result<(), End> {
        let bytes = frame.len();
        let read_at = Instant::now();
        if std::mem::take(&mut self.expects_token) {
            self.pendings.push(Pending {
                correlation_id: 0,
                tagged: false,
                api_key: TOKEN,
                is_barrier: true,
                may_wait: false,
                work: Work::Token(frame),
                bytes,
                share,
                read_at,
            });
            return Ok(());
        }
        let (header, body) = frame::parse_header(&frame).map_err(Refusal::from)?;
        self.broker.metrics.request(header.api_key);
        let (api, route) = self.served(&header)?;
        let tagged = api != ApiKey::ApiVersions && api.response_header_version(header.version) > 0;
        let is_produce = matches!(route.run, Run::Produce);
        let (is_barrier, may_wait) = (route.is_barrier, route.may_wait);
        let may_begin = is_produce
            && !self.pendings.has_barrier()
            && !self.running.as_ref().is_some_and(|turn| turn.is_barrier);
        let work = if may_begin {
            self.check_authenticated(route)?;
            let begun = self.broker.data.start_produce(header.version, &body);
            Work::Begun(Box::new(begun.map_err(Refusal::from)?))
        } else {
            Work::Request(Request {
                api,
                version: header.version,
                client_id: header.client_id.unwrap_or_default(),
                body,
                peer: self.peer.clone(),
            })
        };
        self.pendings.push(Pending {
            correlation_id: header.correlation_id,
            tagged,
            api_key: header.api_key,
            is_barrier,
            may_wait,
            work,
            bytes,
            share,
            read_at,
        });
        Ok(())
    }

    fn served(&self, header: &RequestHeader) -> Result<(ApiKey, &Route), End> {
        let refused = || End::NotServed(header.api_key, header.version);
        let api = ApiKey::try_from(header.api_key).map_err(|()| refused())?;
        let route = self.route(header.api_key).ok_or_else(refused)?;
        let versions = frame::served_versions(api).ok_or_else(refused)?;
        // ApiVersions answers an unknown version of itself (KIP-511).
        if versions.contains(&header.version) || api == ApiKey::ApiVersions {
            Ok((api, route))
        } else {
            Err(refused())
        }
    }

    pub(super) fn route(&self, api_key: i16) -> Option<&Route> {
        self.routes.get(usize::try_from(api_key).ok()?)?.as_ref()
    }

    pub(super) fn check_authenticated(&self, route: &Route) -> Result<(), End> {
        let may = route.is_open || self.principal.is_some() || !self.broker.auth.is_required();
        if may { Ok(()) } else { Err(End::NotAuthenticated(route.api)) }
    }

    /// What the next frame is depends on a handshake or token that isn't through yet.
    fn is_handshaking(&self) -> bool {
        let undecided = |key: i16| key == ApiKey::SaslHandshake as i16 || key == TOKEN;
        self.running.as_ref().is_some_and(|turn| undecided(turn.api_key))
            || self.pendings.any(|pending| undecided(pending.api_key))
    }
}
