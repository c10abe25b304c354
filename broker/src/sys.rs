//! `$SYS`: what the broker says of itself, under the names Mosquitto gave.
//!
//! A plain value: it is shown what was counted, and says which topics have a new value. Nobody may
//! publish there, `#` does not match it, and nothing of it is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use unhidra_core::time::Timestamp;

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Totals {
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// Control packets of every type.
    pub(crate) packets_received: u64,
    pub(crate) packets_sent: u64,
    pub(crate) publishes_received: u64,
    pub(crate) publishes_sent: u64,
    pub(crate) publishes_dropped: u64,
    /// Bytes of payload.
    pub(crate) publish_bytes_received: u64,
    pub(crate) publish_bytes_sent: u64,
    /// Streams accepted.
    pub(crate) sockets: u64,
    /// CONNECTs.
    pub(crate) connects: u64,
    /// Sessions that ended because their time had come.
    pub(crate) expired: u64,
}

/// What there is at one instant.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Present {
    /// Sessions that a connection carries.
    pub(crate) connected: usize,
    /// Sessions that wait for one.
    pub(crate) disconnected: usize,
    pub(crate) subscriptions: usize,
    /// Those of groups that share a filter, among `subscriptions`.
    pub(crate) shared_subscriptions: usize,
    pub(crate) retained: usize,
    pub(crate) retained_bytes: usize,
    /// Messages that wait in queues; one that waits for many counts so often.
    pub(crate) queued: usize,
    pub(crate) queued_bytes: usize,
    /// Messages sent and not acknowledged.
    pub(crate) in_flight: usize,
}

/// Over how long an average is taken: its name, and its length in minutes.
const SPANS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

type Count = fn(&Totals) -> u64;

/// What loads there are: the name, and what is counted.
const LOADS: [(&str, Count); 9] = [
    ("messages/received", |totals| totals.packets_received),
    ("messages/sent", |totals| totals.packets_sent),
    ("publish/dropped", |totals| totals.publishes_dropped),
    ("publish/received", |totals| totals.publishes_received),
    ("publish/sent", |totals| totals.publishes_sent),
    ("bytes/received", |totals| totals.bytes_received),
    ("bytes/sent", |totals| totals.bytes_sent),
    ("sockets", |totals| totals.sockets),
    ("connections", |totals| totals.connects),
];

/// The values of `$SYS`.
#[derive(Debug)]
pub(crate) struct Sys {
    began_at: Timestamp,
    counted_at: Timestamp,
    counted: Totals,
    /// Averages a minute, of each of [`LOADS`] over each of [`SPANS`].
    loads: [[f64; SPANS.len()]; LOADS.len()],
    connected_max: usize,
    /// What each topic said last.
    said: BTreeMap<String, String>,
}

impl Sys {
    pub(crate) fn new(now: Timestamp) -> Self {
        let (counted, loads) = (Totals::default(), Default::default());
        Self { began_at: now, counted_at: now, counted, loads, connected_max: 0, said: BTreeMap::new() }
    }

    /// Takes note of what was counted, and gives the topics whose value is new, each with it.
    pub(crate) fn update(&mut self, totals: Totals, present: &Present, now: Timestamp) -> Vec<(String, String)> {
        self.average(&totals, now.saturating_since(self.counted_at));
        (self.counted, self.counted_at) = (totals, now);
        self.connected_max = self.connected_max.max(present.connected);
        let mut news = Vec::new();
        for (name, value) in self.values(&totals, present, now) {
            let topic = format!("$SYS/broker/{name}");
            if self.said.get(&topic) != Some(&value) {
                self.said.insert(topic.clone(), value.clone());
                news.push((topic, value));
            }
        }
        news
    }

    /// Moves each average on by what was counted in `elapsed`.
    fn average(&mut self, totals: &Totals, elapsed: Duration) {
        let minutes = elapsed.as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        for ((_, count), load) in LOADS.iter().zip(&mut self.loads) {
            let counted = count(totals).saturating_sub(count(&self.counted));
            // Exact below 2^53, which no count of an interval reaches.
            let rate = counted as f64 / minutes;
            for ((_, span), average) in SPANS.iter().zip(load) {
                let fade = (-minutes / span).exp();
                *average = *average * fade + rate * (1.0 - fade);
            }
        }
    }

