//! The store's keys in the hands of an operator, and their life.
//!
//! `unhidra keys status | rotate | rewrap` come here, through a running node or without one;
//! [`life`] is what happens of itself.
//!
//! A change of the master key, where it is in a file:
//!
//! ```text
//! ring for old and new -> new key in the place of the old -> ring for the new alone
//! ```
//!
//! Whenever power fails, the key in the file opens the ring. Where a secrets manager has the key it
//! is the operator who puts the new one in its place, between the first step and the last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use unhidra_core::ids::Partition;
use unhidra_core::time::{Clock, UnixTime};
use unhidra_store::{
    Act, Deed, Embedded, KeyState, Keyring, KeyringError, LocalMaster, MasterKey, Op, Purpose, RingRecord, keyfile,
};

use crate::actor;
use crate::commit::commit;
use crate::control::{ControlError, KeyRecord, KeysStatus, RewrapAsked, Rewrapped};
use crate::master::Source;

pub(crate) mod life;

/// The partition whose log has what was done to the keys.
const PARTITION: Partition = Partition::new(0);

/// How long a data key seals, and how long it is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ages {
    /// From this age on another one seals.
    pub(crate) rotation: Duration,
    /// At this age it is destroyed, once nothing is left under it.
    pub(crate) expiry: Duration,
}

impl Ages {
    pub(crate) fn of(config: &unhidra_store::Config) -> Self {
        let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        Self { rotation: days(config.key_rotation_days), expiry: days(config.key_expiry_days) }
    }
}

/// The keys of an open store.
pub struct Keychain {
    store: Arc<Embedded>,
    source: Source,
    ages: Ages,
    clock: Arc<dyn Clock + Send + Sync>,
    /// One change of the master key at a time: of two that mix, the ring would be left with one's key and the
    /// file with the other's.
    rewrapping: Mutex<()>,
}

impl Keychain {
    /// The keys of `store`, whose master key comes from where `config` says.
    #[must_use]
    pub fn new(
        store: Arc<Embedded>,
        config: &unhidra_store::Config,
        data: &Path,
        clock: Arc<dyn Clock + Send + Sync>,
    ) -> Self {
        let (source, ages) = (Source::of(config, data), Ages::of(config));
        Self { store, source, ages, clock, rewrapping: Mutex::default() }
    }

    /// What keys there are, and how old.
    pub(crate) fn status(&self) -> Result<KeysStatus, ControlError> {
        let record = self.keyring()?.record();
        let now = self.clock.unix_now();
        let keys = record.keys.iter().map(|key| shown(key, now, self.ages)).collect();
        let from = match &self.source {
            Source::File(path) => format!("file {}", path.display()),
            Source::Command { argv, .. } => format!("command {}", argv.first().map_or("", String::as_str)),
            Source::Environment(name) => format!("environment {name}"),
        };
        Ok(KeysStatus {
            generation: record.generation,
            master_key: record.master.to_string(),
            master_key_from: from,
            next_master_key: record.next_master.map(|next| next.to_string()),
            keys,
        })
    }

    /// Makes a new key for each purpose, which seals from now on.
    pub(crate) async fn rotate(&self) -> Result<KeysStatus, ControlError> {
        self.rotate_for(Purpose::SEALING.to_vec()).await?;
        self.status()
    }

    async fn rotate_for(&self, purposes: Vec<Purpose>) -> Result<(), ControlError> {
        let now = self.clock.unix_now();
        let names: Vec<&str> = purposes.iter().map(|purpose| purpose.as_str()).collect();
        let detail = format!("new keys for {}", names.join(", "));
        self.change(move |ring| ring.rotate(&purposes, now)).await?;
        tracing::info!(detail, "data keys rotated");
        self.write_down(Deed::RotateKeys, &detail).await
    }

    /// Wraps all keys under another master key. It goes on to its end also where nobody waits for it any more.
    pub(crate) async fn rewrap(self: &Arc<Self>, asked: RewrapAsked) -> Result<Rewrapped, ControlError> {
        let this = Arc::clone(self);
        let work = actor::by(actor::current(), async move {
            let _alone = this.rewrapping.lock().await;
            this.rewrap_alone(asked).await
        });
        tokio::spawn(work).await.map_err(unavailable)?
    }

    async fn rewrap_alone(&self, asked: RewrapAsked) -> Result<Rewrapped, ControlError> {
        let before = self.keyring()?.record();
        let rewrapped = match (&self.source, asked.new_key_file) {
            (Source::File(path), new) => self.rewrap_file(path, new).await?,
            (source @ (Source::Command { .. } | Source::Environment(_)), named) => {
                let (new, is_in_place) = match named {
                    Some(file) => (load(&file)?, false),
                    None => (source.read().await.map_err(unavailable)?, true),
                };
                self.rewrap_for(&before, Arc::new(new), is_in_place).await?
            }
        };
        let detail = format!("from master key {} to {}", before.master, rewrapped.master_key);
        tracing::info!(detail, done = rewrapped.done, "data keys wrapped anew");
        self.write_down(Deed::RewrapKeys, &detail).await?;
        Ok(rewrapped)
    }

