//! What a session is made of while no connection carries it, and how it moves on while one does.
//!
//! Every field is open, so that whoever stores sessions can write them down and read them back.

use std::collections::BTreeMap;

use unhidra_core::delivery::DownlinkRow;

use crate::arrears::Arrears;
use crate::doors::Ticket;
use crate::packet::{PacketId, QoS, Will};
use crate::router::Subscription;
use crate::router::message::Queued;

/// A session's subscriptions in the router, by filter.
pub(crate) type Subscriptions = BTreeMap<Box<str>, Subscription>;

/// The rows a device listens on, each with the QoS it was granted.
pub(crate) type Rows = BTreeMap<DownlinkRow, QoS>;

/// What a session is made of while no connection carries it (section 4.1), besides the messages
/// that have not been sent: those are in its queue.
#[derive(Debug)]
pub(crate) struct Resumable {
    pub(crate) subscriptions: Subscriptions,
    pub(crate) rows: Rows,
    /// What had been sent and has had no answer, in the order it left: it is sent again, as a
    /// repeat, under its identifier [MQTT-4.4.0-1].
    pub(crate) in_flight: Vec<(PacketId, Queued)>,
    /// QoS 2 messages of which PUBREC has come and PUBCOMP has not, in the order of the PUBRECs:
    /// PUBREL is sent again [MQTT-4.6.0-4].
    pub(crate) releasing: Vec<PacketId>,
    /// QoS 2 messages of the client that are taken and not released, ascending: one of them that
    /// comes again is not routed again [MQTT-4.3.3-10].
    pub(crate) received: Vec<PacketId>,
    /// Where the search for a free identifier goes on.
    pub(crate) next_packet_id: PacketId,
    /// Retained messages that new subscriptions are still to be sent; the shell's, while a connection
    /// carries the session.
    pub(crate) owed: Option<Box<Arrears>>,
}

impl Default for Resumable {
    fn default() -> Self {
        Self {
            subscriptions: Subscriptions::new(),
            rows: Rows::new(),
            in_flight: Vec::new(),
            releasing: Vec::new(),
            received: Vec::new(),
            next_packet_id: PacketId::FIRST,
            owed: None,
        }
    }
}

/// What is left when a connection has ended.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) resumable: Resumable,
    /// How long the session outlives the connection.
    pub(crate) expiry_s: u32,
    /// What is published now or after its delay, unless the session is taken up again.
    pub(crate) will: Option<Will>,
    /// Whether it had brought one.
    pub(crate) had_will: bool,
    /// What the node had published and was not acknowledged.
    pub(crate) lost: Vec<Ticket>,
}

/// One step of a session that outlives its connection, as [`super::Event::Keep`] tells it: with
/// these alone [`Resumable`] can be followed.
#[derive(Debug)]
pub(crate) enum Change {
    /// A message of its queue leaves under an identifier.
    Sent { packet_id: PacketId, queued: Queued },
    /// PUBREC has come: the message is the client's, and PUBREL is what is sent again.
    Releasing(PacketId),
    /// The client is done with what was sent, and the identifier is free.
    Done(PacketId),
    /// A QoS 2 message of the client has come. The event that routes it follows: the two are to be
    /// stored together.
    Received(PacketId),
    /// The client has released it, and may use the identifier anew.
    Released(PacketId),
    /// It listens to something else now.
    Listens(Vec<Interest>),
}

/// A step of what a session listens to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Interest {
    /// To a filter, from now on or in another way.
    Begun(Box<str>, Subscription),
    /// To a filter, no more.
    Ended(Box<str>),
    /// To a row.
    Listens(DownlinkRow, QoS),
    /// To a row, no more.
    ListensNoMore(DownlinkRow),
}
