//! A client's connection from CONNECT to its end, and the next ones that go on with its session.
//!
//! The broker's crate comes in whole for this one: a session knows rights, bounds and messages, and
//! to compile them as files would bring nearly all of it.

/// Runs the script of `broker/src/session/script.rs`.
pub(crate) fn run(data: &[u8]) {
    unhidra_broker::run_session_script(data);
}
