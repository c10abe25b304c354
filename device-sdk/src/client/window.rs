//! What was published and is not yet done with: the same bytes wait here until PUBACK, over
//! connections too. Sending them again is no seal.
//!
//! ```text
//! Free --push--> Waiting --begin--> Leaving --sent (QoS 1)--> Sent --acknowledge--> Free
//!   ^               ^                 |  |                      |
//!   |               +-----rewind------+--|----------------------+
//!   +--------------sent (QoS 0)----------+
//!
//! Waiting, Leaving, Sent --rewind, longer than the server takes--> Refused --take_refused--> Free
//! ```

use super::encode::{self, PUBLISH_DUP};
use super::wire::NoRoom;

/// Names one publish for as long as its client lives: 1, 2, 3 ... in the order they were made.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Publication(u64);

/// At most `SLOTS` packets, each of at most `PACKET` bytes.
pub(crate) struct Window<const PACKET: usize, const SLOTS: usize> {
    slots: [Slot<PACKET>; SLOTS],
    next: u64,
    next_packet_id: u16,
}

struct Slot<const PACKET: usize> {
    state: State,
    publication: Publication,
    packet_id: Option<u16>,
    len: usize,
    bytes: [u8; PACKET],
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Free,
    Waiting,
    /// Some of its bytes may have left.
    Leaving,
    Sent,
    /// Longer than the server of this connection takes. Of QoS 1, and nobody was told yet.
    Refused,
}

impl<const PACKET: usize> Slot<PACKET> {
    const FREE: Self =
        Self { state: State::Free, publication: Publication(0), packet_id: None, len: 0, bytes: [0; PACKET] };

    fn packet(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Says with DUP whether the server may know the message; what never left stays as it is.
    fn set_dup(&mut self, session_present: bool, was_sent: bool) {
        if let Some(first) = self.bytes.first_mut() {
            match session_present {
                true if was_sent => *first |= PUBLISH_DUP,
                true => {}
                false => *first &= !PUBLISH_DUP,
            }
        }
    }
}

impl<const PACKET: usize, const SLOTS: usize> Window<PACKET, SLOTS> {
    pub(crate) const fn new() -> Self {
        Self { slots: [const { Slot::FREE }; SLOTS], next: 1, next_packet_id: 1 }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.slots.iter().any(|slot| slot.state == State::Free)
    }

    /// How many publishes were made since the oldest one that still waits for its PUBACK, itself
    /// not counted; `None` where none waits.
    pub(crate) fn since_oldest_unacknowledged(&self) -> Option<u64> {
        let waits = |slot: &&Slot<PACKET>| slot.state != State::Free && slot.packet_id.is_some();
        let oldest = self.slots.iter().filter(waits).map(|slot| slot.publication).min()?;
        Some(self.next.saturating_sub(oldest.0).saturating_sub(1))
    }

    /// A packet identifier that no packet here uses.
    pub(crate) fn take_packet_id(&mut self) -> u16 {
        loop {
            let id = self.next_packet_id;
            self.next_packet_id = id.checked_add(1).unwrap_or(1);
            // Slots are few and identifiers are many, so this ends.
            if !self.slots.iter().any(|slot| slot.state != State::Free && slot.packet_id == Some(id)) {
                return id;
            }
        }
    }

    /// Takes a PUBLISH. `NoRoom` where no slot is free or the packet is longer than one.
    pub(crate) fn push(&mut self, topic: &str, acknowledged: bool, payload: &[u8]) -> Result<Publication, NoRoom> {
        let packet_id = if acknowledged { Some(self.take_packet_id()) } else { None };
        let publication = Publication(self.next);
        let slot = self.slots.iter_mut().find(|slot| slot.state == State::Free).ok_or(NoRoom)?;
        let len = encode::publish(&mut slot.bytes, topic, packet_id, payload)?;
        self.next += 1;
        (slot.state, slot.publication, slot.packet_id, slot.len) = (State::Waiting, publication, packet_id, len);
        Ok(publication)
    }

    /// The slot whose packet is to leave next, in the order they were pushed, while fewer than
    /// `in_flight_max` of QoS 1 are on their way.
    pub(crate) fn begin(&mut self, in_flight_max: usize) -> Option<usize> {
        let in_flight = self.slots.iter().filter(|slot| slot.state == State::Sent).count();
        let waiting = self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.state == State::Waiting);
        let (index, slot) = waiting.min_by_key(|(_, slot)| slot.publication)?;
        if slot.packet_id.is_some() && in_flight >= in_flight_max {
            return None;
        }
        slot.state = State::Leaving;
        Some(index)
    }

