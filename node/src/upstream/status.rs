//! How an outside broker stands, for those who look after the node.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use unhidra_bridge::Stats;
use unhidra_core::breaker::BreakerState;
use unhidra_core::time::UnixTime;

use super::config::UpstreamConfig;

/// Characters of an error that are kept: a broker chooses some of them.
const ERROR_LEN_MAX: usize = 300;

/// Where the connection to an outside broker stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamState {
    /// It is being dialled, or has not let the node in yet.
    Connecting,
    /// It has let the node in, and sends what devices say.
    Connected,
    /// It failed, and is tried again soon.
    Waiting,
    /// It failed many times in a row, and is left alone for a while.
    Resting,
}

impl UpstreamState {
    /// Its word on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Waiting => "waiting",
            Self::Resting => "resting",
        }
    }
}

/// An outside broker, as shown.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct UpstreamRecord {
    /// Its name in the configuration.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Where the connection stands.
    pub state: UpstreamState,
    /// Since when, in ms since the Unix epoch.
    pub since: u64,
    /// Messages it has sent in devices' names since the node started.
    pub received: u64,
    /// Those that opened.
    pub opened: u64,
    /// Messages for devices that it has taken.
    pub sent: u64,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
}

/// What is known of one.
#[derive(Debug)]
pub(super) struct Status(Mutex<UpstreamRecord>);

impl Status {
    pub(super) fn new(config: &UpstreamConfig, now: UnixTime) -> Self {
        Self(Mutex::new(UpstreamRecord {
            name: config.name.to_string(),
            address: config.address.to_string(),
            state: UpstreamState::Connecting,
            since: now.as_ms(),
            received: 0,
            opened: 0,
            sent: 0,
            last_error: None,
        }))
    }

    pub(super) fn state(&self, state: UpstreamState, now: UnixTime) {
        let mut record = self.lock();
        if record.state != state {
            (record.state, record.since) = (state, now.as_ms());
        }
    }

    pub(super) fn failed(&self, error: &str, breaker: BreakerState, now: UnixTime) {
        let resting = breaker == BreakerState::Open;
        self.state(if resting { UpstreamState::Resting } else { UpstreamState::Waiting }, now);
        self.lock().last_error = Some(shown(error));
    }

    pub(super) fn received(&self) {
        self.lock().received += 1;
    }

    pub(super) fn opened(&self, stats: &Stats) {
        self.lock().opened += stats.opened;
    }

    pub(super) fn sent(&self) {
        self.lock().sent += 1;
    }

    pub(super) fn record(&self) -> UpstreamRecord {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, UpstreamRecord> {
        // Nothing here panics while it holds the lock, so a poisoned one holds whole values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error as it is shown and logged: of a bounded length, without control characters.
pub(super) fn shown(error: &str) -> String {
    error.chars().take(ERROR_LEN_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_says_is_shown_without_control_characters_and_not_for_ever() {
        assert_eq!(shown("no\n\u{1b}[31mway"), "no  [31mway");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), 300);
    }
}
