//! What others may know of a connection that is in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use unhidra_core::time::UnixTime;

use crate::packet::Version;
use crate::router::queue::Queue;

/// What others may know of a connection that is in. What changes is noted once a turn of its loop.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Where it comes from.
    pub(crate) peer: Box<str>,
    /// The listener it came in by.
    pub(crate) listener: &'static str,
    pub(crate) version: Version,
    pub(crate) since: UnixTime,
    /// The Keep Alive that holds, in s; 0 is none.
    pub(crate) keep_alive_s: u16,
    pub(crate) queue: Arc<Queue>,
    subscriptions: AtomicU32,
    in_flight: AtomicU32,
}

/// What a session holds: its subscriptions, and its messages that the client has not acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Holdings {
    pub(crate) subscriptions: usize,
    pub(crate) in_flight: usize,
}

impl Facts {
    pub(crate) fn new(
        peer: Box<str>,
        listener: &'static str,
        version: Version,
        since: UnixTime,
        keep_alive_s: u16,
        queue: Arc<Queue>,
    ) -> Self {
        let (subscriptions, in_flight) = (AtomicU32::new(0), AtomicU32::new(0));
        Self { peer, listener, version, since, keep_alive_s, queue, subscriptions, in_flight }
    }

    /// Takes note of what the session holds now.
    pub(crate) fn note(&self, holdings: Holdings) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.subscriptions.store(count(holdings.subscriptions), Ordering::Relaxed);
        self.in_flight.store(count(holdings.in_flight), Ordering::Relaxed);
    }

    /// What the session held when its connection last came to rest.
    pub(crate) fn holdings(&self) -> Holdings {
        let count = |count: &AtomicU32| count.load(Ordering::Relaxed) as usize;
        Holdings { subscriptions: count(&self.subscriptions), in_flight: count(&self.in_flight) }
    }
}
