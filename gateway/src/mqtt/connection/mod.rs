//! One connection: one task, one struct, no buffer while it is idle.
//!
//! ```text
//!   stream ─► input: frames ─► packets: what each does ─► session, publish
//!   stream ◄─ output ◄─ the session's out queue
//! ```

mod input;
mod keep_alive;
mod open;
mod packets;
mod run;
mod shared;
mod subscribe;
mod wire;

pub(crate) use open::serve;
pub(crate) use shared::ConnShared;
