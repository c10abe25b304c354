//! The node put together: every room, on doors that somebody else opens.
//!
//! `unhidra run` opens real ones, the tests simulated ones; the wiring is the same.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry as MetricsRegistry;
use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use unhidra_bridge::{Bridge, IdentitySecret, SignedPrekeys, SignedPrekeysError};
use unhidra_broker::packet::ReasonCode;
use unhidra_broker::{Broker, Gate, Persist, RestoreError, TimeOfDay};
use unhidra_core::device::Device;
use unhidra_core::ids::{CommandId, DeviceId, Partition};
use unhidra_core::time::Clock;
use unhidra_gateway::{Gateway, Tokens};
use unhidra_store::{CommitError, ReadError, Store};

use crate::access::{Access, AccessError, Handle, load_acl};
use crate::calendar::Calendar;
use crate::commit::commit;
use crate::config::Config;
use crate::control::{Addresses, Live};
use crate::deadlines;
use crate::expiry;
use crate::kept::Kept;
use crate::outlets::{self, OutletError, Outlets};
use crate::outside::Breakers;
use crate::pump::{CommandBounds, End, Layout, Pump, Rooms};
use crate::registry::{Hooks, Registry, Rules};
use crate::restored::{self, SettleError};
use crate::retention::Retention;
use crate::upstream::{self, Outside, Upstreams};

mod live;
mod refused;

use live::LiveNode;

/// How often the age of the signed prekey is looked at.
const PREKEY_LOOK: Duration = Duration::from_secs(60 * 60);

