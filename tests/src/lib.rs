//! The simulated world: an [`App`](unhidra_node::app::App) on doors that a test holds, and devices
//! and clients that walk through them.
//!
//! One thread, a paused clock, duplex streams without TLS, the memory store with its crash points.
//! Time passes only where every task waits, so a minute costs nothing. What is random is drawn from
//! the seed; `SIM_SEED=N` repeats one.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a world that cannot go on says why")]

pub mod account;
pub mod client;
pub mod clock;
pub mod device;
pub mod door;
pub mod fuse;
pub mod outside;
pub mod power;
pub mod process;
pub mod seed;
pub mod world;
