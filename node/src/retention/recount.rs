//! The devices of which rows went to make room on the disk: what was counted of them holds no longer.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use unhidra_core::ids::DeviceId;

/// Their names, at most as many as there are devices: each sweep takes them all.
#[derive(Clone, Debug, Default)]
pub(super) struct Recount(Arc<Mutex<HashSet<DeviceId>>>);

impl Recount {
    /// Rows of these have gone, or may have.
    pub(super) fn add(&self, devices: impl IntoIterator<Item = DeviceId>) {
        self.lock().extend(devices);
    }

    /// Whether rows of it have gone since it was asked last.
    pub(super) fn take(&self, device: &DeviceId) -> bool {
        self.lock().remove(device)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<DeviceId>> {
        // Nothing here panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
