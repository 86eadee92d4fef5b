//! The engine over the fake log: what clients see.

mod publishing;
