//! The devices this node knows: all of them in memory, and the one way to change them.
//!
//! ```text
//! enroll | tag | revoke --> the owner task --Op::Device--> store
//!                                 |                          |
//!                                 +<-------- durable --------+
//!                                 +--> memory --> Hooks --> the caller
//! ```
//!
//! Changes go one after another through one task, which carries each to its end whether or not the
//! caller still waits: a client that hangs up in the middle of `revoke` must not leave a device
//! revoked on disk and welcome in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use unhidra_broker::{Admission, Admitted, BoxFuture, Denied, Entrance, Entrant, Identity, Introduction};
use unhidra_core::device::{Device, Fingerprint, Standing, Tag};
use unhidra_core::ids::DeviceId;
use unhidra_core::suite::Suite;
use unhidra_core::time::{Clock, UnixTime};
use unhidra_store::{CommitError, Page, ReadError, Store};

use crate::actor;

mod changes;

/// The most tags a device may carry.
pub const TAGS_MAX: usize = 32;

/// Changes that may wait for the owner task; a further caller waits for room.
const CHANGES_MAX: usize = 64;

/// Devices read from the store at a time when it is opened.
const LOAD_ROWS: usize = 1024;

/// Whether a device is heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Hears {
    /// It is enrolled.
    Now,
    /// Its record is being changed, or it is not known what became of a change: what it says is to come again.
    Later,
    /// It is not enrolled, or revoked.
    Never,
}

/// Who is told of changes, after they are durable and before the caller hears of them.
///
/// Called from the owner task: an implementation hands over, and does not wait.
pub trait Hooks: Send + Sync + 'static {
    /// A device is new, or comes with another certificate or identity key from now on: a
    /// connection it has under the old ones is to end, and so is a session the bridge holds under
    /// the old key.
    fn enrolled(&self, device: &Arc<Device>);

    /// A device may not come in any more: its connection is to end at once.
    fn revoked(&self, device: &DeviceId);

    /// A device is kept out for now, and nothing else of it has changed: its connection is to end at once.
    fn kept_out(&self, device: &DeviceId);
}

/// What the registry holds every connection to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rules {
    /// The trust domain of every certificate.
    pub trust_domain: String,
}

/// A device as it is to be enrolled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolment {
    /// Its name.
    pub id: DeviceId,
    /// Its long-term Ed25519 public key (IK).
    pub identity_key: [u8; 32],
    /// The certificate it will come in with.
    pub certificate: Fingerprint,
    /// When that certificate ends.
    pub certificate_expires: UnixTime,
    /// Its key agreement.
    pub suite: Suite,
    /// Labels.
    pub tags: BTreeSet<Tag>,
    /// Its hardware class; empty where it has none.
    pub class: String,
}

/// Whether an enrolment may take the place of another of the same name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replace {
    /// A name that is taken is refused.
    No,
    /// A name that is taken gets the new certificate and key, and is no longer revoked. It keeps
    /// its tags beside the new ones, and its class where the enrolment names none.
    Yes,
}

/// What became of a revocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Revocation {
    /// It is revoked from now on.
    Now(Arc<Device>),
    /// It was already.
    Before(Arc<Device>),
}

