//! FoundationDB's semantics, case by case.

mod conflicts;
mod limits;
mod model;
mod reads;
mod watches;
