//! What each address has open, and how fast it comes. No I/O, no clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use unhidra_core::time::Timestamp;

use super::Refusal;
use crate::config::GateConfig;

/// How often the table is swept at most when it is full: a sweep looks at every address.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// Whom a bound counts as one: an IPv4 address, or an IPv6 network of 64 bits, which is what one
/// customer is given at least.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Block {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Block {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// How many seconds of its rate a bucket may owe. What is paid for afterwards is counted in full, and
/// who has stopped is let in again after as long.
const DEBT_S: i64 = 10;

/// A token bucket: `rate` tokens a second, as many at most. A rate of 0 is no bound.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths. Below zero it owes.
    tokens: i64,
    at: Timestamp,
}

impl Bucket {
    fn full(rate: u32, now: Timestamp) -> Self {
        Self { tokens: i64::from(rate) * 1_000, at: now }
    }

    fn fill(&mut self, rate: u32, now: Timestamp) {
        let passed = i64::try_from(now.saturating_since(self.at).as_millis()).unwrap_or(i64::MAX);
        let (max, more) = (i64::from(rate) * 1_000, passed.saturating_mul(rate.into()));
        self.tokens = self.tokens.saturating_add(more).min(max);
        self.at = now;
    }

    const fn has_one(&self, rate: u32) -> bool {
        rate == 0 || self.tokens >= 1_000
    }

    fn take(&mut self) {
        self.tokens = (self.tokens - 1_000).max(0);
    }

    fn owe(&mut self, rate: u32) {
        self.tokens = (self.tokens - 1_000).max(-i64::from(rate) * 1_000 * DEBT_S);
    }

    fn is_full(&self, rate: u32) -> bool {
        self.tokens >= i64::from(rate) * 1_000
    }
}

#[derive(Debug)]
struct Known {
    connections: u32,
    bucket: Bucket,
    /// Of handshakes that come to nothing: paid when they do, since nobody knows before.
    failures: Bucket,
}

/// What became of a connection's handshakes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Handshake {
    /// They came to an end, or there were none.
    Done,
    /// They came to nothing: what was sent was none, or stopped.
    Failed,
    /// They were not done in time, and the node was the slow one.
    Hindered,
}

/// The addresses there are, and what all of them do together.
#[derive(Debug)]
pub(super) struct Addresses {
    known: HashMap<Block, Known>,
    known_max: usize,
    connections_max: u32,
    rate: u32,
    failure_rate: u32,
    rate_of_all: u32,
    all: Bucket,
    swept_at: Option<Timestamp>,
}

impl Addresses {
    pub(super) fn new(config: &GateConfig, now: Timestamp) -> Self {
        Self {
            known: HashMap::new(),
            known_max: config.addresses_max,
            connections_max: config.connections_per_address,
            rate: config.connects_per_address_s,
            failure_rate: config.handshake_failures_per_address_s,
            rate_of_all: config.connects_s,
            all: Bucket::full(config.connects_s, now),
            swept_at: None,
        }
    }

    /// One more connection. Whoever is refused for its own rate takes nothing of everybody's.
    pub(super) fn enter(&mut self, address: IpAddr, now: Timestamp) -> Result<Option<Block>, Refusal> {
        let block = Block::from(address);
        if !self.known.contains_key(&block) && self.known.len() >= self.known_max {
            self.sweep(now);
        }
        let (rate, is_known) = (self.rate, self.known.contains_key(&block));
        self.all.fill(self.rate_of_all, now);
        if !is_known && self.known.len() >= self.known_max {
            self.take_of_all()?;
            return Ok(None);
        }
        let failure_rate = self.failure_rate;
        let fresh =
            || Known { connections: 0, bucket: Bucket::full(rate, now), failures: Bucket::full(failure_rate, now) };
        let known = self.known.entry(block).or_insert_with(fresh);
        if self.connections_max != 0 && known.connections >= self.connections_max {
            return Err(Refusal::AddressFull);
        }
        known.bucket.fill(rate, now);
        if !known.bucket.has_one(rate) {
            return Err(Refusal::AddressRate);
        }
        known.failures.fill(failure_rate, now);
        if !known.failures.has_one(failure_rate) {
            return Err(Refusal::AddressFailures);
        }
        if !self.all.has_one(self.rate_of_all) {
            return Err(Refusal::Rate);
        }
        self.all.take();
        known.bucket.take();
        known.connections += 1;
        Ok(Some(block))
    }

