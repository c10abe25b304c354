//! The gate every connection passes before anybody reads a byte of it: how many one address may
//! have, and how fast it may come.

mod addresses;
mod load;
mod refusals;
mod traffic;

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::OwnedSemaphorePermit;
use unhidra_core::time::{Clock, Timestamp};

use crate::config::GateConfig;
use crate::net::{Revoked, Serial};
use addresses::{Addresses, Block, Handshake};
use load::Memory;
pub(crate) use refusals::{Refusal, Refusals};
use traffic::Traffic;

/// A handshake that waits for one in so many parts of its time was hindered by the node.
const SLOW_PART: u32 = 10;

/// The gate of a node: one, however many listeners it has.
pub struct Gate {
    config: GateConfig,
    clock: Arc<dyn Clock + Send + Sync>,
    addresses: Mutex<Addresses>,
    refusals: Refusals,
    /// What authorities have revoked. Asked at each handshake and again at CONNECT.
    revoked: ArcSwap<Revoked>,
    memory: Memory,
    traffic: Traffic,
    /// Seconds for which threads of handshakes have rested.
    rested: Counter<f64, AtomicU64>,
}

/// One connection's way through the gate, given back when it is dropped.
pub struct Pass {
    gate: Arc<Gate>,
    block: Option<Block>,
    handshake: Handshake,
    /// Its place among those of its listener.
    _place: OwnedSemaphorePermit,
}

impl Gate {
    /// Makes a gate nobody has passed yet.
    #[must_use]
    pub fn new(config: GateConfig, clock: Arc<dyn Clock + Send + Sync>) -> Arc<Self> {
        let addresses = Mutex::new(Addresses::new(&config, clock.now()));
        Arc::new(Self {
            config,
            clock,
            addresses,
            refusals: Refusals::default(),
            revoked: ArcSwap::default(),
            memory: Memory::default(),
            traffic: Traffic::default(),
            rested: Counter::default(),
        })
    }

    pub(crate) const fn config(&self) -> &GateConfig {
        &self.config
    }

    /// From now on whoever shows one of these certificates is not let in. Those who are in already
    /// [`Broker::revoke`](crate::Broker::revoke) sends away.
    pub fn set_revoked(&self, revoked: Arc<Revoked>) {
        self.revoked.store(revoked);
    }

    pub(crate) fn is_revoked(&self, serials: &[Serial]) -> bool {
        self.revoked.load().holds_any(serials)
    }

    /// Whether the node has too much to do, as a connection shows whose task has waited so long to
    /// run, or holds too much: newcomers are told so before those inside feel it.
    pub(crate) fn is_overloaded(&self, waited: Duration) -> bool {
        let lags = self.config.lag_max_ms != 0 && waited >= Duration::from_millis(self.config.lag_max_ms);
        let max = self.config.memory_max_bytes;
        lags || (max != 0 && self.memory.bytes(self.clock.now()) >= max)
    }

    /// Whether the node was slow, as a handshake shows that has waited so long for a thread in all: a
    /// tenth of the time it has.
    pub(crate) fn was_slow(&self, waited: Duration) -> bool {
        waited >= self.config.handshake_timeout() / SLOW_PART
    }

    pub(crate) const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// A thread of handshakes rests for so long, for those who are inside.
    pub(crate) fn rested(&self, rest: Duration) {
        self.rested.inc_by(rest.as_secs_f64());
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        self.refusals.register(registry);
        registry.register(
            "broker_handshake_rest_seconds",
            "Time the threads of handshakes left processors to those who are inside, beyond their priority",
            self.rested.clone(),
        );
    }

    /// Lets one more connection of an address through.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says which bound it is over. It is counted by whoever closes it.
    pub(crate) fn pass(self: &Arc<Self>, address: IpAddr, place: OwnedSemaphorePermit) -> Result<Pass, Refusal> {
        let block = self.addresses().enter(address, self.clock.now())?;
        Ok(Pass { gate: self.clone(), block, handshake: Handshake::Failed, _place: place })
    }

    /// Counts a refusal, and says so in the log as long as that is not said too often.
    pub(crate) fn refuse(&self, refusal: Refusal, peer: &dyn fmt::Display, detail: &dyn fmt::Display) {
        self.refusals.refuse(refusal, peer, detail, self.clock.now());
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Pass {
    /// Its handshakes were not done in time, and that is the node's fault.
    pub(crate) fn hindered(mut self) {
        self.handshake = Handshake::Hindered;
    }

    /// Its handshakes are done. Until that is said a pass that is dropped counts as one whose
    /// handshakes failed.
    pub(crate) const fn shaken(mut self) -> Self {
        self.handshake = Handshake::Done;
        self
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(block) = self.block {
            self.gate.addresses().leave(block, self.handshake, self.gate.clock.now());
        }
    }
}

impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pass").field("block", &self.block).finish_non_exhaustive()
    }
}
