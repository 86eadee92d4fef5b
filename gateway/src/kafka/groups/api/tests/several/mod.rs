//! Groups where there are several gateways over one meta (K17).

mod brokers;
mod moves;

use std::sync::Arc;

use interflow_meta::{Meta, NodeId};

use super::*;
use crate::cluster::{Endpoint, FixedGateways, Gateway, Gateways};
use crate::kafka::data::fake::FakeLogs;

const NOT_COORDINATOR: ResponseError = ResponseError::NotCoordinator;

/// Gateways 1 and 2, each with its own view.
struct Two {
    views: [Arc<FixedGateways>; 2],
    benches: [Bench; 2],
    /// Which of them coordinates the group `g` while both live, and which doesn't.
    first: usize,
    second: usize,
}

fn gateway(id: u32) -> Gateway {
    let of = |name: &str| {
        let endpoint = Endpoint { host: format!("{id}.{name}").into(), port: 9_000 };
        (Arc::from(name), endpoint)
    };
    let kafka = vec![of("inside"), of("outside")];
    Gateway { id: NodeId(id), incarnation: 1, rack: format!("rack {id}"), kafka }
}

async fn bench(view: Arc<FixedGateways>, meta: &Meta, logs: &Arc<FakeLogs>) -> Bench {
    let id = view.me().0;
    let bench = Bench::among(view, meta.clone(), logs.clone(), config(), false).await;
    for (name, endpoint) in gateway(id).kafka {
        bench.server.advertise(&name, endpoint);
    }
    bench
}

impl Two {
    async fn new() -> Self {
        Self::over(new_meta()).await
    }

    async fn over(meta: Meta) -> Self {
        let logs = FakeLogs::new(0..200);
        let views = [1, 2].map(|id| FixedGateways::alone(NodeId(id), 1));
        views.iter().for_each(|view| view.set_live([1, 2].map(gateway)));
        let [one, two] = &views;
        let benches =
            [bench(one.clone(), &meta, &logs).await, bench(two.clone(), &meta, &logs).await];
        with_topic(&benches[0], "t").await;
        while benches[1].topics.get("t").is_none() {
            tokio::task::yield_now().await;
        }
        let first = coordinator(&mut benches[0].connect(), "g").await - 1;
        Self { views, benches, first, second: 1 - first }
    }

    fn client(&self, at: usize) -> Client {
        self.benches[at].connect()
    }

    /// In the view of `at` only these gateways live, and it has seen to its groups by that.
    async fn see(&self, at: usize, live: &[usize]) {
        self.views[at].set_live(live.iter().map(|at| gateway(u32::try_from(at + 1).unwrap())));
        let groups = self.benches[at].server.groups();
        while groups.in_memory().iter().any(|slot| groups.check(&slot.name).is_err()) {
            tokio::task::yield_now().await;
        }
    }
}

/// The number of the gateway that is named as the coordinator of a group.
async fn coordinator(client: &mut Client, group: &str) -> usize {
    let asked = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let found = client.ask(4, &asked).await.coordinators.remove(0);
    assert_eq!(found.error_code, 0);
    usize::try_from(found.node_id.0).unwrap()
}

/// A stable group of one; the member and its generation.
async fn stable(client: &mut Client) -> (String, i32) {
    let (member, generation) = alone(client, 9).await;
    let synced = client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    (member, generation)
}

async fn commit_code(client: &mut Client, member: &str, generation: i32, offset: i64) -> i16 {
    let answer = client.ask(9, &commit(member, generation, &[("t", 0, offset)])).await;
    answer.topics[0].partitions[0].error_code
}

async fn beat_code(client: &mut Client, member: &str, generation: i32) -> i16 {
    client.ask(4, &heartbeat(member, generation)).await.error_code
}
