//! Outside brokers: a second door for devices.
//!
//! ```text
//! outside broker --PUBLISH--> connection --offer--> a shard's inbox --> bridge --> store
//!       ^                        |  ^                                    |           |
//!       +------- PUBLISH --------+  +----- mailbox: messages ------------+           |
//!       +------- PUBACK ---------+  +----- mailbox: answers, once committed ---------+
//! ```
//!
//! Each outside broker has a task that holds one connection to it. What it says in a device's name
//! goes the same way as what the device says itself; the bridge is told by which broker it came.
//! That broker's PUBACK means that it has a message, not that the device has.

mod config;
mod connection;
mod dial;
mod downlinks;
mod line;
mod link;
mod mailbox;
mod metrics;
mod stall;
mod status;
mod takeover;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use unhidra_bridge::upstream::{Reach, Rows, UpstreamId, Via};
use unhidra_bridge::{Outcome, Stats, Ticket};
use unhidra_core::backoff::Backoff;
use unhidra_core::delivery::{Delivery, DownlinkRow};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::Clock;

pub use config::{Address, UpstreamConfig, UpstreamError, UpstreamName, Version, check};
pub(crate) use config::{LIST, PATHS, expand, written};
pub use dial::{Dial, Outside, OutsideError, Wire};
pub(crate) use mailbox::NotTaken;
pub(crate) use metrics::Metrics;
pub use status::{UpstreamRecord, UpstreamState};
pub(crate) use wire::why;

use crate::outside::{Breakers, Guard, Pace};
use crate::pump::Pump;
use crate::registry::Registry;
use connection::Upstream;
use mailbox::{Downlink, Mailbox};
use status::Status;
use takeover::Takeovers;

/// What an outside broker tells a shard.
#[derive(Debug)]
pub(crate) enum UpstreamEvent {
    /// A message in a device's name.
    Delivery(Via, Delivery),
    /// What became of a message to a device.
    Published(DeviceId, Ticket, Outcome),
    /// The way to it is another one now.
    Reach(UpstreamId, Reach),
}

impl UpstreamEvent {
    /// Whose event it is, if it is one device's.
    pub(crate) const fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Delivery(_, delivery) => Some(&delivery.device),
            Self::Published(device, ..) => Some(device),
            Self::Reach(..) => None,
        }
    }
}

/// All outside brokers, as the rest of the node speaks to them.
pub(crate) struct Upstreams {
    all: Vec<Room>,
    metrics: Metrics,
    clock: Arc<dyn Clock + Send + Sync>,
}

/// One of them.
struct Room {
    outside: Outside,
    mailbox: Arc<Mailbox>,
    status: Arc<Status>,
}

/// What their connections need of the node.
pub(crate) struct Surroundings {
    pub(crate) pump: Arc<Pump>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) breakers: Breakers,
    /// What the devices' topics begin with on the node's own broker.
    pub(crate) prefix: String,
    /// The node's Client Identifier where a broker's configuration names none.
    pub(crate) client_id: String,
}

/// The node's Client Identifier on outside brokers, unless it is set: two nodes that share one would
/// throw each other out.
pub(crate) fn client_id(identity: &[u8; 32]) -> String {
    let start = identity.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("unhidra-{start}")
}

impl Upstreams {
    /// All of them, and no connection yet.
    pub(crate) fn new(outside: Vec<Outside>, metrics: Metrics, clock: Arc<dyn Clock + Send + Sync>) -> Arc<Self> {
        let now = clock.unix_now();
        let room = |outside: Outside| Room {
            mailbox: Arc::new(Mailbox::new(outside.config.downlinks_max.get())),
            status: Arc::new(Status::new(&outside.config, now)),
            outside,
        };
        let all = outside.into_iter().map(room).collect();
        Arc::new(Self { all, metrics, clock })
    }

    /// Starts their connections. They end once `stop` says so and what they have read is answered.
    pub(crate) fn start(
        &self,
        around: &Surroundings,
        mut rng: impl FnMut() -> StdRng,
        stop: &watch::Receiver<bool>,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (at, room) in self.all.iter().enumerate() {
            let Ok(number) = u16::try_from(at) else { continue };
            let config = room.outside.config.clone();
            let own = |set: &str, other: &str| if set.is_empty() { other.to_owned() } else { set.to_owned() };
            let name = config.name.as_str();
            let pace = Pace::new(config.breaker(), config.backoff());
            let again = Backoff::new(config.backoff());
            let guard = Guard::new(format!("upstream:{name}"), pace, around.breakers.clone());
            let upstream = Upstream {
                id: UpstreamId(number),
                rows: Rows::new(&own(&config.prefix, &around.prefix)),
                client_id: own(&config.client_id, &around.client_id),
                password: room.outside.password.clone(),
                dial: room.outside.dial.clone(),
                mailbox: room.mailbox.clone(),
                status: room.status.clone(),
                metrics: self.metrics.clone(),
                clock: self.clock.clone(),
                pump: around.pump.clone(),
                registry: around.registry.clone(),
                guard,
                again,
                takeovers: Takeovers::default(),
                rng: rng(),
                config,
            };
            tasks.spawn(upstream.run(stop.clone()));
        }
        tasks
    }

    /// Publishes to a device behind an outside broker.
    pub(crate) fn publish(
        &self,
        upstream: UpstreamId,
        device: DeviceId,
        row: DownlinkRow,
        payload: Bytes,
        ticket: Ticket,
    ) -> Result<(), NotTaken> {
        let room = self.all.get(usize::from(upstream.0)).ok_or(NotTaken::NotReached)?;
        room.mailbox.leave(Downlink { device, row, ticket, payload })
    }

    /// Adds what a shard has found in messages of outside brokers.
    pub(crate) fn count(&self, found: &BTreeMap<UpstreamId, Stats>) {
        for (upstream, stats) in found {
            if let Some(room) = self.all.get(usize::from(upstream.0)) {
                self.metrics.opened(room.outside.config.name.as_str(), stats);
                room.status.opened(stats);
            }
        }
    }

    /// How each of them stands.
    pub(crate) fn records(&self) -> Vec<UpstreamRecord> {
        self.all.iter().map(|room| room.status.record()).collect()
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("count", &self.all.len()).finish_non_exhaustive()
    }
}
