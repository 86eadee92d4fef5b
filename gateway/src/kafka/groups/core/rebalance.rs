//! From one generation to the next, and how members go.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::group::{Group, JoinPhase, State};
use super::types::{Answer, Effect, Identity, Ms, Name, Settings};

impl<R> Group<R> {
    /// Members leave. Each has its own outcome.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE for all when the group is dead.
    pub(crate) fn leave(
        &mut self,
        now: Ms,
        settings: &Settings,
        members: &[Identity],
        out: &mut Vec<Effect<R>>,
    ) -> Result<Vec<Result<(), ResponseError>>, ResponseError> {
        if self.state == State::Dead {
            return Err(ResponseError::CoordinatorNotAvailable);
        }
        let mut any = false;
        let mut outcomes = Vec::with_capacity(members.len());
        for who in members {
            let outcome = self.leave_one(who, out);
            any |= outcome.is_ok();
            outcomes.push(outcome);
        }
        if any {
            self.after_removal(now, settings, out);
        }
        Ok(outcomes)
    }

    fn leave_one(&mut self, who: &Identity, out: &mut Vec<Effect<R>>) -> Result<(), ResponseError> {
        if who.instance.is_none() && self.pending.remove(&who.member).is_some() {
            return Ok(());
        }
        // An administrator names a static member by its instance alone.
        let by_instance = who.instance.as_ref().filter(|_| who.member.is_empty());
        let id = match by_instance {
            Some(instance) => {
                self.instances.get(instance).cloned().ok_or(ResponseError::UnknownMemberId)?
            }
            None => {
                self.check_member(who)?;
                who.member.clone()
            }
        };
        self.remove(&id, out);
        Ok(())
    }

