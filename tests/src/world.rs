//! The world: one node, its store, its network, and whoever lives in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unhidra_bridge::IdentitySecret;
use unhidra_broker::{Gate, PeerCertificate};
use unhidra_core::device::Fingerprint;
use unhidra_core::ids::{DeviceId, Epoch, Offset, Partition};
use unhidra_core::message::UplinkKind;
use unhidra_core::suite::Suite;
use unhidra_core::time::{Clock as _, UnixTime};
use unhidra_gateway::Gateway;
use unhidra_node::app::{App, Doors};
use unhidra_node::config::{Config, Purpose, Sources};
use unhidra_node::control::{Addresses, Live, TokenAsked};
use unhidra_node::registry::{Enrolment, Registry, Replace, Rules};
use unhidra_node::upstream::{Outside, UpstreamConfig};
use unhidra_store::memory::{DiskCopy, Memory, Options};
use unhidra_store::{Batch, CrashPoint, Limit, Op, Store as _, Unit};

use crate::client::SimClient;
use crate::clock::SimClock;
use crate::device::{Birth, SimDevice};
use crate::door::Network;
use crate::fuse::Side;
use crate::outside::OutsideBroker;

const TRUST_DOMAIN: &str = "world.test";
/// As a disk's: while one commit runs the next batch gathers.
const COMMIT_TIME: Duration = Duration::from_millis(5);
/// A writer that remembers but the devices of its last commits: it reads again, as one of many devices does.
const OPTIONS: Options = Options { known_devices: 1, ..Options::SMALL };

/// One node and all around it. Made inside a paused, single-threaded runtime.
pub struct World {
    /// The time.
    pub clock: SimClock,
    /// What survives. Faults are asked of it.
    pub store: Arc<Memory>,
    /// The way in.
    pub network: Network,
    /// What decides.
    pub rng: StdRng,
    seed: u64,
    config: Config,
    identity: [u8; 32],
    node: Option<Node>,
    outside: Option<OutsideBroker>,
}

/// What an outside broker's message came to that was refused.
const REFUSED: [&str; 8] =
    ["malformed", "forged", "too_old", "too_far", "rolled_back", "unknown", "refused_handshake", "over_budget"];

/// Longer than anything in the world takes; in virtual time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(3600);

