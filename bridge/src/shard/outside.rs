//! The part of a shard that outside brokers speak to: who is heard behind which.

use std::collections::BTreeMap;

use rand_core::CryptoRng;
use unhidra_core::delivery::Delivery;
use unhidra_core::ids::DeviceId;

use super::{Bridge, Now, Outcome, Parked, Seat, Ticket, deliver};
use crate::door::{Door, Way};
use crate::draft::Connection;
use crate::link::Link;
use crate::stats::Stats;
use crate::upstream::{Reach, UpstreamId, Via};

impl Bridge {
    /// Takes one message that came through an outside broker in a device's name.
    ///
    /// What answers it goes back by that broker. Only one that opens, and is no repeat, makes the device
    /// count as there. One that came behind another of its device that nobody took is left, as in
    /// [`handle_delivery`](Self::handle_delivery).
    pub fn handle_outside(&mut self, via: Via, delivery: Delivery, now: Now, rng: &mut impl CryptoRng) {
        if delivery.ack.is_given_up() {
            return;
        }
        let device = delivery.device;
        let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) else {
            return self.park(device, Parked::Delivery(Some(via), delivery), now);
        };
        let before = self.common.stats;
        let back = Link::through(via.upstream);
        let way = Way { door: Door::Outside(via.upstream), link: Some(&back) };
        deliver(peer, delivery, way, &mut self.common, now, rng);
        let counted = self.common.stats.since(&before);
        let outside = self.common.outside.entry(via.upstream).or_default();
        *outside = outside.and(&counted);
        if counted.opened > 0 {
            peer.settings.heard_outside();
            let silent_at = now.timer.saturating_add(via.silent_after);
            let link = self.links.entry(device).or_default();
            if !link.is_here() {
                self.presence.push((device, true));
                peer.settings.heard_of_again(now.unix);
            }
            if link.silent_at().is_none() {
                self.silences.insert((silent_at, device));
            }
            if link.heard(via.upstream, silent_at, now.timer) {
                peer.release();
            }
        }
        peer.send_due(self.links.get(&device), &mut self.common, now, rng);
        self.settle_timer(&device, now);
    }

    /// What was sealed never left: its way is gone, whenever that is said. It goes by another, or waits for one; for the
    /// same it would be sealed again with every commit until it is known to be gone.
    pub fn handle_unreached(
        &mut self,
        device: DeviceId,
        ticket: Ticket,
        connection: Connection,
        now: Now,
        rng: &mut impl CryptoRng,
    ) {
        if let Some(link) = self.links.get_mut(&device) {
            link.unreached(connection);
        }
        self.handle_published(device, ticket, Outcome::Unsent, now, rng);
    }

    /// The way to an outside broker is another one now.
    pub fn handle_reach(&mut self, upstream: UpstreamId, reach: Reach, now: Now, rng: &mut impl CryptoRng) {
        let behind: Vec<DeviceId> =
            self.links.iter().filter(|(_, link)| link.is_behind(upstream)).map(|(device, _)| *device).collect();
        for device in behind {
            match reach {
                Reach::Anew => {
                    if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
                        peer.settings.relay_lost();
                    }
                    self.fall_silent(device, now, rng);
                }
                Reach::Resumed | Reach::Lost => {
                    let Some(link) = self.links.get_mut(&device) else { continue };
                    link.reached(reach == Reach::Resumed);
                    if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
                        peer.send_due(Some(link), &mut self.common, now, rng);
                    }
                    self.settle_timer(&device, now);
                }
            }
        }
        if reach == Reach::Anew {
            // Or one who is heard again would be looked at twice, and once more for each time.
            let is_heard = |device: &DeviceId| self.links.get(device).is_some_and(|link| link.silent_at().is_some());
            self.silences.retain(|(_, device)| is_heard(device));
        }
    }

    /// Nobody knows any more whether the device is behind its outside broker.
    fn fall_silent(&mut self, device: DeviceId, now: Now, rng: &mut impl CryptoRng) {
        let Some(link) = self.links.get_mut(&device) else { return };
        link.unheard();
        if !link.is_here() {
            self.links.remove(&device);
            self.presence.push((device, false));
        }
        if let Some(Seat::Ready(peer)) = self.seats.get_mut(&device) {
            peer.release();
            peer.send_due(self.links.get(&device), &mut self.common, now, rng);
        }
        self.settle_timer(&device, now);
    }

    /// Looks at the devices whose time behind their outside brokers is over.
    pub(super) fn listen_for_silence(&mut self, now: Now, rng: &mut impl CryptoRng) {
        while let Some((at, device)) = self.silences.first().copied().filter(|(at, _)| *at <= now.timer) {
            self.silences.remove(&(at, device));
            match self.links.get(&device).and_then(Link::silent_at) {
                Some(later) if later > now.timer => {
                    self.silences.insert((later, device));
                }
                Some(_) => self.fall_silent(device, now, rng),
                None => {}
            }
        }
    }

    /// What was counted of each outside broker since the last call.
    pub fn take_outside_stats(&mut self) -> BTreeMap<UpstreamId, Stats> {
        std::mem::take(&mut self.common.outside)
    }
}
