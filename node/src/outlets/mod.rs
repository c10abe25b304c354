//! Readings out, in the clear: to the clients of this node's broker, to another broker, to a webhook.
//!
//! ```text
//!            the log of each partition
//!                     | behind the cursor, a page at a time
//!                     v
//!   Filter -------> Window -- Courier: what, when --> Local | Remote | Webhook
//!                     |                                        |
//!   cursor (store) <--+------------- taken, refused, failed ---+
//! ```
//!
//! Each outlet has a task, a cursor in every partition and a bound in memory of its own: one that
//! stands still holds nothing up, and loses nothing that is in the log. A row is sent again after a
//! crash, under the same id; the rows of a device come in order.

mod config;
mod courier;
mod cursor;
mod fault;
mod filter;
mod local;
mod plain;
mod record;
mod remote;
mod runner;
mod signature;
mod status;
mod template;
#[cfg(test)]
mod testing;
mod webhook;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry as MetricsRegistry;
use rand::SeedableRng;
use rand::rngs::StdRng;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;
use unhidra_broker::Broker;
use unhidra_certs::FileError;
use unhidra_core::ids::{Epoch, Offset, Partition};
use unhidra_core::time::Clock;
use unhidra_store::Store;

use config::Address;
pub use config::{Beginning, Config, Fault, Format, Kind, RowKind, ServerUrl};
use courier::{Courier, Terms};
pub(crate) use cursor::check as check_cursor;
use filter::Filter;
use local::Local;
use remote::{Credentials, Remote};
use runner::{Runner, Sink};
pub use signature::SecretError;
use signature::Signer;
pub use status::OutletRecord;
use status::{Metrics, Status};
use template::Template;
use webhook::Webhook;

use crate::control::ControlError;
pub use crate::dial::DialError;
use crate::dial::{Dialer, Trust, password};
use crate::outside::Pace;
use crate::registry::Registry;

/// Why an outlet cannot be made.
#[derive(Debug, Error)]
#[error("outlets.{name}: {cause}")]
pub struct OutletError {
    /// Which.
    pub name: String,
    /// Why.
    pub cause: OutletCause,
}

/// What stands in the way of an outlet.
#[derive(Debug, Error)]
pub enum OutletCause {
    /// Its table.
    #[error("{}: {}", .0.key, .0.cause)]
    Config(Fault),
    /// What it is to sign with.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// How it is to get there.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The file of its password.
    #[error(transparent)]
    Password(#[from] FileError),
}

impl From<Fault> for OutletCause {
    fn from(fault: Fault) -> Self {
        Self::Config(fault)
    }
}

/// What outlets work with.
pub(crate) struct Doors {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) broker: Arc<Broker>,
    pub(crate) clock: Arc<dyn Clock + Send + Sync>,
    pub(crate) rng: StdRng,
    /// What the topics of local readings begin with.
    pub(crate) prefix: String,
}

/// Every outlet that is on.
pub(crate) struct Outlets {
    runners: Vec<Runner>,
    statuses: Arc<[Arc<Status>]>,
    clock: Arc<dyn Clock + Send + Sync>,
}

impl fmt::Debug for Outlets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlets").field("running", &self.runners.len()).finish_non_exhaustive()
    }
}

impl Outlets {
    /// Makes the outlets that are on, and reads the files they name. None of them runs yet.
    pub(crate) fn new<'c>(
        configs: impl IntoIterator<Item = (&'c String, &'c Config)>,
        mut doors: Doors,
        metrics: &mut MetricsRegistry,
    ) -> Result<Self, OutletError> {
        let metrics = Metrics::register(metrics);
        let mut runners = Vec::new();
        let mut retains = false;
        for (name, config) in configs {
            retains |= config.kind == Kind::Local && config.retain;
            if config.kind == Kind::Off {
                continue;
            }
            let status = Status::new(name, config.kind, config.target(&doors.prefix), metrics.clone());
            let runner = runner(name, config, status, &mut doors);
            runners.push(runner.map_err(|cause| OutletError { name: name.clone(), cause })?);
        }
        if !retains {
            doors.broker.forget_readings();
        }
        let statuses = runners.iter().map(|runner| runner.status.clone()).collect();
        Ok(Self { runners, statuses, clock: doors.clock })
    }

    /// Who tells how they stand.
    pub(crate) fn watch(&self) -> Watch {
        Watch { statuses: self.statuses.clone(), clock: self.clock.clone() }
    }

    /// Starts them. Each ends, its cursor written down, when `stop` says so.
    pub(crate) fn start(self, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut running = JoinSet::new();
        for runner in self.runners {
            let status = &runner.status;
            tracing::warn!(
                outlet = status.name,
                kind = status.kind().as_str(),
                target = status.target(),
                "readings leave this node IN THE CLEAR by this outlet"
            );
            running.spawn(runner.run(stop.clone()));
        }
        running
    }
}

