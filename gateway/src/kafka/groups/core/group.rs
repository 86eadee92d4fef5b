//! The state of a group, and the questions about it that change little.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::member::Member;
use super::types::{Answer, Effect, Identity, Ms, Name, SaveId};

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nobody is in; there may be offsets.
    Empty,
    /// Members are asked to join the next generation.
    PreparingRebalance,
    /// The generation is complete; its leader is asked for the assignment.
    CompletingRebalance,
    /// Everybody has an assignment.
    Stable,
    /// Deleted, forgotten, or another coordinator's.
    Dead,
}

impl State {
    /// Kafka's name of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// When the join phase ends at the latest.
#[derive(Clone, Copy, Debug)]
pub(super) enum JoinPhase {
    /// The first members of an empty group: wait for others, as long as others come.
    Initial { until: Ms, delay_ms: Ms, remaining_ms: Ms },
    /// Members have this long to come back.
    Rebalance { until: Ms },
}

/// What waits for a save.
#[derive(Debug)]
pub(super) enum OnSaved<R> {
    /// The assignment of this generation is handed out.
    Assign { generation: i32, assignments: BTreeMap<Name, Bytes> },
    /// A static member that came back in a stable group is answered.
    Replaced { reply: R, who: Identity, answer: super::types::Joined },
}

/// One classic consumer group. `R` is how a waiting request is answered.
#[derive(Debug)]
pub(crate) struct Group<R> {
    pub(super) state: State,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<Name>,
    pub(super) protocol: Option<Name>,
    pub(super) leader: Option<Name>,
    pub(super) members: BTreeMap<Name, Member<R>>,
    /// Static members: instance to member id.
    pub(super) instances: BTreeMap<Name, Name>,
    /// Ids that were given out and haven't joined yet, with the time at which they lapse.
    pub(super) pending: BTreeMap<Name, Ms>,
    /// Members of this generation that haven't asked for their assignment.
    pub(super) unsynced: BTreeSet<Name>,
    pub(super) unsynced_until: Option<Ms>,
    pub(super) join_phase: Option<JoinPhase>,
    pub(super) joined_in_phase: bool,
    pub(super) saves: BTreeMap<SaveId, OnSaved<R>>,
    pub(super) next_save: u64,
    pub(super) emptied_at: Option<Ms>,
}

/// A group for DescribeGroups.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    pub(crate) state: State,
    pub(crate) protocol_type: Name,
    pub(crate) protocol: Name,
    pub(crate) members: Vec<MemberDescription>,
}

/// A member for DescribeGroups.
#[derive(Clone, Debug)]
pub(crate) struct MemberDescription {
    pub(crate) member: Name,
    pub(crate) instance: Option<Name>,
    pub(crate) client_id: Name,
    pub(crate) client_host: Name,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

impl<R> Group<R> {
    /// A group that nobody has joined.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            pending: BTreeMap::new(),
            unsynced: BTreeSet::new(),
            unsynced_until: None,
            join_phase: None,
            joined_in_phase: false,
            saves: BTreeMap::new(),
            next_save: 0,
            emptied_at: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    pub(crate) fn protocol_type(&self) -> Option<&Name> {
        self.protocol_type.as_ref()
    }

