//! A node in this process: its folder, its listeners, its control socket and its admin port.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::registry::Registry as Metrics;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use unhidra_broker::{Broker, Gate, HandshakeThreads, Layers, Listener, PortListener, TlsOffer};
use unhidra_certs::Pki;
use unhidra_core::time::Clock;
use unhidra_store::Durability;
use unhidra_store::{Embedded, Store};

use super::CliError;
use super::open::Opened;
use super::reach::{command_ids, facts, limits, rules};
use crate::access::Handle;
use crate::admin::{self, Phase, Watched};
use crate::app::{App, Doors};
use crate::backup::{self, Source};
use crate::clock::SystemClock;
use crate::config::{Config, ConfigError, Loaded, Reloaded, Sources, check_identifiers, renewed};
use crate::control::{self, Addresses, Control, ControlListener, ListenerAddress, LocalControl, LocalDoors, PeerRule};
use crate::folder::{Folder, Layout};
use crate::keychain::{Keychain, life};
use crate::revocations::{Revocations, Seen};
use crate::upstream::{self, Outside};
use crate::{certificates, keys, tls};

/// A node that serves.
pub struct Node {
    loaded: Loaded,
    layout: Layout,
    addresses: Addresses,
    control: Arc<LocalControl>,
    clock: Arc<SystemClock>,
    broker: Arc<Broker>,
    revocations: Revocations,
    tls: Served,
    pki: Arc<ArcSwap<Pki>>,
    phase: watch::Sender<Phase>,
    stop: watch::Sender<bool>,
    files: Handle,
    follower: JoinHandle<()>,
    app: JoinHandle<()>,
    socket: JoinHandle<()>,
    close_admin: watch::Sender<bool>,
    admin: JoinHandle<()>,
    /// Looks at certificates until the node ends.
    certificates: JoinHandle<()>,
    /// Looks after the store's keys until the node ends.
    key_life: JoinHandle<()>,
    // Let go of last: while it is held nobody else opens the store.
    _folder: Folder,
}

