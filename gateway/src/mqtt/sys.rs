//! `$SYS/broker/…`: what tools ask a broker about itself. Made while somebody subscribes to it, and
//! never written to the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::broker::Broker;
use super::codec::{PublishProperties, QoS};
use super::deliver::{Message, Variants};
use super::routes::Route;
use super::session::{Outcome, Session, Source, Tally};
use super::topic::filter_matches;

/// Names under `$SYS/broker/`, as other brokers have them.
const NAMES: [&str; 17] = [
    "version",
    "uptime",
    "clients/connected",
    "clients/disconnected",
    "clients/total",
    "messages/received",
    "messages/sent",
    "publish/messages/received",
    "publish/messages/sent",
    "publish/messages/dropped",
    "bytes/received",
    "bytes/sent",
    "subscriptions/count",
    "messages/inflight",
    "load/connections/total",
    "log/records/skipped",
    "log/appends/failed",
];

/// What the topics begin with.
const PREFIX: &str = "$SYS/broker/";

/// Whether a filter can match one of the topics.
pub(crate) fn is_asked_by(filter: &str) -> bool {
    filter.starts_with("$SYS/")
}

impl Broker {
    fn sys_value(&self, name: &str) -> String {
        let metrics = &self.metrics;
        let (clients, sessions) = (metrics.clients.get(), metrics.sessions.get());
        let number = match name {
            "version" => return format!("interflow {}", env!("CARGO_PKG_VERSION")),
            "uptime" => return format!("{} seconds", self.started.elapsed().as_secs()),
            "clients/connected" => clients,
            "clients/disconnected" => sessions.saturating_sub(clients),
            "clients/total" => sessions,
            "messages/received" | "publish/messages/received" => metrics.publishes_received.sum(),
            "messages/sent" | "publish/messages/sent" => metrics.publishes_delivered.sum(),
            "publish/messages/dropped" => metrics.publishes_dropped.sum(),
            "bytes/received" => metrics.bytes_received.get(),
            "bytes/sent" => metrics.bytes_sent.get(),
            "subscriptions/count" => metrics.subscriptions.get(),
            "messages/inflight" => metrics.in_flight.get(),
            "load/connections/total" => metrics.connections_total.get(),
            "log/records/skipped" => metrics.skipped_records.get(),
            "log/appends/failed" => metrics.appends_failed.get(),
            _ => return String::new(),
        };
        number.to_string()
    }

    /// Sends a new subscription the present values, as retained messages.
    pub(crate) fn send_sys(&self, session: &Arc<Session>, route: &Arc<Route>) {
        for name in NAMES {
            let topic = format!("{PREFIX}{name}");
            if filter_matches(&route.filter, &topic) {
                self.offer_sys(session, std::slice::from_ref(&route), &topic, name, true);
            }
        }
    }

    fn offer_sys(
        &self,
        session: &Arc<Session>,
        routes: &[&Arc<Route>],
        topic: &str,
        name: &str,
        retain: bool,
    ) {
        let value = self.sys_value(name);
        let message = Message {
            topic,
            payload: value.as_bytes(),
            qos: QoS::AtMostOnce,
            retain: true,
            client_id: None,
            expires_at_ms: None,
            properties: PublishProperties::default(),
        };
        let retain = retain || routes.iter().any(|route| route.options.retain_as_published);
        let ids = routes.iter().filter_map(|route| route.subscription_id).collect();
        let mut variants = Variants::new(&message, self.clock.now_ms());
        let mut tally = Tally::default();
        let mut state = session.lock();
        let (qos, source) = (QoS::AtMostOnce, Source::Retained);
        let outcome = state.offer(qos, retain, ids, source, &mut variants, self.limits, &mut tally);
        debug_assert!(outcome == Outcome::Taken || state.online.is_none());
        let wake = state.take_wake();
        drop(state);
        self.feed.dispatch.count(&tally);
        if let Some(connection) = wake {
            connection.wake();
        }
    }

    /// Sends all values to their subscribers. False if there are none.
    fn publish_sys(&self) -> bool {
        let mut any = false;
        for name in NAMES {
            let topic = format!("{PREFIX}{name}");
            let mut routes: Vec<Arc<Route>> = Vec::new();
            self.routes.read().matches(&topic, &mut |targets| {
                routes.extend(targets.routes.iter().cloned());
            });
            any |= !routes.is_empty();
            routes.sort_by_key(|route| route.session.key);
            for routes in routes.chunk_by(|a, b| a.session.key == b.session.key) {
                let routes: Vec<&Arc<Route>> = routes.iter().collect();
                if let Some(first) = routes.first() {
                    self.offer_sys(&first.session.clone(), &routes, &topic, name, false);
                }
            }
        }
        any
    }

    /// Sends all values at the set interval, sleeping while nobody subscribes to any.
    pub(crate) async fn run_sys(self: Arc<Self>) {
        let interval = Duration::from_secs(self.config.sys_interval_s.max(1));
        loop {
            self.sys_asked.notified().await;
            let mut next = Instant::now() + interval;
            loop {
                tokio::time::sleep_until(next).await;
                next += interval;
                if !self.publish_sys() {
                    break;
                }
            }
        }
    }
}
