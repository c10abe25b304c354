//! What firmware calls: connect, publish, receive. No `std`, no allocator, no clock, no randomness
//! of its own.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod client;