impl Node {
    /// Starts a node on a folder. Once this returns, all of it listens.
    ///
    /// # Errors
    ///
    /// [`CliError`] names what stands in the way. Then nothing listens.
    pub async fn start(loaded: Loaded, folder: Folder, mut rng: StdRng) -> Result<Self, CliError> {
        let config = loaded.config.clone();
        raise_open_files();
        let clock = Arc::new(SystemClock::start());
        let seen = Seen::now(&config.pki);
        let Opened { folder, store, pki, identity } = Opened::open(folder, &config, &mut rng, clock.unix_now()).await?;
        // Again, now that it is known what the node is called where nothing is set.
        let own = upstream::client_id(identity.public().as_bytes());
        check_identifiers(&config, Some(&own)).map_err(ConfigError::from)?;
        warn_of_durability(&config.store);
        warn_of_key(&config);
        let layout = folder.layout().clone();
        let cursor_key = keys::load_or_make(&layout.cursor_key(), &mut rng)?;
        let tls = Served::new(tls::Offers::new(&pki, &config.broker)?);
        let pki = Arc::new(ArcSwap::from_pointee(pki));
        let gate = Gate::new(config.broker.gate.clone(), clock.clone());
        gate.set_revoked(tls::revoked(&pki.load().revoked));
        let mut revocations = Revocations::default();
        revocations.have_read(seen);
        revocations.warn_of_age(&pki.load().revoked, clock.unix_now());
        let listeners = Listeners::bind(&config, &tls, &gate).await?;
        let socket = layout.control_socket();
        let control_listener = ControlListener::bind(&socket, PeerRule::own())
            .map_err(|source| CliError::File { path: socket, source })?;

        let addresses = listeners.addresses.clone();
        let facts = facts(&config, *identity.public().as_bytes());
        let doors = Doors {
            clock: clock.clone(),
            rng: StdRng::from_rng(&mut rng),
            store: store.clone(),
            identity,
            cursor_key: *cursor_key.as_bytes(),
            rules: rules(&config),
            gate,
            mqtt: listeners.mqtt,
            gateway: Some(listeners.gateway),
            outside: config.upstream.iter().map(Outside::open).collect::<Result<_, _>>()?,
            addresses: addresses.clone(),
        };
        let app = App::build(&config, doors).await?;
        let broker = app.broker();
        let keychain = Arc::new(Keychain::new(store.clone(), &config.store, layout.root(), clock.clone()));
        let control = Arc::new(LocalControl::new(
            LocalDoors {
                store: store.clone(),
                registry: app.registry(),
                pki: pki.clone(),
                clock: clock.clone(),
                command_ids: command_ids(rng),
                disk_bytes_max: config.retention.disk_bytes_max,
                backups: Some(Source::new(store.clone(), layout.clone(), backup::secrets(&config))),
                live: Some(app.live()),
                keys: Some(keychain.clone()),
            },
            facts,
            limits(&config),
        ));
        let routes = control::router(control.clone(), app.gateway().router());
        let (phase, phases) = watch::channel(Phase::Serving);
        let (counted, of_certificates, of_keys) = metrics(&app, &store);
        let key_life = tokio::spawn(life::keep(keychain, app.calendar(), of_keys));
        let (known, looking) = (app.registry(), clock.clone());
        let certificates = tokio::spawn(certificates::keep(of_certificates, pki.clone(), known, looking));
        let damaged_devices = app.damaged_devices();
        let watched = Watched { metrics: counted, store: store.health(), phase: phases, damaged_devices };
        let (stop, stopped) = watch::channel(false);
        let (close_admin, admin_closed) = watch::channel(false);
        let admin_config = config.admin.clone();
        let admin = tokio::spawn(async move {
            admin::serve(listeners.admin, &admin_config, watched, admin_closed).await;
        });
        let socket = tokio::spawn(control::serve(control_listener, routes, stopped.clone()));
        let files = app.files();
        let follower = tokio::spawn(files.clone().follow_users());
        let app = tokio::spawn(app.run(told(stopped)));
        Ok(Self {
            loaded,
            layout,
            addresses,
            control,
            clock,
            broker,
            revocations,
            tls,
            pki,
            phase,
            stop,
            files,
            follower,
            app,
            socket,
            close_admin,
            admin,
            certificates,
            key_life,
            _folder: folder,
        })
    }

    /// Where it listens, with the ports the system chose.
    #[must_use]
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What the command line may ask of it, without the way over the socket.
    #[must_use]
    pub fn control(&self) -> Arc<dyn Control> {
        self.control.clone()
    }

    /// Reads configuration and certificates again. What cannot be used changes nothing.
    pub fn reload(&mut self, sources: &Sources) {
        let seen = Seen::now(&self.loaded.config.pki);
        let (Reloaded { loaded, tls, pki, applied, restart }, left) =
            match sources.reload(&self.loaded, &self.layout, self.clock.unix_now()) {
                Ok(mut reloaded) => {
                    let left = reloaded.leave(&self.files.reload(&reloaded.loaded.config), &self.loaded);
                    (reloaded, left)
                }
                Err(error) => {
                    tracing::error!(%error, "not reloaded; the node goes on as it was");
                    return;
                }
            };
        self.tls.renew(tls);
        self.broker.revoke(tls::revoked(&pki.revoked));
        self.revocations.have_read(seen);
        self.revocations.warn_of_age(&pki.revoked, self.clock.unix_now());
        self.pki.store(Arc::new(pki));
        self.loaded = loaded;
        tracing::info!("configuration and certificates are read again");
        for key in applied {
            tracing::info!(key, "its new value takes effect now");
        }
        for key in left {
            tracing::error!(
                key,
                "its new value does not take effect, for what it names cannot be used; SIGHUP tries again"
            );
        }
        for key in restart {
            tracing::warn!(key, "its new value takes effect at the next start");
        }
    }

