//! By which door a message came, and what each door may make the node pay for.
//!
//! At the front door, the node's own broker, a device shows its certificate. Behind an outside broker
//! anybody may speak in its name. So what a message that does not open costs is counted for each door
//! apart: a forger spends what is his broker's, and the device itself is heard by another door as if
//! he were not there.

use std::collections::BTreeMap;
use std::time::Duration;

use unhidra_core::delivery::DownlinkRow;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::reset::ResetReason;

use crate::budget::{LongTries, StepBudget};
use crate::draft::Connection;
use crate::link::Link;
use crate::upstream::UpstreamId;

/// How long one ResetRequest serves, whatever its reason (e2ee/PROTOCOL.md section 7).
pub(crate) const RESET_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// A way into the node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Door {
    /// The node's own broker.
    Front,
    /// An outside broker.
    Outside(UpstreamId),
}

impl Door {
    /// The door a connection leads through.
    pub(crate) const fn of(connection: Connection) -> Self {
        match connection {
            Connection::Local(_) => Self::Front,
            Connection::Outside(upstream) => Self::Outside(upstream),
        }
    }
}

/// How a message came: by which door, and where what answers it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'l> {
    pub(crate) door: Door,
    pub(crate) link: Option<&'l Link>,
}

impl Way<'_> {
    /// Where a row is published in answer.
    pub(crate) fn target(self, row: DownlinkRow) -> Option<Connection> {
        self.link.and_then(|link| link.target(row))
    }
}

/// What one door has spent, and what is owed to whoever speaks there.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    /// Of messages.
    pub(crate) steps: StepBudget,
    /// Of handshakes, apart: a device that begins again with an old copy has messages on its way that fail, and
    /// behind them comes the handshake that mends it.
    pub(crate) handshakes: StepBudget,
    pub(crate) long_tries: LongTries,
    /// When the last ResetRequest was committed.
    reset_at: Option<UnixTime>,
    /// A ResetRequest that was due within the hour of the last one, and the ratchet key it names:
    /// a device that only listens may say nothing more that would ask for it.
    pub(crate) reset_owed: Option<(ResetReason, [u8; 32])>,
}

impl Allowance {
    /// What a door begins with whose last ResetRequest was at this time.
    fn since(reset_at: Option<UnixTime>) -> Self {
        Self { reset_at, ..Self::default() }
    }

    /// Takes the hour of a ResetRequest, if it is free, with what was owed.
    pub(crate) fn take_reset(&mut self, now: UnixTime) -> bool {
        let is_free = self.may_reset_at().is_none_or(|at| at <= now);
        if is_free {
            (self.reset_at, self.reset_owed) = (Some(now), None);
        }
        is_free
    }

    /// When the hour of the last ResetRequest is over; `None` where none was sent.
    pub(crate) fn may_reset_at(&self) -> Option<UnixTime> {
        self.reset_at.map(|at| at.saturating_add(RESET_INTERVAL))
    }

    fn clock_is(&mut self, now: UnixTime) {
        self.reset_at = self.reset_at.map(|at| at.min(now));
    }
}

/// The doors of one device. There are as many as outside brokers are configured, and the front door.
#[derive(Debug)]
pub(crate) struct Doors {
    front: Allowance,
    outside: BTreeMap<UpstreamId, Allowance>,
    /// When the last ResetRequest went out by any outside broker before the records were read.
    outside_reset_at: Option<UnixTime>,
}

impl Doors {
    /// Those of a device whose last ResetRequests went out at these times: by the front door, and by
    /// any outside broker. Which of those it was is not written down, so the hour holds for all.
    pub(crate) fn new(reset_at: Option<UnixTime>, outside_reset_at: Option<UnixTime>) -> Self {
        Self { front: Allowance::since(reset_at), outside: BTreeMap::new(), outside_reset_at }
    }

    /// What is left to one of them.
    pub(crate) fn at(&mut self, door: Door) -> &mut Allowance {
        let since = self.outside_reset_at;
        match door {
            Door::Front => &mut self.front,
            Door::Outside(upstream) => self.outside.entry(upstream).or_insert_with(|| Allowance::since(since)),
        }
    }

    /// A ResetRequest that is owed by this door, and when its hour is free.
    pub(crate) fn reset_owed_at(&self, door: Door) -> Option<UnixTime> {
        let allowance = match door {
            Door::Front => &self.front,
            Door::Outside(upstream) => self.outside.get(&upstream)?,
        };
        allowance.reset_owed.and_then(|_| allowance.may_reset_at())
    }

    /// A session has begun by this door: nothing is owed any more, and what failed there was of sessions before it.
    pub(crate) fn session_began(&mut self, door: Door) {
        self.at(door).steps = StepBudget::default();
        self.front.reset_owed = None;
        self.outside.values_mut().for_each(|allowance| allowance.reset_owed = None);
    }

    /// What the calendar is. Of a clock that was set back the hour counts from here on: the request
    /// comes late, never twice, and does not wait for the clock to catch up.
    pub(crate) fn clock_is(&mut self, now: UnixTime) {
        self.front.clock_is(now);
        self.outside.values_mut().for_each(|allowance| allowance.clock_is(now));
        self.outside_reset_at = self.outside_reset_at.map(|at| at.min(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTORY: Door = Door::Outside(UpstreamId(0));
    const HARBOUR: Door = Door::Outside(UpstreamId(1));
    const AT: UnixTime = UnixTime::from_s(10_000);

    fn almost_an_hour_after(at: UnixTime) -> UnixTime {
        at.saturating_add(RESET_INTERVAL - Duration::from_millis(1))
    }

    #[test]
    fn one_reset_an_hour_for_each_door() {
        let mut doors = Doors::new(None, None);
        for door in [FACTORY, Door::Front, HARBOUR] {
            assert!(doors.at(door).take_reset(AT), "{door:?}: no other door spends its hour");
            assert!(!doors.at(door).take_reset(almost_an_hour_after(AT)), "{door:?}");
            assert!(doors.at(door).take_reset(AT.saturating_add(RESET_INTERVAL)), "{door:?}");
        }
    }

    #[test]
    fn the_hour_of_an_outside_broker_that_was_written_down_holds_for_all_of_them_and_not_for_the_front_door() {
        let mut doors = Doors::new(None, Some(AT));
        assert!(doors.at(Door::Front).take_reset(AT));
        for door in [FACTORY, HARBOUR] {
            assert!(!doors.at(door).take_reset(almost_an_hour_after(AT)), "{door:?}");
            assert!(doors.at(door).take_reset(AT.saturating_add(RESET_INTERVAL)), "{door:?}");
        }
        let mut doors = Doors::new(Some(AT), None);
        assert!(!doors.at(Door::Front).take_reset(AT) && doors.at(FACTORY).take_reset(AT));
    }

    #[test]
    fn of_a_clock_that_was_set_back_the_hour_counts_from_there() {
        for door in [Door::Front, FACTORY] {
            let mut doors = Doors::new(Some(AT), Some(AT));
            assert!(!doors.at(door).take_reset(UnixTime::EPOCH));
            let back = UnixTime::from_s(500);
            doors.clock_is(back);
            assert!(!doors.at(door).take_reset(almost_an_hour_after(back)));
            assert!(doors.at(door).take_reset(back.saturating_add(RESET_INTERVAL)), "whatever it was before");
        }
    }
}
