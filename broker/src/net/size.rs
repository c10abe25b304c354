//! What an idle connection takes, by its parts.

use std::future::Future;

use super::connection::Connection;
use super::facts::Facts;
use super::mailbox::Mailbox;
use crate::router::queue::Queue;
use crate::session::tests::OPEN_BYTES;

/// The goal is 4 kB of user space a TCP connection, with what allocator, runtime and tables add to
/// these; so a part that grows is to be noticed here.
const BYTES_MAX: usize = 3_000;

const fn future_bytes<A, F: Future>(_: &fn(A) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn an_idle_connection_is_small() {
    let task = future_bytes(&(Connection::run as fn(Box<Connection>) -> _));
    let parts = [
        ("task", task),
        ("connection", size_of::<Connection>()),
        ("session of a client that is in", OPEN_BYTES),
        ("queue", size_of::<Queue>()),
        ("mailbox", size_of::<Mailbox>()),
        ("facts", size_of::<Facts>()),
    ];
    let total: usize = parts.iter().map(|(_, bytes)| bytes).sum();
    assert!(total <= BYTES_MAX, "{total} bytes: {parts:?}");
    println!("{total} bytes: {parts:?}");
}
