//! One gateway's view of all.

use std::fmt::Debug;
use std::sync::Arc;

use interflow_meta::NodeId;
use tokio::sync::watch;

/// An address that clients are told to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// A live gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its node; the number is the broker id that Kafka clients see.
    pub id: NodeId,
    /// Which of the node's lives.
    pub incarnation: u64,
    /// Where it stands; empty where nobody said.
    pub rack: String,
    /// Its Kafka listeners by name, and where clients of each reach it. Listeners of one name are one
    /// network for clients: who came in by it is told the addresses of that name only.
    pub kafka: Vec<(Arc<str>, Endpoint)>,
}

impl Gateway {
    /// Where clients of the Kafka listener `listener` reach it.
    #[must_use]
    pub fn kafka_endpoint(&self, listener: &str) -> Option<&Endpoint> {
        self.kafka.iter().find(|(name, _)| **name == *listener).map(|(_, endpoint)| endpoint)
    }
}

/// What this gateway knows of all gateways. Calls don't wait and are cheap: they come with every
/// request.
pub trait Gateways: Debug + Send + Sync + 'static {
    /// This gateway's node.
    fn me(&self) -> NodeId;

    /// Which of this node's lives the process is; never that of a later one.
    fn incarnation(&self) -> u64;

    /// The gateways that live as far as is known, in the order of their ids, each once. This one is
    /// missing from when it drains; one that was seen no sign of for the time of a lease is, too.
    fn live(&self) -> Arc<[Gateway]>;

    /// A number that rises after [`live`](Gateways::live) has changed, and soon after
    /// [`lease_holds`](Gateways::lease_holds) has.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether by its own clock nobody can take this gateway for dead yet. If not, it does nothing
    /// that is one gateway's alone.
    fn lease_holds(&self) -> bool;
}
