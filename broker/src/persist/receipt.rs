//! What happens once a write is durable.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use unhidra_core::delivery::{Ack, Answer, Refusal};

use crate::net::mailbox::Mailbox;
use crate::router::queue::Queue;

/// Who is told that a write is durable, and what.
#[derive(Debug)]
pub(crate) enum After {
    /// A message of a client is stored, for one part.
    Answer(Arc<Receipt>),
    /// A session's message may leave.
    Ready(Arc<Queue>, NonZeroU64),
    /// Up to this step a session is kept.
    Step(Arc<Mailbox>, u64),
}

/// The answer to a message that must be stored first, perhaps in several writes.
#[derive(Debug)]
pub(crate) struct Receipt {
    /// How many parts of it are not stored yet.
    open: AtomicUsize,
    /// Dropped unanswered it closes the connection, so that the client sends again.
    ack: Mutex<Option<Ack>>,
}

impl After {
    /// The write is durable, or was refused for good.
    pub(crate) fn done(self, is_kept: bool) {
        match self {
            Self::Answer(receipt) if is_kept => receipt.part_done(),
            Self::Answer(receipt) => receipt.refuse(),
            // What was refused goes on all the same: it is lost with the process alone.
            Self::Ready(queue, sequence) => queue.ready(sequence),
            Self::Step(mailbox, number) => mailbox.kept(number),
        }
    }
}

impl Receipt {
    /// A receipt with one part, the whole of it.
    pub(crate) fn new(ack: Ack) -> Arc<Self> {
        Arc::new(Self { open: AtomicUsize::new(1), ack: Mutex::new(Some(ack)) })
    }

    /// One more part.
    pub(crate) fn part(self: &Arc<Self>) -> Arc<Self> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.clone()
    }

    /// One part is done; after the last the client has its answer.
    pub(crate) fn part_done(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.answer(Answer::Accepted);
        }
    }

    fn refuse(&self) {
        self.answer(Answer::Refused(Refusal::QuotaExceeded));
    }

    fn answer(&self, answer: Answer) {
        let ack = self.ack.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ack) = ack {
            ack.answer(answer);
        }
    }
}
