//! Records of a device that do not read: when they are read for it, or when the store looks at them again
//! before it writes.
//!
//! What waits for them is given back, unanswered: it is the node's fault and no message's. At the front
//! door the device loses its own connection and comes again; behind an outside broker the message is
//! passed by until the next connection, and others go on. But what is given back stands in the way of
//! all the others behind that broker once there is enough of it. So records that have not been read for
//! [`PATIENCE`], whenever somebody wanted them, while another device's were, count as damaged, and of
//! damaged ones what comes through an outside broker is given up, and counted.
//!
//! A device with damaged records takes a place in memory only so that they are left alone for a while. That it
//! is one is known until they are read and whole, also once its place is another's.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use unhidra_core::delivery::{Answer, Refusal};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Timestamp;

use super::{Bridge, Now, Parked, Seat, Unheard};

/// How long damaged records of a device are left alone before a message has them read again.
const DAMAGE_REST: Duration = Duration::from_secs(60);

/// For how long an error of the disk may be one that passes.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Which records do not read. Two entries for each enrolled device at the most.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// Since when the disk has not given them.
    since: HashMap<DeviceId, Timestamp>,
    /// Which were damaged when they were read last.
    damaged: HashSet<DeviceId>,
}

impl Unread {
    /// A device's records were read, or there is no device.
    pub(super) fn read(&mut self, device: &DeviceId) {
        self.since.remove(device);
        self.damaged.remove(device);
    }

    /// The whole store gives nothing: what it says of one device is nothing new.
    fn store_failed(&mut self, device: &DeviceId) {
        self.since.remove(device);
    }

    /// They alone were not. Whether that lasts.
    fn failed(&mut self, device: DeviceId, now: Timestamp) -> bool {
        now.saturating_since(*self.since.entry(device).or_insert(now)) >= PATIENCE
    }

    /// Whether they were damaged when they were read last.
    pub(super) fn is_damaged(&self, device: &DeviceId) -> bool {
        self.damaged.contains(device)
    }
}

impl Bridge {
    /// A device's records are damaged, and will be when they are read again.
    pub fn handle_damaged(&mut self, device: DeviceId, now: Now) {
        let Some(Seat::Loading(parked)) = self.seats.swap_remove(&device) else { return };
        self.parked.remove(&parked);
        self.leave_alone(device, parked, now);
    }

    /// A record of a device in memory is damaged, and the store has left the device out of a draft: what is
    /// in memory of it is ahead of the store, and is dropped. What it has on its way in other drafts is void
    /// too, whatever becomes of them: an answer may rest on what was left out. Nothing is sealed or opened
    /// for it before its records have been read again.
    pub fn handle_left_out(&mut self, device: DeviceId, now: Now) {
        // Its records are being read already, as they are without what was left out.
        if let Some(Seat::Loading(_)) = self.seats.get(&device) {
            return;
        }
        let last_draft = match self.empty(&device) {
            Some(Seat::Ready(peer)) => peer.last_draft,
            Some(Seat::Damaged { last_draft, .. }) => last_draft,
            Some(Seat::Loading(_)) | None => self.common.draft_number,
        };
        self.rest(device, last_draft, now);
    }

    /// A device is not served as its records lie, which was found before anybody spoke to it: it counts as
    /// damaged, and is read as such a one is. Nothing happens where it is in memory.
    pub fn handle_unserved(&mut self, device: DeviceId, now: Now) {
        if !self.seats.contains_key(&device) {
            self.rest(device, 0, now);
        }
    }

    /// How many devices have records that were damaged when they were read last, in memory or not.
    #[must_use]
    pub fn damaged(&self) -> usize {
        self.unread.damaged.len()
    }

    /// The disk does not give a device's records, and gives another's: it may pass.
    pub fn handle_unreadable(&mut self, device: DeviceId, now: Now) {
        if self.unread.failed(device, now.timer) {
            return self.handle_damaged(device, now);
        }
        self.give_back(device);
    }

    /// The store gives nothing now: what waits for a device's records is given back.
    pub fn handle_load_failed(&mut self, device: DeviceId) {
        self.unread.store_failed(&device);
        self.give_back(device);
    }

    fn give_back(&mut self, device: DeviceId) {
        let Some(Seat::Loading(parked)) = self.seats.swap_remove(&device) else { return };
        self.parked.remove(&parked);
        for waiting in parked {
            self.common.stats.unreadable += u64::from(matches!(waiting, Parked::Delivery(..)));
            self.refuse(waiting, Answer::Retry, Unheard::Unavailable);
        }
    }

    /// Reads no more of a device for a while, and turns away what waits for it.
    pub(super) fn leave_alone(&mut self, device: DeviceId, parked: Vec<Parked>, now: Now) {
        self.rest(device, 0, now);
        parked.into_iter().for_each(|waiting| self.turn_away(waiting));
    }

    fn rest(&mut self, device: DeviceId, last_draft: u64, now: Now) {
        self.make_room();
        self.seats.insert(device, Seat::Damaged { until: now.timer.saturating_add(DAMAGE_REST), last_draft });
        self.unread.damaged.insert(device);
    }

    /// Answers what comes for a device whose records are damaged. Its own connection it loses, and says
    /// all of it again. An outside broker's connection is everybody's behind it: there the message is
    /// given up, or it would come for ever and no other get past it.
    pub(super) fn turn_away(&mut self, waiting: Parked) {
        let answer = match &waiting {
            Parked::Delivery(Some(via), _) => {
                self.common.outside.entry(via.upstream).or_default().unreadable += 1;
                Answer::Refused(Refusal::DoesNotOpen)
            }
            _ => Answer::Retry,
        };
        self.common.stats.unreadable += u64::from(matches!(waiting, Parked::Delivery(..)));
        self.refuse(waiting, answer, Unheard::Unavailable);
    }
}