    /// Makes the node's certificate anew where the node has made it itself and it ends soon, or has ended because the
    /// clock was set. Connections go on; the next are shown the new one.
    ///
    /// Whether the time of day is doubted is not asked. A doubt holds back what cannot be undone, and this can: one
    /// made under a wrong clock is made anew as soon as the clock is right, and between two settings of the clock it
    /// is made once. A node that waited for a day, where the clock was right only after the start, would be refused
    /// for that day by every device that comes back.
    pub fn look_at_certificate(&mut self) {
        let now = self.clock.unix_now();
        let seen = Seen::now(&self.loaded.config.pki);
        match renewed(&self.loaded, &self.pki.load(), &self.layout, now) {
            Ok(None) => {}
            Ok(Some((pki, tls))) => {
                self.tls.renew(tls);
                self.broker.revoke(tls::revoked(&pki.revoked));
                self.revocations.have_read(seen);
                self.pki.store(Arc::new(pki));
                tracing::info!("the node's certificate is made anew");
            }
            Err(error) => tracing::warn!(%error, "the node's certificate is not made anew; tried again soon"),
        }
    }

    /// How long until what is revoked is looked at again, and the node's certificate.
    #[must_use]
    pub fn revocation_look(&self) -> Duration {
        Duration::from_secs(self.loaded.config.pki.crl_interval_s.get().into())
    }

    /// Reads what is revoked again where its file has changed. What cannot be used changes nothing.
    pub fn look_at_revocations(&mut self) {
        let config = &self.loaded.config.pki;
        let Some(seen) = self.revocations.changed(config) else { return };
        match self.pki.load().read_revoked(config) {
            Ok(lists) => {
                let revoked = tls::revoked(&lists);
                tracing::info!(certificates = revoked.len(), "the lists of what is revoked are read again");
                self.broker.revoke(revoked);
                self.revocations.have_read(Some(seen));
                self.revocations.warn_of_age(&lists, self.clock.unix_now());
            }
            Err(error) => {
                tracing::error!(%error, "not read again, and tried again soon; what was revoked before is so still")
            }
        }
    }

    /// Ends it in the direction of the data: what is acknowledged is durable once this returns.
    pub async fn stop(self) {
        self.phase.send_replace(Phase::Draining);
        self.stop.send_replace(true);
        self.follower.abort();
        self.certificates.abort();
        self.key_life.abort();
        for (part, task) in [("the control socket", self.socket), ("the node", self.app)] {
            if let Err(error) = task.await {
                tracing::error!(%error, "{part} did not end as it should");
            }
        }
        // Until the end it says why the node is not ready.
        self.close_admin.send_replace(true);
        let _ = self.admin.await;
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Says what a power cut takes, where the operator has chosen speed.
fn warn_of_durability(store: &unhidra_store::Config) {
    let loses = match store.durability {
        Durability::Fsync => return,
        Durability::Interval => format!("the last {} ms of", store.sync_interval_ms),
        Durability::None => "up to half a minute, and more on some systems, of".to_owned(),
    };
    let durability = store.durability.name();
    tracing::warn!(
        durability,
        "a power cut loses {loses} what was acknowledged; store.durability = \"fsync\" loses nothing"
    );
}

/// Says that the lock hangs beside its key, where somebody has put the key into the folder that it seals.
fn warn_of_key(config: &Config) {
    let real = |path: &Path| path.canonicalize().ok();
    let key = config.store.master_key_path(&config.data).and_then(|path| real(&path));
    if let (Some(key), Some(data)) = (key, real(&config.data))
        && key.starts_with(&data)
    {
        tracing::warn!(
            path = %key.display(),
            "the store's master key lies in the data folder: whoever takes the folder has both; \
             store.master_key_file names another place (backups are without the key wherever it lies)"
        );
    }
}

/// Lets the process hold as many files as it may: a connection is one, and the usual bound of 1 024
/// is far below what the configuration takes. Where the system refuses, the usual bound stays.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the bound on open files could not be raised");
    }
}

