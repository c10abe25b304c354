//! A client that is in.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::delivery::DownlinkRow;
use unhidra_core::ids::ClientId;
use unhidra_core::time::Timestamp;

use super::aliases::{ClientAliases, OurAliases};
use super::inbound::Inbound;
use super::keep_alive::KeepAlive;
use super::keeping::{After, Keeping};
use super::outbound::{Carried, Outbound};
use super::terms::{Terms, session_expiry_s};
use super::{Change, Event, Out, Remains, Resumable, Rows, Rules, SessionError, Subscriptions, Transmit};
use crate::acl::Principal;
use crate::config::Limits;
use crate::doors::Ticket;
use crate::net::facts::Holdings;
use crate::packet::{
    Acknowledgement, ConnAck, Connect, Disconnect, Packet, PacketId, Properties, ReasonCode, Version, Will,
};

/// A client that is in.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) who: Arc<Principal>,
    pub(super) version: Version,
    pub(super) packet_max: usize,
    /// Whether the client may be told in words [MQTT-3.1.2-29].
    pub(super) explains: bool,
    pub(super) keep_alive: KeepAlive,
    pub(super) keep_alive_s: u16,
    pub(super) will: Option<Will>,
    pub(super) had_will: bool,
    pub(super) expiry_s: u32,
    pub(super) client_aliases: ClientAliases,
    pub(super) our_aliases: OurAliases,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    /// Where the session is stored as it moves on: it outlives the connection, and the node stores
    /// sessions.
    pub(super) keeping: Option<Box<Keeping>>,
    pub(super) subscriptions: Subscriptions,
    pub(super) rows: Rows,
    /// Messages of the node over the client's Receive Maximum, at most `downlinks_max`.
    pub(super) downlinks: VecDeque<(DownlinkRow, Bytes, Ticket)>,
    /// Why the connection is to be closed once what was published before has left.
    pub(super) owed_close: Option<ReasonCode>,
}

impl Open {
    pub(super) fn new(
        connect: Connect,
        who: Arc<Principal>,
        resumed: Option<Resumable>,
        assigned: Option<&ClientId>,
        rules: &Rules,
        now: Timestamp,
        out: &mut Out,
    ) -> Self {
        let session_present = resumed.is_some();
        let Resumable { subscriptions, rows, in_flight, releasing, received, next_packet_id, .. } =
            resumed.unwrap_or_default();
        let terms = Terms::of(&connect, &rules.limits);
        let properties = match connect.version {
            Version::V3_1_1 => Properties::default(),
            Version::V5 => terms.announced(&connect, assigned, rules),
        };
        out.packet(Packet::ConnAck(ConnAck { session_present, reason: ReasonCode::Success, properties }));
        out.events.extend(rows.keys().map(|row| Event::Listen(*row)));
        // One that was to stay has its records, though it is to end with this connection: they go as it moves on.
        let keeps = rules.stores_sessions && (terms.expiry_s > 0 || session_present);
        let mut open = Self {
            who,
            version: connect.version,
            packet_max: terms.packet_max,
            explains: terms.explains,
            keep_alive: KeepAlive::new(terms.keep_alive_s, now),
            keep_alive_s: terms.keep_alive_s,
            had_will: connect.will.is_some(),
            will: connect.will,
            expiry_s: terms.expiry_s,
            client_aliases: ClientAliases::default(),
            our_aliases: OurAliases::new(terms.aliases_max),
            inbound: Inbound::resume(received),
            outbound: Outbound::new(terms.in_flight_max, next_packet_id, in_flight, releasing),
            keeping: keeps.then(Box::default),
            subscriptions,
            rows,
            downlinks: VecDeque::new(),
            owed_close: None,
        };
        for packet_id in open.outbound.releasing() {
            out.packet(Packet::PubRel(plain(packet_id, ReasonCode::Success)));
        }
        open.send_again(out);
        open
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    pub(super) fn holdings(&self) -> Holdings {
        Holdings { subscriptions: self.subscriptions.len() + self.rows.len(), in_flight: self.outbound.len() }
    }

    pub(super) const fn packet_max(&self) -> usize {
        self.packet_max
    }

    pub(super) fn wants_packet(&self, limits: &Limits) -> bool {
        self.version == Version::V5 || self.inbound.unanswered() < usize::from(limits.receive_max)
    }

    pub(super) fn unanswered(&self) -> usize {
        self.inbound.unanswered()
    }

    pub(super) const fn owed_close(&self) -> Option<ReasonCode> {
        self.owed_close
    }

    pub(super) const fn reading(&mut self, reads: bool, now: Timestamp) {
        self.keep_alive.reading(reads, now);
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.keep_alive.deadline()
    }

    pub(super) fn handle_packet(
        &mut self,
        packet: Packet,
        rules: &Rules,
        now: Timestamp,
        out: &mut Out,
    ) -> Result<(), SessionError> {
        self.keep_alive.packet(now);
        match packet {
            Packet::Publish(publish) => self.publish(publish, rules, now, out)?,
            Packet::PubAck(ack) => self.acknowledged(&ack, rules, out)?,
            Packet::PubRec(ack) => self.received(&ack, rules, out)?,
            Packet::PubRel(release) => self.released(release.packet_id, out)?,
            Packet::PubComp(ack) => self.completed(ack.packet_id, rules, out)?,
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, rules, out)?,
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, rules, out),
            Packet::PingReq => out.packet(Packet::PingResp),
            Packet::Connect(_) => return Err(SessionError::SecondConnect),
            Packet::ConnAck(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp
            | Packet::Disconnect(_)
            | Packet::Auth(_) => return Err(SessionError::Unexpected { packet: packet.name() }),
        }
        Ok(())
    }