    fn values(&self, totals: &Totals, present: &Present, now: Timestamp) -> Vec<(String, String)> {
        let t = totals;
        let stored = (present.retained + present.queued) as u64;
        let stored_bytes = (present.retained_bytes + present.queued_bytes) as u64;
        let (connected, disconnected) = (present.connected as u64, present.disconnected as u64);
        let counts = [
            ("clients/total", connected + disconnected),
            ("clients/maximum", self.connected_max as u64),
            ("clients/connected", connected),
            ("clients/active", connected),
            ("clients/disconnected", disconnected),
            ("clients/inactive", disconnected),
            ("clients/expired", t.expired),
            ("bytes/received", t.bytes_received),
            ("bytes/sent", t.bytes_sent),
            ("messages/received", t.packets_received),
            ("messages/sent", t.packets_sent),
            ("messages/inflight", present.in_flight as u64),
            ("messages/stored", stored),
            ("publish/messages/received", t.publishes_received),
            ("publish/messages/sent", t.publishes_sent),
            ("publish/messages/dropped", t.publishes_dropped),
            ("publish/bytes/received", t.publish_bytes_received),
            ("publish/bytes/sent", t.publish_bytes_sent),
            ("retained messages/count", present.retained as u64),
            ("store/messages/count", stored),
            ("store/messages/bytes", stored_bytes),
            ("subscriptions/count", present.subscriptions as u64),
            ("shared_subscriptions/count", present.shared_subscriptions as u64),
        ];
        let mut values: Vec<_> = counts.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
        for ((name, _), load) in LOADS.iter().zip(&self.loads) {
            for ((span, _), average) in SPANS.iter().zip(load) {
                values.push((format!("load/{name}/{span}"), format!("{average:.2}")));
            }
        }
        values.push(("version".to_owned(), concat!("unhidra version ", env!("CARGO_PKG_VERSION")).to_owned()));
        values.push(("uptime".to_owned(), format!("{} seconds", now.saturating_since(self.began_at).as_secs())));
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(s * 1000)
    }

    fn value<'a>(news: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let topic = format!("$SYS/broker/{name}");
        news.iter().find(|(known, _)| *known == topic).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_value_is_said_when_it_is_new() {
        let mut sys = Sys::new(at(0));
        let (mut totals, mut present) = (Totals::default(), Present::default());
        let first = sys.update(totals, &present, at(1));
        assert_eq!(first.len(), 23 + 27 + 2);
        assert_eq!(value(&first, "clients/total"), Some("0"));
        assert_eq!(value(&first, "version"), Some(concat!("unhidra version ", env!("CARGO_PKG_VERSION"))));
        (present.connected, present.disconnected, totals.bytes_sent) = (2, 3, 7);
        let second = sys.update(totals, &present, at(2));
        assert_eq!((value(&second, "clients/total"), value(&second, "clients/maximum")), (Some("5"), Some("2")));
        assert_eq!((value(&second, "bytes/sent"), value(&second, "bytes/received")), (Some("7"), None));
        present.connected = 1;
        let third = sys.update(totals, &present, at(3));
        assert_eq!((value(&third, "clients/active"), value(&third, "clients/maximum")), (Some("1"), None));
        assert_eq!(value(&third, "uptime"), Some("3 seconds"));
    }

    #[test]
    fn a_load_nears_its_rate_and_fades_without() {
        let mut sys = Sys::new(at(0));
        let mut totals = Totals::default();
        let mut last = Vec::new();
        for tick in 1..=360 {
            totals.publishes_received += 100;
            last = sys.update(totals, &Present::default(), at(tick * 10));
        }
        // 100 in 10 s are 600 a minute; an hour is 60 times the shortest span and 4 times the longest.
        let load = |sys: &Sys, name: &str| sys.said[&format!("$SYS/broker/load/publish/received/{name}")].clone();
        assert_eq!((load(&sys, "1min").as_str(), load(&sys, "5min").as_str()), ("600.00", "600.00"));
        let slow: f64 = load(&sys, "15min").parse().expect("a number");
        assert!((580.0..600.0).contains(&slow), "{slow}: {last:?}");
        sys.update(totals, &Present::default(), at(3660));
        let faded: f64 = load(&sys, "1min").parse().expect("a number");
        assert!((215.0..225.0).contains(&faded), "600 / e is 220.7, not {faded}");
    }

    #[test]
    fn a_clock_that_stands_still_changes_no_load() {
        let mut sys = Sys::new(at(0));
        sys.update(Totals { sockets: 5, ..Totals::default() }, &Present::default(), at(0));
        assert_eq!(sys.said["$SYS/broker/load/sockets/1min"], "0.00");
    }
}
