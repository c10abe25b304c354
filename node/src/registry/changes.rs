//! The one task that changes the registry: each change goes to its end, whether or not its caller still waits.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, Weak};

use tokio::sync::mpsc;
use unhidra_core::device::{Device, Standing, Tag};
use unhidra_core::ids::{DeviceId, DeviceNumber};
use unhidra_store::{Act, CommitError, Deed, Health, Op, ReadError};

use super::{Change, Changed, Enrolment, Hooks, RegistryError, Replace, Request, Shared, TAGS_MAX};
use crate::actor;
use crate::commit::commit;

/// How often one change is written where its commits fail.
const ATTEMPTS_MAX: usize = 3;

/// How often what ends a device's sessions may find that they have moved. Each time takes a commit, and with it goes
/// what a shard has of the device: of one that is kept out, its whole inbox within these.
const CONFLICTS_MAX: usize = 64;

/// From which of these on the device is kept out.
const CONFLICTS_FREE: usize = 2;

pub(super) async fn own(shared: Arc<Shared>, mut requests: mpsc::Receiver<Request>) {
    while let Some(Request { change, by, answer }) = requests.recv().await {
        let result = actor::by(by, shared.apply(change)).await;
        // The caller may be gone; the change stands.
        let _ = answer.send(result);
    }
}

impl Shared {
    async fn apply(&self, change: Change) -> Result<Changed, RegistryError> {
        let id = *change.device();
        if self.is_in_doubt(&id) {
            // Every change is built on the record before it.
            self.settle(&id).await?;
        }
        match change {
            Change::Enroll { enrolment, replace } => self.enroll(enrolment, replace).await,
            Change::Tag { id, add, remove } => self.tag(id, add, &remove).await,
            Change::Revoke { id } => self.revoke(id).await,
        }
    }

    async fn enroll(&self, enrolment: Enrolment, replace: Replace) -> Result<Changed, RegistryError> {
        let known = self.get(&enrolment.id);
        if known.is_some() && replace == Replace::No {
            return Err(RegistryError::Taken(enrolment.id));
        }
        let mut tags = enrolment.tags;
        tags.extend(known.iter().flat_map(|known| known.tags.iter().cloned()));
        check_tags(enrolment.id, &tags)?;
        let other_peer =
            known.as_ref().is_some_and(|k| k.identity_key != enrolment.identity_key || k.suite != enrolment.suite);
        let class = match (&known, enrolment.class) {
            (Some(known), class) if class.is_empty() => known.class.clone(),
            (_, class) => class,
        };
        let device = Device {
            id: enrolment.id,
            number: known.as_ref().map_or(DeviceNumber::new(0), |k| k.number),
            identity_key: enrolment.identity_key,
            certificate: enrolment.certificate,
            certificate_expires: enrolment.certificate_expires,
            suite: enrolment.suite,
            tags,
            class,
            enrolled_at: self.clock.unix_now(),
            standing: Standing::Enrolled,
        };
        let sessions = if other_peer { Sessions::End } else { Sessions::Keep };
        let detail = if known.is_some() { "again, with another certificate" } else { "" };
        self.write(&device, sessions, Deed::Enroll, detail).await?;
        let written = match known {
            Some(_) => device,
            // Read back, for the number the store gave. It is enrolled whether or not that is read: without, it
            // is shown with the number 0 until the next start.
            None => self.stored(&device.id).await.ok().flatten().unwrap_or(device),
        };
        let device = self.remember(written);
        if let Some(hooks) = self.hooks() {
            hooks.enrolled(&device);
        }
        Ok(Changed::Written(device))
    }

    async fn tag(&self, id: DeviceId, add: BTreeSet<Tag>, remove: &BTreeSet<Tag>) -> Result<Changed, RegistryError> {
        let known = self.get(&id).ok_or(RegistryError::NoDevice(id))?;
        let mut device = Device::clone(&known);
        device.tags.retain(|tag| !remove.contains(tag));
        device.tags.extend(add);
        if device.tags == known.tags {
            return Ok(Changed::AlreadySo(known));
        }
        check_tags(id, &device.tags)?;
        let added = device.tags.difference(&known.tags).map(|tag| format!("+{tag}"));
        let removed = known.tags.difference(&device.tags).map(|tag| format!("-{tag}"));
        let detail = added.chain(removed).collect::<Vec<_>>().join(" ");
        self.write(&device, Sessions::Keep, Deed::Tag, &detail).await?;
        Ok(Changed::Written(self.remember(device)))
    }

    async fn revoke(&self, id: DeviceId) -> Result<Changed, RegistryError> {
        let known = self.get(&id).ok_or(RegistryError::NoDevice(id))?;
        let changed = if known.is_enrolled() {
            let device = Device { standing: Standing::Revoked { at: self.clock.unix_now() }, ..Device::clone(&known) };
            self.write(&device, Sessions::Keep, Deed::Revoke, "").await?;
            Changed::Written(self.remember(device))
        } else {
            Changed::AlreadySo(known)
        };
        // Told again where it was revoked before: closing a connection that should not be there
        // costs nothing.
        if let Some(hooks) = self.hooks() {
            hooks.revoked(&id);
        }
        Ok(changed)
    }

    fn hooks(&self) -> Option<Arc<dyn Hooks>> {
        self.hooks.get().and_then(Weak::upgrade)
    }

