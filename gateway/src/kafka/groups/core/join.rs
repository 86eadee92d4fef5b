//! Joining: who is let in, and what that means for the generation.

use kafka_protocol::error::ResponseError;

use super::group::{Group, OnSaved, State};
use super::member::{Member, bytes_of};
use super::types::{Answer, Effect, Identity, Join, Joined, JoinedMember, Ms, Name, Settings};

impl<R> Group<R> {
    /// A member wants into the next generation. The answer may come at once or when the
    /// generation is complete.
    pub(crate) fn join(
        &mut self,
        now: Ms,
        settings: &Settings,
        join: Join<R>,
        out: &mut Vec<Effect<R>>,
    ) {
        let refusal = if self.state == State::Dead {
            Some(ResponseError::CoordinatorNotAvailable)
        } else if !self.has_room_for(&join.who.member, settings) {
            // A group above its bound (it was lowered) shrinks by those that come back too late.
            self.remove(&join.who.member, out);
            Some(ResponseError::GroupMaxSizeReached)
        } else if !self.shares_protocol(&join) {
            Some(ResponseError::InconsistentGroupProtocol)
        } else if !self.can_store(&join, settings) {
            Some(ResponseError::GroupMaxSizeReached)
        } else {
            None
        };
        if let Some(error) = refusal {
            out.push(refuse(error, join));
        } else if join.who.member.is_empty() {
            self.join_new(now, settings, join, out);
        } else if self.pending.contains_key(&join.who.member) && join.who.instance.is_none() {
            self.add(now, settings, join.who.member.clone(), join, out);
        } else {
            self.join_again(now, settings, join, out);
        }
    }

    fn has_room_for(&self, member: &str, settings: &Settings) -> bool {
        match self.state {
            State::Empty | State::Dead => {
                self.pending.len() < settings.max_size || self.pending.contains_key(member)
            }
            State::PreparingRebalance => {
                let waiting = self.members.values().filter(|m| m.join.is_some()).count();
                let waits = self.members.get(member).is_some_and(|m| m.join.is_some());
                waits || waiting < settings.max_size
            }
            State::CompletingRebalance | State::Stable => {
                self.members.contains_key(member) || self.members.len() < settings.max_size
            }
        }
    }

    /// Whether the members could be stored with this one among them.
    fn can_store(&self, join: &Join<R>, settings: &Settings) -> bool {
        let instance = join.who.instance.as_ref();
        let replaced = instance.and_then(|name| self.instances.get(name));
        let others = self.stored_bytes(replaced.or(Some(&join.who.member)));
        let text = join.fresh_id.len().max(join.who.member.len())
            + join.client_id.len()
            + join.client_host.len()
            + instance.map_or(0, |name| name.len());
        others + text + bytes_of(&join.protocols) + 512 <= settings.max_stored_bytes
    }

    fn shares_protocol(&self, join: &Join<R>) -> bool {
        if join.protocol_type.is_empty() || join.protocols.is_empty() {
            return false;
        }
        self.members.is_empty()
            || (self.protocol_type.as_ref() == Some(&join.protocol_type)
                && join
                    .protocols
                    .iter()
                    .any(|(name, _)| self.members.values().all(|m| m.supports(name))))
    }

    fn join_new(&mut self, now: Ms, settings: &Settings, join: Join<R>, out: &mut Vec<Effect<R>>) {
        let id = join.fresh_id.clone();
        let known = join.who.instance.as_ref().and_then(|name| self.instances.get(name)).cloned();
        if let Some(old) = known {
            self.replace(now, settings, &old, join, out);
        } else if join.who.instance.is_none() && join.requires_known_id {
            self.pending.insert(id.clone(), now.saturating_add(join.session_ms));
            out.push(Effect::Answer(
                join.reply,
                Answer::NotJoined(ResponseError::MemberIdRequired, id),
            ));
        } else {
            self.add(now, settings, id, join, out);
        }
    }

