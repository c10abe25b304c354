//! The gateway through its own door: HTTP and WebSocket over duplex streams, time paused.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod http;
mod readings;
mod requests;
mod store;
mod world;
