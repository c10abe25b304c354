//! Where a device is: its connections and what each of them listens to, and the outside broker it
//! was heard behind.
//!
//! Behind an outside broker nobody says that a device is there, so it counts as there for some time
//! after a message of its own has opened. Nothing that does not open moves this: a broker that
//! repeats, forges or makes up what a device says cannot draw the device's commands to itself. A
//! connection to the node's own broker is surer than any such word and goes before it.

use std::time::Duration;

use unhidra_core::delivery::DownlinkRow;
use unhidra_core::time::Timestamp;

use crate::draft::Connection;
use crate::upstream::UpstreamId;

/// The ways to one device. It has one as a rule; an integrator's tools may open a second connection
/// with the same certificate and listen there.
#[derive(Debug, Default)]
pub(crate) struct Link {
    open: Vec<Open>,
    heard: Option<Heard>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    commands: bool,
    prekeys: bool,
}

/// How long what an outside broker has taken for a device that goes on speaking may remain without a
/// receipt before it is given again: that broker may have dropped it, and says nothing.
const RELAY_PATIENCE: Duration = Duration::from_secs(60);

/// The outside broker the device was last heard behind.
#[derive(Clone, Copy, Debug)]
struct Heard {
    upstream: UpstreamId,
    silent_at: Timestamp,
    /// When what was given to that broker is given again, if the device is heard then.
    repeat_at: Timestamp,
    /// Whether that broker is reached now.
    reached: bool,
}

impl Link {
    /// The way back to whoever has just spoken through an outside broker, whether or not the device
    /// is known to be there: what answers a message goes where the message came from.
    pub(crate) fn through(upstream: UpstreamId) -> Self {
        let heard = Heard { upstream, silent_at: Timestamp::ZERO, repeat_at: Timestamp::ZERO, reached: true };
        Self { open: Vec::new(), heard: Some(heard) }
    }

    /// Whether the device is here, by any way.
    pub(crate) fn is_here(&self) -> bool {
        self.is_connected() || self.heard.is_some()
    }

    /// Whether the device has a connection to the node's own broker.
    pub(crate) fn is_connected(&self) -> bool {
        !self.open.is_empty()
    }

    /// A connection was admitted.
    pub(crate) fn connected(&mut self, connection: Connection) {
        self.open.push(Open { connection, commands: false, prekeys: false });
    }

    /// A connection listens on a row.
    pub(crate) fn listening(&mut self, connection: Connection, row: DownlinkRow) {
        if let Some(open) = self.open.iter_mut().find(|open| open.connection == connection) {
            match row {
                DownlinkRow::Commands => open.commands = true,
                DownlinkRow::Prekeys => open.prekeys = true,
            }
        }
    }

    /// A connection ended.
    pub(crate) fn disconnected(&mut self, connection: Connection) {
        self.open.retain(|open| open.connection != connection);
    }

    /// A message of the device has opened that came through an outside broker: it counts as there
    /// until `silent_at`. Says whether what that broker was given before is to be given again.
    pub(crate) fn heard(&mut self, upstream: UpstreamId, silent_at: Timestamp, now: Timestamp) -> bool {
        let same = self.heard.filter(|heard| heard.upstream == upstream);
        let repeats = same.is_none_or(|heard| heard.repeat_at <= now);
        let repeat_at = match same {
            Some(heard) if !repeats => heard.repeat_at,
            _ => now.saturating_add(RELAY_PATIENCE),
        };
        // What was on its way when that broker was lost opens later, and says nothing of the way back.
        let reached = same.is_none_or(|heard| heard.reached);
        self.heard = Some(Heard { upstream, silent_at, repeat_at, reached });
        repeats
    }

    /// When the device has been silent for too long behind its outside broker.
    pub(crate) fn silent_at(&self) -> Option<Timestamp> {
        self.heard.map(|heard| heard.silent_at)
    }

    /// Whether the device was last heard behind this outside broker.
    pub(crate) fn is_behind(&self, upstream: UpstreamId) -> bool {
        self.heard.is_some_and(|heard| heard.upstream == upstream)
    }

