//! The engine over the fake log: what clients see.

mod bridge;
mod catching_up;
mod ending;
mod handover;
mod limits;
mod publishing;
mod retaining;
mod sessions;
mod sharing;
