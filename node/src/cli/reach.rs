//! How a subcommand reaches a data folder: through the node that runs on it, or by opening it.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rand_core::CryptoRng;
use tokio::time::Instant;
use unhidra_core::ids::CommandId;
use unhidra_core::time::Clock;
use unhidra_store::{Embedded, Store};

use super::CliError;
use super::open::Opened;
use super::turn::{Turn, Wait};
use crate::backup::{self, Source};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::control::{CommandLimits, Control, LocalControl, LocalDoors, NodeFacts, RemoteControl, connect};
use crate::folder::{Folder, FolderError, Layout, Role};
use crate::keychain::Keychain;
use crate::registry::{Registry, Rules};

/// How often a subcommand looks again whether the folder is free.
const POLL: Duration = Duration::from_millis(50);

/// Whether a folder that is not there may be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Missing {
    Make,
    Refuse,
}

/// A data folder within reach.
pub(super) enum Reached {
    /// A node runs on it.
    Running { control: RemoteControl, socket: PathBuf },
    /// None does.
    Alone(Box<Alone>),
}

/// A data folder in the hands of a subcommand.
pub(super) struct Alone {
    control: LocalControl,
    store: Arc<Embedded>,
    _folder: Folder,
}

impl Reached {
    pub(super) fn control(&self) -> &dyn Control {
        match self {
            Self::Running { control, .. } => control,
            Self::Alone(alone) => &alone.control,
        }
    }

    /// Lets go of the folder, once what was written is durable.
    pub(super) async fn close(self) {
        if let Self::Alone(alone) = self {
            alone.store.close().await;
        }
    }
}

/// Reaches the folder of a configuration.
///
/// A socket on which nobody listens belongs to a node that is gone, if the lock is free.
pub(super) async fn reach(
    config: &Config,
    missing: Missing,
    rng: impl CryptoRng + Send + 'static,
) -> Result<Reached, CliError> {
    let layout = Layout::at(&config.data)?;
    let folder = match find(&layout, missing).await? {
        Found::Running => {
            let socket = layout.control_socket();
            return Ok(Reached::Running { control: RemoteControl::new(&socket), socket });
        }
        Found::Free(folder) => folder,
    };
    alone(folder, config, rng).await.map(|alone| Reached::Alone(Box::new(alone)))
}

/// Takes the folder of a configuration on which no node runs, for what only a stopped node's folder
/// allows.
pub(super) async fn take_stopped(config: &Config) -> Result<Folder, CliError> {
    let layout = Layout::at(&config.data)?;
    match find(&layout, Missing::Refuse).await? {
        Found::Free(folder) => Ok(folder),
        Found::Running => {
            Err(CliError::Failed(format!("a node runs on the data folder {}; stop it first", layout.root().display())))
        }
    }
}

enum Found {
    Running,
    Free(Folder),
}

async fn find(layout: &Layout, missing: Missing) -> Result<Found, CliError> {
    let socket = layout.control_socket();
    let began = Instant::now();
    let mut turn = Turn::default();
    loop {
        match connect(&socket).await {
            Ok(_) => return Ok(Found::Running),
            Err(error) if is_nobody(&error) => {}
            Err(source) => return Err(CliError::File { path: socket, source }),
        }
        let folder = match missing {
            Missing::Make => Folder::open_any(layout.root(), Role::Command),
            Missing::Refuse => Folder::open_existing(layout.root(), Role::Command),
        };
        match folder {
            Ok(folder) => {
                remove_stale(&socket)?;
                return Ok(Found::Free(folder));
            }
            Err(FolderError::Held { path, holder }) => {
                let wait = turn.held_by(holder, began.elapsed());
                let held = FolderError::Held { path, holder };
                match wait {
                    Wait::On => {}
                    Wait::Say => eprintln!("{held}; waiting for it"),
                    Wait::End => {
                        let text = format!("{held}, and does not answer on {}", socket.display());
                        return Err(CliError::Failed(text));
                    }
                }
                tokio::time::sleep(POLL).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether an error says that nobody listens.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Removes the socket of a process that is gone. The caller holds the lock.
fn remove_stale(socket: &PathBuf) -> Result<(), CliError> {
    match std::fs::remove_file(socket) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CliError::File { path: socket.clone(), source }),
        _ => Ok(()),
    }
}

async fn alone(folder: Folder, config: &Config, mut rng: impl CryptoRng + Send + 'static) -> Result<Alone, CliError> {
    let clock = Arc::new(SystemClock::start());
    let Opened { folder, store, pki, identity } = Opened::open(folder, config, &mut rng, clock.unix_now()).await?;
    let facts = facts(config, *identity.public().as_bytes());
    let rules = rules(config);
    let registry = Registry::load(store.clone(), clock.clone(), rules).await?;
    let keys = Arc::new(Keychain::new(store.clone(), &config.store, folder.layout().root(), clock.clone()));
    let doors = LocalDoors {
        store: store.clone(),
        registry,
        pki: Arc::new(ArcSwap::from_pointee(pki)),
        clock: clock.clone(),
        command_ids: command_ids(rng),
        disk_bytes_max: config.retention.disk_bytes_max,
        backups: Some(Source::new(store.clone(), folder.layout().clone(), backup::secrets(config))),
        live: None,
        keys: Some(keys),
    };
    let control = LocalControl::new(doors, facts, limits(config));
    Ok(Alone { control, store, _folder: folder })
}

/// What a device must be told of the node with this configuration.
pub(crate) fn facts(config: &Config, identity_key: [u8; 32]) -> NodeFacts {
    NodeFacts {
        trust_domain: config.pki.trust_domain.clone(),
        device_validity: config.pki.device_validity(),
        identity_key,
        prefix: config.broker.prefix.as_str().to_owned(),
        durability: config.store.durability,
        server: config.broker.tls.listen.addresses().iter().find(|address| address.port() != 0).copied(),
    }
}

/// What the registry holds connections to.
pub(crate) fn rules(config: &Config) -> Rules {
    Rules { trust_domain: config.pki.trust_domain.as_str().to_owned() }
}

/// What a command may be.
pub(crate) fn limits(config: &Config) -> CommandLimits {
    CommandLimits {
        open_max: config.bridge.commands_open_max,
        body_max: config.bridge.command_body_max,
        expiry: Duration::from_secs(config.gateway.command_expires_s),
    }
}

/// Random ids.
pub(crate) fn command_ids(rng: impl CryptoRng + Send + 'static) -> Box<dyn Fn() -> CommandId + Send + Sync> {
    let rng = Mutex::new(rng);
    Box::new(move || {
        let mut id = [0; 16];
        rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut id);
        CommandId::new(id)
    })
}