    /// Its outside broker is reached, or is not.
    pub(crate) fn reached(&mut self, reached: bool) {
        if let Some(heard) = &mut self.heard {
            heard.reached = reached;
        }
    }

    /// Nothing is published by this way until more is heard of it.
    pub(crate) fn unreached(&mut self, connection: Connection) {
        match connection {
            Connection::Outside(upstream) if self.is_behind(upstream) => self.reached(false),
            Connection::Outside(_) => {}
            Connection::Local(_) => {
                let gone = self.open.iter_mut().filter(|open| open.connection == connection);
                gone.for_each(|open| (open.commands, open.prekeys) = (false, false));
            }
        }
    }

    /// Nobody knows any more whether it is behind its outside broker.
    pub(crate) fn unheard(&mut self) {
        self.heard = None;
    }

    /// By which way a row is published: the newest connection that listens there, else the outside
    /// broker.
    pub(crate) fn target(&self, row: DownlinkRow) -> Option<Connection> {
        let listens = |open: &&Open| match row {
            DownlinkRow::Commands => open.commands,
            DownlinkRow::Prekeys => open.prekeys,
        };
        let local = self.open.iter().rev().find(listens).map(|open| open.connection);
        let outside = self.heard.filter(|heard| heard.reached).map(|heard| Connection::Outside(heard.upstream));
        local.or(outside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_to_the_newest_connection_that_listens() {
        let (first, second) = (Connection::Local(1), Connection::Local(2));
        let mut link = Link::default();
        link.connected(first);
        link.connected(second);
        assert_eq!(link.target(DownlinkRow::Commands), None);
        link.listening(first, DownlinkRow::Commands);
        assert_eq!(link.target(DownlinkRow::Commands), Some(first));
        link.listening(second, DownlinkRow::Commands);
        assert_eq!(link.target(DownlinkRow::Commands), Some(second));
        link.disconnected(second);
        assert_eq!(link.target(DownlinkRow::Commands), Some(first));
        assert_eq!(link.target(DownlinkRow::Prekeys), None);
        link.disconnected(first);
        assert!(!link.is_here());
    }

    #[test]
    fn a_connection_goes_before_an_outside_broker_and_the_outside_broker_stays_behind_it() {
        let (here, outside) = (Connection::Local(1), UpstreamId(3));
        let mut link = Link::default();
        let at = Timestamp::from_ms;
        assert!(link.heard(outside, at(9), at(1)));
        assert!(!link.heard(outside, at(10), at(60_000)), "it was there before");
        assert!(link.heard(outside, at(10), at(60_001)), "a minute without a receipt is long");
        assert!(link.heard(UpstreamId(4), at(10), at(60_002)) && link.heard(outside, at(10), at(60_003)));
        assert_eq!((link.silent_at(), link.is_connected()), (Some(Timestamp::from_ms(10)), false));
        assert_eq!(link.target(DownlinkRow::Commands), Some(Connection::Outside(outside)));
        link.connected(here);
        assert_eq!(link.target(DownlinkRow::Commands), Some(Connection::Outside(outside)), "it does not listen yet");
        link.listening(here, DownlinkRow::Commands);
        assert_eq!(link.target(DownlinkRow::Commands), Some(here));
        link.disconnected(here);
        assert_eq!(link.target(DownlinkRow::Commands), Some(Connection::Outside(outside)));
    }

    #[test]
    fn nothing_goes_to_an_outside_broker_that_is_not_reached() {
        let mut link = Link::through(UpstreamId(1));
        assert!(link.is_behind(UpstreamId(1)) && !link.is_behind(UpstreamId(2)));
        link.reached(false);
        assert!(link.is_here() && link.target(DownlinkRow::Commands).is_none());
        link.reached(true);
        assert!(link.target(DownlinkRow::Prekeys).is_some());
        link.unheard();
        assert!(!link.is_here());
    }
}
