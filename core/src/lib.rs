//! The nouns all rooms share: ids, messages, instants, topics.
//!
//! No `std`, no clock, no randomness. What needs an allocator stands behind the feature `alloc`.
#![no_std]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod backoff;
pub mod breaker;
pub mod durable;
pub mod ids;
pub mod suite;
pub mod time;
pub mod topic;

#[cfg(feature = "alloc")]
pub mod command;
#[cfg(feature = "alloc")]
pub mod delivery;
#[cfg(feature = "alloc")]
pub mod device;
#[cfg(feature = "alloc")]
pub mod message;
#[cfg(feature = "alloc")]
pub mod setting;