/// Why a change was not made.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum RegistryError {
    /// The registry does not hold the device.
    #[error("no device {0} is enrolled")]
    NoDevice(DeviceId),
    /// The name is taken.
    #[error("the device {0} is enrolled already")]
    Taken(DeviceId),
    /// It would carry too many tags.
    #[error("{id} would carry {found} tags; at most {TAGS_MAX} are allowed")]
    TooManyTags {
        /// Which device.
        id: DeviceId,
        /// How many it would carry.
        found: usize,
    },
    /// The store did not write.
    #[error("the registry was not written: {0}")]
    Commit(#[from] CommitError),
    /// The store did not read.
    #[error("the registry was not read: {0}")]
    Read(#[from] ReadError),
    /// Its sessions move with every commit, so that what is to end them finds others each time.
    #[error("{0} says so much that its sessions cannot be ended; first revoke it: unhidra device revoke {0}")]
    Busy(DeviceId),
    /// The change may be on the disk or not, and the store does not say which.
    #[error("whether {id} was changed is not known ({cause}); it is kept out until that is done again")]
    InDoubt {
        /// Which device.
        id: DeviceId,
        /// Why the store does not say.
        cause: Box<RegistryError>,
    },
    /// The store has stopped.
    #[error("the store has stopped: {0}")]
    Store(String),
    /// The node is on its way down.
    #[error("the registry is closed")]
    Closed,
}

/// The devices this node knows.
pub struct Registry {
    shared: Arc<Shared>,
    changes: mpsc::Sender<Request>,
}

struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock + Send + Sync>,
    rules: Rules,
    devices: RwLock<BTreeMap<DeviceId, Arc<Device>>>,
    /// Those whose record on the disk may be another than the one in memory. Nobody comes in as one of them:
    /// it may be revoked, or its keys another's, and the next start would find it so.
    in_doubt: RwLock<BTreeSet<DeviceId>>,
    /// Who does not come in for as long as its change lasts; changes go one after another.
    held: RwLock<Option<DeviceId>>,
    /// Not held: those who are told hold the registry.
    hooks: OnceLock<Weak<dyn Hooks>>,
}

struct Request {
    change: Change,
    /// In whose name.
    by: Arc<str>,
    answer: oneshot::Sender<Result<Changed, RegistryError>>,
}

enum Change {
    Enroll { enrolment: Enrolment, replace: Replace },
    Tag { id: DeviceId, add: BTreeSet<Tag>, remove: BTreeSet<Tag> },
    Revoke { id: DeviceId },
}

impl Change {
    fn device(&self) -> &DeviceId {
        match self {
            Self::Enroll { enrolment, .. } => &enrolment.id,
            Self::Tag { id, .. } | Self::Revoke { id } => id,
        }
    }
}

/// What a change came to.
enum Changed {
    Written(Arc<Device>),
    AlreadySo(Arc<Device>),
}

impl Changed {
    fn device(self) -> Arc<Device> {
        match self {
            Self::Written(device) | Self::AlreadySo(device) => device,
        }
    }
}

impl Registry {
    /// Reads every device from the store, and starts the task that owns the changes. It ends with
    /// the registry.
    ///
    /// # Errors
    ///
    /// [`ReadError`] where the store cannot be read.
    pub async fn load(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock + Send + Sync>,
        rules: Rules,
    ) -> Result<Arc<Self>, ReadError> {
        let mut devices = BTreeMap::new();
        let mut after = None;
        loop {
            let page = store.devices(after.as_ref(), LOAD_ROWS).await?;
            after = page.rows.last().map(|device| device.id);
            devices.extend(page.rows.into_iter().map(|device| (device.id, Arc::new(device))));
            if !page.more || after.is_none() {
                break;
            }
        }
        let devices = RwLock::new(devices);
        let shared = Arc::new(Shared {
            store,
            clock,
            rules,
            devices,
            in_doubt: RwLock::default(),
            held: RwLock::default(),
            hooks: OnceLock::new(),
        });
        let (changes, requests) = mpsc::channel(CHANGES_MAX);
        tokio::spawn(changes::own(shared.clone(), requests));
        Ok(Arc::new(Self { shared, changes }))
    }

    /// Names who is told of changes from now on. The first one named stays.
    pub fn tell(&self, hooks: &Arc<dyn Hooks>) {
        let _ = self.shared.hooks.set(Arc::downgrade(hooks));
    }

    /// A device, if it was ever enrolled; revoked ones too.
    #[must_use]
    pub fn get(&self, id: &DeviceId) -> Option<Arc<Device>> {
        self.shared.get(id)
    }

    /// Whether what a device says is heard.
    #[must_use]
    pub(crate) fn hears(&self, id: &DeviceId) -> Hears {
        if self.shared.is_in_doubt(id) || self.shared.is_held(id) {
            return Hears::Later;
        }
        match self.get(id) {
            Some(device) if device.is_enrolled() => Hears::Now,
            _ => Hears::Never,
        }
    }

