//! What goes into a group and what comes out.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;

use super::saved::Saved;

/// Milliseconds on a clock that never goes back.
pub(crate) type Ms = u64;

/// A name that outlives the request that brought it.
pub(crate) type Name = Arc<str>;

/// A member's protocols in the order of its preference, each with its metadata.
pub(crate) type Protocols = Vec<(Name, Bytes)>;

/// What bounds a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Members that a group takes.
    pub(crate) max_size: usize,
    /// How long an empty group waits for more members after its first.
    pub(crate) initial_delay_ms: Ms,
    /// How long a member that doesn't know its id yet may wait for its first generation.
    pub(crate) new_member_timeout_ms: Ms,
    /// What its members may take when they are stored, with their assignments, in bytes.
    pub(crate) max_stored_bytes: usize,
}

/// Who a request says it comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    /// The member id; empty if it has none yet.
    pub(crate) member: Name,
    /// The name of a static member (KIP-345).
    pub(crate) instance: Option<Name>,
}

/// A request to join.
#[derive(Debug)]
pub(crate) struct Join<R> {
    pub(crate) who: Identity,
    /// The id that a new member gets.
    pub(crate) fresh_id: Name,
    pub(crate) client_id: Name,
    pub(crate) client_host: Name,
    pub(crate) session_ms: Ms,
    pub(crate) rebalance_ms: Ms,
    pub(crate) protocol_type: Name,
    pub(crate) protocols: Protocols,
    /// A new member must come again with the id that it is given (KIP-394).
    pub(crate) requires_known_id: bool,
    /// The client can be told to skip its assignment (KIP-814).
    pub(crate) can_skip_assignment: bool,
    pub(crate) reply: R,
}

/// A request for the own assignment; the leader's carries everybody's.
#[derive(Debug)]
pub(crate) struct Sync<R> {
    pub(crate) who: Identity,
    pub(crate) generation: i32,
    /// Checked where the client says it.
    pub(crate) protocol_type: Option<Name>,
    /// Checked where the client says it.
    pub(crate) protocol: Option<Name>,
    pub(crate) assignments: Vec<(Name, Bytes)>,
    pub(crate) reply: R,
}

/// A member took part in a new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<Name>,
    pub(crate) protocol: Option<Name>,
    pub(crate) leader: Name,
    pub(crate) member: Name,
    /// Everybody, for the leader; else empty.
    pub(crate) members: Vec<JoinedMember>,
    pub(crate) skip_assignment: bool,
}

/// A member as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member: Name,
    pub(crate) instance: Option<Name>,
    pub(crate) metadata: Bytes,
}

/// A member's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: Option<Name>,
    pub(crate) protocol: Option<Name>,
    pub(crate) assignment: Bytes,
}

/// The answer to a request that could wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Joined(Joined),
    /// The member id is told with the error: MEMBER_ID_REQUIRED carries the new one.
    NotJoined(ResponseError, Name),
    Synced(Synced),
    NotSynced(ResponseError),
}

/// Names a save, so that its outcome finds what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SaveId(pub(crate) u64);

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Effect<R> {
    /// Answer a request.
    Answer(R, Answer),
    /// Make the state durable, then say so by [`Group::saved`](super::Group::saved).
    Save(SaveId, Saved),
}
