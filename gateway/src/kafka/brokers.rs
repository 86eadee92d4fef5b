//! The gateways as Kafka's brokers: which there are for a client, and what falls to which.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::BrokerId;
use uuid::Uuid;

use crate::cluster::{Endpoint, Gateway, Gateways, Weight, heaviest};

/// A broker as clients of one listener see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) id: BrokerId,
    pub(super) endpoint: Endpoint,
    /// `None` where nobody said.
    pub(super) rack: Option<Arc<str>>,
}

/// What a coordinator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Group,
    Transaction,
}

/// The brokers.
#[derive(Debug)]
pub(super) struct Brokers {
    gateways: Arc<dyn Gateways>,
    /// Of this gateway, by listener.
    advertised: ArcSwap<HashMap<Arc<str>, Endpoint>>,
}

/// The brokers that one request is answered with, by id: there is at least one.
#[derive(Debug)]
pub(super) struct Listed(Vec<Seen>);

fn broker_id(gateway: &Gateway) -> BrokerId {
    BrokerId(i32::try_from(gateway.id.0).unwrap_or(i32::MAX))
}

impl Brokers {
    pub(super) fn new(gateways: Arc<dyn Gateways>) -> Self {
        Self { gateways, advertised: ArcSwap::from_pointee(HashMap::new()) }
    }

    pub(super) fn gateways(&self) -> &Arc<dyn Gateways> {
        &self.gateways
    }

    /// This broker.
    pub(super) fn me(&self) -> BrokerId {
        BrokerId(i32::try_from(self.gateways.me().0).unwrap_or(i32::MAX))
    }

    /// Tells clients of `listener` to reach this gateway at `endpoint` (K24).
    pub(super) fn advertise(&self, listener: &str, endpoint: &Endpoint) {
        self.advertised.rcu(|all| {
            let mut all = HashMap::clone(all);
            all.insert(listener.into(), endpoint.clone());
            all
        });
    }

    /// The address that clients of `listener` reach this gateway at (K24).
    fn own(&self, listener: &str) -> Endpoint {
        self.advertised
            .load()
            .get(listener)
            .cloned()
            .unwrap_or_else(|| Endpoint { host: "localhost".into(), port: 9092 })
    }

    fn endpoint(&self, gateway: &Gateway, listener: &str) -> Option<Endpoint> {
        if gateway.id == self.gateways.me() {
            return Some(self.own(listener));
        }
        gateway.kafka_endpoint(listener).cloned()
    }

    /// The live brokers that clients of `listener` can reach; if there are none, this one, which the
    /// client has reached.
    pub(super) fn list(&self, listener: &str) -> Listed {
        let live = self.gateways.live();
        let seen = live.iter().filter_map(|gateway| {
            let rack = (!gateway.rack.is_empty()).then(|| gateway.rack.as_str().into());
            let endpoint = self.endpoint(gateway, listener)?;
            Some(Seen { id: broker_id(gateway), endpoint, rack })
        });
        let mut seen: Vec<Seen> = seen.collect();
        if seen.is_empty() {
            seen.push(Seen { id: self.me(), endpoint: self.own(listener), rack: None });
        }
        Listed(seen)
    }

    /// Where clients of `listener` find the coordinator of `key`. All gateways of one view say the
    /// same one, whatever the listener.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE (retriable) where no gateway lives, or the one that it is can't be
    /// reached by that listener.
    pub(super) fn coordinator(
        &self,
        kind: Kind,
        key: &str,
        listener: &str,
    ) -> Result<Seen, ResponseError> {
        let live = self.gateways.live();
        let gateway =
            coordinator(&live, kind, key).ok_or(ResponseError::CoordinatorNotAvailable)?;
        let endpoint = self.endpoint(gateway, listener);
        let endpoint = endpoint.ok_or(ResponseError::CoordinatorNotAvailable)?;
        Ok(Seen { id: broker_id(gateway), endpoint, rack: None })
    }

    /// Whether this gateway, in this life of it, is the coordinator of the group, and may act as such.
    pub(super) fn coordinates(&self, group: &str) -> bool {
        let live = self.gateways.live();
        self.gateways.lease_holds()
            && coordinator(&live, Kind::Group, group).is_some_and(|gateway| {
                gateway.id == self.gateways.me()
                    && gateway.incarnation == self.gateways.incarnation()
            })
    }
}

/// Which of the gateways that have Kafka clients coordinates `key`.
fn coordinator<'a>(live: &'a [Gateway], kind: Kind, key: &str) -> Option<&'a Gateway> {
    // One that is alone needs to have said nothing.
    if let [only] = live {
        return Some(only);
    }
    let kind: &[u8] = match kind {
        Kind::Group => b"group",
        Kind::Transaction => b"transaction",
    };
    let weight = Weight::of(&[kind, key.as_bytes()]);
    heaviest(weight, live.iter().filter(|gateway| !gateway.kafka.is_empty()), |gateway| gateway.id)
}

impl Listed {
    /// All of them.
    pub(super) fn brokers(&self) -> &[Seen] {
        &self.0
    }

    /// Who takes the cluster's requests from tools: any could, and this one stays the same as long as
    /// it lives.
    pub(super) fn controller(&self) -> BrokerId {
        self.0.first().map_or(BrokerId(-1), |first| first.id)
    }

    /// Who leads a partition: spread over all, so that clients spread their connections. Whoever is
    /// asked serves it as well.
    pub(super) fn leader(&self, topic: Uuid, partition: i32) -> BrokerId {
        let weight = Weight::of(&[b"partition", topic.as_bytes(), &partition.to_be_bytes()]);
        let of = |seen: &&Seen| interflow_meta::NodeId(seen.id.0.unsigned_abs());
        heaviest(weight, self.0.iter(), of).map_or(BrokerId(-1), |seen| seen.id)
    }
}