    /// Tells whoever stores the session that it has moved on, and lets `after` happen once that is
    /// stored: at once, where nothing is.
    pub(super) fn keep(&mut self, change: impl FnOnce() -> Change, after: Option<After>, out: &mut Out) {
        match &mut self.keeping {
            Some(keeping) => {
                let number = keeping.add(after);
                out.events.push_back(Event::Keep { number, change: change() });
            }
            None => after.into_iter().for_each(|after| self.follow(after, out)),
        }
    }

    /// Everything up to a number is stored.
    pub(super) fn kept(&mut self, number: u64, out: &mut Out) {
        while let Some(after) = self.keeping.as_mut().and_then(|keeping| keeping.pop(number)) {
            self.follow(after, out);
        }
    }

    fn follow(&mut self, after: After, out: &mut Out) {
        match after {
            After::Transmit(transmit) => out.transmit.push_back(transmit),
            After::Answer(token) => {
                self.inbound.kept(token);
                self.answer_in_order(out);
            }
        }
    }

    /// The client ends the connection (section 3.14).
    pub(super) fn disconnected(&mut self, disconnect: &Disconnect, limits: &Limits) -> Result<(), SessionError> {
        let expiry_s = disconnect.properties.find(session_expiry_s);
        if let Some(expiry_s) = expiry_s {
            if self.expiry_s == 0 && expiry_s > 0 {
                return Err(SessionError::SessionExpiryRaised);
            }
            self.expiry_s = expiry_s.min(limits.session_expiry_max_s);
        }
        if disconnect.reason == ReasonCode::Success {
            // [MQTT-3.14.4-3]
            self.will = None;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Remains {
        let waiting = self.downlinks.into_iter().map(|(_, _, ticket)| ticket);
        let mut lost = Vec::new();
        let mut in_flight = Vec::new();
        let (sent, releasing, next_packet_id) = self.outbound.into_parts();
        for sent in sent {
            match sent.what {
                Carried::Downlink(ticket) => lost.push(ticket),
                Carried::Routed(queued) => in_flight.push((sent.packet_id, queued)),
            }
        }
        lost.extend(waiting);
        let resumable = Resumable {
            subscriptions: self.subscriptions,
            rows: self.rows,
            in_flight,
            releasing,
            received: self.inbound.into_received(),
            next_packet_id,
            owed: None,
        };
        Remains { resumable, expiry_s: self.expiry_s, will: self.will, had_will: self.had_will, lost }
    }
}

/// An answer that says no more than its reason code.
pub(super) fn plain(packet_id: PacketId, reason: ReasonCode) -> Acknowledgement {
    Acknowledgement { packet_id, reason, properties: Properties::default() }
}

/// One that goes out.
pub(super) fn answer(packet: fn(Acknowledgement) -> Packet, packet_id: PacketId, reason: ReasonCode) -> Transmit {
    Transmit::Packet(packet(plain(packet_id, reason)))
}
