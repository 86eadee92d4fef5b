//! Random interleavings of members that join, sync, beat, leave, restart and fall silent.

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use proptest::prelude::*;

use super::super::{Answer, Effect, Group, Identity, Join, SaveId, Settings, State, Sync};

#[derive(Clone, Debug)]
enum Step {
    /// Client `0` joins (or joins again).
    Join(usize),
    Sync(usize),
    Beat(usize),
    Leave(usize),
    /// The client forgets its id and starts anew.
    Restart(usize),
    /// Time passes.
    Pass(u64),
    /// The oldest save ends, well or not.
    Saved(bool),
}

const CLIENTS: usize = 5;
/// The last two clients are static members.
const STATIC_FROM: usize = 3;
const SESSION_MS: u64 = 1_000;
const REBALANCE_MS: u64 = 3_000;

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        4 => client.clone().prop_map(Step::Join),
        4 => client.clone().prop_map(Step::Sync),
        2 => client.clone().prop_map(Step::Beat),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.prop_map(Step::Restart),
        2 => (1..900u64).prop_map(Step::Pass),
        3 => prop::bool::weighted(0.9).prop_map(Step::Saved),
    ]
}

#[derive(Clone, Debug, Default)]
struct Client {
    id: String,
    generation: i32,
    is_leader: bool,
    members: Vec<String>,
    /// The request that waits, if one does.
    waits: Option<u64>,
    share: Option<(i32, Bytes)>,
}

struct World {
    group: Group<(usize, u64)>,
    settings: Settings,
    now: u64,
    clients: Vec<Client>,
    saves: Vec<SaveId>,
    next: u64,
    /// Requests that were sent and not answered.
    open: std::collections::BTreeSet<(usize, u64)>,
    newest: i32,
}

impl World {
    fn new(initial_delay_ms: u64) -> Self {
        Self {
            group: Group::new(),
            settings: Settings {
                max_size: 100,
                initial_delay_ms,
                new_member_timeout_ms: 10_000,
                max_stored_bytes: 1_000_000,
            },
            now: 0,
            clients: vec![Client::default(); CLIENTS],
            saves: Vec::new(),
            next: 0,
            open: Default::default(),
            newest: 0,
        }
    }

    fn who(&self, client: usize) -> Identity {
        Identity {
            member: self.clients[client].id.as_str().into(),
            instance: (client >= STATIC_FROM).then(|| format!("s{client}").into()),
        }
    }

    fn request(&mut self, client: usize) -> (usize, u64) {
        self.next += 1;
        self.open.insert((client, self.next));
        self.clients[client].waits = Some(self.next);
        (client, self.next)
    }

    fn run(&mut self, step: Step) {
        let mut out = Vec::new();
        match step {
            Step::Join(c) => {
                let who = self.who(c);
                let reply = self.request(c);
                let join = Join {
                    who,
                    fresh_id: format!("{c}-{}", self.next).into(),
                    client_id: "c".into(),
                    client_host: "h".into(),
                    session_ms: SESSION_MS,
                    rebalance_ms: REBALANCE_MS,
                    protocol_type: "consumer".into(),
                    protocols: vec![("range".into(), Bytes::new())],
                    requires_known_id: c.is_multiple_of(2),
                    can_skip_assignment: c.is_multiple_of(2),
                    reply,
                };
                self.group.join(self.now, &self.settings, join, &mut out);
            }
            Step::Sync(c) => {
                let who = self.who(c);
                let client = self.clients[c].clone();
                let reply = self.request(c);
                let assignments = if client.is_leader { client.members } else { Vec::new() };
                let sync = Sync {
                    who,
                    generation: client.generation,
                    protocol_type: None,
                    protocol: None,
                    assignments: assignments
                        .into_iter()
                        .map(|id| {
                            let share = Bytes::from(format!("{}/{id}", client.generation));
                            (id.into(), share)
                        })
                        .collect(),
                    reply,
                };
                self.group.sync(self.now, &self.settings, sync, &mut out);
            }
            Step::Beat(c) => {
                let who = self.who(c);
                let generation = self.clients[c].generation;
                let _ = self.group.heartbeat(self.now, &who, generation);
            }
            Step::Leave(c) => {
                let who = self.who(c);
                let _ = self.group.leave(self.now, &self.settings, &[who], &mut out);
            }
            Step::Restart(c) => {
                self.clients[c] = Client::default();
            }
            Step::Pass(ms) => {
                self.now += ms;
                self.group.tick(self.now, &self.settings, &mut out);
                if let Some(at) = self.group.deadline() {
                    assert!(at > self.now, "a tick left something due at {at}, now {}", self.now);
                }
            }
            Step::Saved(ok) => {
                if !self.saves.is_empty() {
                    let id = self.saves.remove(0);
                    self.group.saved(self.now, &self.settings, id, ok, &mut out);
                }
            }
        }
        self.take(out);
        self.check();
    }

