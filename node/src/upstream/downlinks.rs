//! What an outside broker is given for devices: every message has one outcome, whatever becomes of the
//! connection.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use unhidra_bridge::Ticket;
use unhidra_bridge::upstream::Rows;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock, Timestamp};
use unhidra_store::BoxFuture;

use super::mailbox::Downlink;
use super::wire::{Client, Receipt, Stuck};

/// What a PUBLISH at QoS 1 has around topic and payload, at most: fixed header 5, the topic's length 2, Packet
/// Identifier 2, the length of no properties 1.
const OVERHEAD: usize = 10;

/// How many times its patience a PUBACK is waited for behind what the broker goes on sending.
const BACKLOG_PATIENCES: u32 = 4;

/// The messages of one connection.
pub(super) struct Downlinks {
    /// Those without their PUBACK, bounded by the mailbox. A broker acknowledges in their order
    /// [MQTT-4.6.0-2].
    under_way: FuturesOrdered<BoxFuture<'static, (DeviceId, Ticket, Receipt)>>,
    /// Since when the oldest of them is waited for.
    since: Timestamp,
    /// When the broker was heard last.
    heard_at: Timestamp,
    /// Since when the node reads nothing of the broker's: its PUBACKs may lie there unread.
    deaf_since: Option<Timestamp>,
    /// Those that the connection's end has left here.
    unsent: Vec<(DeviceId, Ticket)>,
    /// The largest packet the broker takes, in bytes.
    packet_max: usize,
}

