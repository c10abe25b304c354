//! Where the rooms meet: broker to bridge to store to gateway, and back.
//!
//! ```text
//! broker --offer--> Inbox --> shard: Bridge --submit--> store's writer
//!   ^  ^                        |                            | done, in order
//!   |  +------ publish ---------+<------- settled -----------+
//!   +--------- PUBACK ------------------------------ answers-+----> gateway: committed rows
//! ```
//!
//! A device belongs to one shard, by a hash of its id, so its messages are handled one after
//! another and devices do not wait for each other. A shard never waits for a commit.

mod inbox;
mod load;
mod newcomers;
mod orders;
mod shard;

use std::collections::VecDeque;
use std::sync::Arc;

use rand_core::CryptoRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use unhidra_bridge::upstream::{Reach, UpstreamId};
use unhidra_bridge::{Bridge, SignedPrekeys};
use unhidra_broker::{Broker, BrokerEvent, Inlet};
use unhidra_core::ids::{CommandId, DeviceId, Partition};
use unhidra_core::time::Clock;
use unhidra_gateway::Gateway;
use unhidra_store::Store;

use crate::registry::Registry;
use crate::unsettled::Unsettled;
use crate::upstream::{UpstreamEvent, Upstreams};
use inbox::{Door, Inbox};
pub(crate) use orders::{CommandBounds, NewCommand, NotTaken};
use orders::{Order, Repeats};
use shard::Shard;

/// What a shard is told.
pub(crate) enum Event {
    /// By the broker.
    Broker(BrokerEvent),
    /// By an outside broker.
    Upstream(UpstreamEvent),
    /// By a client, through the gateway or the control socket.
    Order(Order),
    /// By the registry: a device was enrolled anew or revoked.
    Changed(DeviceId),
    /// By the keeper of old keys: something in a device's records is over.
    Look(DeviceId),
    /// By the keeper of prekeys: use these from now on.
    Prekeys(Arc<SignedPrekeys>),
}

/// How far the node's end has come, for its shards.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The node serves.
    NotYet,
    /// No more is read, and nobody makes room on the disk: rows that the store holds back are left.
    Begun,
    /// Nothing more comes: a shard ends once nothing is on its way.
    Now,
}

/// How devices are spread: each partition has the same number of shards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    per_partition: usize,
    partitions: usize,
}

impl Layout {
    /// At least `cores` shards, and the same number for each partition.
    pub(crate) fn new(cores: usize, partitions: u16) -> Self {
        let partitions = usize::from(partitions.max(1));
        Self { per_partition: cores.div_ceil(partitions).max(1), partitions }
    }

    /// How many shards there are.
    pub(crate) fn shards(self) -> usize {
        self.per_partition * self.partitions
    }

    fn shard_of(self, partition: Partition, device: &DeviceId) -> usize {
        // FNV-1a: spreads well enough, and is the same on every machine, as a seeded world needs.
        let hash = device
            .as_bytes()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        // Names that count up differ in their last bytes alone, which FNV leaves in its low bits: the
        // product spreads them over the high ones.
        let spread = (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let within = usize::try_from(spread % self.per_partition as u64).unwrap_or_default();
        usize::from(partition.get()) * self.per_partition + within
    }

    fn partition(self, shard: usize) -> Partition {
        Partition::new(u16::try_from(shard / self.per_partition).unwrap_or_default())
    }
}

/// What every shard is given.
pub(crate) struct Rooms {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) upstreams: Arc<Upstreams>,
    pub(crate) clock: Arc<dyn Clock + Send + Sync>,
    pub(crate) metrics: Arc<unhidra_bridge::Metrics>,
    pub(crate) unsettled: Unsettled,
}

/// The ways into the shards.
pub(crate) struct Pump {
    inboxes: Vec<Arc<Inbox<Event>>>,
    layout: Layout,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock + Send + Sync>,
    bounds: CommandBounds,
    new_id: Box<dyn Fn() -> CommandId + Send + Sync>,
    repeats: Repeats,
}

impl Pump {
    /// The ways in, with nobody behind them yet. Each shard's inbox holds `inbox_max` events
    /// of each door; at the bound the connections that bring them stop reading.
    pub(crate) fn new(
        layout: Layout,
        inbox_max: usize,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        bounds: CommandBounds,
        new_id: Box<dyn Fn() -> CommandId + Send + Sync>,
    ) -> Arc<Self> {
        let inboxes = (0..layout.shards()).map(|_| Arc::new(Inbox::new(inbox_max))).collect();
        Arc::new(Self { inboxes, layout, store, clock, bounds, new_id, repeats: Repeats::default() })
    }

