//! What firmware calls: connect, publish, receive. No `std`, no allocator, no clock, no randomness
//! of its own.
//!
//! [`device::Device`] is the way in. It speaks MQTT 5 ([`client`]) to the node, seals and opens
//! with `unhidra-e2ee`, and keeps what must survive a reset in a [`storage::Storage`]. The time is
//! an argument, bytes go in and out, and a [`transport::Transport`] is driven by
//! [`poll_turn`](device::Device::poll_turn).
#![no_std]

pub mod backoff;
pub mod client;
pub mod device;
pub mod outbox;
#[cfg(feature = "qr")]
pub mod qr;
pub mod storage;
pub mod topics;
pub mod transport;

mod clock;
mod secure;

pub use secure::{Identity, LoadError};
pub use unhidra_e2ee::fingerprint::{CodeError, Comparison, Fingerprint};
pub use unhidra_e2ee::identity::{IdentityKey, IdentityKeyError, IdentitySecret};
pub use unhidra_e2ee::plaintext::Status;
pub use unhidra_e2ee::suite::Suite;
