//! One connection: what is said by it, what is heard, and the task that drives it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::config::Version;
use super::dial::Wire;
use super::stall::Unstalled;
use super::wire::{self, Client, Said, Terms};

/// How long a broker may take over the end of a connection that the node has taken leave of.
const FAREWELL: Duration = Duration::from_secs(1);

/// Things said by the broker that wait to be looked at. The library reads no more while it is full.
const SAID_MAX: usize = 64;

/// A connection.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) heard: mpsc::Receiver<Said>,
    /// The one task that drives it.
    pub(super) driver: JoinSet<wire::Ended>,
}

impl Link {
    /// Begins one over a stream.
    pub(super) fn begin(version: Version, terms: &Terms, stream: Box<dyn Wire>) -> Self {
        let stream = Box::new(Unstalled::new(stream, Duration::from_secs(terms.keep_alive_s.into())));
        let (said, heard) = mpsc::channel(SAID_MAX);
        let (client, drive) = Client::begin(version, terms, stream, said);
        let mut driver = JoinSet::new();
        driver.spawn(drive);
        Self { client, heard, driver }
    }

    /// Takes leave of a broker that is there still: what was said before goes out first, and is waited for.
    pub(super) async fn take_leave(&mut self) {
        self.client.disconnect();
        let Self { heard, driver, .. } = self;
        let gone = async {
            loop {
                tokio::select! {
                    _ = driver.join_next() => return,
                    // What it says now has no answer, and comes again. Unread, it would stop the driver before it
                    // has written.
                    Some(_) = heard.recv() => {}
                }
            }
        };
        // What it has not acknowledged until then is sealed anew.
        let _ = timeout(FAREWELL, gone).await;
    }

    /// Lets go of the stream. Every receipt that is out comes back, at the latest now: what the driver has not taken
    /// yet lies in the client, so that goes as well.
    pub(super) async fn end(mut self) {
        self.driver.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use tokio::time::Instant;
    use unhidra_bridge::upstream::Answered;
    use unhidra_core::delivery::Answer;

    use super::super::wire::Receipt;
    use super::super::wire::tests::{let_in, terms};
    use super::*;

    const VERSIONS: [Version; 2] = [Version::V5, Version::V311];

    fn begin(version: Version) -> (Link, DuplexStream) {
        let (ours, theirs) = duplex(1 << 16);
        (Link::begin(version, &terms(), Box::new(ours)), theirs)
    }

    /// CONNACK, and more messages than the driver may have waiting: it stands still from then on.
    async fn flood(version: Version, broker: &mut DuplexStream) {
        broker.write_all(let_in(version)).await.unwrap();
        for id in 1..=200 {
            // At QoS 1, on `t`, with an empty payload.
            let message: &[u8] =
                if version == Version::V5 { &[0x32, 6, 0, 1, b't', 0, id, 0] } else { &[0x32, 5, 0, 1, b't', 0, id] };
            broker.write_all(message).await.unwrap();
        }
    }

    async fn stands_still(link: &Link) {
        while link.heard.len() < SAID_MAX {
            tokio::task::yield_now().await;
        }
    }

    /// Else its device is waited for, and the broker not dialled, for ever.
    #[tokio::test(start_paused = true)]
    async fn what_the_driver_has_not_taken_comes_back_as_lost() {
        for version in VERSIONS {
            let (link, mut broker) = begin(version);
            flood(version, &mut broker).await;
            stands_still(&link).await;
            let receipt = link.client.publish("out".to_owned(), Bytes::from_static(b"x")).unwrap();
            link.end().await;
            assert_eq!(timeout(Duration::from_secs(60), receipt).await, Ok(Receipt::Lost), "{version:?}");
        }
    }

    /// The broker hears what was acknowledged last, and its own last PUBACK is heard.
    #[tokio::test(start_paused = true)]
    async fn a_farewell_follows_all_that_was_said_before() {
        for version in VERSIONS {
            let (mut link, mut broker) = begin(version);
            flood(version, &mut broker).await;
            stands_still(&link).await;
            let receipt = link.client.publish("out".to_owned(), Bytes::from_static(b"last words")).unwrap();
            link.client.acknowledge(Answered { packet_id: 7, answer: Answer::Accepted }).unwrap();
            let takes = async {
                let mut said = Vec::new();
                while !said.ends_with(&[0x40, 2, 0, 7]) {
                    broker.read_buf(&mut said).await.unwrap();
                }
                assert!(said.windows(10).any(|bytes| bytes == b"last words"), "{version:?}: {said:x?}");
                broker.write_all(&[0x40, 2, 0, 1]).await.unwrap();
                broker.read_to_end(&mut said).await.unwrap();
                assert!(said.ends_with(&[0x40, 2, 0, 7, 0xe0, 0]), "{version:?}: {said:x?}");
            };
            let began = Instant::now();
            let leaves = async {
                link.take_leave().await;
                link.end().await;
            };
            tokio::join!(leaves, takes);
            assert_eq!(receipt.await, Receipt::Taken, "{version:?}");
            assert_eq!(began.elapsed(), Duration::ZERO, "{version:?}");
        }
    }

    /// Else the driver would wait in its write, and never look whether a ping was answered.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_takes_nothing_any_more_ends_the_connection() {
        for version in VERSIONS {
            let (mut link, mut broker) = begin(version);
            flood(version, &mut broker).await;
            let large = Bytes::from(vec![0; 100_000]);
            let receipt = link.client.publish("out".to_owned(), large).unwrap();
            while !link.heard.is_empty() {
                link.heard.recv().await.unwrap();
            }
            let heard = async { while link.heard.recv().await.is_some() {} };
            let ended = async { link.driver.join_next().await.unwrap().unwrap().cause };
            let (cause, ()) = timeout(Duration::from_secs(100), async { tokio::join!(ended, heard) }).await.unwrap();
            // The library bounds it itself in 3.1.1, and not in 5.0.
            let said = if version == Version::V5 { "it has taken nothing for 30 s" } else { "Flush timeout" };
            assert!(cause.contains(said), "{version:?}: {cause}");
            link.end().await;
            assert_eq!(receipt.await, Receipt::Lost, "{version:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_hears_nothing_is_left_after_a_while() {
        for version in VERSIONS {
            let (mut link, mut broker) = begin(version);
            flood(version, &mut broker).await;
            stands_still(&link).await;
            let receipt = link.client.publish("out".to_owned(), Bytes::from_static(b"x")).unwrap();
            let began = Instant::now();
            link.take_leave().await;
            assert_eq!(began.elapsed(), FAREWELL, "{version:?}");
            link.end().await;
            assert_eq!(receipt.await, Receipt::Lost, "{version:?}");
        }
    }
}
