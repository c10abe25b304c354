//! The statements of MQTT 3.1.1 and 5.0 that bind a server, each held by a test.
//!
//! CONFORMANCE.md names for every statement the test that holds it. Everything is said to a real
//! broker, over streams in memory and under a clock that stands still.

#![allow(clippy::expect_used, reason = "a test fails where its ground does")]

mod aliases;
mod bytes_and_flags;
mod connack;
mod connect;
mod flow;
mod malformed;
mod peer;
mod publish;
mod retained;
mod rules;
mod sessions;
mod shared;
mod subscribe;
mod topics;
mod wills;
mod words;

#[path = "../it/world.rs"]
#[allow(dead_code, reason = "shared with `it`, which uses the rest")]
mod world;