    /// Takes a member out; what it waits for is refused.
    pub(super) fn remove(&mut self, id: &str, out: &mut Vec<Effect<R>>) {
        let Some((id, member)) = self.members.remove_entry(id) else { return };
        if let Some(reply) = member.join {
            let answer = Answer::NotJoined(ResponseError::UnknownMemberId, id.clone());
            out.push(Effect::Answer(reply, answer));
        }
        if let Some(reply) = member.sync {
            out.push(Effect::Answer(reply, Answer::NotSynced(ResponseError::UnknownMemberId)));
        }
        if let Some(instance) = member.instance
            && self.instances.get(&instance) == Some(&id)
        {
            self.instances.remove(&instance);
        }
        self.unsynced.remove(&id);
        if self.leader.as_ref() == Some(&id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Members or pending ids went: the rest needs a new generation, or can complete it now.
    pub(super) fn after_removal(&mut self, now: Ms, settings: &Settings, out: &mut Vec<Effect<R>>) {
        match self.state {
            // The pending went, nobody was in.
            State::Empty | State::Dead => {}
            _ => self.rebalance_or_complete(now, settings, out),
        }
    }

    pub(super) fn rebalance_or_complete(
        &mut self,
        now: Ms,
        settings: &Settings,
        out: &mut Vec<Effect<R>>,
    ) {
        match self.state {
            State::Dead => {}
            State::PreparingRebalance => {
                let is_initial = matches!(self.join_phase, Some(JoinPhase::Initial { .. }));
                if !is_initial && self.all_joined() {
                    self.complete_join(now, out);
                }
            }
            State::Empty | State::CompletingRebalance | State::Stable => {
                self.prepare(now, settings, out);
            }
        }
    }

    /// Asks everybody to join again.
    pub(super) fn prepare(&mut self, now: Ms, settings: &Settings, out: &mut Vec<Effect<R>>) {
        self.refuse_syncs(now, ResponseError::RebalanceInProgress, out);
        let is_first = self.state == State::Empty;
        self.state = State::PreparingRebalance;
        self.emptied_at = None;
        self.unsynced.clear();
        self.unsynced_until = None;
        self.joined_in_phase = false;
        let delay_ms = settings.initial_delay_ms;
        if is_first && delay_ms > 0 {
            self.join_phase = Some(JoinPhase::Initial {
                until: now.saturating_add(delay_ms),
                delay_ms,
                remaining_ms: self.rebalance_ms().saturating_sub(delay_ms),
            });
        } else if is_first || self.all_joined() {
            self.complete_join(now, out);
        } else {
            let until = now.saturating_add(self.rebalance_ms());
            self.join_phase = Some(JoinPhase::Rebalance { until });
        }
    }

    /// Ends the join phase with those who came.
    pub(super) fn complete_join(&mut self, now: Ms, out: &mut Vec<Effect<R>>) {
        let gone: Vec<Name> = self
            .members
            .iter()
            .filter(|(_, m)| m.join.is_none() && m.instance.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.remove(&id, out);
        }
        if self.members.is_empty() {
            self.next_generation();
            self.become_empty(now, out);
        } else if self.elect() {
            self.next_generation();
            self.protocol = self.choose_protocol();
            self.state = State::CompletingRebalance;
            self.join_phase = None;
            self.announce(now, out);
        } else {
            // Only static members are left and none is back: they have the time again.
            let until = now.saturating_add(self.rebalance_ms());
            self.join_phase = Some(JoinPhase::Rebalance { until });
        }
    }

    fn announce(&mut self, now: Ms, out: &mut Vec<Effect<R>>) {
        let ids: Vec<Name> = self.members.keys().cloned().collect();
        for id in &ids {
            let is_leader = self.leader.as_ref() == Some(id);
            let joined = self.joined(id, is_leader);
            let Some(member) = self.members.get_mut(id) else { continue };
            member.is_new = false;
            member.assignment = bytes::Bytes::new();
            member.expires_at = now.saturating_add(member.session_ms);
            if let Some(reply) = member.join.take() {
                out.push(Effect::Answer(reply, Answer::Joined(joined)));
            }
        }
        self.unsynced = ids.into_iter().collect();
        self.unsynced_until = Some(now.saturating_add(self.rebalance_ms()));
    }

    fn become_empty(&mut self, now: Ms, out: &mut Vec<Effect<R>>) {
        self.state = State::Empty;
        self.protocol = None;
        self.leader = None;
        self.join_phase = None;
        self.unsynced.clear();
        self.unsynced_until = None;
        self.emptied_at = Some(now);
        self.save(None, out);
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    pub(super) fn refuse_syncs(&mut self, now: Ms, error: ResponseError, out: &mut Vec<Effect<R>>) {
        for member in self.members.values_mut() {
            if let Some(reply) = member.sync.take() {
                member.expires_at = now.saturating_add(member.session_ms);
                out.push(Effect::Answer(reply, Answer::NotSynced(error)));
            }
        }
    }

    /// Keeps the leader if it came back, else takes one of those who did.
    fn elect(&mut self) -> bool {
        let came = |id: &Name| self.members.get(id).is_some_and(|member| member.join.is_some());
        if self.leader.as_ref().is_some_and(came) {
            return true;
        }
        let next = self.members.keys().find(|id| came(id)).cloned();
        if let Some(next) = next {
            self.leader = Some(next);
            return true;
        }
        false
    }

    /// The protocol that all have, and that most of them like best.
    pub(super) fn choose_protocol(&self) -> Option<Name> {
        let mut votes: BTreeMap<&Name, usize> = BTreeMap::new();
        for member in self.members.values() {
            let best = member
                .protocols
                .iter()
                .map(|(name, _)| name)
                .find(|name| self.members.values().all(|other| other.supports(name)));
            if let Some(best) = best {
                *votes.entry(best).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.clone())
    }

    fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|member| member.join.is_some())
    }

    /// The longest that a member may take to come back.
    pub(super) fn rebalance_ms(&self) -> Ms {
        self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0)
    }
}
