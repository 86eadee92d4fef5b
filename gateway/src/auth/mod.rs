//! Who may connect: one question for every protocol.

mod users;

use async_trait::async_trait;
use std::sync::Arc;

use crate::net::Peer;
pub use users::{UserError, Users};

/// Who a connection acts as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal(pub Arc<str>);

impl Principal {
    /// Kafka's name for a connection without credentials.
    pub fn anonymous() -> Self {
        Self("ANONYMOUS".into())
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Unknown user or wrong password (never told apart).
    #[error("bad user name or password")]
    BadCredentials,
    /// The users could not be read: try again later.
    #[error("credentials cannot be checked at present")]
    Unavailable,
}

/// Checks credentials. Object-safe, shared by all listeners.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Whether a connection must show credentials. `false` while there are no users: then what
    /// a client shows is ignored.
    fn is_required(&self) -> bool;

    /// Checks a user name and password. Slow hashes run on the blocking pool, a bounded number
    /// at a time.
    async fn verify(
        &self,
        user: Option<&str>,
        password: Option<&[u8]>,
        peer: &Peer,
    ) -> Result<Principal, Refused>;
}
