//! Topic aliases towards a client.

use std::num::NonZeroU16;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::mqtt::codec::AliasForm;

/// The aliases of one connection: the first topics get them, and keep them.
#[derive(Debug)]
pub(crate) struct OutAliases {
    by_topic: HashMap<Arc<str>, NonZeroU16, RandomState>,
    max: u16,
}

impl OutAliases {
    /// `None` if the client or the configuration takes none.
    pub(crate) fn new(max: u16) -> Option<Box<Self>> {
        (max > 0).then(|| Box::new(Self { by_topic: HashMap::default(), max }))
    }

    /// How to name `topic` now. With [`AliasForm::Define`] call [`OutAliases::define`] once it is
    /// certain that the packet is sent.
    pub(crate) fn form(&self, topic: &str) -> (AliasForm, Option<NonZeroU16>) {
        if let Some(alias) = self.by_topic.get(topic) {
            return (AliasForm::Alias, Some(*alias));
        }
        let next = u16::try_from(self.by_topic.len() + 1).ok().filter(|next| *next <= self.max);
        match next.and_then(NonZeroU16::new) {
            Some(alias) => (AliasForm::Define, Some(alias)),
            None => (AliasForm::Name, None),
        }
    }

    pub(crate) fn define(&mut self, topic: &str, alias: NonZeroU16) {
        self.by_topic.insert(topic.into(), alias);
    }
}
