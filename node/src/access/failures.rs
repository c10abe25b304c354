//! Tries that failed, by address and by user, so that nobody guesses for long.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use unhidra_core::time::Timestamp;

/// How long failures count.
const WINDOW: Duration = Duration::from_secs(60);

/// How many failures a window takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From one address; of IPv6, one network of 64 bits. 0 is no bound.
    pub per_address: u32,
    /// For one user name. 0 is no bound.
    pub per_user: u32,
    /// Addresses and names that are counted. Over it, new ones share one count.
    pub entries_max: usize,
}

/// Who is counted.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Whose {
    Address(IpAddr),
    User(Box<str>),
    /// Those there was no room for.
    Others,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    failures: u32,
    since: Timestamp,
}

/// The counts.
#[derive(Debug)]
pub(super) struct Failures {
    bounds: Bounds,
    counts: HashMap<Whose, Count>,
}

impl Failures {
    /// None yet.
    #[must_use]
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, counts: HashMap::new() }
    }

    /// Whether another try is looked at.
    #[must_use]
    pub(super) fn may_try(&self, address: Option<IpAddr>, user: &str, now: Timestamp) -> bool {
        let over = |(whose, max): (Whose, u32)| {
            let count =
                self.counts.get(&whose).or_else(|| self.is_full().then(|| self.counts.get(&Whose::Others)).flatten());
            count.is_some_and(|count| count.is_of(now) && count.failures >= max)
        };
        !self.whose(address, user).into_iter().flatten().any(over)
    }

    /// A try has failed.
    pub(super) fn failed(&mut self, address: Option<IpAddr>, user: &str, now: Timestamp) {
        for (whose, _) in self.whose(address, user).into_iter().flatten() {
            if !self.counts.contains_key(&whose) && self.is_full() {
                self.counts.retain(|_, count| count.is_of(now));
            }
            let whose = if self.counts.contains_key(&whose) || !self.is_full() { whose } else { Whose::Others };
            let count = self.counts.entry(whose).or_insert(Count { failures: 0, since: now });
            if !count.is_of(now) {
                *count = Count { failures: 0, since: now };
            }
            count.failures = count.failures.saturating_add(1);
        }
    }

    fn whose(&self, address: Option<IpAddr>, user: &str) -> [Option<(Whose, u32)>; 2] {
        let Bounds { per_address, per_user, .. } = self.bounds;
        let address =
            address.filter(|_| per_address > 0).map(|address| (Whose::Address(network(address)), per_address));
        let user = (per_user > 0 && !user.is_empty()).then(|| (Whose::User(user.into()), per_user));
        [address, user]
    }

    fn is_full(&self) -> bool {
        self.counts.len() >= self.bounds.entries_max
    }
}

impl Count {
    fn is_of(&self, now: Timestamp) -> bool {
        now < self.since.saturating_add(WINDOW)
    }
}

/// The address, or its network of 64 bits: one customer has a whole one of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(entries_max: usize) -> Failures {
        Failures::new(Bounds { per_address: 2, per_user: 3, entries_max })
    }

    fn at(text: &str) -> Option<IpAddr> {
        text.parse().ok()
    }

    #[test]
    fn after_too_many_failures_an_address_waits_and_others_do_not() {
        let mut failures = failures(100);
        let now = Timestamp::ZERO;
        for name in ["a", "b"] {
            assert!(failures.may_try(at("10.0.0.1"), name, now));
            failures.failed(at("10.0.0.1"), name, now);
        }
        assert!(!failures.may_try(at("10.0.0.1"), "c", now) && !failures.may_try(at("::ffff:10.0.0.1"), "c", now));
        assert!(failures.may_try(at("10.0.0.2"), "a", now) && failures.may_try(None, "a", now));
        assert!(failures.may_try(at("10.0.0.1"), "c", Timestamp::from_ms(60_000)));
    }

    #[test]
    fn a_name_is_held_back_wherever_the_tries_come_from_and_a_network_is_one_address() {
        let mut failures = failures(100);
        let now = Timestamp::ZERO;
        for host in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
            failures.failed(at(host), "ann", now);
        }
        assert!(!failures.may_try(at("10.0.0.4"), "ann", now) && failures.may_try(at("10.0.0.4"), "bob", now));
        failures.failed(at("fd00::1"), "x", now);
        failures.failed(at("fd00::2"), "y", now);
        assert!(!failures.may_try(at("fd00::3"), "z", now) && failures.may_try(at("fd00:0:0:1::3"), "z", now));
    }

    #[test]
    fn the_table_is_bounded_and_those_without_room_share_one_count() {
        let mut failures = failures(4);
        for number in 0..1_000 {
            failures.failed(at("10.0.0.1"), &format!("u{number}"), Timestamp::ZERO);
        }
        assert!(failures.counts.len() <= 5);
        assert!(!failures.may_try(at("10.0.0.9"), "new", Timestamp::ZERO));
        assert!(failures.may_try(at("10.0.0.9"), "new", Timestamp::from_ms(60_000)));
        failures.failed(at("10.0.0.9"), "new", Timestamp::from_ms(60_000));
        assert_eq!(failures.counts.len(), 2, "what has ended makes room");
    }
}
