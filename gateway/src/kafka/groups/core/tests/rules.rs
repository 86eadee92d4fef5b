//! Kafka's rules, one by one.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::super::{
    Answer, Effect, Group, Identity, Join, Joined, Name, Saved, Settings, State, Sync,
};

const SETTINGS: Settings = Settings {
    max_size: 3,
    initial_delay_ms: 0,
    new_member_timeout_ms: 300_000,
    max_stored_bytes: 10_000,
};

fn who(member: &str) -> Identity {
    Identity { member: member.into(), instance: None }
}

fn fixed(member: &str, instance: &str) -> Identity {
    Identity { member: member.into(), instance: Some(instance.into()) }
}

fn join(reply: u32, who: Identity, protocols: &[(&str, &'static str)]) -> Join<u32> {
    Join {
        who,
        fresh_id: format!("m{reply}").into(),
        client_id: "client".into(),
        client_host: "/127.0.0.1".into(),
        session_ms: 10_000,
        rebalance_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: protocols
            .iter()
            .map(|(name, metadata)| (Name::from(*name), Bytes::from_static(metadata.as_bytes())))
            .collect(),
        requires_known_id: false,
        can_skip_assignment: false,
        reply,
    }
}

fn sync(reply: u32, who: Identity, generation: i32, shares: &[(&str, &'static str)]) -> Sync<u32> {
    Sync {
        who,
        generation,
        protocol_type: None,
        protocol: None,
        assignments: shares
            .iter()
            .map(|(member, share)| (Name::from(*member), Bytes::from_static(share.as_bytes())))
            .collect(),
        reply,
    }
}

/// A group whose saves succeed at once, and the answers it gave.
struct Bench {
    group: Group<u32>,
    settings: Settings,
    now: u64,
    answers: Vec<(u32, Answer)>,
    saved: Vec<Saved>,
    saves_succeed: bool,
}

impl Bench {
    fn new() -> Self {
        Self {
            group: Group::new(),
            settings: SETTINGS,
            now: 0,
            answers: Vec::new(),
            saved: Vec::new(),
            saves_succeed: true,
        }
    }

    fn take(&mut self, mut effects: Vec<Effect<u32>>) {
        while !effects.is_empty() {
            let mut more = Vec::new();
            for effect in effects {
                match effect {
                    Effect::Answer(reply, answer) => self.answers.push((reply, answer)),
                    Effect::Save(id, saved) => {
                        self.saved.push(saved);
                        let ok = self.saves_succeed;
                        self.group.saved(self.now, &self.settings, id, ok, &mut more);
                    }
                }
            }
            effects = more;
        }
    }

    fn join(&mut self, join: Join<u32>) {
        let mut out = Vec::new();
        self.group.join(self.now, &self.settings, join, &mut out);
        self.take(out);
    }

    fn sync(&mut self, sync: Sync<u32>) {
        let mut out = Vec::new();
        self.group.sync(self.now, &self.settings, sync, &mut out);
        self.take(out);
    }

    fn leave(&mut self, members: &[Identity]) -> Vec<Result<(), ResponseError>> {
        let mut out = Vec::new();
        let outcome = self.group.leave(self.now, &self.settings, members, &mut out);
        self.take(out);
        outcome.expect("the group lives")
    }

    fn at(&mut self, now: u64) {
        self.now = now;
        let mut out = Vec::new();
        self.group.tick(now, &self.settings, &mut out);
        self.take(out);
    }

    fn answer(&mut self, reply: u32) -> Option<Answer> {
        let at = self.answers.iter().position(|(r, _)| *r == reply)?;
        Some(self.answers.remove(at).1)
    }

    fn joined(&mut self, reply: u32) -> Joined {
        match self.answer(reply) {
            Some(Answer::Joined(joined)) => joined,
            other => panic!("join {reply} was answered {other:?}"),
        }
    }

    fn refused(&mut self, reply: u32) -> ResponseError {
        match self.answer(reply) {
            Some(Answer::NotJoined(error, _) | Answer::NotSynced(error)) => error,
            other => panic!("{reply} was answered {other:?}"),
        }
    }

    fn share(&mut self, reply: u32) -> Bytes {
        match self.answer(reply) {
            Some(Answer::Synced(synced)) => synced.assignment,
            other => panic!("sync {reply} was answered {other:?}"),
        }
    }

    /// One member, m1, stable in generation 1.
    fn stable() -> Self {
        let mut bench = Self::new();
        bench.join(join(1, who(""), &[("range", "a")]));
        assert_eq!(bench.joined(1).generation, 1);
        bench.sync(sync(2, who("m1"), 1, &[("m1", "all")]));
        assert_eq!(bench.share(2), "all");
        bench
    }
}

#[test]
fn k14_the_first_member_leads_and_gets_what_it_assigns() {
    let mut bench = Bench::stable();
    assert_eq!(bench.group.state(), State::Stable);
    assert_eq!(bench.group.heartbeat(1, &who("m1"), 1), Ok(()));
    assert_eq!(bench.saved.last().expect("saved").members.len(), 1);
    assert_eq!(bench.saved.last().expect("saved").members[0].assignment, "all");
    // The same member asking again gets the same share.
    bench.sync(sync(3, who("m1"), 1, &[]));
    assert_eq!(bench.share(3), "all");
}

#[test]
fn k14_a_second_member_rebalances_and_the_leader_hears_of_it_by_heartbeat() {
    let mut bench = Bench::stable();
    bench.join(join(10, who(""), &[("range", "b")]));
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    assert_eq!(bench.group.heartbeat(1, &who("m1"), 1), Err(ResponseError::RebalanceInProgress));
    assert!(bench.answer(10).is_none(), "the join waits for m1");
    bench.join(join(11, who("m1"), &[("range", "a")]));
    let leader = bench.joined(11);
    let follower = bench.joined(10);
    assert_eq!((leader.generation, follower.generation), (2, 2));
    assert_eq!(leader.leader, leader.member);
    assert_eq!(leader.members.len(), 2);
    assert_eq!(follower.leader, leader.member);
    assert!(follower.members.is_empty());

    bench.sync(sync(12, who("m10"), 2, &[]));
    assert!(bench.answer(12).is_none(), "the leader hasn't assigned yet");
    bench.sync(sync(13, who("m1"), 2, &[("m1", "x"), ("m10", "y"), ("stranger", "z")]));
    assert_eq!(bench.share(12), "y");
    assert_eq!(bench.share(13), "x");
}

#[test]
fn k14_member_id_required_before_a_new_member_counts() {
    let mut bench = Bench::new();
    bench.join(Join { requires_known_id: true, ..join(1, who(""), &[("range", "")]) });
    match bench.answer(1) {
        Some(Answer::NotJoined(ResponseError::MemberIdRequired, id)) => assert_eq!(&*id, "m1"),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.group.member_count(), 0);
    bench.join(Join { requires_known_id: true, ..join(2, who("m1"), &[("range", "")]) });
    assert_eq!(&*bench.joined(2).member, "m1");
    // An id that was never given out is unknown.
    bench.join(join(3, who("stranger"), &[("range", "")]));
    assert_eq!(bench.refused(3), ResponseError::UnknownMemberId);
}

#[test]
fn a_given_id_lapses_after_the_session_timeout() {
    let mut bench = Bench::new();
    bench.join(Join { requires_known_id: true, ..join(1, who(""), &[("range", "")]) });
    assert_eq!(bench.group.deadline(), Some(10_000));
    bench.at(10_000);
    assert!(bench.group.is_idle());
    bench.join(join(2, who("m1"), &[("range", "")]));
    assert_eq!(bench.refused(2), ResponseError::UnknownMemberId);
}

#[test]
fn k14_generation_and_member_are_checked() {
    let mut bench = Bench::stable();
    for (id, generation, error) in [
        ("m1", 2, ResponseError::IllegalGeneration),
        ("m1", 0, ResponseError::IllegalGeneration),
        ("m9", 1, ResponseError::UnknownMemberId),
    ] {
        assert_eq!(bench.group.heartbeat(0, &who(id), generation), Err(error));
        assert_eq!(bench.group.check_commit(0, &who(id), generation), Err(error));
        bench.sync(sync(5, who(id), generation, &[]));
        assert_eq!(bench.refused(5), error);
    }
    assert_eq!(bench.group.check_commit(0, &who("m1"), 1), Ok(()));
    assert_eq!(
        bench.group.check_commit(0, &who(""), -1),
        Err(ResponseError::UnknownMemberId),
        "no commits from outside while there are members"
    );
    assert_eq!(Group::<u32>::new().check_commit(0, &who(""), -1), Ok(()));
    assert_eq!(
        Group::<u32>::new().check_commit(0, &who("m1"), 3),
        Err(ResponseError::IllegalGeneration)
    );
}

#[test]
fn k14_a_silent_member_is_out_after_its_session() {
    let mut bench = Bench::stable();
    assert_eq!(bench.group.heartbeat(5_000, &who("m1"), 1), Ok(()));
    bench.at(10_000);
    assert_eq!(bench.group.member_count(), 1, "it was heard from at 5 s");
    bench.at(15_000);
    assert_eq!(bench.group.state(), State::Empty);
    assert_eq!(bench.group.generation(), 2);
    assert!(bench.saved.last().expect("saved").members.is_empty());
    assert_eq!(bench.group.heartbeat(15_000, &who("m1"), 1), Err(ResponseError::UnknownMemberId));
}

#[test]
fn k14_leaving_rebalances_the_rest() {
    let mut bench = Bench::stable();
    bench.join(join(10, who(""), &[("range", "b")]));
    let outcomes = bench.leave(&[who("m1"), who("stranger")]);
    assert_eq!(outcomes, [Ok(()), Err(ResponseError::UnknownMemberId)]);
    let joined = bench.joined(10);
    assert_eq!((&*joined.leader, joined.members.len()), ("m10", 1));
    assert_eq!(bench.leave(&[who("m10")]), [Ok(())]);
    assert_eq!(bench.group.state(), State::Empty);
}

#[test]
fn members_that_miss_the_rebalance_are_out_and_static_ones_stay() {
    let mut bench = Bench::stable();
    bench.join(join(3, fixed("", "s"), &[("range", "")]));
    bench.join(join(4, who("m1"), &[("range", "a")]));
    assert_eq!(bench.joined(4).members.len(), 2);
    assert_eq!(bench.joined(3).generation, 2);
    // A third joins; neither comes back.
    bench.join(join(5, who(""), &[("range", "c")]));
    bench.now = 9_000;
    let _ = bench.group.heartbeat(9_000, &who("m1"), 2);
    let _ = bench.group.heartbeat(9_000, &fixed("m3", "s"), 2);
    for now in (10_000..60_000).step_by(5_000) {
        let _ = bench.group.heartbeat(now, &who("m1"), 2);
        let _ = bench.group.heartbeat(now, &fixed("m3", "s"), 2);
        bench.at(now);
        assert!(bench.answer(5).is_none());
    }
    bench.at(60_000);
    let joined = bench.joined(5);
    assert_eq!(joined.generation, 3);
    assert_eq!(&*joined.leader, "m5");
    let mut members: Vec<_> = joined.members.iter().map(|m| m.member.to_string()).collect();
    members.sort();
    assert_eq!(members, ["m3", "m5"]);
}

#[test]
fn members_that_never_ask_for_their_share_are_out() {
    let mut bench = Bench::stable();
    bench.join(join(10, who(""), &[("range", "b")]));
    bench.join(join(11, who("m1"), &[("range", "a")]));
    bench.joined(10);
    bench.joined(11);
    bench.sync(sync(12, who("m1"), 2, &[("m1", "x"), ("m10", "y")]));
    assert_eq!(bench.share(12), "x");
    for now in (5_000..60_000).step_by(5_000) {
        assert_eq!(bench.group.heartbeat(now, &who("m1"), 2), Ok(()));
        assert_eq!(bench.group.heartbeat(now, &who("m10"), 2), Ok(()));
        bench.at(now);
    }
    assert_eq!(bench.group.state(), State::Stable);
    bench.at(60_000);
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    assert_eq!(bench.group.member_count(), 1);
}

#[test]
fn k14_a_static_member_keeps_its_share_over_a_restart() {
    let mut bench = Bench::new();
    bench.join(join(1, fixed("", "s"), &[("range", "a")]));
    bench.joined(1);
    bench.sync(sync(2, fixed("m1", "s"), 1, &[("m1", "all")]));
    bench.share(2);
    bench.join(join(3, fixed("", "s"), &[("range", "a")]));
    let back = bench.joined(3);
    assert_eq!((back.generation, &*back.member, &*back.leader), (1, "m3", "m1"));
    assert_eq!(bench.group.state(), State::Stable);
    bench.sync(sync(4, fixed("m3", "s"), 1, &[]));
    assert_eq!(bench.share(4), "all");
    // The old process is fenced.
    assert_eq!(
        bench.group.heartbeat(0, &fixed("m1", "s"), 1),
        Err(ResponseError::FencedInstanceId)
    );
    assert_eq!(bench.saved.last().expect("saved").members[0].member.as_ref(), "m3");
    // A client that knows how is told to skip the assignment, and leads on.
    bench.join(Join { can_skip_assignment: true, ..join(5, fixed("", "s"), &[("range", "a")]) });
    let back = bench.joined(5);
    assert_eq!((&*back.leader, back.skip_assignment, back.members.len()), ("m5", true, 1));
    // An administrator removes it by its instance.
    assert_eq!(bench.leave(&[fixed("", "s")]), [Ok(())]);
    assert_eq!(bench.group.state(), State::Empty);
}

#[test]
fn k14_a_static_member_whose_save_fails_is_told_to_try_again() {
    let mut bench = Bench::new();
    bench.join(join(1, fixed("", "s"), &[("range", "a")]));
    bench.sync(sync(2, fixed("m1", "s"), 1, &[("m1", "all")]));
    bench.saves_succeed = false;
    bench.join(join(3, fixed("", "s"), &[("range", "a")]));
    assert_eq!(bench.refused(3), ResponseError::CoordinatorNotAvailable);
}

/// A static member that came back waits for a save while `meanwhile` happens; its answer.
fn came_back_and(meanwhile: impl FnOnce(&mut Bench)) -> ResponseError {
    let mut bench = Bench::new();
    bench.join(join(1, fixed("", "s"), &[("range", "a")]));
    bench.sync(sync(2, fixed("m1", "s"), 1, &[("m1", "all")]));
    let mut out = Vec::new();
    let again = join(3, fixed("", "s"), &[("range", "a")]);
    bench.group.join(bench.now, &bench.settings, again, &mut out);
    let [Effect::Save(id, _)] = out.as_slice() else { panic!("{out:?}") };
    meanwhile(&mut bench);
    let mut out = Vec::new();
    bench.group.saved(bench.now, &bench.settings, *id, true, &mut out);
    bench.take(out);
    bench.refused(3)
}

#[test]
fn k14_a_static_member_is_not_told_of_a_generation_that_is_over() {
    let rebalanced = |bench: &mut Bench| {
        bench.join(join(4, who(""), &[("range", "a")]));
        bench.at(9_000);
        bench.join(join(5, who(""), &[("range", "a")]));
        bench.group.heartbeat(9_000, &fixed("m3", "s"), 1).expect_err("it is to join again");
        bench.at(60_000);
        assert_eq!(bench.joined(4).generation, 2);
    };
    assert_eq!(came_back_and(rebalanced), ResponseError::UnknownMemberId);
    let came_back_again = |bench: &mut Bench| {
        bench.join(join(4, fixed("", "s"), &[("range", "a")]));
        assert_eq!(bench.joined(4).generation, 1);
    };
    assert_eq!(came_back_and(came_back_again), ResponseError::FencedInstanceId);
    let joined_again = |bench: &mut Bench| {
        bench.join(join(4, who(""), &[("range", "a")]));
        bench.join(join(5, fixed("m3", "s"), &[("range", "a")]));
        assert_eq!(bench.joined(5).generation, 2);
    };
    assert_eq!(came_back_and(joined_again), ResponseError::RebalanceInProgress);
}

#[test]
fn an_assignment_that_is_not_durable_is_not_handed_out() {
    let mut bench = Bench::new();
    bench.saves_succeed = false;
    bench.join(join(1, who(""), &[("range", "a")]));
    bench.joined(1);
    bench.sync(sync(2, who("m1"), 1, &[("m1", "all")]));
    assert_eq!(bench.refused(2), ResponseError::CoordinatorNotAvailable);
    assert_eq!(bench.group.state(), State::PreparingRebalance);
}

#[test]
fn k14_the_protocol_is_one_that_all_have_and_most_prefer() {
    let mut bench = Bench::stable();
    bench.join(join(2, who(""), &[("sticky", ""), ("range", "")]));
    bench.join(join(3, who(""), &[("sticky", ""), ("range", "")]));
    bench.join(join(4, who("m1"), &[("range", ""), ("sticky", "")]));
    assert_eq!(bench.joined(4).protocol.as_deref(), Some("sticky"));
    // No protocol in common, or another type: refused.
    bench.join(join(5, who("m2"), &[("mine", "")]));
    assert_eq!(bench.refused(5), ResponseError::InconsistentGroupProtocol);
    let mut connect = join(6, who("m2"), &[("range", "")]);
    connect.protocol_type = "connect".into();
    bench.join(connect);
    assert_eq!(bench.refused(6), ResponseError::InconsistentGroupProtocol);
    bench.join(join(7, who("m2"), &[]));
    assert_eq!(bench.refused(7), ResponseError::InconsistentGroupProtocol);
}

#[test]
fn k14_the_group_size_is_bounded() {
    let mut bench = Bench::stable();
    bench.join(join(2, who(""), &[("range", "")]));
    bench.join(join(3, who(""), &[("range", "")]));
    bench.join(join(4, who("m1"), &[("range", "")]));
    bench.join(join(5, who(""), &[("range", "")]));
    assert_eq!(bench.refused(5), ResponseError::GroupMaxSizeReached);
}

#[test]
fn k14_members_that_can_not_be_stored_together_are_refused() {
    let large: &'static str = &*"x".repeat(9_000).leak();
    let mut bench = Bench::stable();
    bench.join(join(2, who(""), &[("range", large)]));
    assert_eq!(bench.refused(2), ResponseError::GroupMaxSizeReached);
    assert_eq!(bench.group.state(), State::Stable, "nobody else notices");
    // Who is in already can't grow so far, either; its own old metadata doesn't count against it.
    bench.join(join(3, who("m1"), &[("range", &large[..8_500])]));
    bench.joined(3);
    bench.join(join(4, who("m1"), &[("range", &large[..8_600])]));
    bench.joined(4);
    bench.join(join(5, who("m1"), &[("range", large), ("other", large)]));
    assert_eq!(bench.refused(5), ResponseError::GroupMaxSizeReached);
}

#[test]
fn k14_an_assignment_that_can_not_be_stored_is_refused_to_all() {
    let large: &'static str = &*"x".repeat(9_500).leak();
    let mut bench = Bench::stable();
    bench.join(join(2, who(""), &[("range", "b")]));
    bench.join(join(3, who("m1"), &[("range", "a")]));
    bench.sync(sync(4, who("m2"), 2, &[]));
    bench.sync(sync(5, who("m1"), 2, &[("m1", large), ("stranger", large), ("m2", "b")]));
    for reply in [4, 5] {
        match bench.answer(reply) {
            Some(Answer::NotSynced(error)) => assert_eq!(error, ResponseError::UnknownServerError),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.group.state(), State::PreparingRebalance);
    assert_eq!(bench.saved.len(), 1, "nothing of it was stored");
}

#[test]
fn k14_the_first_rebalance_waits_for_more_members() {
    let mut bench = Bench::new();
    bench.settings.initial_delay_ms = 3_000;
    bench.join(join(1, who(""), &[("range", "")]));
    assert_eq!(bench.group.deadline(), Some(3_000));
    bench.now = 2_000;
    bench.join(join(2, who(""), &[("range", "")]));
    bench.at(3_000);
    assert!(bench.answer(1).is_none(), "somebody came: wait once more");
    bench.at(6_000);
    assert_eq!(bench.joined(1).generation, 1);
    assert_eq!(bench.joined(2).generation, 1);
}

#[test]
fn a_retried_join_of_an_unchanged_member_repeats_the_generation() {
    let mut bench = Bench::stable();
    bench.join(join(2, who(""), &[("range", "b")]));
    bench.join(join(3, who("m1"), &[("range", "a")]));
    bench.joined(2);
    bench.join(join(4, who("m2"), &[("range", "b")]));
    assert_eq!(bench.joined(4).generation, 2);
    // Its subscription changed: a new generation.
    bench.join(join(5, who("m2"), &[("range", "c")]));
    assert_eq!(bench.group.state(), State::PreparingRebalance);
}

#[test]
fn commits_are_refused_between_join_and_sync() {
    let mut bench = Bench::new();
    bench.join(join(1, who(""), &[("range", "")]));
    assert_eq!(bench.group.check_commit(0, &who("m1"), 1), Err(ResponseError::RebalanceInProgress));
}

#[test]
fn only_an_empty_group_is_deleted() {
    let mut bench = Bench::stable();
    assert_eq!(bench.group.check_delete(), Err(ResponseError::NonEmptyGroup));
    bench.leave(&[who("m1")]);
    assert_eq!(bench.group.check_delete(), Ok(()));
    bench.group.retire();
    assert_eq!(bench.group.check_delete(), Err(ResponseError::GroupIdNotFound));
    bench.join(join(9, who(""), &[("range", "")]));
    assert_eq!(bench.refused(9), ResponseError::CoordinatorNotAvailable);
}

#[test]
fn a_group_goes_on_after_a_restart() {
    let bench = Bench::stable();
    let saved = bench.saved.last().expect("saved").clone();
    let members = Saved::decode_members(&saved.encode_members()).expect("decodes");
    assert_eq!(members, saved.members);
    let mut back = Group::<u32>::restore(100, Saved { members, ..saved });
    assert_eq!(back.state(), State::Stable);
    assert_eq!(back.heartbeat(100, &who("m1"), 1), Ok(()));
    assert_eq!(back.deadline(), Some(10_100));
    let mut out = Vec::new();
    back.sync(100, &SETTINGS, sync(1, who("m1"), 1, &[]), &mut out);
    assert!(matches!(
        &out[..],
        [Effect::Answer(1, Answer::Synced(synced))] if synced.assignment == "all"
    ));
}

#[test]
fn damaged_members_are_refused_not_believed() {
    let bench = Bench::stable();
    let bytes = bench.saved.last().expect("saved").encode_members();
    for cut in 1..bytes.len() {
        assert_eq!(Saved::decode_members(&bytes[..cut]), None, "cut at {cut}");
    }
    assert_eq!(Saved::decode_members(&[1, 0xff, 0xff, 0xff, 0xff]), None);
    assert_eq!(Saved::decode_members(&[9]), None);
}
