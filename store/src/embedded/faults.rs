//! Faults on demand, for tests: behind the feature `faults`, which the product never asks for.

use std::sync::{Condvar, Mutex, PoisonError};

use bytes::Bytes;
use unhidra_core::ids::{DeviceId, Offset, Partition};

use super::Embedded;
use super::shared::Shared;
use crate::ledger::Writes;
use crate::table::{self, Part, Table};
use crate::{Fault, ReadError, Slot, Store, query};

impl Fault {
    pub(super) fn strike(self, commit: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        match self {
            Self::NotWritten => {}
            Self::Panic => panic!("a panic on demand"),
            Self::Written => commit()?,
        }
        Err("a fault on demand".into())
    }
}

/// What commits go through one after another: open, or held.
#[derive(Default)]
pub(super) struct Gate {
    /// How many may pass; `None` where all may.
    pub(super) room: Mutex<Option<u64>>,
    pub(super) opened: Condvar,
}

impl Gate {
    fn pass(&self) {
        let room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let mut room = self.opened.wait_while(room, |room| *room == Some(0)).unwrap_or_else(PoisonError::into_inner);
        *room = room.map(|room| room - 1);
    }
}

impl Shared {
    /// Waits while commits are held, and gives the fault of this one.
    pub(super) fn take_fault(&self) -> Option<Fault> {
        self.gate.pass();
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The fault of this sync, if it has one.
    pub(super) fn take_sync_fault(&self) -> Result<(), String> {
        match std::mem::take(&mut *self.sync_fails.lock().unwrap_or_else(PoisonError::into_inner)) {
            true => Err("a fault on demand".into()),
            false => Ok(()),
        }
    }
}

impl Embedded {
    /// Makes the next commit of `partition` fail.
    pub fn fail_next_commit(&self, partition: Partition, fault: Fault) {
        *self.shared(partition).fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
    }

    /// Makes the next sync of `partition` fail that is no commit's own: the timer's, or the one at the end.
    /// What was committed before it is not known to be on the disk.
    pub fn fail_next_sync(&self, partition: Partition) {
        *self.shared(partition).sync_fails.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Makes the present session of a device a record that does not read, as damage would. Blocks.
    ///
    /// # Errors
    ///
    /// Where the files cannot be read or written, or nothing is known of the device.
    pub fn damage_session(&self, device: &DeviceId) -> Result<(), ReadError> {
        let shared = self.shared(self.partition_of(device));
        let number = shared.read(|view| query::number(view, device))?.ok_or(ReadError::Unavailable)?;
        let place = (Table::Sessions, table::session(number, Part::Whole(Slot::Present)));
        let writes = Writes::from([(place, Some(Bytes::from_static(b"?")))]);
        shared.commit(&writes, true).map_err(ReadError::Engine)
    }

    /// Deletes one row, as damage would, and says whether it was there. Blocks.
    ///
    /// # Errors
    ///
    /// Where the files cannot be read or written.
    pub fn delete_row(&self, device: &DeviceId, offset: Offset) -> Result<bool, ReadError> {
        let shared = self.shared(self.partition_of(device));
        let Some(number) = shared.read(|view| query::number(view, device))? else { return Ok(false) };
        let row = table::reading(number, offset);
        if shared.read(|view| crate::rows::Rows::get(view, Table::Readings, &row))?.is_none() {
            return Ok(false);
        }
        let writes = [((Table::Readings, row), None), ((Table::Log, table::log(offset, number)), None)];
        shared.commit(&Writes::from(writes), true).map_err(ReadError::Engine)?;
        Ok(true)
    }
}
