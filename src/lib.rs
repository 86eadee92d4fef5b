//! Interflow's processes: what each role puts together, and the command line.
//!
//! ```text
//!   cli/          one file a subcommand
//!   config        file, environment and flags, with the source of every value
//!   meta_store    which metadata store, and how to open it
//!   foundationdb  the one on FoundationDB
//!   run/          the roles: standalone, log store, gateway
//!   kafka, mqtt   the tools' clients
//! ```

pub mod cli;
pub mod config;
mod foundationdb;
mod kafka;
pub mod meta_store;
mod mqtt;
pub mod run;
