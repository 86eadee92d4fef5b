//! Groups where there are several gateways over one meta (K17).

use std::collections::BTreeSet;
use std::sync::Arc;

use interflow_meta::{Meta, NodeId, PriorityStore};
use kafka_protocol::protocol::Request;

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

#[tokio::test]
async fn k17_every_gateway_names_the_same_coordinator_by_each_listener() {
    let two = Two::new().await;
    let mut counts = [0; 2];
    for n in 0..40 {
        let key = format!("group {n}");
        let number = coordinator(&mut two.client(0), &key).await;
        counts[number - 1] += 1;
        for (at, listener) in [(0, "inside"), (1, "inside"), (0, "outside"), (1, "outside")] {
            let mut client = two.benches[at].connect_to(listener);
            let host = format!("{number}.{listener}");
            for version in 0..=3 {
                let asked = FindCoordinatorRequest::default().with_key(text(&key));
                let found = client.ask(version, &asked).await;
                assert_eq!((found.error_code, &*found.host, found.port), (0, &*host, 9_000));
                assert_eq!(found.node_id.0, i32::try_from(number).unwrap());
            }
            for version in 4..=6 {
                let asked = FindCoordinatorRequest::default()
                    .with_coordinator_keys(vec![text("another"), text(&key)]);
                let found = client.ask(version, &asked).await.coordinators.remove(1);
                assert_eq!((found.error_code, &*found.host, found.port), (0, &*host, 9_000));
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 8), "{counts:?}");
}

#[tokio::test]
async fn k17_a_coordinator_that_a_listener_does_not_reach_is_not_named() {
    let two = Two::new().await;
    let mut other = gateway(u32::try_from(two.first + 1).unwrap());
    other.kafka.retain(|(name, _)| &**name == "inside");
    let me = gateway(u32::try_from(two.second + 1).unwrap());
    two.views[two.second].set_live([me, other]);
    let asked = FindCoordinatorRequest::default().with_key(text("g"));
    let mut inside = two.benches[two.second].connect_to("inside");
    assert_eq!(inside.ask(2, &asked).await.error_code, 0);
    let mut outside = two.benches[two.second].connect_to("outside");
    let answer = outside.ask(2, &asked).await;
    assert_eq!(answer.error_code, ResponseError::CoordinatorNotAvailable.code());
    // Nor is it a broker there.
    let brokers = outside.ask(9, &MetadataRequest::default()).await.brokers;
    assert_eq!(brokers.len(), 1);
    assert_eq!(&*brokers[0].host, format!("{}.outside", two.second + 1));
    assert_eq!(inside.ask(9, &MetadataRequest::default()).await.brokers.len(), 2);
}

#[tokio::test]
async fn k17_a_gateway_dies_and_members_go_on_in_their_generation() {
    let two = Two::new().await;
    let (mut old, mut new) = (two.client(two.first), two.client(two.second));
    let (member, generation) = stable(&mut old).await;
    assert_eq!(commit_code(&mut old, &member, generation, 5).await, 0);
    assert_eq!(beat_code(&mut new, &member, generation).await, NOT_COORDINATOR.code());

    // The other takes it for dead; it doesn't know, and goes on.
    two.see(two.second, &[two.second]).await;
    assert_eq!(coordinator(&mut new, "g").await, two.second + 1);
    assert_eq!(beat_code(&mut new, &member, generation).await, 0);
    assert_eq!(committed(&mut new, "t", 0).await, 5);
    assert_eq!(commit_code(&mut new, &member, generation, 6).await, 0);
    let synced = new.ask(5, &sync(&member, generation, &[])).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));

    // What the superseded one still takes is refused, and it forgets the group.
    assert_eq!(commit_code(&mut old, &member, generation, 4).await, NOT_COORDINATOR.code());
    assert!(two.benches[two.first].server.groups().in_memory().is_empty());
    assert_eq!(committed(&mut new, "t", 0).await, 6);
    two.see(two.first, &[two.second]).await;
    assert_eq!(beat_code(&mut old, &member, generation).await, NOT_COORDINATOR.code());

    // It comes back: the group moves to it again, as it is.
    two.see(two.second, &[0, 1]).await;
    two.see(two.first, &[0, 1]).await;
    assert_eq!(beat_code(&mut new, &member, generation).await, NOT_COORDINATOR.code());
    assert_eq!(commit_code(&mut old, &member, generation, 7).await, 0);
    assert_eq!(committed(&mut old, "t", 0).await, 7);
}

