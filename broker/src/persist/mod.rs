//! Sessions, what waits for them and retained messages, kept over a restart: records and the way
//! they take. Every value begins with its version, 1.
//!
//! ```text
//! table          key                        value behind the version
//! retained       Topic Name                 a message
//! sessions       session 8                  owner 1 (0 anybody, 1 device, 2 user), its name 2+n,
//!                                           Client Identifier 2+n, expiry in s 4, left at 8 (0: a
//!                                           connection carries it), Will due at 8 (0: none), Will
//! subscriptions  session 8, Topic Filter    options 1 (as in SUBSCRIBE of 5.0), identifier 4 (0: none)
//!                session 8, 0, row 1        QoS 1
//! messages       message 8                  a message
//! queued         session 8, sequence 8      0, flags 1, identifiers 1+4n, a message
//!                                           1, flags 1, identifiers 1+4n, message 8
//! exchanges      session 8, 1, Packet Id 2  nothing: a QoS 2 message came and was not released
//!                session 8, 2, Packet Id 2  sequence 8: it was sent under this identifier
//!                session 8, 3, Packet Id 2  order 8: PUBREC has come, and PUBCOMP has not
//!
//! a message      flags 1, stored at 8, ms it has left 8 (all ones: it does not expire), PUBLISH of
//!                5.0 at QoS 0
//! flags          QoS (bits 0 and 1), RETAIN (bit 2)
//! ```
//!
//! Numbers are big-endian, times ms since 1970. What is not exactly this is refused.

mod fields;
pub(crate) mod journal;
mod load;
pub(crate) mod message;
pub(crate) mod receipt;

use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::delivery::{Ack, AckToken};

use crate::Broker;
use crate::doors::{Change, PersistTable};
use crate::net::mailbox::Mailbox;
use crate::router::message::Message;
pub(crate) use journal::Journal;
pub use load::RestoreError;
use message::MessageRecord;
use receipt::{After, Receipt};

/// What one message of a client writes, and who waits for it.
pub(crate) struct Storing {
    waits: Option<(Arc<Mailbox>, AckToken)>,
    receipt: Option<Arc<Receipt>>,
    is_written: bool,
}

impl Storing {
    /// Under `token` the client waits for its answer, if it does.
    pub(crate) fn new(mailbox: &Arc<Mailbox>, token: Option<AckToken>) -> Self {
        Self { waits: token.map(|token| (mailbox.clone(), token)), receipt: None, is_written: false }
    }

    /// Nobody waits.
    pub(crate) const fn for_nobody() -> Self {
        Self { waits: None, receipt: None, is_written: false }
    }

    /// What is to be done when one part is stored.
    pub(crate) fn part(&mut self) -> Option<After> {
        self.is_written = true;
        if let Some((mailbox, token)) = self.waits.take() {
            self.receipt = Some(Receipt::new(Ack::new(mailbox, token)));
        }
        self.receipt.as_ref().map(|receipt| After::Answer(receipt.part()))
    }

    /// Whether anything is to be stored.
    pub(crate) const fn is_written(&self) -> bool {
        self.is_written
    }

    /// All parts are on their way. Gives the token back where nothing was to be stored: then it is
    /// for the caller to answer.
    pub(crate) fn finish(self) -> Option<AckToken> {
        if let Some(receipt) = self.receipt {
            receipt.part_done();
        }
        self.waits.map(|(_, token)| token)
    }
}

impl Broker {
    /// Writes what a topic's retained message has become. In the order in which it became so: the
    /// caller holds the lock on them.
    pub(crate) fn store_retained(&self, message: &Message, is_kept: bool, storing: &mut Storing) {
        let Some(journal) = &self.journal else { return };
        let key = Bytes::copy_from_slice(message.topic().as_bytes());
        let value = is_kept.then(|| self.message_record(message));
        let change = Change { table: PersistTable::Retained, key, value };
        journal.write(vec![change], storing.part().into_iter().collect());
    }

    /// Whether a connection that has written something reads no more for now.
    pub(crate) fn is_behind(&self, writer: &Arc<Mailbox>) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.holds_up(writer))
    }

    fn message_record(&self, message: &Message) -> Bytes {
        let left = message.left(self.doors.clock.now());
        let left_ms = left.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX - 1));
        MessageRecord::encode(message, self.doors.clock.unix_now(), left_ms)
    }
}
