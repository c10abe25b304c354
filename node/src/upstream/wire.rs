//! One connection to an outside broker in either version of MQTT, by the client library.
//!
//! The library reconnects and repeats by itself if it is let; here each connection has a client of
//! its own. What was published and not acknowledged is the bridge's to seal anew, so a client begins
//! with nothing on its way, and says so where the library asks for the session it had.

mod v311;
mod v5;
mod version;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use unhidra_bridge::upstream::Answered;
use unhidra_store::BoxFuture;

use super::config::Version;
use super::dial::Wire;
pub(crate) use v5::why;

/// Where the library is told to dial; it is handed a stream that is there already.
const NOWHERE: (&str, u16) = ("outside", 1);

/// What a connection is begun with.
pub(super) struct Terms {
    pub(super) client_id: String,
    /// User Name and Password.
    pub(super) credentials: Option<(String, Bytes)>,
    pub(super) keep_alive_s: u16,
    pub(super) session_expiry_s: u32,
    pub(super) connect_timeout: Duration,
    pub(super) receive_max: u16,
    pub(super) packet_bytes_max: u32,
    pub(super) downlinks_max: usize,
}

impl Terms {
    /// Room for every answer and every message that can be on its way at once, and the SUBSCRIBE.
    fn requests_max(&self) -> usize {
        usize::from(self.receive_max).saturating_add(self.downlinks_max).saturating_add(8)
    }

    fn in_flight_max(&self) -> u16 {
        u16::try_from(self.downlinks_max).unwrap_or(u16::MAX).max(1)
    }
}

/// What an outside broker says.
#[derive(Debug)]
pub(super) enum Said {
    /// It has let the node in, has the session of before, or has none, and takes packets of so many bytes.
    Connected { resumed: bool, packet_max: usize },
    /// It has answered the SUBSCRIBE.
    Subscribed { granted: bool },
    /// A message.
    Message(Message),
    /// A message of QoS 2, which was not asked for.
    Violation(&'static str),
}

/// A PUBLISH.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
    /// None at QoS 0.
    pub(super) packet_id: Option<u16>,
    pub(super) retain: bool,
}

/// What became of a message to a device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Receipt {
    /// The broker has it.
    Taken,
    /// The broker does not take it: this node may not publish there, or it is full.
    Refused,
    /// It was not given to the broker, which takes no packet as large.
    TooLarge,
    /// The connection ended first.
    Lost,
}

/// Why a connection has ended.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Ended {
    /// For people.
    pub(super) cause: String,
    /// Whether the broker says that another client has the session now: only in 5.0.
    pub(super) taken_over: bool,
}

impl From<String> for Ended {
    fn from(cause: String) -> Self {
        Self { cause, taken_over: false }
    }
}

/// What the library does not take. It has room for all that may be on its way, so the connection has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stuck;

/// What is said to an outside broker.
pub(super) enum Client {
    V5(v5::Client),
    V311(v311::Client),
}

impl Client {
    /// Begins a connection over a stream. The second part drives it, tells `said` what the broker says,
    /// and ends with the reason when the connection does; while `said` is full it reads no more.
    pub(super) fn begin(
        version: Version,
        terms: &Terms,
        stream: Box<dyn Wire>,
        said: mpsc::Sender<Said>,
    ) -> (Self, BoxFuture<'static, Ended>) {
        match version {
            Version::V5 => {
                let (client, driver) = v5::begin(terms, stream, said);
                (Self::V5(client), driver)
            }
            Version::V311 => {
                let (client, driver) = v311::begin(terms, stream, said);
                (Self::V311(client), driver)
            }
        }
    }