impl Downlinks {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            under_way: FuturesOrdered::new(),
            since: now,
            heard_at: now,
            deaf_since: None,
            unsent: Vec::new(),
            packet_max: usize::MAX,
        }
    }

    /// The broker has sent something. What it sends when it comes back to a session of before stands ahead of a
    /// PUBACK in its queue, as much as the node's Receive Maximum allows.
    pub(super) const fn heard(&mut self, now: Timestamp) {
        self.heard_at = now;
    }

    /// Whether the node reads what the broker says. While it does not, as where its commits are slow, nobody
    /// knows what the broker has acknowledged, and the wait for it stands still.
    pub(super) fn hears(&mut self, hears: bool, now: Timestamp) {
        match (hears, self.deaf_since) {
            (false, None) => self.deaf_since = Some(now),
            (true, Some(deaf_since)) => {
                let deaf_for = now.saturating_since(deaf_since.max(self.since));
                (self.since, self.deaf_since) = (self.since.saturating_add(deaf_for), None);
            }
            _ => {}
        }
    }

    /// The broker has said how large a packet may be, in bytes.
    pub(super) const fn set_packet_max(&mut self, max: usize) {
        self.packet_max = max;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Gives messages to the connection. Where it has ended, the rest is [`unsent`](Self::into_unsent).
    pub(super) fn give(
        &mut self,
        client: &Client,
        rows: &Rows,
        downlinks: VecDeque<Downlink>,
        now: Timestamp,
    ) -> Result<(), Stuck> {
        let mut given = Ok(());
        for Downlink { device, row, ticket, payload } in downlinks {
            if given.is_err() {
                self.unsent.push((device, ticket));
                continue;
            }
            let topic = rows.topic(&device, row);
            let size = topic.len().saturating_add(payload.len()).saturating_add(OVERHEAD);
            let receipt = if size > self.packet_max {
                // The library would end the connection over it.
                tracing::warn!(%device, size, max = self.packet_max, "an outside broker does not take so large a message");
                Ok(Box::pin(std::future::ready(Receipt::TooLarge)) as BoxFuture<'static, Receipt>)
            } else {
                client.publish(topic, payload)
            };
            match receipt {
                Ok(receipt) => {
                    if self.under_way.is_empty() {
                        self.since = now;
                    }
                    self.under_way.push_back(Box::pin(async move { (device, ticket, receipt.await) }));
                }
                Err(stuck) => {
                    self.unsent.push((device, ticket));
                    given = Err(stuck);
                }
            }
        }
        given
    }

    /// What became of the oldest; `None` where nothing is under way. Cancel-safe.
    pub(super) async fn next(&mut self, clock: &(dyn Clock + Send + Sync)) -> Option<(DeviceId, Ticket, Receipt)> {
        let next = self.under_way.next().await;
        self.since = clock.now();
        next
    }

    /// When the oldest has been waited for long enough: what a broker does not acknowledge would hold up
    /// its device also where that has gone elsewhere.
    pub(super) fn overdue_at(&self, patience: Duration) -> Option<Timestamp> {
        let last = self.since.saturating_add(patience.saturating_mul(BACKLOG_PATIENCES));
        let overdue = self.since.max(self.heard_at).saturating_add(patience).min(last);
        (!self.is_empty() && self.deaf_since.is_none()).then_some(overdue)
    }

    /// What never left.
    pub(super) fn into_unsent(self) -> Vec<(DeviceId, Ticket)> {
        self.unsent
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncWriteExt as _, duplex};
    use unhidra_core::delivery::DownlinkRow;

    use super::super::config::Version;
    use super::super::link::Link;
    use super::super::wire::tests::{let_in, terms};
    use super::*;
    use crate::clock::SystemClock;

    const VERSIONS: [Version; 2] = [Version::V5, Version::V311];

    fn rows() -> Rows {
        Rows::new("unhidra")
    }

    fn downlinks(lengths: &[usize]) -> VecDeque<Downlink> {
        let device = DeviceId::parse("pump-7").unwrap();
        let payload = |length| Bytes::from(vec![0; length]);
        let one = |(at, length): (u64, &usize)| Downlink {
            device,
            row: DownlinkRow::Commands,
            ticket: Ticket(at),
            payload: payload(*length),
        };
        (0..).zip(lengths).map(one).collect()
    }

    /// Else a command stays sent until it expires, though it never left, and a setting for ever.
    #[tokio::test]
    async fn what_meets_the_end_of_the_connection_is_said_to_be_unsent() {
        for version in VERSIONS {
            let (ours, theirs) = duplex(4096);
            let mut link = Link::begin(version, &terms(), Box::new(ours));
            drop(theirs);
            link.driver.join_next().await.unwrap().unwrap();
            let clock = SystemClock::start();
            let mut given = Downlinks::new(clock.now());
            assert_eq!(
                given.give(&link.client, &rows(), downlinks(&[1, 2, 3]), clock.now()),
                Err(Stuck),
                "{version:?}"
            );
            assert_eq!(given.next(&clock).await, None, "{version:?}");
            let tickets: Vec<_> = given.into_unsent().into_iter().map(|(_, ticket)| ticket.0).collect();
            assert_eq!(tickets, [0, 1, 2], "{version:?}");
        }
    }

    /// Else it would end everybody's connection, and again with the next.
    #[tokio::test]
    async fn what_is_larger_than_the_broker_takes_is_refused_here() {
        let (ours, mut theirs) = duplex(4096);
        let link = Link::begin(Version::V5, &terms(), Box::new(ours));
        theirs.write_all(let_in(Version::V5)).await.unwrap();
        let clock = SystemClock::start();
        let mut given = Downlinks::new(clock.now());
        given.set_packet_max(100);
        let topic = rows().topic(&DeviceId::parse("pump-7").unwrap(), DownlinkRow::Commands).len();
        let fits = 100 - OVERHEAD - topic;
        assert_eq!(given.give(&link.client, &rows(), downlinks(&[fits + 1, fits]), clock.now()), Ok(()));
        assert!(matches!(given.next(&clock).await, Some((_, Ticket(0), Receipt::TooLarge))));
        let overdue = given.overdue_at(Duration::from_secs(30));
        assert!(overdue.is_some_and(|at| at > clock.now()), "the one behind it is waited for from now on");
        link.end().await;
        assert!(matches!(given.next(&clock).await, Some((_, Ticket(1), Receipt::Lost))));
        assert_eq!(given.overdue_at(Duration::from_secs(30)), None);
    }

    /// Its PUBACKs may lie where the node has not looked: that is no fault of the broker's.
    #[tokio::test]
    async fn the_wait_for_a_puback_stands_still_while_the_node_reads_nothing() {
        let (ours, mut theirs) = duplex(4096);
        let link = Link::begin(Version::V5, &terms(), Box::new(ours));
        theirs.write_all(let_in(Version::V5)).await.unwrap();
        let (begin, patience) = (Timestamp::from_ms(1000), Duration::from_secs(30));
        let later = |ms| begin.saturating_add(Duration::from_millis(ms));
        let mut given = Downlinks::new(begin);
        given.hears(false, later(5));
        given.give(&link.client, &rows(), downlinks(&[1]), later(10)).unwrap();
        assert_eq!(given.overdue_at(patience), None);
        given.hears(false, later(20));
        given.hears(true, later(110));
        assert_eq!(given.overdue_at(patience), Some(later(30_110)), "none of the time it was given in counts");
        given.hears(true, later(200));
        given.hears(false, later(1_110));
        given.hears(true, later(3_110));
        assert_eq!(given.overdue_at(patience), Some(later(32_110)), "a second has counted");
        given.heard(later(20_000));
        assert_eq!(given.overdue_at(patience), Some(later(50_000)), "it may be behind what the broker goes on sending");
        given.heard(later(100_000));
        assert_eq!(given.overdue_at(patience), Some(later(122_110)), "and not for ever");
        link.end().await;
    }
}
