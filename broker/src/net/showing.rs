//! Readings in the clear, shown by the node: where somebody's queue is full, the node waits for room in
//! it as a client that publishes does, and no longer.

use std::fmt;
use std::sync::Arc;

use tokio::time::sleep;
use unhidra_core::time::Timestamp;

use super::hold::Hold;
use super::mailbox::Mailbox;
use crate::Broker;
use crate::doors::ConnectionId;
use crate::routing::Shown;

/// Who shows readings in the clear, one after another.
pub struct Showing {
    broker: Arc<Broker>,
    /// Woken where there is room again. It is no connection's, and nobody finds it.
    mailbox: Arc<Mailbox>,
}

impl fmt::Debug for Showing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Showing").finish_non_exhaustive()
    }
}

impl Showing {
    /// One that shows to the clients of this broker.
    #[must_use]
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, mailbox: Arc::new(Mailbox::new(ConnectionId(0), 0)) }
    }

    /// Shows a reading on `PREFIX/readings/DEVICE/NAME` at QoS 1 to those whom a rule lets read it and
    /// nobody else, and says to how many sessions. Returns once it is in all their queues. For one that
    /// is full it waits up to `queue_patience_ms`, once; then that queue's policy says what is dropped.
    pub async fn show(&self, reading: Shown<'_>) -> usize {
        let (count, held) = self.broker.show_reading(reading, &self.mailbox);
        let mut hold = Hold::default();
        hold.keep_for_subscribers(held);
        let now = || self.broker.clock().now();
        while let Some(until) = hold.deadline() {
            self.room_or(until, now()).await;
            hold.retry_subscribers(&self.mailbox, &self.broker, now());
        }
        count
    }

    async fn room_or(&self, until: Timestamp, now: Timestamp) {
        tokio::select! {
            () = self.mailbox.arrived() => {}
            () = sleep(until.saturating_since(now)) => {}
        }
    }
}