    /// The packet in a slot that [`begin`](Self::begin) gave.
    pub(crate) fn packet(&self, index: usize) -> &[u8] {
        self.slots.get(index).map(Slot::packet).unwrap_or_default()
    }

    /// All bytes of a slot have left. One of QoS 0 is done with.
    pub(crate) fn sent(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = if slot.packet_id.is_some() { State::Sent } else { State::Free };
        }
    }

    /// PUBACK for a packet that was sent; `None` where there is none of that identifier.
    pub(crate) fn acknowledge(&mut self, packet_id: u16) -> Option<Publication> {
        let is_it = |slot: &&mut Slot<PACKET>| slot.state == State::Sent && slot.packet_id == Some(packet_id);
        let slot = self.slots.iter_mut().find(is_it)?;
        slot.state = State::Free;
        Some(slot.publication)
    }

    /// A new connection: what was sent and not acknowledged is sent again. Where the server kept
    /// the MQTT session it is told so by DUP [MQTT-4.4.0-1]; where it did not, the same bytes are
    /// a new PUBLISH to it.
    ///
    /// But nothing longer than this server's Maximum Packet Size leaves [MQTT-3.2.2-15]: it would
    /// end this connection, and each one after it.
    pub(crate) fn rewind(&mut self, session_present: bool, packet_len_max: usize) {
        for slot in &mut self.slots {
            let was_sent = match slot.state {
                State::Free | State::Refused => continue,
                State::Waiting => false,
                State::Leaving | State::Sent => true,
            };
            let is_acknowledged = slot.packet_id.is_some();
            if slot.len > packet_len_max {
                slot.state = if is_acknowledged { State::Refused } else { State::Free };
            } else if was_sent {
                // QoS 0 that left in part is lost, as QoS 0 may be.
                slot.state = if is_acknowledged { State::Waiting } else { State::Free };
            }
            if slot.state == State::Waiting && is_acknowledged {
                slot.set_dup(session_present, was_sent);
            }
        }
    }

    /// The oldest message that [`rewind`](Self::rewind) found too long, which then is done with as
    /// if the server had refused it.
    ///
    /// So is its packet identifier, although the server may have had the message on a connection
    /// before. A server's session keeps no identifiers of QoS 1 (section 4.1), and what comes under
    /// one again is a new message to it [MQTT-4.3.2-5]: at worst it gets this one twice, as at least
    /// once allows. And they go round, so this one is given again after 65 000 others: a PUBACK that
    /// is late is not taken for that of another message.
    pub(crate) fn take_refused(&mut self) -> Option<Publication> {
        let refused = self.slots.iter_mut().filter(|slot| slot.state == State::Refused);
        let slot = refused.min_by_key(|slot| slot.publication)?;
        slot.state = State::Free;
        Some(slot.publication)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    type Small = Window<32, 3>;

    /// A server without a Maximum Packet Size.
    const MAX: usize = usize::MAX;

    fn push(window: &mut Small, acknowledged: bool, byte: u8) -> Publication {
        window.push("t", acknowledged, &[byte]).expect("there is room")
    }

    fn sent(window: &mut Small) -> Vec<(u8, u8)> {
        let mut found = Vec::new();
        while let Some(slot) = window.begin(9) {
            let packet = window.packet(slot);
            found.push((packet[0], packet[packet.len() - 1]));
            window.sent(slot);
        }
        found
    }

    #[test]
    fn packets_leave_in_order_and_wait_for_their_puback() {
        let mut window = Small::new();
        let first = push(&mut window, true, 1);
        push(&mut window, false, 2);
        let third = push(&mut window, true, 3);
        assert_eq!(window.push("t", true, &[4]), Err(NoRoom));
        assert_eq!(sent(&mut window), [(0x32, 1), (0x30, 2), (0x32, 3)]);
        assert!(window.has_room());
        assert_eq!(window.acknowledge(2), Some(third));
        assert_eq!(window.acknowledge(1), Some(first));
        assert_eq!(window.acknowledge(1), None);
    }

    #[test]
    fn a_resumed_session_repeats_the_same_bytes_with_dup() {
        let mut window = Small::new();
        push(&mut window, true, 1);
        assert_eq!(sent(&mut window), [(0x32, 1)]);
        push(&mut window, true, 2);
        window.rewind(true, MAX);
        assert_eq!(sent(&mut window), [(0x3A, 1), (0x32, 2)]);
        window.rewind(true, MAX);
        window.rewind(true, MAX);
        assert_eq!(sent(&mut window), [(0x3A, 1), (0x3A, 2)]);
    }

    #[test]
    fn a_packet_that_left_in_part_is_sent_again_and_one_of_qos_0_is_lost() {
        let mut window = Small::new();
        push(&mut window, true, 1);
        assert!(window.begin(9).is_some());
        window.rewind(true, MAX);
        assert_eq!(sent(&mut window), [(0x3A, 1)]);
        push(&mut window, false, 2);
        assert!(window.begin(9).is_some());
        window.rewind(true, MAX);
        assert_eq!(sent(&mut window), [(0x3A, 1)]);
    }

    #[test]
    fn a_server_that_forgot_the_session_gets_the_same_bytes_as_new() {
        let mut window = Small::new();
        push(&mut window, true, 1);
        sent(&mut window);
        window.rewind(true, MAX);
        window.rewind(false, MAX);
        assert_eq!(sent(&mut window), [(0x32, 1)]);
    }

    #[test]
    fn what_the_server_does_not_take_any_more_is_refused_and_the_rest_goes_on_in_order() {
        let mut window = Small::new();
        let first = window.push("t", true, &[1; 9]).expect("there is room");
        push(&mut window, true, 2);
        let third = window.push("t", true, &[3; 9]).expect("there is room");
        let slot = window.begin(9).expect("it waits");
        window.sent(slot);
        window.rewind(true, 16);
        assert_eq!(sent(&mut window), [(0x32, 2)]);
        assert!(!window.has_room(), "a slot is given again when its message was told of");
        // A connection that takes them finds them refused all the same.
        window.rewind(true, MAX);
        assert_eq!(sent(&mut window), [(0x3A, 2)]);
        let told = [window.take_refused(), window.take_refused(), window.take_refused()];
        assert_eq!(told, [Some(first), Some(third), None]);
        assert_eq!(window.acknowledge(1), None);
        assert_eq!(window.take_packet_id(), 4, "its identifier is not the next to be given");
    }

    #[test]
    fn a_packet_of_the_servers_maximum_leaves_and_one_byte_more_does_not() {
        let mut window = Small::new();
        push(&mut window, true, 1);
        window.rewind(false, 9);
        assert_eq!(sent(&mut window), [(0x32, 1)]);
        window.rewind(false, 8);
        assert_eq!(sent(&mut window), []);
        assert!(window.take_refused().is_some());
    }

    #[test]
    fn of_qos_0_nobody_hears_that_it_was_too_long() {
        let mut window = Small::new();
        push(&mut window, false, 1);
        window.rewind(true, 6);
        assert_eq!((sent(&mut window), window.take_refused()), (Vec::new(), None));
    }

    #[test]
    fn the_servers_receive_maximum_holds_what_waits() {
        let mut window = Small::new();
        push(&mut window, true, 1);
        push(&mut window, true, 2);
        push(&mut window, false, 3);
        let first = window.begin(1).expect("one may be on its way");
        window.sent(first);
        assert_eq!(window.begin(1), None, "nothing overtakes, QoS 0 neither");
        assert!(window.acknowledge(1).is_some());
        assert_eq!(sent(&mut window), [(0x32, 2), (0x30, 3)]);
    }

    #[test]
    fn what_was_made_since_the_oldest_counts_qos_0_too() {
        let mut window = Small::new();
        assert_eq!(window.since_oldest_unacknowledged(), None);
        push(&mut window, true, 1);
        assert_eq!(window.since_oldest_unacknowledged(), Some(0));
        for byte in 0..5 {
            push(&mut window, false, byte);
            sent(&mut window);
        }
        assert_eq!(window.since_oldest_unacknowledged(), Some(5));
        window.acknowledge(1);
        assert_eq!(window.since_oldest_unacknowledged(), None);
    }

    #[test]
    fn a_packet_identifier_in_use_is_not_given_again() {
        let mut window = Small::new();
        push(&mut window, true, 1);
        window.next_packet_id = u16::MAX;
        assert_eq!(window.take_packet_id(), u16::MAX);
        assert_eq!(window.take_packet_id(), 2, "1 is in use and 0 is none");
    }
}