    /// Starts the shards. They end when `end` says so and nothing is on its way any more.
    pub(crate) fn start<R: CryptoRng + Send + 'static>(
        &self,
        rooms: &Arc<Rooms>,
        mut bridge: impl FnMut() -> Bridge,
        mut rng: impl FnMut() -> R,
        end: &watch::Receiver<End>,
    ) -> JoinSet<()> {
        let mut shards = JoinSet::new();
        for (number, inbox) in self.inboxes.iter().enumerate() {
            let partition = self.layout.partition(number);
            let is_here = |device: &DeviceId| self.layout.shard_of(self.store.partition_of(device), device) == number;
            let unsettled = rooms.unsettled.all().into_iter().filter(is_here).collect();
            let shard = Shard::new(partition, inbox.clone(), rooms.clone(), bridge(), rng(), unsettled);
            shards.spawn(shard.run(end.clone()));
        }
        shards
    }

    /// A device's record in the registry has changed.
    pub(crate) async fn changed(&self, device: &DeviceId) {
        self.tell(device, Event::Changed(*device)).await;
    }

    /// Something in a device's records is over, and the device may be away.
    pub(crate) async fn look(&self, device: &DeviceId) {
        self.tell(device, Event::Look(*device)).await;
    }

    /// New signed prekeys are durable.
    pub(crate) async fn use_prekeys(&self, prekeys: &Arc<SignedPrekeys>) {
        for inbox in &self.inboxes {
            offer(inbox, None, Event::Prekeys(prekeys.clone())).await;
        }
    }

    /// Takes events of an outside broker from the front, up to one whose shard has no room: see
    /// [`room_for`](Self::room_for).
    pub(crate) fn take_upstream(&self, upstream: UpstreamId, events: &mut VecDeque<UpstreamEvent>) {
        while let Some(event) = events.pop_front() {
            let Some(inbox) = event.device().and_then(|device| self.inbox_of(device)) else { continue };
            if let Err(back) = inbox.offer(Some(upstream), vec![Event::Upstream(event)]) {
                for event in back {
                    if let Event::Upstream(event) = event {
                        events.push_front(event);
                    }
                }
                return;
            }
        }
    }

    /// Completes when an event of `device` by an outside broker may fit; at once where there is none.
    pub(crate) async fn room_for(&self, upstream: UpstreamId, device: Option<DeviceId>) {
        if let Some(inbox) = device.and_then(|device| self.inbox_of(&device)) {
            inbox.room(Some(upstream)).await;
        }
    }

    /// Takes one event of an outside broker, however long there is no room.
    pub(crate) async fn upstream(&self, upstream: UpstreamId, event: UpstreamEvent) {
        if let Some(inbox) = event.device().and_then(|device| self.inbox_of(device)) {
            offer(inbox, Some(upstream), Event::Upstream(event)).await;
        }
    }

    /// The way to an outside broker is another one now: every shard may have devices behind it.
    pub(crate) async fn reach(&self, upstream: UpstreamId, reach: Reach) {
        for inbox in &self.inboxes {
            let event = Event::Upstream(UpstreamEvent::Reach(upstream, reach));
            offer(inbox, Some(upstream), event).await;
        }
    }

    async fn tell(&self, device: &DeviceId, event: Event) {
        if let Some(inbox) = self.inbox_of(device) {
            offer(inbox, None, event).await;
        }
    }

    fn inbox_of(&self, device: &DeviceId) -> Option<&Arc<Inbox<Event>>> {
        self.inboxes.get(self.layout.shard_of(self.store.partition_of(device), device))
    }
}

async fn offer(inbox: &Inbox<Event>, door: Door, event: Event) {
    let mut events = vec![event];
    while let Err(back) = inbox.offer(door, events) {
        events = back;
        inbox.room(door).await;
    }
}

impl Inlet for Pump {
    fn offer(&self, events: Vec<BrokerEvent>) -> Result<(), Vec<BrokerEvent>> {
        let mut events = events.into_iter().peekable();
        while let Some(first) = events.next() {
            let Some(inbox) = self.inbox_of(first.device()) else { continue };
            // A connection's events are one device's, as a rule all of them: one lock.
            let device = *first.device();
            let mut run = vec![Event::Broker(first)];
            while let Some(next) = events.next_if(|event| *event.device() == device) {
                run.push(Event::Broker(next));
            }
            if let Err(back) = inbox.offer(None, run) {
                let back = back.into_iter().filter_map(|event| match event {
                    Event::Broker(event) => Some(event),
                    Event::Upstream(_) | Event::Order(_) | Event::Changed(_) | Event::Look(_) | Event::Prekeys(_) => {
                        None
                    }
                });
                return Err(back.chain(events).collect());
            }
        }
        Ok(())
    }

    fn room(&self, device: &DeviceId) -> unhidra_broker::BoxFuture<'_, ()> {
        match self.inbox_of(device) {
            Some(inbox) => Box::pin(inbox.room(None)),
            None => Box::pin(std::future::ready(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_has_one_shard_of_its_own_partition() {
        let layout = Layout::new(16, 2);
        assert_eq!(layout.shards(), 16);
        let mut used = std::collections::BTreeSet::new();
        for n in 0..1000 {
            let device = DeviceId::parse(&format!("device-{n}")).expect("valid");
            let partition = Partition::new(n % 2);
            let shard = layout.shard_of(partition, &device);
            assert_eq!(layout.partition(shard), partition);
            used.insert(shard);
        }
        assert_eq!(used.len(), 16, "all shards are used");
        assert_eq!(Layout::new(1, 4).shards(), 4);
    }
}