    #[cfg(test)]
    pub(crate) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Nothing in it is lost when it is forgotten: no members, nobody on the way, nothing to save.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.state, State::Empty | State::Dead)
            && self.pending.is_empty()
            && self.saves.is_empty()
    }

    /// An upper estimate of the memory that it takes.
    pub(crate) fn bytes(&self) -> usize {
        let members: usize = self.members.iter().map(|(id, m)| id.len() + m.bytes()).sum();
        let waiting: usize = self
            .saves
            .values()
            .map(|wait| match wait {
                OnSaved::Assign { assignments, .. } => {
                    assignments.iter().map(|(id, bytes)| id.len() + bytes.len() + 64).sum()
                }
                OnSaved::Replaced { .. } => 512,
            })
            .sum();
        512 + members + waiting + self.pending.len() * 128
    }

    /// An upper estimate of what its members take when they are stored, apart from `other` and from
    /// assignments.
    pub(super) fn stored_bytes(&self, other: Option<&Name>) -> usize {
        self.members
            .iter()
            .filter(|(id, _)| Some(*id) != other)
            .map(|(id, member)| id.len() + member.bytes() - member.assignment.len())
            .sum()
    }

    /// The metadata that the members sent for the protocol in force (or, before there is one, for
    /// all of theirs).
    pub(crate) fn subscriptions(&self) -> impl Iterator<Item = &Bytes> {
        self.members.values().flat_map(|member| {
            member.protocols.iter().filter_map(|(name, metadata)| {
                let in_force = self.protocol.as_ref().is_none_or(|protocol| protocol == name);
                in_force.then_some(metadata)
            })
        })
    }

    /// What DescribeGroups shows.
    pub(crate) fn describe(&self) -> Description {
        let protocol = match (&self.protocol, self.state) {
            (Some(protocol), State::Stable) => protocol.clone(),
            _ => Name::default(),
        };
        let stable = self.state == State::Stable;
        let shown = |bytes: Bytes| if stable { bytes } else { Bytes::new() };
        let members = self.members.iter().map(|(id, member)| MemberDescription {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: shown(member.metadata(&protocol)),
            assignment: shown(member.assignment.clone()),
        });
        Description {
            state: self.state,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            protocol,
        }
    }

    /// Whether `who` is a member, and the one that its instance name stands for.
    pub(super) fn check_member(&self, who: &Identity) -> Result<(), ResponseError> {
        if let Some(instance) = &who.instance {
            match self.instances.get(instance) {
                None => return Err(ResponseError::UnknownMemberId),
                Some(id) if *id != who.member => return Err(ResponseError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(&who.member) {
            Ok(())
        } else {
            Err(ResponseError::UnknownMemberId)
        }
    }

    /// A heartbeat.
    ///
    /// # Errors
    /// REBALANCE_IN_PROGRESS tells the member to join again.
    pub(crate) fn heartbeat(
        &mut self,
        now: Ms,
        who: &Identity,
        generation: i32,
    ) -> Result<(), ResponseError> {
        match self.state {
            State::Dead => return Err(ResponseError::CoordinatorNotAvailable),
            State::Empty => return Err(ResponseError::UnknownMemberId),
            _ => {}
        }
        self.check_member(who)?;
        if generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        self.heard_from(now, &who.member);
        if self.state == State::PreparingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether offsets may be committed: by a member of this generation, or by anybody outside of
    /// the group protocol (generation below 0) while the group is empty.
    ///
    /// # Errors
    /// As Kafka's: the client rejoins or gives up by them.
    pub(crate) fn check_commit(
        &mut self,
        now: Ms,
        who: &Identity,
        generation: i32,
    ) -> Result<(), ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation >= 0 || !who.member.is_empty() || who.instance.is_some() {
            if self.state == State::Empty && self.members.is_empty() && self.generation == 0 {
                // Nobody ever joined (or that is forgotten): there is no generation to be of.
                return Err(ResponseError::IllegalGeneration);
            }
            self.check_member(who)?;
            if generation != self.generation {
                return Err(ResponseError::IllegalGeneration);
            }
        } else {
            return Err(ResponseError::UnknownMemberId);
        }
        if self.state == State::CompletingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        self.heard_from(now, &who.member);
        Ok(())
    }

    /// Whether the group may be deleted: nobody is in it, or about to be.
    ///
    /// # Errors
    /// NON_EMPTY_GROUP; GROUP_ID_NOT_FOUND if it is dead.
    pub(crate) fn check_delete(&self) -> Result<(), ResponseError> {
        match self.state {
            State::Dead => Err(ResponseError::GroupIdNotFound),
            State::Empty if self.pending.is_empty() => Ok(()),
            _ => Err(ResponseError::NonEmptyGroup),
        }
    }

    /// Ends an idle group in memory: what of it matters is stored, and is read again when needed.
    pub(crate) fn retire(&mut self) {
        self.state = State::Dead;
    }

    /// Ends the group here, because another coordinator has it or will have it: whoever waits is told
    /// to find that one, where all that was saved goes on.
    pub(crate) fn abandon(&mut self, out: &mut Vec<Effect<R>>) {
        let error = ResponseError::NotCoordinator;
        for (id, member) in std::mem::take(&mut self.members) {
            if let Some(reply) = member.join {
                out.push(Effect::Answer(reply, Answer::NotJoined(error, id)));
            }
            if let Some(reply) = member.sync {
                out.push(Effect::Answer(reply, Answer::NotSynced(error)));
            }
        }
        for wait in std::mem::take(&mut self.saves).into_values() {
            if let OnSaved::Replaced { reply, answer, .. } = wait {
                out.push(Effect::Answer(reply, Answer::NotJoined(error, answer.member)));
            }
        }
        let generation = self.generation;
        *self = Self { state: State::Dead, generation, ..Self::new() };
    }

    pub(super) fn heard_from(&mut self, now: Ms, member: &str) {
        if let Some(member) = self.members.get_mut(member) {
            member.expires_at = now.saturating_add(member.session_ms);
        }
    }

    pub(super) fn save(&mut self, wait: Option<OnSaved<R>>, out: &mut Vec<Effect<R>>) {
        let id = SaveId(self.next_save);
        self.next_save += 1;
        let mut saved = self.snapshot();
        if let Some(OnSaved::Assign { assignments, .. }) = &wait {
            for member in &mut saved.members {
                member.assignment = assignments.get(&member.member).cloned().unwrap_or_default();
            }
        }
        if let Some(wait) = wait {
            self.saves.insert(id, wait);
        }
        out.push(Effect::Save(id, saved));
    }
}