/// For some seconds both take themselves for the coordinator: they take turns.
#[tokio::test]
async fn k17_two_that_both_coordinate_lose_no_commit_and_no_generation() {
    let two = Two::new().await;
    let mut clients = [two.client(0), two.client(1)];
    let (member, generation) = stable(&mut clients[two.first]).await;
    two.see(two.second, &[two.second]).await;
    let mut refused = 0;
    for offset in 0..20 {
        let mut at = usize::from(offset % 2 == 0);
        // As a client does: it is told to look anew, and by chance asks the other.
        while commit_code(&mut clients[at], &member, generation, offset).await != 0 {
            refused += 1;
            at = 1 - at;
            assert_eq!(committed(&mut clients[at], "t", 0).await, offset - 1);
        }
        let at = 1 - at;
        let code = beat_code(&mut clients[at], &member, generation).await;
        assert!(code == 0 || code == NOT_COORDINATOR.code(), "{code}");
        assert_eq!(committed(&mut clients[at], "t", 0).await, offset);
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn k17_who_waits_is_told_to_look_for_the_new_coordinator() {
    let two = Two::new().await;
    let mut old = two.client(two.first);
    let (member, generation) = stable(&mut old).await;
    // Another joins: it waits for the first, which doesn't come.
    let mut joining = two.client(two.first);
    joining.send(3, &join("")).await;
    let rebalancing = ResponseError::RebalanceInProgress.code();
    while beat_code(&mut old, &member, generation).await != rebalancing {
        tokio::task::yield_now().await;
    }
    two.see(two.first, &[two.second]).await;
    let (_, answer) = joining.receive::<JoinGroupRequest>(3).await;
    assert_eq!(answer.error_code, NOT_COORDINATOR.code());
    // The rebalance that wasn't completed never was: the first member just goes on.
    two.see(two.second, &[two.second]).await;
    let mut new = two.client(two.second);
    assert_eq!(beat_code(&mut new, &member, generation).await, 0);
    assert_eq!(commit_code(&mut new, &member, generation, 1).await, 0);
}

#[tokio::test]
async fn k17_without_a_lease_no_group_is_answered_for() {
    let two = Two::new().await;
    let mut client = two.client(two.first);
    let (member, generation) = stable(&mut client).await;
    assert_eq!(commit_code(&mut client, &member, generation, 3).await, 0);
    two.views[two.first].set_lease(false);
    let code = NOT_COORDINATOR.code();
    assert_eq!(beat_code(&mut client, &member, generation).await, code);
    assert_eq!(commit_code(&mut client, &member, generation, 4).await, code);
    assert_eq!(commit_code(&mut client, "", -1, 4).await, code);
    assert_eq!(client.ask(9, &join("")).await.error_code, code);
    assert_eq!(client.ask(5, &sync(&member, generation, &[])).await.error_code, code);
    let leave = LeaveGroupRequest::default().with_group_id(group()).with_member_id(text(&member));
    assert_eq!(client.ask(0, &leave).await.error_code, code);
    let fetch = OffsetFetchRequest::default().with_group_id(group()).with_topics(None);
    assert_eq!(client.ask(7, &fetch).await.error_code, code);
    let describe = DescribeGroupsRequest::default().with_groups(vec![group()]);
    assert_eq!(client.ask(5, &describe).await.groups[0].error_code, code);
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    assert_eq!(client.ask(2, &delete).await.results[0].error_code, code);
    assert_eq!(client.ask(0, &delete_offset("t")).await.error_code, code);
    let listed = client.ask(4, &ListGroupsRequest::default()).await.error_code;
    assert_eq!(listed, ResponseError::CoordinatorNotAvailable.code());
    // Nobody has claimed it meanwhile: it goes on where it was.
    two.views[two.first].set_lease(true);
    assert_eq!(beat_code(&mut client, &member, generation).await, 0);
    assert_eq!(committed(&mut client, "t", 0).await, 3);
}

#[tokio::test]
async fn k17_each_group_is_listed_by_its_coordinator_alone() {
    let two = Two::new().await;
    let names: BTreeSet<String> = (0..20).map(|n| format!("group {n}")).collect();
    for name in &names {
        let at = coordinator(&mut two.client(0), name).await - 1;
        let request = commit("", -1, &[("t", 0, 1)]).with_group_id(GroupId(text(name)));
        let answer = two.client(at).ask(7, &request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, 0);
        let answer = two.client(1 - at).ask(7, &request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, NOT_COORDINATOR.code());
    }
    let mut all = Vec::new();
    for at in 0..2 {
        let listed = states(&mut two.client(at)).await;
        assert!(!listed.is_empty());
        all.extend(listed.into_iter().map(|(name, _)| name));
    }
    assert_eq!(all.len(), names.len());
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), names);
}

