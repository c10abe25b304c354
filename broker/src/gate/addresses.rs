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

/// A token bucket: `rate` tokens a second, as many at most. A rate of 0 is no bound.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths.
    tokens: u64,
    at: Timestamp,
}

impl Bucket {
    fn full(rate: u32, now: Timestamp) -> Self {
        Self { tokens: u64::from(rate) * 1_000, at: now }
    }

    fn fill(&mut self, rate: u32, now: Timestamp) {
        let passed = u64::try_from(now.saturating_since(self.at).as_millis()).unwrap_or(u64::MAX);
        let (max, more) = (u64::from(rate) * 1_000, passed.saturating_mul(rate.into()));
        self.tokens = self.tokens.saturating_add(more).min(max);
        self.at = now;
    }

    const fn has_one(&self, rate: u32) -> bool {
        rate == 0 || self.tokens >= 1_000
    }

    fn take(&mut self) {
        self.tokens = self.tokens.saturating_sub(1_000);
    }

    fn is_full(&self, rate: u32) -> bool {
        self.tokens >= u64::from(rate) * 1_000
    }
}

#[derive(Debug)]
struct Known {
    connections: u32,
    bucket: Bucket,
}

/// The addresses there are, and what all of them do together.
#[derive(Debug)]
pub(super) struct Addresses {
    known: HashMap<Block, Known>,
    known_max: usize,
    connections_max: u32,
    rate: u32,
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
        let fresh = || Known { connections: 0, bucket: Bucket::full(rate, now) };
        let known = self.known.entry(block).or_insert_with(fresh);
        if self.connections_max != 0 && known.connections >= self.connections_max {
            return Err(Refusal::AddressFull);
        }
        known.bucket.fill(rate, now);
        if !known.bucket.has_one(rate) {
            return Err(Refusal::AddressRate);
        }
        if !self.all.has_one(self.rate_of_all) {
            return Err(Refusal::Rate);
        }
        self.all.take();
        known.bucket.take();
        known.connections += 1;
        Ok(Some(block))
    }

    pub(super) fn leave(&mut self, block: Block) {
        if let Some(known) = self.known.get_mut(&block) {
            known.connections = known.connections.saturating_sub(1);
            // Without a rate there is nothing to remember of it.
            if known.connections == 0 && self.rate == 0 {
                self.known.remove(&block);
            }
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
        let rate = self.rate;
        self.known.retain(|_, known| {
            known.bucket.fill(rate, now);
            known.connections > 0 || !known.bucket.is_full(rate)
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
        addresses.leave(blocks[0].expect("counted"));
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
        addresses.leave(goes.expect("counted"));
        assert_eq!(addresses.enter(ip("10.0.0.3"), at(100)), Ok(None), "it came just now");
        assert!(addresses.enter(ip("10.0.0.3"), at(2_000)).expect("room").is_some());
        assert_eq!(addresses.known.len(), 2);
    }

    #[test]
    fn without_bounds_everybody_comes_in() {
        let config = GateConfig { connections_per_address: 0, connects_per_address_s: 0, connects_s: 0, ..config() };
        let mut addresses = Addresses::new(&config, at(0));
        let entered = (0..10_000).filter(|_| addresses.enter(ip("10.0.0.1"), at(0)).is_ok()).count();
        assert_eq!(entered, 10_000);
    }
}
