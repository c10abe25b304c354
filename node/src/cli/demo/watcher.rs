//! The client's ledger: a WebSocket client like anybody's, that enters what it receives.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use unhidra_core::time::Clock;

use super::ledger::{Key, Ledger};
use crate::cli::CliError;
use crate::cli::client::{Client, Frame, NodeUrl, unexpected};
use crate::clock::SystemClock;
use crate::control::RowKind;

/// What a watcher has entered so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The client's ledger.
    pub(super) ledger: Ledger,
    /// When each reading arrived first, in ms since the Unix epoch.
    pub(super) arrived_at: BTreeMap<Key, u64>,
}

/// A client that watches all devices, from the moment it was made.
pub(super) struct Watcher {
    seen: Arc<Mutex<Seen>>,
    more: Arc<Notify>,
    task: JoinHandle<Result<(), CliError>>,
}

impl Watcher {
    /// Connects, and returns once it is subscribed: what is published from now on it must see.
    pub(super) async fn begin(gateway: &NodeUrl, token: &str, clock: SystemClock) -> Result<Self, CliError> {
        let mut client = Client::over_tcp(gateway, token).await?;
        client.say(&json!({ "type": "subscribe", "device": "*" })).await?;
        match client.next().await? {
            Frame::Subscribed { .. } => {}
            other => return Err(unexpected(&other)),
        }
        let (seen, more) = (Arc::<Mutex<Seen>>::default(), Arc::<Notify>::default());
        let task = tokio::spawn(watch(client, clock, seen.clone(), more.clone()));
        Ok(Self { seen, more, task })
    }

    /// How many readings it has received.
    pub(super) fn received(&self) -> u64 {
        lock(&self.seen).ledger.len()
    }

    /// Completes once it has received `count` readings, or its connection has ended.
    pub(super) async fn caught_up(&self, count: u64) {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            if self.received() >= count || self.task.is_finished() {
                return;
            }
            more.await;
        }
    }

    /// Ends it, and gives what it has entered; an error where its connection had ended by itself.
    pub(super) async fn end(self) -> Result<Seen, CliError> {
        if self.task.is_finished() {
            self.task.await.map_err(|error| CliError::Failed(error.to_string()))??;
        } else {
            self.task.abort();
            // Aborted: that is what it says.
            let _ = self.task.await;
        }
        Ok(std::mem::take(&mut *lock(&self.seen)))
    }
}

async fn watch(
    mut client: Client,
    clock: SystemClock,
    seen: Arc<Mutex<Seen>>,
    more: Arc<Notify>,
) -> Result<(), CliError> {
    let ended = loop {
        match client.next().await {
            Ok(Frame::Readings { readings, .. }) => {
                let now = clock.unix_now().as_ms();
                let mut seen = lock(&seen);
                for row in readings.iter().filter(|row| row.kind == RowKind::Reading) {
                    let body = row.body.as_ref().map(|body| body.as_bytes()).unwrap_or_default();
                    if let Some(key) = Key::of(row.device.as_str(), body) {
                        seen.arrived_at.entry(key.clone()).or_insert(now);
                        seen.ledger.enter(key);
                    }
                }
            }
            Ok(_) => {}
            Err(error) => break error,
        }
        more.notify_waiters();
    };
    more.notify_waiters();
    Err(ended)
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Nothing panics while it holds the lock.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