/// Nobody is left to ask for the group: its sessions end all the same.
#[tokio::test(start_paused = true)]
async fn k17_members_that_die_with_their_gateway_are_out() {
    let two = Two::new().await;
    stable(&mut two.client(two.first)).await;
    two.see(two.second, &[two.second]).await;
    becomes_empty(&two.benches[two.second]).await;
}

#[tokio::test]
async fn k17_a_group_that_is_deleted_can_come_into_being_again_anywhere() {
    let two = Two::new().await;
    let (mut old, mut new) = (two.client(two.first), two.client(two.second));
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    for round in 0..3 {
        assert_eq!(commit_code(&mut old, "", -1, round).await, 0);
        assert_eq!(old.ask(2, &delete).await.results[0].error_code, 0);
        // Deleted by the one, used by the other at the same time, with views that differ.
        two.see(two.second, &[two.second]).await;
        assert_eq!(committed(&mut new, "t", 0).await, -1);
        assert_eq!(commit_code(&mut new, "", -1, 10 + round).await, 0);
        assert_eq!(committed(&mut old, "t", 0).await, 10 + round);
        assert_eq!(old.ask(2, &delete).await.results[0].error_code, 0);
        two.see(two.second, &[0, 1]).await;
    }
}

/// What safety costs: no transaction more.
#[tokio::test]
async fn a_commit_of_offsets_is_one_transaction() {
    let env = interflow_meta::Env::default();
    let store = interflow_meta::EmbeddedStore::in_memory(env.clone()).unwrap();
    let store = PriorityStore::new(Arc::new(store));
    let bench = Bench::over(Meta::new(Arc::new(store.clone()), env, "test"), config(), false).await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    let (member, generation) = stable(&mut client).await;
    store.take_counts();
    for offset in 0..10 {
        assert_eq!(commit_code(&mut client, &member, generation, offset).await, 0);
    }
    assert_eq!(store.take_counts().0, 10);
}

async fn ask<Q: Request>(two: &Two, at: usize, version: i16, request: &Q) -> Q::Response {
    two.client(at).ask(version, request).await
}

#[tokio::test]
async fn leaders_are_spread_over_live_gateways_and_each_serves_all() {
    let two = Two::new().await;
    let request = CreateTopicsRequest::default().with_topics(vec![
        create_topics_request::CreatableTopic::default()
            .with_name(TopicName(text("wide")))
            .with_num_partitions(40)
            .with_replication_factor(-1),
    ]);
    assert_eq!(ask(&two, 0, 7, &request).await.topics[0].error_code, 0);
    while two.benches[1].topics.get("wide").is_none() {
        tokio::task::yield_now().await;
    }
    let asked = MetadataRequest::default().with_topics(Some(vec![
        MetadataRequestTopic::default().with_name(Some(TopicName(text("wide")))),
    ]));
    let leaders = |answer: &MetadataResponse| -> Vec<i32> {
        let partitions = &answer.topics[0].partitions;
        assert!(partitions.iter().all(|p| p.replica_nodes == [p.leader_id]));
        assert!(partitions.iter().all(|p| p.isr_nodes == [p.leader_id]));
        partitions.iter().map(|p| p.leader_id.0).collect()
    };
    let answers = [ask(&two, 0, 9, &asked).await, ask(&two, 1, 9, &asked).await];
    for answer in &answers {
        let brokers: Vec<_> = answer.brokers.iter().map(|b| (b.node_id.0, &*b.host)).collect();
        assert_eq!(brokers, [(1, "1.inside"), (2, "2.inside")]);
        assert_eq!(answer.brokers[1].rack.as_deref(), Some("rack 2"));
        assert_eq!(answer.controller_id, BrokerId(1));
    }
    let spread = leaders(&answers[0]);
    assert_eq!(spread, leaders(&answers[1]));
    assert!([1, 2].iter().all(|id| spread.iter().filter(|leader| *leader == id).count() > 10));

    // One goes: the next Metadata shows it, and what the other led stays.
    two.see(1, &[1]).await;
    let answer = ask(&two, 1, 9, &asked).await;
    assert_eq!((answer.brokers.len(), answer.controller_id), (1, BrokerId(2)));
    assert!(leaders(&answer).iter().all(|leader| *leader == 2));
    let described = ask(&two, 1, 1, &DescribeClusterRequest::default().with_endpoint_type(1)).await;
    assert_eq!((described.brokers.len(), described.controller_id), (1, BrokerId(2)));
    // One that is taken for dead still tells its own clients of somebody.
    two.views[1].set_live([]);
    let answer = ask(&two, 1, 9, &asked).await;
    assert_eq!(answer.brokers.iter().map(|b| b.node_id.0).collect::<Vec<_>>(), [2]);
}
