//! What others have for one outside broker: answers, messages for devices behind it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use unhidra_bridge::Ticket;
use unhidra_core::delivery::{AckToken, Answer, DownlinkRow};
use unhidra_core::ids::DeviceId;

/// A message for a device.
#[derive(Debug)]
pub(super) struct Downlink {
    pub(super) device: DeviceId,
    pub(super) row: DownlinkRow,
    pub(super) ticket: Ticket,
    pub(super) payload: Bytes,
}

/// Why a message for a device was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NotTaken {
    /// That broker is not reached.
    NotReached,
    /// As many messages are on their way to it as may.
    Full,
}

/// One outside broker's mail. Each lock is short, and the task is woken where there was nothing.
#[derive(Debug)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    arrived: Notify,
    downlinks_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Bounded by the messages that wait for an answer.
    answers: Vec<(AckToken, Answer)>,
    downlinks: VecDeque<Downlink>,
    /// Messages whose outcome is not known yet, those in `downlinks` among them.
    outstanding: usize,
    is_open: bool,
}

/// What a connection finds in its mailbox.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) answers: Vec<(AckToken, Answer)>,
    pub(super) downlinks: VecDeque<Downlink>,
}

impl Mailbox {
    pub(super) fn new(downlinks_max: usize) -> Self {
        Self { inner: Mutex::default(), arrived: Notify::new(), downlinks_max }
    }

    /// Leaves a message for a device.
    pub(super) fn leave(&self, downlink: Downlink) -> Result<(), NotTaken> {
        let mut inner = self.lock();
        if !inner.is_open {
            return Err(NotTaken::NotReached);
        }
        if inner.outstanding >= self.downlinks_max {
            return Err(NotTaken::Full);
        }
        inner.outstanding += 1;
        inner.downlinks.push_back(downlink);
        drop(inner);
        self.arrived.notify_one();
        Ok(())
    }

    /// Leaves the answer to a message that came.
    pub(super) fn acknowledge(&self, token: AckToken, answer: Answer) {
        let mut inner = self.lock();
        let was_empty = inner.answers.is_empty();
        inner.answers.push((token, answer));
        drop(inner);
        if was_empty {
            self.arrived.notify_one();
        }
    }

    /// The outcome of one message is known.
    pub(super) fn settled(&self) {
        let mut inner = self.lock();
        inner.outstanding = inner.outstanding.saturating_sub(1);
    }

    /// Takes mail from now on.
    pub(super) fn open(&self) {
        self.lock().is_open = true;
    }

    /// Takes no more messages, and gives those that nobody will send.
    pub(super) fn close(&self) -> VecDeque<Downlink> {
        let mut inner = self.lock();
        inner.is_open = false;
        inner.outstanding = 0;
        std::mem::take(&mut inner.downlinks)
    }

    /// All there is.
    pub(super) fn take(&self) -> Mail {
        let mut inner = self.lock();
        Mail { answers: std::mem::take(&mut inner.answers), downlinks: std::mem::take(&mut inner.downlinks) }
    }

    /// Completes when there is something. For the one task that reads; cancel-safe.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing here panics while it holds the lock, so a poisoned one holds whole values.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn downlink() -> Downlink {
        let device = DeviceId::parse("pump-7").unwrap();
        Downlink { device, row: DownlinkRow::Commands, ticket: Ticket(1), payload: Bytes::new() }
    }

    #[tokio::test]
    async fn it_is_bounded_by_what_is_not_settled_and_closed_while_nobody_reads() {
        let mailbox = Mailbox::new(2);
        assert_eq!(mailbox.leave(downlink()), Err(NotTaken::NotReached));
        mailbox.open();
        assert!(mailbox.leave(downlink()).is_ok() && mailbox.leave(downlink()).is_ok());
        mailbox.arrived().await;
        assert_eq!(mailbox.take().downlinks.len(), 2);
        assert_eq!(mailbox.leave(downlink()), Err(NotTaken::Full), "sent, and not settled");
        mailbox.settled();
        assert!(mailbox.leave(downlink()).is_ok());
        assert_eq!(mailbox.close().len(), 1);
        assert_eq!(mailbox.leave(downlink()), Err(NotTaken::NotReached));
    }
}