/// Tells how outlets stand.
#[derive(Clone)]
pub(crate) struct Watch {
    statuses: Arc<[Arc<Status>]>,
    clock: Arc<dyn Clock + Send + Sync>,
}

impl Watch {
    pub(crate) fn records(&self) -> Vec<OutletRecord> {
        let now = self.clock.unix_now();
        self.statuses.iter().map(|status| status.record(now)).collect()
    }
}

fn runner(name: &str, config: &Config, status: Status, doors: &mut Doors) -> Result<Runner, OutletCause> {
    let epoch = doors.store.epoch();
    let linger = if config.kind == Kind::Webhook { config.linger_ms } else { 0 };
    let terms = Terms {
        rows_max: config.batch_rows,
        bytes_max: config.batch_bytes,
        linger: Duration::from_millis(linger),
        refusals_max: config.refusals_max,
        left_behind_max: config.left_behind_max,
        proofs: courier::PROOFS,
    };
    Ok(Runner {
        status: Arc::new(status),
        sink: sink(name, config, epoch, doors)?,
        filter: Filter::new(config),
        courier: Courier::new(terms, Pace::new(config.breaker(), config.backoff())),
        window: (config.batch_rows, config.batch_bytes),
        beginning: config.from,
        store: doors.store.clone(),
        registry: doors.registry.clone(),
        clock: doors.clock.clone(),
        rng: StdRng::from_rng(&mut doors.rng),
    })
}

fn sink(name: &str, config: &Config, epoch: Epoch, doors: &Doors) -> Result<Sink, OutletCause> {
    match config.kind {
        Kind::Off | Kind::Local => Ok(Sink::Local(Local::new(config, doors.broker.clone(), epoch))),
        Kind::Mqtt => {
            let address = config.server()?;
            let template =
                Template::parse(&config.topic).map_err(|error| Fault { key: "topic", cause: error.to_string() })?;
            let credentials = Credentials {
                client_id: config.identifier(name),
                user: config.user.clone(),
                password: password(&config.password_file)?.unwrap_or_default(),
            };
            let dialer = dialer(config, &address)?;
            Ok(Sink::Remote(Box::new(Remote::new(config, dialer, &address, template, credentials, epoch))))
        }
        Kind::Webhook => {
            let address = config.server()?;
            let dialer = dialer(config, &address)?;
            let shown = address.shown("");
            let host = shown.trim_start_matches("://").to_owned();
            let signer = Signer::load(&config.secret_file)?;
            let place = (host, address.path);
            Ok(Sink::Webhook(Box::new(Webhook::new(config, dialer, place, signer, epoch, doors.clock.clone()))))
        }
    }
}

fn dialer(config: &Config, address: &Address) -> Result<Dialer, DialError> {
    let alpn = if config.kind == Kind::Webhook { &b"http/1.1"[..] } else { b"mqtt" };
    let (ca, certificate, key) = (&config.ca, &config.certificate, &config.key);
    let trust = Trust { ca, certificate, key, alpn: Some(alpn), versions: rustls::DEFAULT_VERSIONS };
    // Those of HTTP; MQTT's is always named.
    let port = address.port.unwrap_or(if address.tls { 443 } else { 80 });
    Dialer::new(&address.host, port, address.tls.then_some(trust))
}

/// The outlets of a store on which no node runs, as their cursors tell.
pub(crate) async fn stopped(store: &dyn Store) -> Result<Vec<OutletRecord>, ControlError> {
    let found = cursor::load_all(store).await.map_err(|error| ControlError::Unavailable(error.to_string()))?;
    let mut records: Vec<OutletRecord> = Vec::new();
    for (name, partition, cursor) in found {
        let lag = behind(store, partition, cursor);
        match records.iter_mut().find(|record| record.name == name) {
            Some(record) => record.lag_rows += lag,
            None => records.push(OutletRecord {
                name,
                kind: String::new(),
                target: String::new(),
                state: "stopped".to_owned(),
                lag_rows: lag,
                lag_ms: 0,
                delivered: 0,
                unread: 0,
                left_behind: 0,
                missing: 0,
                damaged: 0,
                failures: 0,
                last_error: None,
                last_error_at: None,
            }),
        }
    }
    Ok(records)
}

fn behind(store: &dyn Store, partition: Partition, cursor: Offset) -> u64 {
    let end = *store.committed(partition).borrow();
    end.get().saturating_sub(cursor.get())
}
