//! Groups come and go with the view of the gateways.
//!
//! A group is let go when the view gives it to another gateway, and taken over when it is asked for.
//! Nobody may ever ask for one whose members all died with its coordinator: those are taken over as
//! soon as that coordinator counts as dead.

use std::sync::Arc;

use interflow_meta::MetaError;
use interflow_meta::groups::Coordinator;

use super::registry::Groups;
use super::store;

impl Groups {
    /// Follows the view until it ends.
    pub(super) async fn follow_view(self: Arc<Self>) {
        let mut changes = self.brokers().gateways().changes();
        loop {
            changes.mark_unchanged();
            self.let_go_of_others();
            tokio::select! {
                biased;
                changed = changes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                outcome = self.take_over() => {
                    if let Err(error) = outcome {
                        tracing::warn!(%error, "groups can't be read; each is read when it is used");
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn let_go_of_others(self: &Arc<Self>) {
        for slot in self.in_memory() {
            if self.check(&slot.name).is_err() {
                self.let_go(&slot);
            }
        }
    }

    /// Reads the groups with members that are this gateway's and no other live one's, so that the
    /// sessions of members that don't come back end.
    async fn take_over(self: &Arc<Self>) -> Result<(), MetaError> {
        let meta = &self.meta().background();
        let mut after: Option<String> = None;
        loop {
            let page = store::names(meta, after.as_deref()).await?;
            for name in &page {
                if self.check(name).is_err() || self.peek(name, |_| ()).is_some() {
                    continue;
                }
                let found = store::glance(meta, name).await?;
                if found.has_members && !self.is_others(found.coordinator) {
                    // Refused means that it is another's by now, or is read when it is used.
                    let _ = self.with(name, false, |_, _, _| ()).await;
                }
            }
            if page.len() < store::PAGE {
                return Ok(());
            }
            after = page.last().cloned();
        }
    }

    /// Whether a group's coordinator is another gateway that lives.
    pub(super) fn is_others(&self, coordinator: Option<Coordinator>) -> bool {
        let Some(Coordinator { life, .. }) = coordinator else { return false };
        life != self.life()
            && self
                .brokers()
                .gateways()
                .live()
                .iter()
                .any(|gateway| (gateway.id, gateway.incarnation) == (life.node, life.incarnation))
    }
}
