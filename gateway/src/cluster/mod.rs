//! Which gateways there are, and what falls to which of them.
//!
//! ```text
//!   members in meta ─► Gateways (a view: live, leases) ─► rendezvous ─► leader of a partition
//!                                                                   └► coordinator of a group
//! ```
//!
//! Views of two gateways may differ for some seconds. What must not be done twice is made safe by
//! whoever does it, in meta; a view says only who should.

mod fixed;
mod rendezvous;
mod view;

pub use fixed::FixedGateways;
pub use rendezvous::{Weight, heaviest};
pub use view::{Endpoint, Gateway, Gateways};
