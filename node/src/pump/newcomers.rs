//! Messages that begin sessions, behind those of devices that have one.
//!
//! Each costs a quarter of a millisecond of key agreement, fifty times what a reading does. In one
//! queue a storm of newcomers would have everybody wait for all of them. Each door has a queue of its own,
//! and its turn: whoever forges beginnings at an outside broker has the newcomers there wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use unhidra_bridge::begins;
use unhidra_broker::BrokerEvent;
use unhidra_core::delivery::Delivery;
use unhidra_core::ids::DeviceId;

use super::Event;
use super::inbox::Door;
use crate::upstream::UpstreamEvent;

/// What waits at most by each door. At the bound the shard takes no events of that door until there is
/// room.
const WAITING_MAX: usize = 4096;

/// Who speaks: a device, and by which outside broker in its name, if by one.
type Speaker = (DeviceId, Door);

/// Deliveries, those of each door in the order they came. What a device sends behind one that waits here waits
/// with it: a device's messages are handled one after another. Whoever speaks in its name at an outside
/// broker has it wait for nothing: what comes by different doors has no order.
#[derive(Default)]
pub(super) struct Newcomers {
    waiting: BTreeMap<Door, VecDeque<Event>>,
    /// The door that had its turn last.
    last: Door,
    /// How many of each speaker. One that has none has no entry.
    speakers: HashMap<Speaker, usize>,
}

impl Newcomers {
    /// Keeps an event that begins a session, or is behind such a one; gives back any other.
    pub(super) fn divert(&mut self, event: Event) -> Option<Event> {
        let speaker = match delivery(&event) {
            Some((speaker, delivery)) if begins(delivery) || self.speakers.contains_key(&speaker) => speaker,
            _ => return Some(event),
        };
        *self.speakers.entry(speaker).or_default() += 1;
        self.waiting.entry(speaker.1).or_default().push_back(event);
        None
    }

    /// Takes the one that has waited longest at the door whose turn it is, of those that are open.
    pub(super) fn next(&mut self, is_open: impl Fn(Door) -> bool) -> Option<Event> {
        let waits = |(door, queue): &(&Door, &VecDeque<Event>)| !queue.is_empty() && is_open(**door);
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let door =
            self.waiting.range(behind).chain(self.waiting.range(..=self.last)).find(waits).map(|(door, _)| *door)?;
        self.last = door;
        let event = self.waiting.get_mut(&door)?.pop_front()?;
        if let Some((speaker, _)) = delivery(&event)
            && let Some(count) = self.speakers.get_mut(&speaker)
        {
            *count -= 1;
            if *count == 0 {
                self.speakers.remove(&speaker);
            }
        }
        Some(event)
    }

    /// How many more may come by a door.
    pub(super) fn room(&self, door: Door) -> usize {
        WAITING_MAX.saturating_sub(self.waiting.get(&door).map_or(0, VecDeque::len))
    }

    /// Whether somebody waits at a door that is open.
    pub(super) fn any(&self, is_open: impl Fn(Door) -> bool) -> bool {
        self.waiting.iter().any(|(door, queue)| !queue.is_empty() && is_open(*door))
    }
}

