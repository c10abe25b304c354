//! The promise a client makes in CONNECT: some packet at least every interval (section 3.1.2.10).

use std::time::Duration;

use unhidra_core::time::Timestamp;

/// Knows no clock: the caller passes `now` in and sleeps until [`deadline`](Self::deadline).
#[derive(Debug)]
pub(super) struct KeepAlive {
    /// `None` where the client sent 0, which turns the mechanism off.
    patience: Option<Duration>,
    watch: Watch,
}

#[derive(Debug)]
enum Watch {
    /// Packets are read as they come.
    Since(Timestamp),
    /// We do not read, so that silence says nothing about the client.
    Suspended,
}

impl KeepAlive {
    pub(super) fn new(interval_s: u16, now: Timestamp) -> Self {
        let patience = (interval_s > 0).then(|| Duration::from_millis(u64::from(interval_s) * 1500));
        Self { patience, watch: Watch::Since(now) }
    }

    /// A packet has come.
    pub(super) const fn packet(&mut self, now: Timestamp) {
        if let Watch::Since(at) = &mut self.watch {
            *at = now;
        }
    }

    /// Whether we read from now on.
    pub(super) const fn reading(&mut self, reads: bool, now: Timestamp) {
        match (&self.watch, reads) {
            (Watch::Since(_), false) => self.watch = Watch::Suspended,
            (Watch::Suspended, true) => self.watch = Watch::Since(now),
            (Watch::Since(_), true) | (Watch::Suspended, false) => {}
        }
    }

    /// When the connection counts as lost if nothing more arrives: one and a half intervals after
    /// the last packet [MQTT-3.1.2-22].
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match (self.patience, &self.watch) {
            (Some(patience), Watch::Since(at)) => Some(at.saturating_add(patience)),
            (None, _) | (_, Watch::Suspended) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_lost_after_one_and_a_half_intervals() {
        let mut keep_alive = KeepAlive::new(10, Timestamp::ZERO);
        keep_alive.packet(Timestamp::from_ms(5_000));
        assert_eq!(keep_alive.deadline(), Some(Timestamp::from_ms(20_000)));
    }

    #[test]
    fn an_interval_of_0_turns_it_off() {
        assert_eq!(KeepAlive::new(0, Timestamp::ZERO).deadline(), None);
    }

    #[test]
    fn a_client_we_do_not_read_is_not_blamed_for_silence() {
        let mut keep_alive = KeepAlive::new(10, Timestamp::ZERO);
        keep_alive.reading(false, Timestamp::from_ms(1_000));
        assert_eq!(keep_alive.deadline(), None);
        keep_alive.reading(true, Timestamp::from_ms(60_000));
        assert_eq!(keep_alive.deadline(), Some(Timestamp::from_ms(75_000)));
    }
}