/// One life of the node.
struct Node {
    registry: Arc<Registry>,
    gateway: Arc<Gateway>,
    metrics: Arc<prometheus_client::registry::Registry>,
    live: Arc<dyn Live>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl World {
    /// A world with a node that serves.
    ///
    /// # Panics
    ///
    /// Where the default configuration does not make a node.
    pub async fn new(seed: u64) -> Self {
        Self::with(seed, &[]).await
    }

    /// A world whose configuration differs from the default by `set`, each `KEY=VALUE`.
    ///
    /// # Panics
    ///
    /// Where that is no configuration.
    pub async fn with(seed: u64, set: &[&str]) -> Self {
        Self::before(seed, set, None).await
    }

    /// A world whose node has an outside broker for a second door.
    ///
    /// # Panics
    ///
    /// Where the default configuration does not make a node.
    pub async fn behind(seed: u64, outside: &OutsideBroker) -> Self {
        let broker = "upstream.broker=[{name='factory',address='127.0.0.1:1'}]";
        // Less than one broker may have under way, so that it can fill its door.
        let set = ["upstream.tls=false", "bridge.parked_max=8", broker];
        Self::before(seed, &set, Some(outside.clone())).await
    }

    async fn before(seed: u64, set: &[&str], outside: Option<OutsideBroker>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let set = ["pump.shards=2"].iter().chain(set).map(|text| (*text).to_owned()).collect();
        let sources = Sources { purpose: Purpose::Node, file: None, set, data: None, log_format: None };
        let config = sources.load().expect("a configuration").config;
        let mut identity = [0; 32];
        rng.fill_bytes(&mut identity);
        let store = Arc::new(Memory::new(Options { epoch: Epoch::new(seed), commit_time: COMMIT_TIME, ..OPTIONS }));
        let network = Network::default();
        let mut world =
            Self { clock: SimClock::start(), store, network, rng, seed, config, identity, node: None, outside };
        world.start_node().await;
        world
    }

    /// The seed, for messages: `SIM_SEED=N` repeats the run.
    #[must_use]
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// Starts the node on what the store has.
    ///
    /// # Panics
    ///
    /// Where the store does not make a node.
    pub async fn start_node(&mut self) {
        let clock = Arc::new(self.clock.clone());
        let doors = Doors {
            clock: clock.clone(),
            rng: StdRng::from_rng(&mut self.rng),
            store: self.store.clone(),
            identity: IdentitySecret::from_seed(&self.identity),
            cursor_key: [7; 32],
            rules: Rules { trust_domain: TRUST_DOMAIN.to_owned() },
            gate: Gate::new(self.config.broker.gate.clone(), clock.clone()),
            mqtt: vec![Box::new(self.network.open())],
            gateway: None,
            outside: self.outside(),
            addresses: Addresses::default(),
        };
        let app = App::build(&self.config, doors).await.expect("a node");
        let (stop, stopped) = oneshot::channel();
        let (registry, gateway, live, metrics) = (app.registry(), app.gateway(), app.live(), app.metrics());
        let task = tokio::spawn(app.run(async move { drop(stopped.await) }));
        self.node = Some(Node { registry, gateway, metrics, live, stop, task });
    }

    fn outside(&self) -> Vec<Outside> {
        let dialled = |config: &UpstreamConfig, broker: &OutsideBroker| Outside {
            config: config.clone(),
            dial: Arc::new(broker.clone()),
            password: None,
        };
        self.config.upstream.iter().zip(&self.outside).map(|(config, broker)| dialled(config, broker)).collect()
    }

    /// Ends the node as SIGTERM does.
    ///
    /// # Panics
    ///
    /// Where it does not end well.
    pub async fn stop_node(&mut self) {
        if let Some(node) = self.node.take() {
            drop(node.stop);
            node.task.await.expect("the node ends");
        }
        self.network.shut();
        self.store = Arc::new(self.store.reopen());
    }

    /// The node dies at its next commit, and another begins on what was durable.
    pub async fn crash_at(&mut self, point: CrashPoint) {
        self.store.crash_at(point);
        self.store.crashed().await;
        self.bury().await;
        self.start_node().await;
    }

    /// The node dies before or after it writes to somebody, not at its next write but at the one after
    /// so many others, and another begins on what was durable.
    pub async fn crash_at_transmit(&mut self, side: Side, after: u32) {
        self.network.fuse.light(side, after);
        self.network.fuse.blown().await;
        // Nothing of it goes on; what it has written arrives.
        self.store.stall();
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.bury().await;
        self.network.fuse.mend();
        self.start_node().await;
    }

    /// The node dies now.
    pub async fn bury(&mut self) {
        self.network.shut();
        if let Some(node) = self.node.take() {
            node.task.abort();
            // Aborted: that is what it says.
            let _ = node.task.await;
        }
        self.store = Arc::new(self.store.reopen());
    }

    /// The node dies, a copy of its store is put back and marked as that, and another node begins
    /// on it.
    pub async fn put_back(&mut self, copy: DiskCopy) {
        self.bury().await;
        self.store = Arc::new(self.store.put_back(copy, Epoch::new(self.rng.next_u64())));
        self.start_node().await;
    }

    /// The first bytes of the ratchet keys that a device's newest messages came under, oldest first.
    ///
    /// # Panics
    ///
    /// Where the store does not serve, or does not know the device.
    pub async fn ratchet_keys(&self, device: &SimDevice) -> Vec<[u8; 4]> {
        let stored = self.store.session(&device.id).await.expect("serves").expect("known");
        stored.recent.iter().map(|tag| tag.key).collect()
    }

    /// Enrols a device of suite 1 and switches it on.
    ///
    /// # Panics
    ///
    /// Where the node is down, or the name is taken.
    pub async fn provision(&mut self, name: &str) -> SimDevice {
        self.provision_of(Suite::X3dh, name).await
    }

    /// Enrols a device of a suite and switches it on.
    ///
    /// # Panics
    ///
    /// Where the node is down, or the name is taken.
    pub async fn provision_of(&mut self, suite: Suite, name: &str) -> SimDevice {
        self.provision_on(suite, name, self.network.clone()).await
    }

    /// Enrols a device of suite 1 that dials an outside broker, and switches it on.
    ///
    /// # Panics
    ///
    /// Where the node is down, or the name is taken.
    pub async fn provision_behind(&mut self, outside: &OutsideBroker, name: &str) -> SimDevice {
        self.provision_on(Suite::X3dh, name, outside.network.clone()).await
    }

    async fn provision_on(&mut self, suite: Suite, name: &str, network: Network) -> SimDevice {
        let id = DeviceId::parse(name).expect("a device id");
        let (mut seed, mut fingerprint) = ([0; 32], [0; 32]);
        self.rng.fill_bytes(&mut seed);
        self.rng.fill_bytes(&mut fingerprint);
        let secret = unhidra_device_sdk::IdentitySecret::from_seed(&seed);
        let enrolment = Enrolment {
            id,
            identity_key: *secret.public().as_bytes(),
            certificate: Fingerprint(fingerprint),
            certificate_expires: UnixTime::from_s(4_000_000_000),
            suite,
            tags: std::collections::BTreeSet::new(),
            class: String::new(),
        };
        let node = self.node.as_ref().expect("a node");
        node.registry.enroll(enrolment, Replace::No).await.expect("enrolled");
        let node_key = IdentitySecret::from_seed(&self.identity).public();
        SimDevice::switch_on(Birth {
            seed,
            node: node_key,
            suite,
            certificate: PeerCertificate {
                device: id,
                trust_domain: TRUST_DOMAIN.to_owned(),
                fingerprint: Fingerprint(fingerprint),
                not_after: UnixTime::from_s(u64::from(u32::MAX)),
                serials: Arc::default(),
            },
            rng: StdRng::from_rng(&mut self.rng),
            network,
            clock: self.clock.clone(),
        })
    }

    /// The disk damages what the store keeps of a device beside its sessions.
    ///
    /// # Panics
    ///
    /// Where the store does not take it.
    pub async fn damage(&self, device: &SimDevice) {
        self.write(device, Op::Peer { device: device.id, bytes: Bytes::from_static(b"damaged") }).await;
    }

    /// The version of a device's sessions is another than the node has in memory: what it writes of them
    /// next is refused alone.
    ///
    /// # Panics
    ///
    /// Where the device has no session, or the store does not take it.
    pub async fn move_version(&self, device: &SimDevice) {
        let stored = self.store.session(&device.id).await.expect("serves").expect("known");
        self.write(device, Op::EndSessions { device: device.id, expect: stored.version, present: false }).await;
    }

    async fn write(&self, device: &SimDevice, op: Op) {
        let (done, written) = oneshot::channel();
        let partition = self.store.partition_of(&device.id);
        let done = Box::new(move |result: Result<_, _>| assert_eq!(done.send(result.is_ok()), Ok(())));
        let batch = Batch { partition, fence: self.store.fence(partition), ops: vec![op], unit: Unit::Batch, done };
        assert!(self.store.submit(batch).is_ok(), "the store has room");
        assert_eq!(written.await, Ok(true), "the store writes");
    }

    /// Revokes a device.
    ///
    /// # Panics
    ///
    /// Where the node is down or does not know it.
    pub async fn revoke(&self, device: &SimDevice) {
        self.node.as_ref().expect("a node").registry.revoke(device.id).await.expect("revoked");
    }

    /// Puts a tag on a device, and says whether that was done.
    ///
    /// # Panics
    ///
    /// Where the node is down.
    pub async fn tag(&self, device: &SimDevice, tag: &str) -> bool {
        let tags = [tag.parse().expect("a tag")].into();
        self.node.as_ref().expect("a node").registry.tag(device.id, tags, BTreeSet::new()).await.is_ok()
    }

    /// A client that has been let in.
    ///
    /// # Panics
    ///
    /// Where the node is down.
    pub async fn client(&self) -> SimClient {
        let node = self.node.as_ref().expect("a node");
        let asked = TokenAsked { name: None, may_command: true, lifetime_s: None, once: false };
        let token = node.live.mint(&asked).expect("a token");
        SimClient::enter(node.gateway.clone(), &token).await
    }

    /// What the control socket asks of the node that runs; `None` while none does.
    #[must_use]
    pub fn live(&self) -> Option<Arc<dyn Live>> {
        self.node.as_ref().map(|node| node.live.clone())
    }

    /// The bodies of every stored reading, by device, in the order of the log.
    ///
    /// # Panics
    ///
    /// Where the store does not serve, or a row's `prev` does not name its device's row before.
    pub async fn stored(&self) -> BTreeMap<String, Vec<String>> {
        let mut stored: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut last: BTreeMap<String, Offset> = BTreeMap::new();
        for partition in 0..self.store.partitions() {
            let mut after = Offset::ZERO;
            loop {
                let page = self.store.log(Partition::new(partition), after, Limit::default()).await.expect("serves");
                for row in &page.rows {
                    after = row.offset;
                    let device = row.uplink.device.to_string();
                    let prev = last.insert(device.clone(), row.offset).unwrap_or_default();
                    assert_eq!(row.prev, prev, "the chain of {device} has a gap");
                    if row.uplink.kind == UplinkKind::Reading {
                        let body = String::from_utf8_lossy(&row.uplink.body).into_owned();
                        stored.entry(device).or_default().push(body);
                    }
                }
                if !page.more {
                    break;
                }
            }
        }
        stored
    }

    /// Waits until something holds of the world.
    ///
    /// # Panics
    ///
    /// Where it does not within an hour.
    pub async fn until(&self, holds: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        assert!(waited.await.is_ok(), "not within an hour, SIM_SEED={}\n{}", self.seed, self.counts());
    }

    /// Waits until so many readings of a device are stored.
    ///
    /// # Panics
    ///
    /// Where they are not within an hour.
    pub async fn until_stored(&self, device: &str, count: usize) {
        let waited = tokio::time::timeout(PATIENCE, async {
            while self.stored().await.get(device).map_or(0, Vec::len) < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let stored = waited.await;
        assert!(stored.is_ok(), "{count} of {device}, not within an hour, SIM_SEED={}\n{}", self.seed, self.counts());
    }

    /// Waits until so many messages of the outside broker came to `outcome`.
    pub async fn until_counted(&self, outcome: &str, count: u64) {
        self.until(|world| world.counted(outcome) >= count).await;
    }

    /// How many messages of the outside broker came to `outcome` in this life of the node.
    #[must_use]
    pub fn counted(&self, outcome: &str) -> u64 {
        let name = format!("unhidra_upstream_messages_total{{upstream=\"factory\",outcome=\"{outcome}\"}} ");
        self.counts().lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
    }

    /// How many connections to the outside broker have failed in this life of the node.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let name = "unhidra_upstream_failures_total{upstream=\"factory\"} ";
        self.counts().lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
    }

    /// How often devices were asked for a new session in this life of the node.
    #[must_use]
    pub fn asked_for_sessions(&self) -> u64 {
        let name = "unhidra_bridge_downlinks_total{outcome=\"reset_request\"} ";
        self.all_counts().lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
    }

    /// How many devices the node does not serve for damaged records.
    #[must_use]
    pub fn damaged_devices(&self) -> u64 {
        let name = "unhidra_bridge_devices_damaged ";
        self.all_counts().lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap_or(0)
    }

    /// How many messages of the outside broker did not open, for whatever cause, in this life of the node.
    #[must_use]
    pub fn refused(&self) -> u64 {
        REFUSED.iter().map(|outcome| self.counted(outcome)).sum()
    }

    /// What is counted of the outside broker, as the node's metrics have it.
    fn counts(&self) -> String {
        let text = self.all_counts();
        text.lines().filter(|line| line.starts_with("unhidra_upstream")).collect::<Vec<_>>().join("\n")
    }

    fn all_counts(&self) -> String {
        let mut text = String::new();
        if let Some(node) = &self.node {
            prometheus_client::encoding::text::encode(&mut text, &node.metrics).expect("it is text");
        }
        text
    }

    /// Randomness of its own for somebody in the world.
    pub fn fork(&mut self) -> StdRng {
        StdRng::from_rng(&mut self.rng)
    }

    /// How long the world has lasted, in virtual ms.
    #[must_use]
    pub fn age_ms(&self) -> u64 {
        self.clock.now().as_ms()
    }
}