    /// One less.
    pub(super) fn leave(&mut self, block: Block, handshake: Handshake, now: Timestamp) {
        let failure_rate = self.failure_rate;
        let Some(known) = self.known.get_mut(&block) else { return };
        known.connections = known.connections.saturating_sub(1);
        known.failures.fill(failure_rate, now);
        if handshake == Handshake::Failed {
            known.failures.owe(failure_rate);
        }
        // Without rates there is nothing to remember of it.
        if known.connections == 0 && self.rate == 0 && known.failures.is_full(failure_rate) {
            self.known.remove(&block);
        }
    }

    fn take_of_all(&mut self) -> Result<(), Refusal> {
        if !self.all.has_one(self.rate_of_all) {
            return Err(Refusal::Rate);
        }
        self.all.take();
        Ok(())
    }

    /// Forgets those that have nothing open and whose bucket is full: there is nothing to know.
    fn sweep(&mut self, now: Timestamp) {
        if self.swept_at.is_some_and(|at| now < at.saturating_add(SWEEP_PAUSE)) {
            return;
        }
        self.swept_at = Some(now);
        let (rate, failure_rate) = (self.rate, self.failure_rate);
        self.known.retain(|_, known| {
            known.bucket.fill(rate, now);
            known.failures.fill(failure_rate, now);
            known.connections > 0 || !known.bucket.is_full(rate) || !known.failures.is_full(failure_rate)
        });
        self.known.shrink_to(self.known_max / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GateConfig {
        GateConfig {
            connections_per_address: 3,
            connects_per_address_s: 2,
            handshake_failures_per_address_s: 0,
            connects_s: 5,
            addresses_max: 2,
            antechamber_max: 1,
            lag_max_ms: 0,
            memory_max_bytes: 0,
            handshakes_per_core: 1,
            handshakes_max: 1,
            handshake_timeout_s: 1,
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::ZERO.saturating_add(Duration::from_millis(ms))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_comes_as_often_as_its_rate_and_no_more() {
        let mut addresses = Addresses::new(&config(), at(0));
        let mut enter = |ms| addresses.enter(ip("10.0.0.1"), at(ms)).map(|block| block.is_some());
        assert_eq!([enter(0), enter(0)], [Ok(true); 2]);
        assert_eq!(enter(0), Err(Refusal::AddressRate));
        assert_eq!(enter(499), Err(Refusal::AddressRate));
        assert_eq!(enter(500), Ok(true), "one more every half second");
        assert_eq!(enter(60_000), Err(Refusal::AddressFull), "three are open");
    }

    #[test]
    fn who_leaves_makes_room() {
        let mut addresses = Addresses::new(&GateConfig { connects_per_address_s: 0, ..config() }, at(0));
        let blocks: Vec<_> = (0..3).map(|_| addresses.enter(ip("10.0.0.1"), at(0)).expect("room")).collect();
        assert_eq!(addresses.enter(ip("10.0.0.1"), at(0)), Err(Refusal::AddressFull));
        addresses.leave(blocks[0].expect("counted"), Handshake::Done, at(0));
        assert!(addresses.enter(ip("10.0.0.1"), at(0)).is_ok());
    }

    #[test]
    fn a_network_of_64_bits_is_one_address_and_a_mapped_one_is_its_ipv4() {
        let one = [ip("2001:db8::1"), ip("2001:db8::ffff:ffff:ffff:ffff")].map(Block::from);
        assert_eq!(one[0], one[1]);
        assert_ne!(one[0], Block::from(ip("2001:db8:0:1::1")));
        assert_eq!(Block::from(ip("::ffff:10.0.0.1")), Block::from(ip("10.0.0.1")));
    }

    #[test]
    fn the_rate_in_all_is_not_used_up_by_who_is_over_its_own() {
        let config = GateConfig { connections_per_address: 0, addresses_max: 100, ..config() };
        let mut addresses = Addresses::new(&config, at(0));
        let entered = (0..1_000).filter(|_| addresses.enter(ip("10.0.0.1"), at(0)).is_ok()).count();
        assert_eq!(entered, 2);
        for address in ["10.0.0.2", "10.0.0.3", "10.0.0.4"] {
            assert!(addresses.enter(ip(address), at(0)).is_ok(), "{address}");
        }
        assert_eq!(addresses.enter(ip("10.0.0.5"), at(0)), Err(Refusal::Rate));
        assert!(addresses.enter(ip("10.0.0.5"), at(200)).is_ok());
    }

    #[test]
    fn a_full_table_forgets_who_is_gone_and_counts_the_rest_together() {
        let config = GateConfig { connects_s: 0, ..config() };
        let mut addresses = Addresses::new(&config, at(0));
        let stays = addresses.enter(ip("10.0.0.1"), at(0)).expect("room");
        let goes = addresses.enter(ip("10.0.0.2"), at(0)).expect("room");
        assert!(stays.is_some() && goes.is_some());
        assert_eq!(addresses.enter(ip("10.0.0.3"), at(0)), Ok(None), "not remembered, and not refused");
        addresses.leave(goes.expect("counted"), Handshake::Done, at(0));
        assert_eq!(addresses.enter(ip("10.0.0.3"), at(100)), Ok(None), "it came just now");
        assert!(addresses.enter(ip("10.0.0.3"), at(2_000)).expect("room").is_some());
        assert_eq!(addresses.known.len(), 2);
    }

    /// Only failures are bounded, to 10 a second.
    fn failing() -> Addresses {
        let free = GateConfig { connections_per_address: 0, connects_per_address_s: 0, connects_s: 0, ..config() };
        Addresses::new(&GateConfig { handshake_failures_per_address_s: 10, addresses_max: 10, ..free }, at(0))
    }

    /// Comes and goes every 5 ms, and says how often it came in during `ms`.
    fn come_and_go(addresses: &mut Addresses, handshake: Handshake, ms: std::ops::Range<u64>) -> usize {
        let once = |ms| {
            let entered = addresses.enter(ip("10.0.0.1"), at(ms)).ok()?.expect("counted");
            addresses.leave(entered, handshake, at(ms + 4));
            Some(())
        };
        ms.step_by(5).filter_map(once).count()
    }

    #[test]
    fn whose_handshakes_fail_comes_as_often_as_the_rate_of_failures() {
        let came = come_and_go(&mut failing(), Handshake::Failed, 0..10_000);
        assert!((100..=111).contains(&came), "{came}: 10 at once, then 10 a second");
        let came = come_and_go(&mut failing(), Handshake::Done, 0..10_000);
        assert_eq!(came, 2_000, "who succeeds is not bounded");
    }

    #[test]
    fn handshakes_that_the_node_was_too_slow_for_are_nobodys_failures() {
        assert_eq!(come_and_go(&mut failing(), Handshake::Hindered, 0..10_000), 2_000);
    }

    #[test]
    fn handshakes_that_fail_later_are_paid_for_all_the_same() {
        let mut addresses = failing();
        let open: Vec<_> = (0..50).map(|_| addresses.enter(ip("10.0.0.1"), at(0)).expect("none failed yet")).collect();
        open.into_iter().flatten().for_each(|block| addresses.leave(block, Handshake::Failed, at(100)));
        assert_eq!(addresses.enter(ip("10.0.0.1"), at(4_000)), Err(Refusal::AddressFailures), "40 are owed");
        assert!(addresses.enter(ip("10.0.0.2"), at(4_000)).is_ok(), "others do not pay for it");
        assert!(addresses.enter(ip("10.0.0.1"), at(4_300)).is_ok());
    }

    #[test]
    fn a_debt_ends() {
        let mut addresses = failing();
        let open: Vec<_> = (0..5_000).map(|_| addresses.enter(ip("10.0.0.1"), at(0)).expect("room")).collect();
        open.into_iter().flatten().for_each(|block| addresses.leave(block, Handshake::Failed, at(0)));
        assert_eq!(addresses.known.len(), 1, "it is remembered though nothing is open");
        assert_eq!(addresses.enter(ip("10.0.0.1"), at(9_900)), Err(Refusal::AddressFailures));
        assert!(addresses.enter(ip("10.0.0.1"), at(10_200)).is_ok());
    }

    #[test]
    fn without_bounds_everybody_comes_in() {
        let config = GateConfig { connections_per_address: 0, connects_per_address_s: 0, connects_s: 0, ..config() };
        let mut addresses = Addresses::new(&config, at(0));
        let entered = (0..10_000).filter(|_| addresses.enter(ip("10.0.0.1"), at(0)).is_ok()).count();
        assert_eq!(entered, 10_000);
    }
}
