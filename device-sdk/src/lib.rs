//! What firmware calls: connect, publish, receive. No `std`, no allocator, no clock, no randomness
//! of its own.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod backoff;
pub mod client;
pub mod outbox;
pub mod storage;
pub mod topics;
pub mod transport;
