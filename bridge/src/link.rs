//! Where a device is: its connections, and what each of them listens to.

use unhidra_core::delivery::DownlinkRow;

use crate::draft::Connection;

/// The connections of one device. It has one as a rule; an integrator's tools may open a second
/// one with the same certificate and listen there.
#[derive(Debug, Default)]
pub(crate) struct Link {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    commands: bool,
    prekeys: bool,
}

impl Link {
    /// Whether the device is here.
    pub(crate) fn is_here(&self) -> bool {
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

    /// The connection a row is published on: the newest that listens there.
    pub(crate) fn target(&self, row: DownlinkRow) -> Option<Connection> {
        let listens = |open: &&Open| match row {
            DownlinkRow::Commands => open.commands,
            DownlinkRow::Prekeys => open.prekeys,
        };
        self.open.iter().rev().find(listens).map(|open| open.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_goes_to_the_newest_connection_that_listens() {
        let (first, second) = (Connection(1), Connection(2));
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
}
