//! What the engine's tests work with: a log whose commits are held back at will, and clients that
//! speak over pipes.

mod client;
mod log;

pub(super) use client::{Client, Got, Rig, SHARDS};
