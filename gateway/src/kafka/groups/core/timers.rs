//! What happens when nothing happens.

use super::group::{Group, JoinPhase, State};
use super::types::{Effect, Ms, Name, Settings};

impl<R> Group<R> {
    /// When [`tick`](Group::tick) has something to do at the earliest.
    pub(crate) fn deadline(&self) -> Option<Ms> {
        let phase = self.join_phase.map(|phase| match phase {
            JoinPhase::Initial { until, .. } | JoinPhase::Rebalance { until } => until,
        });
        let members = self.members.values().filter_map(|member| member.deadline()).min();
        let pending = self.pending.values().copied().min();
        [phase, members, pending, self.unsynced_until].into_iter().flatten().min()
    }

    /// Acts on all that is due at `now`.
    pub(crate) fn tick(&mut self, now: Ms, settings: &Settings, out: &mut Vec<Effect<R>>) {
        self.expire(now, settings, out);
        match self.join_phase {
            Some(JoinPhase::Initial { until, delay_ms, remaining_ms }) if until <= now => {
                if self.joined_in_phase && remaining_ms > 0 {
                    // Others came meanwhile: more may be on the way.
                    self.joined_in_phase = false;
                    let wait_ms = delay_ms.min(remaining_ms);
                    self.join_phase = Some(JoinPhase::Initial {
                        until: now.saturating_add(wait_ms),
                        delay_ms: wait_ms,
                        remaining_ms: remaining_ms.saturating_sub(wait_ms),
                    });
                } else {
                    self.complete_join(now, out);
                }
            }
            Some(JoinPhase::Rebalance { until }) if until <= now => self.complete_join(now, out),
            _ => {}
        }
        if self.unsynced_until.is_some_and(|until| until <= now) {
            self.unsynced_until = None;
            let silent = std::mem::take(&mut self.unsynced);
            for id in &silent {
                self.remove(id, out);
            }
            if !silent.is_empty()
                && matches!(self.state, State::CompletingRebalance | State::Stable)
            {
                self.prepare(now, settings, out);
            }
        }
    }

    fn expire(&mut self, now: Ms, settings: &Settings, out: &mut Vec<Effect<R>>) {
        let before = self.pending.len();
        self.pending.retain(|_, until| *until > now);
        let gone: Vec<Name> = self
            .members
            .iter()
            .filter(|(_, member)| member.deadline().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.remove(id, out);
        }
        let only_pending = gone.is_empty();
        if !only_pending {
            self.after_removal(now, settings, out);
        } else if self.pending.len() != before && self.state == State::PreparingRebalance {
            self.rebalance_or_complete(now, settings, out);
        }
    }
}
