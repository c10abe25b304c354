//! Messages that begin sessions, behind those of devices that have one.
//!
//! Each costs a quarter of a millisecond of key agreement, fifty times what a reading does. In one
//! queue a storm of newcomers would have everybody wait for all of them.

use std::collections::{HashMap, VecDeque};

use unhidra_bridge::begins;
use unhidra_bridge::upstream::UpstreamId;
use unhidra_broker::BrokerEvent;
use unhidra_core::delivery::Delivery;
use unhidra_core::ids::DeviceId;

use super::Event;
use crate::upstream::UpstreamEvent;

/// What waits at most. At the bound the shard takes no events until there is room.
const WAITING_MAX: usize = 4096;

/// Who speaks: a device, and by which outside broker in its name, if by one.
type Speaker = (DeviceId, Option<UpstreamId>);

/// A queue of deliveries, in the order they came. What a device sends behind one that waits here waits
/// with it: a device's messages are handled one after another. Whoever speaks in its name at an outside
/// broker has it wait for nothing: what comes by different doors has no order.
#[derive(Default)]
pub(super) struct Newcomers {
    waiting: VecDeque<Event>,
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
        self.waiting.push_back(event);
        None
    }

    /// Takes the one that has waited longest.
    pub(super) fn next(&mut self) -> Option<Event> {
        let event = self.waiting.pop_front()?;
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

    /// How many more may come.
    pub(super) fn room(&self) -> usize {
        WAITING_MAX.saturating_sub(self.waiting.len())
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

fn delivery(event: &Event) -> Option<(Speaker, &Delivery)> {
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
    use unhidra_bridge::upstream::Via;
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
        assert_eq!(said(newcomers.next()), Some(("new".to_owned(), UplinkRow::PrekeysGet)));
    }

    #[test]
    fn what_a_device_sends_behind_its_beginning_stays_behind_it() {
        let mut newcomers = Newcomers::default();
        for row in [UplinkRow::PrekeysGet, UplinkRow::Messages] {
            assert!(newcomers.divert(published("new", row)).is_none(), "{row:?}");
        }
        assert_eq!(said(newcomers.next()), Some(("new".to_owned(), UplinkRow::PrekeysGet)));
        assert!(newcomers.divert(published("new", UplinkRow::Messages)).is_none(), "one waits still");
        assert_eq!(said(newcomers.next()), Some(("new".to_owned(), UplinkRow::Messages)));
        assert_eq!(said(newcomers.next()), Some(("new".to_owned(), UplinkRow::Messages)));
        assert!(newcomers.divert(published("new", UplinkRow::Messages)).is_some(), "it waits no more");
        assert!(newcomers.is_empty() && newcomers.speakers.is_empty());
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
        assert_eq!(newcomers.room(), WAITING_MAX);
        for _ in 0..WAITING_MAX {
            newcomers.divert(published("new", UplinkRow::PrekeysGet));
        }
        assert_eq!(newcomers.room(), 0);
        newcomers.next();
        assert_eq!(newcomers.room(), 1);
    }
}