    /// Writes a device's record, and in the same commit who had it written.
    async fn write(&self, device: &Device, sessions: Sessions, deed: Deed, detail: &str) -> Result<(), RegistryError> {
        let act = Act::on(self.clock.unix_now(), &actor::current(), deed, device.id, detail);
        let partition = self.store.partition_of(&device.id);
        let mut attempts = 1;
        let mut conflicts = 0;
        let mut held = None;
        loop {
            let mut ops = self.ops(device, sessions).await?;
            ops.push(Op::Act(act.clone()));
            match commit(&*self.store, partition, ops).await {
                Ok(_) => return Ok(()),
                // A shard moved the session between the read and the commit. Whoever holds the old keys could have
                // it so each time, by saying something in every commit: it is to be silent for so long.
                Err(CommitError::Version { .. }) => {
                    conflicts += 1;
                    if conflicts == CONFLICTS_MAX {
                        return Err(RegistryError::Busy(device.id));
                    }
                    if conflicts >= CONFLICTS_FREE && held.is_none() {
                        held = Some(self.hold(device.id));
                    }
                    continue;
                }
                // It may be on disk or not, and nobody goes on before that is known: memory would stay behind
                // the disk until the next start, which finds a device revoked, or with other keys.
                Err(error @ CommitError::Unknown(_)) => {
                    // That may take as long as the disk is full.
                    held.get_or_insert_with(|| self.hold(device.id));
                    match self.stored(&device.id).await {
                        Ok(Some(found)) if is_same(&found, device) => return Ok(()),
                        Ok(_) if attempts < ATTEMPTS_MAX => {}
                        Ok(_) => return Err(error.into()),
                        Err(cause) => return Err(self.doubt(device.id, cause)),
                    }
                }
                Err(error) => return Err(error.into()),
            }
            attempts += 1;
        }
    }

    /// Ends a device's connections, and lets it make no other until what is given is dropped.
    fn hold(&self, id: DeviceId) -> Held<'_> {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(id);
        if let Some(hooks) = self.hooks() {
            hooks.kept_out(&id);
        }
        Held(self)
    }

    async fn ops(&self, device: &Device, sessions: Sessions) -> Result<Vec<Op>, ReadError> {
        let mut ops = vec![Op::Device(device.clone())];
        let stored = match sessions {
            Sessions::Keep => None,
            Sessions::End => self.store.session(&device.id).await?,
        };
        if let Some(stored) = stored {
            // The handshake counter stays: it only has to grow, and a bundle tells it to the device.
            ops.push(Op::EndSessions { device: device.id, expect: stored.version, present: true });
        }
        Ok(ops)
    }

    /// What the store has of a device, as soon as it serves. While it reopens it may still show what it
    /// could not write.
    async fn stored(&self, id: &DeviceId) -> Result<Option<Device>, RegistryError> {
        let mut health = self.store.health();
        loop {
            match health.wait_for(|health| *health != Health::Reopening).await.as_deref() {
                Ok(Health::Failed(cause)) => return Err(RegistryError::Store(cause.clone())),
                Ok(_) => {}
                Err(_) => return Err(RegistryError::Closed),
            }
            match self.store.device(id).await {
                // Another commit failed since. Of a store that is closed the health does not change.
                Err(ReadError::Unavailable) if health.has_changed().unwrap_or(false) => {}
                read => return Ok(read?),
            }
        }
    }

    /// Nobody comes in as this device until what became of a change of it is known.
    fn doubt(&self, id: DeviceId, cause: RegistryError) -> RegistryError {
        tracing::error!(device = %id, %cause, "whether a device was changed is not known; it is kept out");
        self.in_doubt.write().unwrap_or_else(PoisonError::into_inner).insert(id);
        // Whoever is held is out already.
        if let Some(hooks) = self.hooks().filter(|_| !self.is_held(&id)) {
            hooks.kept_out(&id);
        }
        RegistryError::InDoubt { id, cause: Box::new(cause) }
    }

    /// Ends the doubt about a device: what the store has of it is what it is.
    async fn settle(&self, id: &DeviceId) -> Result<(), RegistryError> {
        let cause = |cause| RegistryError::InDoubt { id: *id, cause: Box::new(cause) };
        let found = self.stored(id).await.map_err(cause)?.map(|device| self.remember(device));
        self.in_doubt.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        match (found, self.hooks()) {
            (Some(device), Some(hooks)) if device.is_enrolled() => hooks.enrolled(&device),
            (Some(device), Some(hooks)) => hooks.revoked(&device.id),
            _ => {}
        }
        Ok(())
    }
}

/// Whether the store has the record that was to be written; the number is the store's own.
fn is_same(found: &Device, written: &Device) -> bool {
    Device { number: found.number, ..written.clone() } == *found
}

/// Holds a device out while it lives.
struct Held<'a>(&'a Shared);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        *self.0.held.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What a new record means for the sessions the device has.
#[derive(Clone, Copy)]
enum Sessions {
    Keep,
    End,
}

fn check_tags(id: DeviceId, tags: &BTreeSet<Tag>) -> Result<(), RegistryError> {
    match tags.len() {
        found if found > TAGS_MAX => Err(RegistryError::TooManyTags { id, found }),
        _ => Ok(()),
    }
}
