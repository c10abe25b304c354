//! The one task that changes the registry: each change goes to its end, whether or not its caller still waits.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use unhidra_core::device::{Device, Standing, Tag};
use unhidra_core::ids::{DeviceId, DeviceNumber};
use unhidra_store::{Act, CommitError, Deed, Health, Op, ReadError};

use super::{Change, Changed, Enrolment, Hooks, RegistryError, Replace, Request, Shared, TAGS_MAX};
use crate::actor;
use crate::commit::commit;

/// How often one change is written where the store's answer leaves its outcome open.
const ATTEMPTS_MAX: usize = 3;

pub(super) async fn own(shared: Arc<Shared>, mut requests: mpsc::Receiver<Request>) {
    while let Some(Request { change, by, answer }) = requests.recv().await {
        let result = actor::by(by, shared.apply(change)).await;
        // The caller may be gone; the change stands.
        let _ = answer.send(result);
    }
}

impl Shared {
    async fn apply(&self, change: Change) -> Result<Changed, RegistryError> {
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
        // Read back, for the number the store gave.
        let written = self.store.device(&device.id).await?.unwrap_or(device);
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
        loop {
            let mut ops = self.ops(device, sessions).await?;
            ops.push(Op::Act(act.clone()));
            match commit(&*self.store, partition, ops).await {
                Ok(_) => return Ok(()),
                // A shard moved the session between the read and the commit.
                Err(CommitError::Version { .. }) if attempts < ATTEMPTS_MAX => {}
                // It may be on disk or not. A device's record is written whole, so writing it again
                // is right either way.
                Err(CommitError::Unknown(_)) if attempts < ATTEMPTS_MAX => self.until_ready().await?,
                Err(error) => return Err(error.into()),
            }
            attempts += 1;
        }
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

    async fn until_ready(&self) -> Result<(), RegistryError> {
        let mut health = self.store.health();
        let settled = health.wait_for(|health| *health != Health::Reopening).await;
        match settled.as_deref() {
            Ok(Health::Failed(cause)) => Err(RegistryError::Store(cause.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(RegistryError::Closed),
        }
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