    fn take(&mut self, effects: Vec<Effect<(usize, u64)>>) {
        for effect in effects {
            match effect {
                Effect::Save(id, _) => self.saves.push(id),
                Effect::Answer((c, request), answer) => {
                    assert!(self.open.remove(&(c, request)), "{request} was answered twice");
                    if self.clients[c].waits != Some(request) {
                        continue;
                    }
                    let client = &mut self.clients[c];
                    client.waits = None;
                    match answer {
                        Answer::Joined(joined) => {
                            assert!(joined.generation >= self.newest, "a generation went back");
                            self.newest = joined.generation;
                            client.id = joined.member.to_string();
                            client.generation = joined.generation;
                            client.is_leader = joined.leader == joined.member;
                            client.members =
                                joined.members.iter().map(|m| m.member.to_string()).collect();
                        }
                        Answer::NotJoined(ResponseError::MemberIdRequired, id) => {
                            client.id = id.to_string();
                        }
                        Answer::NotJoined(
                            ResponseError::UnknownMemberId | ResponseError::FencedInstanceId,
                            _,
                        ) => *client = Client::default(),
                        Answer::Synced(synced) => {
                            client.share = Some((client.generation, synced.assignment));
                        }
                        Answer::NotJoined(..) | Answer::NotSynced(_) => {}
                    }
                }
            }
        }
    }

    fn check(&self) {
        // Whoever has a share of the newest generation has the one that was made for it.
        for client in &self.clients {
            if let Some((generation, share)) = &client.share
                && !share.is_empty()
            {
                let share = String::from_utf8_lossy(share);
                assert!(share.starts_with(&format!("{generation}/")), "{share} in {generation}");
            }
        }
        let description = self.group.describe();
        match self.group.state() {
            State::Empty | State::Dead => assert!(description.members.is_empty()),
            State::Stable => {
                assert!(!description.members.is_empty());
                // A stable generation has a share for each member that its leader knew of.
                for member in &description.members {
                    assert!(
                        !member.assignment.is_empty() || member.instance.is_some(),
                        "{} has no assignment",
                        member.member
                    );
                }
            }
            State::PreparingRebalance => {
                // It may wait for nobody but an id that was given out: that lapses.
                assert!(self.group.deadline().is_some(), "stuck");
            }
            State::CompletingRebalance => {
                assert!(!description.members.is_empty());
                assert!(self.group.deadline().is_some() || !self.saves.is_empty(), "stuck");
            }
        }
    }

    /// Lets all live clients follow the protocol: the group must come to rest with everybody in.
    fn settle(&mut self) {
        for _ in 0..60 {
            while !self.saves.is_empty() {
                self.run(Step::Saved(true));
            }
            for c in 0..CLIENTS {
                if self.clients[c].waits.is_some() {
                    continue;
                }
                let who = self.who(c);
                let generation = self.clients[c].generation;
                let beat = self.group.heartbeat(self.now, &who, generation);
                match (beat, self.group.state()) {
                    (Ok(()), State::CompletingRebalance) => self.run(Step::Sync(c)),
                    (Ok(()), _) => {
                        let share = self.clients[c].share.as_ref();
                        if share.is_none_or(|(had, _)| *had != generation) {
                            self.run(Step::Sync(c));
                        }
                    }
                    (Err(ResponseError::UnknownMemberId | ResponseError::FencedInstanceId), _)
                        if !self.group_knows_as_pending(c) =>
                    {
                        self.clients[c] = Client::default();
                        self.run(Step::Join(c));
                    }
                    (Err(_), _) => self.run(Step::Join(c)),
                }
            }
            self.run(Step::Pass(SESSION_MS / 3));
        }
        while !self.saves.is_empty() {
            self.run(Step::Saved(true));
        }
        assert_eq!(self.group.state(), State::Stable, "stuck: {:?}", self.group.describe());
        assert_eq!(self.group.member_count(), CLIENTS);
        let generation = self.group.generation();
        for (c, client) in self.clients.iter().enumerate() {
            let (had, share) = client.share.clone().expect("a share");
            assert_eq!(had, generation);
            // A static member that came back has the share that was made for its earlier id.
            let made_for = match c >= STATIC_FROM {
                true => format!("{generation}/{c}-"),
                false => format!("{generation}/{}", client.id),
            };
            assert!(share.starts_with(made_for.as_bytes()), "{share:?} is not {made_for}");
        }
    }

    fn group_knows_as_pending(&self, client: usize) -> bool {
        let client = &self.clients[client];
        client.generation == 0 && !client.id.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_group_keeps_its_promises_and_comes_to_rest(
        steps in prop::collection::vec(step(), 1..120),
        delay in prop_oneof![Just(0u64), Just(500)],
    ) {
        let mut world = World::new(delay);
        for step in steps {
            world.run(step);
        }
        world.settle();
    }
}