    /// Subscribes to the rows of devices.
    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), Stuck> {
        match self {
            Self::V5(client) => client.subscribe(filters),
            Self::V311(client) => client.subscribe(filters),
        }
    }

    /// Sends PUBACK. In 3.1.1 it has no reason: what is at fault is acknowledged like the rest, or it
    /// would come for ever.
    pub(super) fn acknowledge(&self, answered: Answered) -> Result<(), Stuck> {
        match self {
            Self::V5(client) => client.acknowledge(answered),
            Self::V311(client) => client.acknowledge(answered),
        }
    }

    /// Publishes at QoS 1.
    pub(super) fn publish(&self, topic: String, payload: Bytes) -> Result<BoxFuture<'static, Receipt>, Stuck> {
        match self {
            Self::V5(client) => client.publish(topic, payload),
            Self::V311(client) => client.publish(topic, payload),
        }
    }

    /// Takes leave, behind all that was said, once the broker has acknowledged what is on its way. It keeps the
    /// session.
    pub(super) fn disconnect(&self) {
        match self {
            Self::V5(client) => client.disconnect(),
            Self::V311(client) => client.disconnect(),
        }
    }
}

/// A stream that was dialled before the library asked for one. It is given once: the library must
/// not dial again by itself.
#[derive(Clone)]
struct Dialled(Arc<Mutex<Option<Box<dyn Wire>>>>);

impl Dialled {
    fn new(stream: Box<dyn Wire>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    fn take(&self) -> io::Result<Box<dyn Wire>> {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        taken.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    /// Those of a connection in a test.
    pub(in crate::upstream) fn terms() -> Terms {
        Terms {
            client_id: "unhidra".to_owned(),
            credentials: None,
            keep_alive_s: 30,
            session_expiry_s: 60,
            connect_timeout: Duration::from_secs(10),
            receive_max: 256,
            packet_bytes_max: 1000,
            downlinks_max: 10,
        }
    }

    /// CONNACK: it is let in, and there is no session of before.
    pub(in crate::upstream) fn let_in(version: Version) -> &'static [u8] {
        if version == Version::V5 { &[0x20, 3, 0, 0, 0] } else { &[0x20, 2, 0, 0] }
    }

    /// How a connection ends whose broker lets the node in and says this then.
    async fn ended(version: Version, last: &[u8]) -> Ended {
        let (ours, mut theirs) = duplex(4096);
        let (said, _heard) = mpsc::channel(8);
        let (_client, drive) = Client::begin(version, &terms(), Box::new(ours), said);
        theirs.write_all(&[let_in(version), last].concat()).await.unwrap();
        let still_open = (!last.is_empty()).then_some(theirs);
        let ended = drive.await;
        drop(still_open);
        ended
    }

    #[tokio::test]
    async fn a_session_that_is_taken_over_is_told_from_every_other_end() {
        let taken = ended(Version::V5, &[0xe0, 2, 0x8e, 0]).await;
        assert!(taken.taken_over && taken.cause.contains("another client"), "{taken:?}");
        for last in [&[0xe0, 2, 0x8b, 0][..], &[0xe0, 0], &[]] {
            let other = ended(Version::V5, last).await;
            assert!(!other.taken_over, "{other:?}");
        }
        assert!(!ended(Version::V311, &[]).await.taken_over, "it has no words for it");
    }

    /// What becomes of a message where the broker says this of the first there is.
    async fn receipt(version: Version, puback: &[u8]) -> Receipt {
        let (ours, mut theirs) = duplex(4096);
        let (said, mut heard) = mpsc::channel(8);
        let (client, drive) = Client::begin(version, &terms(), Box::new(ours), said);
        let drive = tokio::spawn(drive);
        theirs.write_all(let_in(version)).await.unwrap();
        assert!(matches!(heard.recv().await, Some(Said::Connected { .. })));
        let receipt = client.publish("t".to_owned(), Bytes::from_static(b"x")).unwrap();
        theirs.write_all(puback).await.unwrap();
        let receipt = receipt.await;
        drive.abort();
        receipt
    }

    #[tokio::test]
    async fn a_message_that_a_broker_had_nobody_to_give_to_is_not_taken() {
        assert_eq!(receipt(Version::V5, &[0x40, 3, 0, 1, 0x10]).await, Receipt::Refused);
        assert_eq!(receipt(Version::V5, &[0x40, 3, 0, 1, 0x97]).await, Receipt::Refused);
        assert_eq!(receipt(Version::V5, &[0x40, 2, 0, 1]).await, Receipt::Taken);
        assert_eq!(receipt(Version::V311, &[0x40, 2, 0, 1]).await, Receipt::Taken);
    }
}