    fn add(
        &mut self,
        now: Ms,
        settings: &Settings,
        id: Name,
        join: Join<R>,
        out: &mut Vec<Effect<R>>,
    ) {
        self.pending.remove(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type);
        }
        if let Some(instance) = &join.who.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.joined_in_phase = true;
        self.members.insert(
            id,
            Member {
                instance: join.who.instance,
                client_id: join.client_id,
                client_host: join.client_host,
                session_ms: join.session_ms,
                rebalance_ms: join.rebalance_ms,
                protocols: join.protocols,
                assignment: bytes::Bytes::new(),
                join: Some(join.reply),
                sync: None,
                is_new: true,
                expires_at: now.saturating_add(settings.new_member_timeout_ms),
            },
        );
        self.rebalance_or_complete(now, settings, out);
    }

    fn join_again(
        &mut self,
        now: Ms,
        settings: &Settings,
        join: Join<R>,
        out: &mut Vec<Effect<R>>,
    ) {
        if let Err(error) = self.check_member(&join.who) {
            out.push(refuse(error, join));
            return;
        }
        let is_leader = self.leader.as_ref() == Some(&join.who.member);
        let unchanged =
            self.members.get(&join.who.member).is_some_and(|m| m.protocols == join.protocols);
        let rebalances = match self.state {
            State::PreparingRebalance => true,
            // Its answer to the last join may have been lost: the generation stands.
            State::CompletingRebalance => !unchanged,
            // The leader comes back when what it assigns by has changed.
            State::Stable => is_leader || !unchanged,
            State::Empty | State::Dead => {
                out.push(refuse(ResponseError::UnknownMemberId, join));
                return;
            }
        };
        if rebalances {
            self.update(now, join, out);
            self.rebalance_or_complete(now, settings, out);
        } else {
            self.heard_from(now, &join.who.member);
            let joined = self.joined(&join.who.member, is_leader);
            out.push(Effect::Answer(join.reply, Answer::Joined(joined)));
        }
    }

    /// A static member is back under a new id: it takes over the old one's place.
    fn replace(
        &mut self,
        now: Ms,
        settings: &Settings,
        old: &Name,
        join: Join<R>,
        out: &mut Vec<Effect<R>>,
    ) {
        let Some(mut member) = self.members.remove(old) else {
            out.push(refuse(ResponseError::UnknownMemberId, join));
            return;
        };
        if let Some(reply) = member.join.take() {
            let fenced = Answer::NotJoined(ResponseError::FencedInstanceId, old.clone());
            out.push(Effect::Answer(reply, fenced));
        }
        if let Some(reply) = member.sync.take() {
            out.push(Effect::Answer(reply, Answer::NotSynced(ResponseError::FencedInstanceId)));
        }
        let id = join.fresh_id.clone();
        let was_leader = self.leader.as_ref() == Some(old);
        if was_leader {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &join.who.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        if self.unsynced.remove(old) {
            self.unsynced.insert(id.clone());
        }
        member.is_new = false;
        self.members.insert(id.clone(), member);
        let can_skip = join.can_skip_assignment;
        let who = Identity { member: id.clone(), instance: join.who.instance.clone() };
        self.update(now, Join { who: who.clone(), ..join }, out);

        if self.state != State::Stable || self.choose_protocol() != self.protocol {
            self.rebalance_or_complete(now, settings, out);
            return;
        }
        let Some(reply) = self.members.get_mut(&id).and_then(|member| member.join.take()) else {
            return;
        };
        let mut answer = self.joined(&id, was_leader && can_skip);
        answer.skip_assignment = was_leader && can_skip;
        if was_leader && !can_skip {
            // Told the old leader's id it doesn't take itself for the leader, whose assignment a
            // stable group wouldn't hand out.
            answer.leader = old.clone();
        }
        self.heard_from(now, &id);
        self.save(Some(OnSaved::Replaced { reply, who, answer }), out);
    }

    fn update(&mut self, now: Ms, join: Join<R>, out: &mut Vec<Effect<R>>) {
        let Some(member) = self.members.get_mut(&join.who.member) else {
            out.push(refuse(ResponseError::UnknownMemberId, join));
            return;
        };
        member.client_id = join.client_id;
        member.client_host = join.client_host;
        member.session_ms = join.session_ms;
        member.rebalance_ms = join.rebalance_ms;
        member.protocols = join.protocols;
        member.expires_at = now.saturating_add(member.session_ms);
        if let Some(earlier) = member.join.replace(join.reply) {
            let answer =
                Answer::NotJoined(ResponseError::RebalanceInProgress, join.who.member.clone());
            out.push(Effect::Answer(earlier, answer));
        }
    }

    /// The present generation as `member` is told of it.
    pub(super) fn joined(&self, member: &Name, with_members: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if with_members {
            self.members
                .iter()
                .map(|(id, m)| JoinedMember {
                    member: id.clone(),
                    instance: m.instance.clone(),
                    metadata: m.metadata(&protocol),
                })
                .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: member.clone(),
            members,
            skip_assignment: false,
        }
    }
}

fn refuse<R>(error: ResponseError, join: Join<R>) -> Effect<R> {
    Effect::Answer(join.reply, Answer::NotJoined(error, join.who.member))
}
