//! Groups that move from one gateway to another.

use interflow_meta::PriorityStore;

use super::*;

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