    /// How many devices there are, revoked ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.read().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.read().is_empty()
    }

    /// Devices in the order of their ids, after `after`.
    #[must_use]
    pub fn page(&self, after: Option<&DeviceId>, max: usize) -> Page<Arc<Device>> {
        let devices = self.shared.read();
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(*id));
        let mut found = devices.range((from, Bound::Unbounded)).map(|(_, device)| device.clone());
        let rows: Vec<_> = found.by_ref().take(max.max(1)).collect();
        Page { rows, more: found.next().is_some() }
    }

    /// Enrols a device: a new one, or with [`Replace::Yes`] one that is known again. A new identity
    /// key or suite ends the sessions it had (e2ee/PROTOCOL.md section 9).
    ///
    /// # Errors
    ///
    /// [`RegistryError`] says why not.
    pub async fn enroll(&self, enrolment: Enrolment, replace: Replace) -> Result<Arc<Device>, RegistryError> {
        self.change(Change::Enroll { enrolment, replace }).await.map(Changed::device)
    }

    /// Adds tags to a device and takes others from it. A tag in both ends up on it.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] says why not.
    pub async fn tag(
        &self,
        id: DeviceId,
        add: BTreeSet<Tag>,
        remove: BTreeSet<Tag>,
    ) -> Result<Arc<Device>, RegistryError> {
        self.change(Change::Tag { id, add, remove }).await.map(Changed::device)
    }

    /// Revokes a device for good: only another enrolment lets it in again.
    ///
    /// # Errors
    ///
    /// [`RegistryError`] says why not.
    pub async fn revoke(&self, id: DeviceId) -> Result<Revocation, RegistryError> {
        Ok(match self.change(Change::Revoke { id }).await? {
            Changed::Written(device) => Revocation::Now(device),
            Changed::AlreadySo(device) => Revocation::Before(device),
        })
    }

    /// What the certificate proves, or its absence allows.
    pub(crate) fn decide(&self, identity: &Identity, entrance: &Entrance) -> Result<Admitted, Denied> {
        let peer = match identity {
            Identity::Anonymous if entrance.anonymous => return Ok(Admitted::Client(None)),
            Identity::Anonymous => return Err(Denied::AnonymousForbidden),
            Identity::Device(peer) => peer,
        };
        if peer.trust_domain != self.shared.rules.trust_domain {
            return Err(Denied::OtherTrustDomain);
        }
        if self.shared.is_in_doubt(&peer.device) || self.shared.is_held(&peer.device) {
            return Err(Denied::BeingChanged);
        }
        let device = self.get(&peer.device).ok_or(Denied::NotEnrolled)?;
        match device.standing {
            Standing::Revoked { .. } => Err(Denied::Revoked),
            Standing::Enrolled if device.certificate != peer.fingerprint => Err(Denied::OtherCertificate),
            Standing::Enrolled => Ok(Admitted::Device(device.id)),
        }
    }

    async fn change(&self, change: Change) -> Result<Changed, RegistryError> {
        let (answer, changed) = oneshot::channel();
        let by = actor::current();
        self.changes.send(Request { change, by, answer }).await.map_err(|_| RegistryError::Closed)?;
        changed.await.unwrap_or(Err(RegistryError::Closed))
    }
}

impl Admission for Registry {
    fn admit<'a>(&'a self, introduction: Introduction<'a>) -> BoxFuture<'a, Result<Entrant, Denied>> {
        let answer = self.decide(introduction.identity, introduction.entrance).map(Entrant::from);
        Box::pin(async { answer })
    }
}

impl Shared {
    // A panic while the lock was held cannot leave the map half changed: each write is one insert.
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<DeviceId, Arc<Device>>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &DeviceId) -> Option<Arc<Device>> {
        self.read().get(id).cloned()
    }

    fn is_in_doubt(&self, id: &DeviceId) -> bool {
        self.in_doubt.read().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    fn is_held(&self, id: &DeviceId) -> bool {
        *self.held.read().unwrap_or_else(PoisonError::into_inner) == Some(*id)
    }

    fn remember(&self, device: Device) -> Arc<Device> {
        let device = Arc::new(device);
        self.devices.write().unwrap_or_else(PoisonError::into_inner).insert(device.id, device.clone());
        device
    }
}

#[cfg(test)]
mod tests;
