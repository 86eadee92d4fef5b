//! What meta knows, one file an entity: its key, its value, and its transaction functions, each
//! named for what it does. No key is built anywhere else.

pub(crate) mod check;
mod codec;
pub(crate) mod fuzz;

pub mod cluster;
pub mod groups;
pub mod levels;
pub mod logs;
pub mod materialised;
pub mod nodes;
pub mod producers;
pub mod retained;
pub mod topics;
pub mod users;

/// The tenant of listeners that name none.
pub const DEFAULT_TENANT: &str = "";
