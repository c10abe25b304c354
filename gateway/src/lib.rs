//! Subscriptions, history and commands for clients over WebSocket; the console page.
//!
//! ```text
//!  store's writer --committed--> intake --> dispatcher --> hub --> outbox --> websocket
//!                                   |                        ^        |
//!                                   +-- gap: Store::log      |        +-- behind: Store::log, history
//!                                                            |
//!  pump ---- presence, command_changed ----------------------+
//! ```
//!
//! Nothing here waits for a client, and no client waits for another. What does not fit a bound is
//! read back from the store, which has it by then. `gateway/PROTOCOL.md` says what travels.

mod auth;
mod client;
mod config;
mod console;
mod cursor;
mod doors;
mod error;
mod frame;
mod gap;
mod hub;
mod intake;
mod metrics;
mod net;
mod outbox;
mod registered;
mod subscription;
#[cfg(test)]
mod testing;
mod told;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use unhidra_core::command::Command;
use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::message::Reading;
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;

pub use auth::{Authority, Entropy, Listed, Rights, Session, TokenName, TokenNameError, Tokens, Use, Visible};
pub use config::Config;
pub use doors::{Cancel, Commands, Doors, NewCommand, NewSetting};
pub use error::{CommandRefused, TokenRefused};

use crate::cursor::Cursors;
use crate::hub::Hub;
use crate::intake::Intake;
use crate::metrics::Metrics;
use crate::registered::Presence;

/// The gateway of one node.
///
/// Its tasks live as long as it does: dropping the last handle ends every connection.
pub struct Gateway {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

/// What the gateway's tasks share. They never hold the [`Gateway`] itself, which ends them.
struct Shared {
    config: Config,
    doors: Doors,
    hub: Hub,
    intakes: Vec<Mutex<Intake>>,
    bell: Notify,
    metrics: Metrics,
    clients: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    draining: watch::Sender<bool>,
    gone: Notify,
}

type Tasks = Mutex<JoinSet<()>>;

/// Places for so many. A semaphore has a bound of its own, which nobody comes near.
fn places(count: usize) -> Semaphore {
    Semaphore::new(count.min(Semaphore::MAX_PERMITS))
}

impl Gateway {
    /// Builds the gateway and starts its dispatcher.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    #[must_use]
    pub fn new(config: Config, doors: Doors, registry: &mut Registry) -> Arc<Self> {
        let metrics = Metrics::default();
        metrics.register(registry);
        let partitions = doors.store.partitions();
        let newest: Vec<Offset> = (0..partitions).map(|n| *doors.store.committed(Partition::new(n)).borrow()).collect();
        let intake = |at: &Offset| Mutex::new(Intake::new(*at, config.intake_readings, config.intake_bytes));
        let cursors = Cursors::new(&doors.cursor_key, doors.store.epoch(), partitions);
        let shared = Arc::new(Shared {
            intakes: newest.iter().map(intake).collect(),
            hub: Hub::new(cursors, newest.into_iter().collect(), config.presence_max, metrics.clone()),
            bell: Notify::new(),
            metrics,
            clients: Arc::new(places(config.clients_max)),
            connections: Arc::new(places(config.connections_max)),
            draining: watch::Sender::new(false),
            gone: Notify::new(),
            config,
            doors,
        });
        let tasks = Arc::new(Mutex::new(JoinSet::new()));
        spawn(&tasks, net::dispatch::run(shared.clone()));
        Arc::new(Self { shared, tasks })
    }

    /// Takes readings the store has committed: those of a partition in the order of their offsets.
    ///
    /// Never waits. What does not fit is read back from the store.
    pub fn committed(&self, readings: Vec<Arc<Reading>>) {
        self.shared.metrics.readings_committed.inc_by(u64::try_from(readings.len()).unwrap_or(u64::MAX));
        let mut readings = readings.into_iter().peekable();
        while let Some(first) = readings.next() {
            let partition = first.partition;
            let Some(intake) = self.shared.intakes.get(usize::from(partition.get())) else { continue };
            let mut intake = intake.lock().unwrap_or_else(PoisonError::into_inner);
            let mut gaps = u64::from(intake.offer(first));
            while let Some(next) = readings.next_if(|reading| reading.partition == partition) {
                gaps += u64::from(intake.offer(next));
            }
            self.shared.metrics.intake_gaps.inc_by(gaps);
        }
        self.shared.bell.notify_one();
    }

    /// Tells clients that a device came or went at `since`.
    pub fn presence(&self, device: DeviceId, online: bool, since: UnixTime) {
        self.shared.hub.presence(device, Presence { online, since });
    }

    /// Whether clients are told that a device is here. At most `presence_max` devices are remembered.
    #[must_use]
    pub fn is_online(&self, device: &DeviceId) -> bool {
        self.shared.hub.presence_of(device).is_some_and(|presence| presence.online)
    }

    /// Tells clients what became of a command.
    pub fn command_changed(&self, command: &Command) {
        self.shared.hub.command_changed(command);
    }

    /// Tells clients that a setting is wanted, or known to its device.
    pub fn setting_changed(&self, setting: &Setting) {
        self.shared.hub.setting_changed(setting);
    }

    /// Ends the connections of those who came in by a token of this name. Says how many. Revoke the token
    /// first.
    pub fn end(&self, token: &TokenName) -> usize {
        self.shared.hub.end(token)
    }

    /// The routes: the console, `/v1/session` and `/v1/ws`.
    pub fn router(self: &Arc<Self>) -> Router {
        net::http::router(self.shared.clone(), &self.tasks)
    }

    /// Serves the connections of a listener until `shutdown` completes, then those that are open
    /// to the end of their present request. WebSocket clients are [`drain`](Self::drain)'s.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        net::serve::listen(&self.shared, &self.router(), listener, shutdown).await;
    }

    /// Serves one connection until it ends or has become a WebSocket.
    pub async fn serve_stream<S>(self: Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        net::serve::stream(self.shared.clone(), self.router(), stream).await;
    }

    /// Asks every client to come back after a random while and waits until they are gone, or
    /// `drain_s` have passed. New clients are turned away from now on.
    pub async fn drain(&self) {
        net::serve::drain(&self.shared).await;
    }
}

/// Runs a task for as long as the gateway lives.
fn spawn(tasks: &Tasks, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
    while tasks.try_join_next().is_some() {}
    tasks.spawn(task);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_a_semaphore_can_count() {
        assert_eq!(places(3).available_permits(), 3);
        assert_eq!(places(usize::MAX).available_permits(), Semaphore::MAX_PERMITS);
    }
}