/// What a device says, and by which way, where the event is that.
pub(super) fn delivery(event: &Event) -> Option<(Speaker, &Delivery)> {
    match event {
        Event::Broker(BrokerEvent::Delivery(delivery)) => Some(((delivery.device, None), delivery)),
        Event::Upstream(UpstreamEvent::Delivery(via, delivery)) => {
            Some(((delivery.device, Some(via.upstream)), delivery))
        }
        Event::Broker(_)
        | Event::Upstream(_)
        | Event::Order(_)
        | Event::Changed(_)
        | Event::Look(_)
        | Event::Prekeys(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use unhidra_bridge::upstream::{UpstreamId, Via};
    use unhidra_core::delivery::{Ack, UplinkRow};
    use unhidra_core::message::Sealed;
    use unhidra_core::time::UnixTime;

    use super::*;

    fn of(name: &str, row: UplinkRow) -> Delivery {
        Delivery {
            device: name.parse().expect("an id"),
            row,
            sealed: Sealed(Bytes::from_static(&[1])),
            received_at: UnixTime::from_ms(0),
            ack: Ack::nobody(),
        }
    }

    fn published(name: &str, row: UplinkRow) -> Event {
        Event::Broker(BrokerEvent::Delivery(of(name, row)))
    }

    fn by_broker(number: u16, name: &str, row: UplinkRow) -> Event {
        let via = Via { upstream: UpstreamId(number), silent_after: Duration::from_secs(1) };
        Event::Upstream(UpstreamEvent::Delivery(via, of(name, row)))
    }

    fn said(event: Option<Event>) -> Option<(String, UplinkRow)> {
        event.as_ref().and_then(delivery).map(|(_, delivery)| (delivery.device.as_str().to_owned(), delivery.row))
    }

    #[test]
    fn who_has_a_session_goes_before_who_begins_one() {
        let mut newcomers = Newcomers::default();
        assert!(newcomers.divert(published("new", UplinkRow::PrekeysGet)).is_none());
        assert!(newcomers.divert(published("old", UplinkRow::Messages)).is_some());
        let look = Event::Look("new".parse().expect("an id"));
        assert!(newcomers.divert(look).is_some(), "only what a device sends");
        assert_eq!(said(newcomers.next(|_| true)), Some(("new".to_owned(), UplinkRow::PrekeysGet)));
    }

    #[test]
    fn what_a_device_sends_behind_its_beginning_stays_behind_it() {
        let mut newcomers = Newcomers::default();
        for row in [UplinkRow::PrekeysGet, UplinkRow::Messages] {
            assert!(newcomers.divert(published("new", row)).is_none(), "{row:?}");
        }
        assert_eq!(said(newcomers.next(|_| true)), Some(("new".to_owned(), UplinkRow::PrekeysGet)));
        assert!(newcomers.divert(published("new", UplinkRow::Messages)).is_none(), "one waits still");
        assert_eq!(said(newcomers.next(|_| true)), Some(("new".to_owned(), UplinkRow::Messages)));
        assert_eq!(said(newcomers.next(|_| true)), Some(("new".to_owned(), UplinkRow::Messages)));
        assert!(newcomers.divert(published("new", UplinkRow::Messages)).is_some(), "it waits no more");
        assert!(!newcomers.any(|_| true) && newcomers.speakers.is_empty());
    }

    /// Else whoever may publish at an outside broker could hold up every device there is.
    #[test]
    fn who_asks_for_bundles_in_a_devices_name_elsewhere_does_not_hold_it_up() {
        let mut newcomers = Newcomers::default();
        assert!(newcomers.divert(by_broker(0, "old", UplinkRow::PrekeysGet)).is_none());
        assert!(newcomers.divert(by_broker(0, "old", UplinkRow::Messages)).is_none(), "behind it");
        assert!(newcomers.divert(by_broker(1, "old", UplinkRow::Messages)).is_some());
        assert!(newcomers.divert(published("old", UplinkRow::Messages)).is_some());
    }

    #[test]
    fn a_full_queue_has_no_room() {
        let mut newcomers = Newcomers::default();
        assert_eq!(newcomers.room(None), WAITING_MAX);
        for _ in 0..WAITING_MAX {
            newcomers.divert(published("new", UplinkRow::PrekeysGet));
        }
        assert_eq!(newcomers.room(None), 0);
        newcomers.next(|_| true);
        assert_eq!(newcomers.room(None), 1);
    }
    #[test]
    fn each_door_has_its_turn_and_its_own_bound() {
        let mut newcomers = Newcomers::default();
        for number in 0..WAITING_MAX {
            newcomers.divert(by_broker(0, &format!("forged-{number}"), UplinkRow::PrekeysGet));
        }
        assert_eq!((newcomers.room(Some(UpstreamId(0))), newcomers.room(None)), (0, WAITING_MAX));
        newcomers.divert(published("new", UplinkRow::PrekeysGet));
        newcomers.divert(by_broker(1, "other", UplinkRow::PrekeysGet));
        let names: Vec<String> = (0..4).filter_map(|_| said(newcomers.next(|_| true))).map(|(name, _)| name).collect();
        assert_eq!(names, ["forged-0", "other", "new", "forged-1"]);
        let closed = |door: Door| door.is_none();
        assert!(newcomers.next(closed).is_none() && !newcomers.any(closed), "of a door that is closed nobody");
    }
}
