//! Handing out assignments.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use super::group::{Group, OnSaved, State};
use super::types::{Answer, Effect, Identity, Joined, Ms, SaveId, Settings, Sync, Synced};

impl<R> Group<R> {
    /// A member asks for its assignment. It is answered when the leader's is durable.
    pub(crate) fn sync(
        &mut self,
        now: Ms,
        settings: &Settings,
        sync: Sync<R>,
        out: &mut Vec<Effect<R>>,
    ) {
        if let Err(error) = self.check_sync(&sync) {
            out.push(Effect::Answer(sync.reply, Answer::NotSynced(error)));
            return;
        }
        let id = sync.who.member;
        self.heard_from(now, &id);
        self.unsynced.remove(&id);
        if self.unsynced.is_empty() {
            self.unsynced_until = None;
        }
        if self.state == State::Stable {
            let assignment =
                self.members.get(&id).map(|member| member.assignment.clone()).unwrap_or_default();
            let synced = self.synced(assignment);
            out.push(Effect::Answer(sync.reply, Answer::Synced(synced)));
            return;
        }
        if let Some(member) = self.members.get_mut(&id)
            && let Some(earlier) = member.sync.replace(sync.reply)
        {
            let answer = Answer::NotSynced(ResponseError::RebalanceInProgress);
            out.push(Effect::Answer(earlier, answer));
        }
        if self.leader.as_ref() == Some(&id) && !self.is_assigning() {
            let mut assignments: BTreeMap<_, _> = sync.assignments.into_iter().collect();
            assignments.retain(|member, _| self.members.contains_key(member));
            let bytes: usize = assignments.values().map(bytes::Bytes::len).sum();
            if self.stored_bytes(None) + bytes > settings.max_stored_bytes {
                // What Kafka answers where the assignment is more than it can store: clients give up.
                self.refuse_syncs(now, ResponseError::UnknownServerError, out);
                self.prepare(now, settings, out);
                return;
            }
            let generation = self.generation;
            self.save(Some(OnSaved::Assign { generation, assignments }), out);
        }
    }

    fn check_sync(&self, sync: &Sync<R>) -> Result<(), ResponseError> {
        match self.state {
            State::Dead => return Err(ResponseError::CoordinatorNotAvailable),
            State::Empty => return Err(ResponseError::UnknownMemberId),
            _ => {}
        }
        self.check_member(&sync.who)?;
        if sync.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        let differs = sync.protocol_type.is_some() && sync.protocol_type != self.protocol_type
            || sync.protocol.is_some() && sync.protocol != self.protocol;
        if differs {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        if self.state == State::PreparingRebalance {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    fn is_assigning(&self) -> bool {
        self.saves.values().any(|wait| {
            matches!(wait, OnSaved::Assign { generation, .. } if *generation == self.generation)
        })
    }

    fn synced(&self, assignment: bytes::Bytes) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    /// A save is durable, or failed.
    pub(crate) fn saved(
        &mut self,
        now: Ms,
        settings: &Settings,
        id: SaveId,
        is_durable: bool,
        out: &mut Vec<Effect<R>>,
    ) {
        match self.saves.remove(&id) {
            None => {}
            Some(OnSaved::Replaced { reply, who, answer }) => {
                let answer = match self.check_replaced(&who, &answer) {
                    _ if !is_durable => {
                        Answer::NotJoined(ResponseError::CoordinatorNotAvailable, answer.member)
                    }
                    Err(error) => Answer::NotJoined(error, answer.member),
                    Ok(()) => Answer::Joined(answer),
                };
                out.push(Effect::Answer(reply, answer));
            }
            Some(OnSaved::Assign { generation, assignments }) => {
                // A rebalance has begun since: who waited was told so.
                if self.state != State::CompletingRebalance || generation != self.generation {
                    return;
                }
                if is_durable {
                    self.assign(now, assignments, out);
                } else {
                    self.refuse_syncs(now, ResponseError::CoordinatorNotAvailable, out);
                    self.prepare(now, settings, out);
                }
            }
        }
    }

    /// Whether what a static member that came back is to be told still holds: it may be gone
    /// meanwhile, and the generation over.
    fn check_replaced(&self, who: &Identity, answer: &Joined) -> Result<(), ResponseError> {
        self.check_member(who)?;
        match answer.generation == self.generation {
            true => Ok(()),
            false => Err(ResponseError::RebalanceInProgress),
        }
    }

    fn assign(
        &mut self,
        now: Ms,
        mut assignments: BTreeMap<super::types::Name, bytes::Bytes>,
        out: &mut Vec<Effect<R>>,
    ) {
        self.state = State::Stable;
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        for (id, member) in &mut self.members {
            member.assignment = assignments.remove(id).unwrap_or_default();
            if let Some(reply) = member.sync.take() {
                member.expires_at = now.saturating_add(member.session_ms);
                let synced = Synced {
                    protocol_type: protocol_type.clone(),
                    protocol: protocol.clone(),
                    assignment: member.assignment.clone(),
                };
                out.push(Effect::Answer(reply, Answer::Synced(synced)));
            }
        }
    }
}
