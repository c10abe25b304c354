//! A message on its way inward, and the answer it waits for.
//!
//! ```text
//! broker --Delivery { sealed, ack }--> bridge --ops--> store
//!    ^                                                   |
//!    +------------------- Ack::answer -------------------+
//! ```

use alloc::sync::Arc;
use core::fmt;

use crate::ids::DeviceId;
use crate::message::Sealed;
use crate::time::UnixTime;

/// The rows a device publishes to (e2ee/PROTOCOL.md section 2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum UplinkRow {
    /// `{p}/devices/{id}/messages`
    Messages,
    /// `{p}/devices/{id}/prekeys/get`
    PrekeysGet,
}

/// The rows a device subscribes to (e2ee/PROTOCOL.md section 2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum DownlinkRow {
    /// `{p}/devices/{id}/commands`
    Commands,
    /// `{p}/devices/{id}/prekeys`
    Prekeys,
}

/// One message of a device on its way to the bridge.
#[derive(Debug)]
pub struct Delivery {
    /// Who published it, by its certificate.
    pub device: DeviceId,
    /// To which of its rows.
    pub row: UplinkRow,
    /// What it published.
    pub sealed: Sealed,
    /// When it arrived.
    pub received_at: UnixTime,
    /// Who waits for the answer.
    pub ack: Ack,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Answer {
    /// It is durable, or needs not be: PUBACK 0x00.
    Accepted,
    /// It is at fault and will never be taken: PUBACK with a reason code; in 3.1.1 a close.
    Refused(Refusal),
    /// A fault of ours: no PUBACK. The connection closes, and the device sends again.
    Retry,
}

/// Why a delivery is at fault.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Refusal {
    /// It does not open: PUBACK 0x83, implementation specific error.
    DoesNotOpen,
    /// Its sender may not: PUBACK 0x87.
    NotAuthorized,
    /// Its sender sends faster than the bound for costly messages: PUBACK 0x97, quota exceeded.
    QuotaExceeded,
}

/// Which PUBLISH of a connection an answer is for. Only the connection reads it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct AckToken(pub u64);

/// A connection that waits for answers.
///
/// Called from any thread, the store's writer among them: an implementation takes one lock, and
/// wakes its task only where its list was empty, so that the PUBACKs of a batch leave in one write.
pub trait Acknowledge: Send + Sync + 'static {
    /// Answers one PUBLISH.
    fn acknowledge(&self, token: AckToken, answer: Answer);

    /// Whether an answer to the device whose PUBLISH this is was [`Answer::Retry`]. Then it comes again from
    /// that message on: what came behind it by the same connection and waits still is to be left too, or
    /// it would be taken before what stands before it. True from the moment the answer is given, by
    /// whichever thread.
    fn is_given_up(&self, token: AckToken) -> bool;
}

/// The right, and the duty, to answer one PUBLISH.
///
/// Not `Clone`. Dropped unanswered it answers [`Answer::Retry`]: the connection closes, so the
/// device repeats what nobody took.
pub struct Ack {
    waiting: Option<(Arc<dyn Acknowledge>, AckToken)>,
}

impl Ack {
    /// An answer that `connection` waits for under `token`.
    #[must_use]
    pub fn new(connection: Arc<dyn Acknowledge>, token: AckToken) -> Self {
        Self { waiting: Some((connection, token)) }
    }

    /// Nobody waits: the PUBLISH came at QoS 0.
    #[must_use]
    pub const fn nobody() -> Self {
        Self { waiting: None }
    }

    /// Whether somebody waits, that is whether the PUBLISH came at QoS 1.
    #[must_use]
    pub const fn is_awaited(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether whoever waits sends again what stands before this PUBLISH, and this one behind it
    /// ([`Acknowledge::is_given_up`]).
    #[must_use]
    pub fn is_given_up(&self) -> bool {
        self.waiting.as_ref().is_some_and(|(connection, token)| connection.is_given_up(*token))
    }

    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        if let Some((connection, token)) = self.waiting.take() {
            connection.acknowledge(token, answer);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some((connection, token)) = self.waiting.take() {
            connection.acknowledge(token, Answer::Retry);
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ack").field(&self.waiting.as_ref().map(|(_, token)| token)).finish()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::Mutex;
    use std::vec::Vec;

    #[derive(Default)]
    struct Connection(Mutex<Vec<(AckToken, Answer)>>);

    impl Acknowledge for Connection {
        fn acknowledge(&self, token: AckToken, answer: Answer) {
            if let Ok(mut answers) = self.0.lock() {
                answers.push((token, answer));
            }
        }
        fn is_given_up(&self, _: AckToken) -> bool {
            false
        }
    }

    #[test]
    fn an_ack_answers_once_and_a_dropped_one_asks_for_a_repeat() {
        let connection = Arc::new(Connection::default());
        Ack::new(connection.clone(), AckToken(1)).answer(Answer::Accepted);
        drop(Ack::new(connection.clone(), AckToken(2)));
        Ack::nobody().answer(Answer::Accepted);
        let answers = connection.0.lock().map(|a| a.clone()).unwrap_or_default();
        assert_eq!(answers, [(AckToken(1), Answer::Accepted), (AckToken(2), Answer::Retry)]);
    }
}
