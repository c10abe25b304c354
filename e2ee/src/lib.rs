//! Envelope, key agreement and Double Ratchet sessions: protocol version 1. Suite 1 always, suite 2
//! with the feature `pqxdh`.
//!
//! `e2ee/PROTOCOL.md` rules. No `std`, no allocator, no clock, no system randomness: the time and
//! the random generator are arguments, buffers are the caller's.
//!
//! | | node | device |
//! | --- | --- | --- |
//! | begins | [`prekey::BundleParts::sign`], [`handshake::respond`] | [`handshake::initiate`] |
//! | opens | [`sessions::Sessions::open`] | the same |
//! | seals | [`session::Session::seal`], released by a proof of durability | [`session::Session::lease`], then [`session::Session::seal_within`] |
//! | says | [`plaintext::Plaintext`] | the same |
#![no_std]
// What a peer sends must not be able to stop a device: no index, no sum that can overflow.
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::panic))]

pub mod delta;
pub mod envelope;
pub mod error;
pub mod fingerprint;
pub mod handshake;
pub mod head;
pub mod identity;
pub mod lease;
pub mod plaintext;
pub mod prekey;
pub mod recent;
pub mod reset;
pub mod role;
pub mod session;
pub mod sessions;
pub mod skipped;
pub mod stock;
pub mod suite;

mod aead;
mod agreement;
mod cbor;
mod chain;
mod hmac;
mod kdf;
#[cfg_attr(not(feature = "pqxdh"), path = "kem_absent.rs")]
mod kem;
mod keys;
mod ratchet;
pub mod record;
mod wire;