async fn told(mut stop: watch::Receiver<bool>) {
    // An error says that nobody is left to tell us.
    let _ = stop.wait_for(|stop| *stop).await;
}

fn metrics(app: &App, store: &Embedded) -> (Vec<Arc<Metrics>>, certificates::Metrics, life::Metrics) {
    let mut others = Metrics::with_prefix("unhidra");
    store.metrics().register(&mut others);
    let of_certificates = certificates::Metrics::register(&mut others);
    let of_keys = life::Metrics::register(&mut others);
    (vec![app.metrics(), Arc::new(others)], of_certificates, of_keys)
}

/// What the listeners offer in TLS; renewed by a reload.
struct Served {
    mqtt: Arc<ArcSwap<TlsOffer>>,
    websocket: Arc<ArcSwap<TlsOffer>>,
}

impl Served {
    fn new(offers: tls::Offers) -> Self {
        let tls::Offers { mqtt, websocket } = offers;
        Self { mqtt: Arc::new(ArcSwap::from_pointee(mqtt)), websocket: Arc::new(ArcSwap::from_pointee(websocket)) }
    }

    fn renew(&self, offers: tls::Offers) {
        self.mqtt.store(Arc::new(offers.mqtt));
        self.websocket.store(Arc::new(offers.websocket));
    }
}

/// Everything that listens on a port.
struct Listeners {
    mqtt: Vec<Box<dyn Listener>>,
    gateway: TcpListener,
    admin: TcpListener,
    addresses: Addresses,
}

impl Listeners {
    async fn bind(config: &Config, tls: &Served, gate: &Arc<Gate>) -> Result<Self, CliError> {
        let mut mqtt: Vec<Box<dyn Listener>> = Vec::new();
        let mut addresses = Addresses::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = HandshakeThreads::start(gate, cores)
            .map_err(|error| CliError::Failed(format!("the threads cannot be started: {error}")))?;
        let broker = &config.broker;
        for (key, listener, layers) in [
            ("broker.tls.listen", &broker.tls, Layers::new("tls", &broker.tls, Some(tls.mqtt.clone()))),
            ("broker.tcp.listen", &broker.tcp, Layers::new("tcp", &broker.tcp, None)),
            ("broker.ws.listen", &broker.ws, Layers::new("ws", &broker.ws, None).with_websocket(&broker.ws)),
            (
                "broker.wss.listen",
                &broker.wss,
                Layers::new("wss", &broker.wss, Some(tls.websocket.clone())).with_websocket(&broker.wss),
            ),
        ] {
            for address in listener.listen.addresses() {
                let refused = refused(key, *address);
                let bound = PortListener::bind(*address, layers.clone(), &threads, gate).map_err(&refused)?;
                let address = bound.local_addr().map_err(&refused)?;
                addresses.mqtt_listeners.push(ListenerAddress { name: layers.entrance.name.to_owned(), address });
                mqtt.push(Box::new(bound));
            }
        }
        addresses.mqtt = addresses.first("tls");
        addresses.mqtt_plain = addresses.first("tcp");
        addresses.mqtt_ws = addresses.first("ws");
        addresses.mqtt_wss = addresses.first("wss");
        let gateway = plain("gateway.listen", config.gateway.listen, &mut addresses.gateway).await?;
        let admin = plain("admin.listen", config.admin.listen, &mut addresses.admin).await?;
        Ok(Self { mqtt, gateway, admin, addresses })
    }
}

async fn plain(
    key: &'static str,
    address: SocketAddr,
    bound_at: &mut Option<SocketAddr>,
) -> Result<TcpListener, CliError> {
    let refused = refused(key, address);
    let bound = TcpListener::bind(address).await.map_err(&refused)?;
    *bound_at = Some(bound.local_addr().map_err(&refused)?);
    Ok(bound)
}

fn refused(key: &'static str, address: SocketAddr) -> impl Fn(std::io::Error) -> CliError {
    move |source| CliError::Listen { key, address, source }
}

#[cfg(test)]
mod tests;