    /// Where the operator puts the key into its place: done already, or to be done yet.
    async fn rewrap_for(
        &self,
        before: &RingRecord,
        new: Arc<LocalMaster>,
        is_in_place: bool,
    ) -> Result<Rewrapped, ControlError> {
        let done = |done| Rewrapped { master_key: new.id().to_string(), done, replaced: None };
        if new.id() == before.master && before.next_master.is_some() {
            // The key in use is named where another was to take its place: that is given up.
            self.change(Keyring::settle_rewrap).await?;
            return Ok(done(true));
        }
        if new.id() == before.master && is_in_place {
            return Err(ControlError::Invalid(
                "the place of the master key still gives the key that is in use; put the new one there first, \
                 or name it with --new-key-file, and put it there afterwards"
                    .to_owned(),
            ));
        }
        let (next, id) = (Arc::clone(&new), new.id());
        self.change(move |ring| ring.begin_rewrap(next)).await?;
        if is_in_place {
            self.change(move |ring| ring.end_rewrap(id)).await?;
        }
        Ok(done(is_in_place))
    }

    async fn rewrap_file(&self, path: &Path, new: Option<PathBuf>) -> Result<Rewrapped, ControlError> {
        let before = self.keyring()?.record();
        self.settle_file(path, &before).await?;
        let new = Arc::new(match new {
            Some(new) => load(&new)?,
            None => LocalMaster::draw().map_err(unavailable)?,
        });
        let (next, id) = (Arc::clone(&new), new.id());
        self.change(move |ring| ring.begin_rewrap(next)).await?;
        if let Err(error) = keyfile::save(path, &new) {
            // A folder nobody may write to, most likely. Unless the new key is there all the same,
            // the change is given up.
            if load(path).is_ok_and(|there| there.id() == before.master) {
                self.change(Keyring::settle_rewrap).await?;
            }
            return Err(unavailable(error));
        }
        self.change(move |ring| ring.end_rewrap(id)).await?;
        Ok(Rewrapped { master_key: new.id().to_string(), done: true, replaced: Some(path.display().to_string()) })
    }

    /// An earlier change may have failed behind its first step. Which key is in the file says
    /// whether it goes on or was never made: another change must not take away the one that opens.
    async fn settle_file(&self, path: &Path, before: &RingRecord) -> Result<(), ControlError> {
        let key = load(path)?;
        let there = key.id();
        if there == before.master {
            return Ok(());
        }
        if Some(there) == before.next_master {
            // Begun anew: a process that was started since knows no more of it than its name.
            self.change(move |ring| ring.begin_rewrap(Arc::new(key))).await?;
            return self.change(move |ring| ring.end_rewrap(there)).await;
        }
        Err(ControlError::Invalid(format!(
            "{} holds the master key {there}, and the keys are wrapped under {}; put that one back first",
            path.display(),
            before.master
        )))
    }

    fn keyring(&self) -> Result<&Arc<Keyring>, ControlError> {
        self.store.keyring().ok_or_else(plain)
    }

    async fn change(
        &self,
        change: impl FnOnce(&Keyring) -> Result<(), KeyringError> + Send + 'static,
    ) -> Result<(), ControlError> {
        let changed = self.store.change_keys(change).await.ok_or_else(plain)?;
        changed.map_err(|error| match error {
            KeyringError::SameMaster { .. } => ControlError::Invalid(error.to_string()),
            _ => ControlError::Unavailable(error.to_string()),
        })
    }

    /// Writes the act down, behind what was done: the ring is a file of its own, and no commit can
    /// hold both.
    async fn write_down(&self, deed: Deed, detail: &str) -> Result<(), ControlError> {
        let act = Act::new(self.clock.unix_now(), &actor::current(), deed, detail);
        commit(&*self.store, PARTITION, vec![Op::Act(act)]).await?;
        Ok(())
    }
}

fn plain() -> ControlError {
    ControlError::Invalid("this is a demo's data folder: what it stores is not encrypted, so it has no keys".to_owned())
}

fn unavailable(error: impl ToString) -> ControlError {
    ControlError::Unavailable(error.to_string())
}

fn load(path: &Path) -> Result<LocalMaster, ControlError> {
    keyfile::load(path).map_err(|error| ControlError::Invalid(error.to_string()))
}

fn shown(key: &unhidra_store::KeyRecord, now: UnixTime, ages: Ages) -> KeyRecord {
    let day = Duration::from_secs(86_400).as_secs_f64();
    let age = life::age(key.created_at, now, ages);
    let left = |limit: Duration| (limit.as_secs_f64() - age.as_secs_f64()) / day;
    let (active, rotated_at) = match key.state {
        KeyState::Active => (true, None),
        KeyState::Rotated { at } => (false, Some(at.as_ms())),
    };
    KeyRecord {
        id: key.id,
        purpose: key.purpose.as_str().to_owned(),
        state: if active { "active" } else { "rotated" }.to_owned(),
        created_at: key.created_at.as_ms(),
        rotated_at,
        age_days: age.as_secs_f64() / day,
        rotates_in_days: active.then(|| left(ages.rotation)),
        expires_in_days: left(ages.expiry),
    }
}