/// Everything that is not the node's to decide.
pub struct Doors {
    /// The time.
    pub clock: Arc<dyn Clock + Send + Sync>,
    /// Where all randomness comes from.
    pub rng: StdRng,
    /// What survives.
    pub store: Arc<dyn Store>,
    /// The node's long-term key.
    pub identity: IdentitySecret,
    /// What authenticates cursors, kept over restarts.
    pub cursor_key: [u8; 32],
    /// What the registry holds every connection to.
    pub rules: Rules,
    /// What strangers pass before they come in.
    pub gate: Arc<Gate>,
    /// Where devices and other MQTT clients come in.
    pub mqtt: Vec<Box<dyn unhidra_broker::Listener>>,
    /// Where clients come in; without, [`Gateway::serve_stream`] is the way.
    pub gateway: Option<TcpListener>,
    /// Outside brokers that devices may come by.
    pub outside: Vec<Outside>,
    /// Where the doors are, for those who ask.
    pub addresses: Addresses,
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Why a node is not put together.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The first prekey could not be written.
    #[error("the signed prekey: {0}")]
    Commit(#[from] CommitError),
    /// It went back to an earlier moment, and what follows from that could not be done.
    #[error("the store went back to an earlier moment, and could not be made ready: {0}")]
    Restored(#[from] SettleError),
    /// What the broker kept cannot be read.
    #[error(transparent)]
    Broker(#[from] RestoreError),
    /// It cannot be said who may come in.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The signed prekeys are damaged.
    #[error(transparent)]
    Prekeys(#[from] SignedPrekeysError),
    /// An outlet lacks what it needs.
    #[error(transparent)]
    Outlet(#[from] OutletError),
}

/// The node put together, and not yet serving.
pub struct App {
    rooms: Arc<Rooms>,
    /// What the registry tells as long as this is here.
    _hooks: Arc<dyn Hooks>,
    pump: Arc<Pump>,
    tokens: Arc<Tokens>,
    shards: JoinSet<()>,
    end_shards: watch::Sender<End>,
    mqtt: Vec<Box<dyn unhidra_broker::Listener>>,
    gateway: Option<TcpListener>,
    addresses: Addresses,
    metrics: Arc<MetricsRegistry>,
    outlets: Outlets,
    files: Handle,
    prekeys: Rotation,
    retention: Retention,
    calendar: Arc<Calendar>,
    around: upstream::Surroundings,
    outside_rng: StdRng,
    grace: Duration,
}

impl App {
    /// Puts a node together: reads the registry, makes what a first start makes, starts the shards.
    ///
    /// # Errors
    ///
    /// [`BuildError`] where the store does not give what it must.
    pub async fn build(config: &Config, doors: Doors) -> Result<Self, BuildError> {
        let Doors { clock, mut rng, store, identity, cursor_key, rules, gate, mqtt, gateway, outside, addresses } =
            doors;
        let mut metrics = MetricsRegistry::with_prefix("unhidra");
        let unsettled = restored::settle(&*store, clock.unix_now(), &mut rng).await?;
        let registry = Registry::load(store.clone(), clock.clone(), rules).await?;
        let mut rotation = Rotation {
            store: store.clone(),
            clock: clock.clone(),
            rng: StdRng::from_rng(&mut rng),
            age: Duration::from_secs(config.bridge.signed_prekey_rotation_s),
            present: None,
        };
        let signed = rotation.start().await?;

        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards_wanted = match config.pump.shards {
            0 => cores,
            shards => shards.saturating_mul(store.partitions().into()),
        };
        let layout = Layout::new(shards_wanted, store.partitions());
        let bounds = CommandBounds {
            body_max: config.bridge.command_body_max,
            expires_after: Duration::from_secs(config.gateway.command_expires_s),
        };
        let ids = Mutex::new(StdRng::from_rng(&mut rng));
        let new_id = move || CommandId::new(ids.lock().unwrap_or_else(PoisonError::into_inner).random());
        let inbox_max = config.pump.inbox_max.get();
        let pump = Pump::new(layout, inbox_max, store.clone(), clock.clone(), bounds, Box::new(new_id));

        let mut token_rng = StdRng::from_rng(&mut rng);
        let access = Access::open(&config.users, &config.jwt, registry.clone(), clock.clone(), &mut token_rng)?;
        let access = Arc::new(access);
        let acl = load_acl(&config.acl.file, config.broker.prefix.as_str()).map_err(AccessError::from)?;
        let tokens = Arc::new(Tokens::new(
            config.gateway.tokens_max,
            Duration::from_secs(config.gateway.session_s),
            clock.clone(),
            Box::new(move |bytes| token_rng.fill_bytes(bytes)),
        ));
        let gateway_doors = unhidra_gateway::Doors {
            store: store.clone(),
            authority: tokens.clone(),
            commands: pump.clone(),
            clock: clock.clone(),
            cursor_key,
        };
        let gateway_room = Gateway::new(config.gateway.clone(), gateway_doors, &mut metrics);
        let broker_doors = unhidra_broker::Doors {
            inlet: pump.clone(),
            admission: access.clone(),
            gate,
            clock: clock.clone(),
            persist: config.broker.durable.then(|| Kept::new(store.clone()) as Arc<dyn Persist>),
            seed: rng.next_u64(),
        };
        let broker = Broker::new(config.broker.clone(), broker_doors, &mut metrics);
        // Before what is restored is held to them.
        broker.use_rules(acl);
        let calendar = Calendar::open(&*store, clock.clone(), &mut metrics).await?;
        broker.restore(if calendar.look().is_believed { TimeOfDay::Believed } else { TimeOfDay::Doubted }).await?;
        let retention = Retention::new(
            &config.retention,
            store.clone(),
            registry.clone(),
            clock.clone(),
            calendar.clone(),
            &mut metrics,
        );
        let files = Handle::new(access, broker.clone(), &config.users.file);
        let outlet_doors = outlets::Doors {
            store: store.clone(),
            registry: registry.clone(),
            broker: broker.clone(),
            clock: clock.clone(),
            rng: StdRng::from_rng(&mut rng),
            prefix: config.broker.prefix.as_str().to_owned(),
        };
        let outlets = Outlets::new(&config.outlets, outlet_doors, &mut metrics)?;
        let upstreams = Upstreams::new(outside, upstream::Metrics::register(&mut metrics), clock.clone());
        let around = upstream::Surroundings {
            pump: pump.clone(),
            registry: registry.clone(),
            breakers: Breakers::register(&mut metrics),
            prefix: config.broker.prefix.as_str().to_owned(),
            client_id: upstream::client_id(identity.public().as_bytes()),
        };
        let rooms = Arc::new(Rooms {
            store,
            registry: registry.clone(),
            broker: broker.clone(),
            gateway: gateway_room,
            upstreams,
            clock,
            metrics: Arc::new(unhidra_bridge::Metrics::register(&mut metrics)),
            unsettled,
        });

        let identity = Arc::new(identity);
        let mut bridge_config = config.bridge.clone();
        bridge_config.sessions_max = config.bridge.sessions_max.div_ceil(layout.shards()).max(1);
        let (end_shards, end) = watch::channel(End::NotYet);
        let shards = pump.start(
            &rooms,
            || Bridge::new(bridge_config.clone(), identity.clone(), signed.clone()),
            || StdRng::from_rng(&mut rng),
            &end,
        );
        let runtime = tokio::runtime::Handle::current();
        let hooks: Arc<dyn Hooks> = Arc::new(ToRooms { broker, pump: pump.clone(), runtime });
        registry.tell(&hooks);
        Ok(Self {
            rooms,
            _hooks: hooks,
            pump,
            tokens,
            shards,
            end_shards,
            mqtt,
            gateway,
            addresses,
            metrics: Arc::new(metrics),
            outlets,
            files,
            prekeys: rotation,
            retention,
            calendar,
            around,
            outside_rng: StdRng::from_rng(&mut rng),
            grace: Duration::from_secs(config.pump.drain_timeout_s),
        })
    }

    /// How many devices are not served, for a record of theirs is damaged.
    #[must_use]
    pub(crate) fn damaged_devices(&self) -> Gauge {
        self.rooms.metrics.devices_damaged.clone()
    }

    /// The registry of devices.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.rooms.registry.clone()
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> Arc<Gateway> {
        self.rooms.gateway.clone()
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> Arc<Broker> {
        self.rooms.broker.clone()
    }

    /// What takes the files of users, keys and rules into the node anew.
    #[must_use]
    pub fn files(&self) -> Handle {
        self.files.clone()
    }

    /// What is counted.
    #[must_use]
    pub fn metrics(&self) -> Arc<MetricsRegistry> {
        self.metrics.clone()
    }

    /// Its time of day, and whether that is believed.
    #[must_use]
    pub(crate) fn calendar(&self) -> Arc<Calendar> {
        self.calendar.clone()
    }

    /// Where it is reached.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the control socket asks of a running node.
    #[must_use]
    pub fn live(&self) -> Arc<dyn Live> {
        Arc::new(LiveNode {
            rooms: self.rooms.clone(),
            pump: self.pump.clone(),
            tokens: self.tokens.clone(),
            addresses: self.addresses.clone(),
            outlets: self.outlets.watch(),
        })
    }

    /// Serves until `shutdown` completes, then ends in the direction of the data: nobody new, then
    /// DISCONNECT 0x8B to devices, then the shards, then the store.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self {
            rooms,
            pump,
            mut shards,
            end_shards,
            mqtt,
            gateway,
            outlets,
            mut prekeys,
            retention,
            calendar,
            grace,
            ..
        } = self;
        let (around, mut outside_rng) = (self.around, self.outside_rng);
        let mut doors = JoinSet::new();
        for listener in mqtt {
            let broker = rooms.broker.clone();
            doors.spawn(async move {
                if let Err(error) = broker.serve(listener).await {
                    tracing::error!(%error, "an MQTT listener ended");
                }
            });
        }
        let (stop_outside, stopped) = watch::channel(false);
        let mut outside = rooms.upstreams.start(&around, || StdRng::from_rng(&mut outside_rng), &stopped);
        let (close_gateway, mut closed) = watch::channel(false);
        if let Some(listener) = gateway {
            let room = rooms.gateway.clone();
            let until = async move {
                // A sender that is gone closes as well as one that says so.
                let _ = closed.wait_for(|closed| *closed).await;
            };
            doors.spawn(room.serve(listener, until));
        }
        let mut keepers = JoinSet::new();
        let (store, clock, looked_at) = (rooms.store.clone(), rooms.clock.clone(), pump.clone());
        keepers.spawn(async move { expiry::keep(&*store, &*clock, &looked_at).await });
        let (store, clock, ended_by) = (rooms.store.clone(), rooms.clock.clone(), pump.clone());
        keepers.spawn(async move { deadlines::keep(&*store, &*clock, &ended_by).await });
        keepers.spawn(async move { prekeys.keep(&pump).await });
        keepers.spawn(retention.keep());
        let store = rooms.store.clone();
        keepers.spawn(async move { calendar.keep(&*store).await });
        let broker = rooms.broker.clone();
        keepers.spawn(async move { broker.report().await });

        let (stop_outlets, stop) = watch::channel(false);
        let mut outlets = outlets.start(&stop);

        shutdown.await;

        stop_outlets.send_replace(true);
        // From here on nobody makes room on the disk: where rows wait for it, they would in vain.
        keepers.shutdown().await;
        end_shards.send_replace(End::Begun);
        close_gateway.send_replace(true);
        stop_outside.send_replace(true);
        let left = tokio::time::timeout(grace, async { while outside.join_next().await.is_some() {} });
        let (left, ()) = tokio::join!(left, rooms.broker.drain(grace));
        if left.is_err() {
            tracing::warn!(grace_s = grace.as_secs(), "an outside broker was not taken leave of in time");
            outside.shutdown().await;
        }
        end_shards.send_replace(End::Now);
        let drained = tokio::time::timeout(grace, async { while shards.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(
                grace_s = grace.as_secs(),
                "the shards did not end in time; what was acknowledged is stored"
            );
            shards.shutdown().await;
        }
        rooms.gateway.drain().await;
        // Their cursors go down with the last rows they have sent; one that is stuck sends them again.
        let _ = tokio::time::timeout(grace, async { while outlets.join_next().await.is_some() {} }).await;
        outlets.shutdown().await;
        doors.shutdown().await;
        rooms.store.close().await;
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Keeps the node's signed prekey fresh (e2ee/PROTOCOL.md section 9).
struct Rotation {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock + Send + Sync>,
    rng: StdRng,
    age: Duration,
    present: Option<Arc<SignedPrekeys>>,
}

impl Rotation {
    async fn start(&mut self) -> Result<Arc<SignedPrekeys>, BuildError> {
        let records = self.store.signed_prekeys().await?;
        self.present = SignedPrekeys::restore(&records)?.map(Arc::new);
        match &self.present {
            Some(present) if !present.is_due(self.age, self.clock.unix_now()) => Ok(present.clone()),
            _ => self.rotate().await,
        }
    }

    async fn rotate(&mut self) -> Result<Arc<SignedPrekeys>, BuildError> {
        let now = self.clock.unix_now();
        let (next, ops) = SignedPrekeys::rotate(self.present.as_deref(), now, &mut self.rng)?;
        commit(&*self.store, Partition::new(0), ops).await?;
        let next = Arc::new(next);
        self.present = Some(next.clone());
        Ok(next)
    }

    async fn keep(&mut self, pump: &Pump) {
        loop {
            tokio::time::sleep(PREKEY_LOOK).await;
            if self.present.as_ref().is_some_and(|present| !present.is_due(self.age, self.clock.unix_now())) {
                continue;
            }
            match self.rotate().await {
                Ok(next) => pump.use_prekeys(&next).await,
                Err(error) => tracing::error!(%error, "the signed prekey could not be rotated; tried again in an hour"),
            }
        }
    }
}

/// What a change in the registry means to the rooms.
struct ToRooms {
    broker: Arc<Broker>,
    pump: Arc<Pump>,
    runtime: tokio::runtime::Handle,
}

impl ToRooms {
    fn changed(&self, device: DeviceId, reason: ReasonCode) {
        self.broker.disconnect(&device, reason);
        let pump = self.pump.clone();
        // The inbox may be full: the hook hands over, and somebody else waits.
        self.runtime.spawn(async move { pump.changed(&device).await });
    }
}

impl Hooks for ToRooms {
    fn enrolled(&self, device: &Arc<Device>) {
        self.changed(device.id, ReasonCode::AdministrativeAction);
    }

    fn revoked(&self, device: &DeviceId) {
        self.changed(*device, ReasonCode::NotAuthorized);
    }

    fn kept_out(&self, device: &DeviceId) {
        self.broker.disconnect(device, ReasonCode::AdministrativeAction);
    }
}
