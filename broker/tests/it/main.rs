//! The broker from outside: streams in, packets and events out. Paused clock, no sockets but
//! where TLS is the subject.

#![allow(clippy::expect_used, reason = "a test fails where its ground does")]

mod aliases;
mod bad_input;
mod clients;
mod crashes;
mod device;
mod disk;
mod doors;
mod exactly_once;
mod kept;
mod owed;
mod plain;
mod proxy;
mod rules;
mod shared;
mod slow;
mod subscribers;
mod sys;
mod tls;
mod websocket;
mod world;
