//! The binary's library: every room wired to the others.
//!
//! Start reading at [`app`], which puts the node together, and at `pump.rs`, where the rooms meet.

pub mod access;
mod actor;
pub mod admin;
pub mod app;
pub mod backup;
mod calendar;
mod certificates;
pub mod cli;
pub mod clock;
mod commit;
pub mod config;
mod contents;
pub mod control;
mod deadlines;
mod dial;
mod expiry;
pub mod folder;
mod http;
mod kept;
mod keychain;
pub mod keys;
pub mod log;
mod master;
pub mod outlets;
mod outside;
mod pump;
pub mod registry;
mod restored;
pub mod retention;
mod revocations;
#[cfg(test)]
mod testing;
pub mod tls;
mod unsettled;
pub mod upstream;
