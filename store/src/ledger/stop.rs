//! What stops a batch while it is planned, and for whose sake.

use std::collections::BTreeMap;

use unhidra_core::ids::DeviceId;

use crate::{CommitError, ReadError};

/// Why an op is not applied.
pub(super) enum Stop {
    Refused(CommitError),
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(cause: ReadError) -> Self {
        Self::Read(cause)
    }
}

impl From<CommitError> for Stop {
    fn from(cause: CommitError) -> Self {
        Self::Refused(cause)
    }
}

/// Why a batch goes no further.
pub(super) enum Stopped {
    /// For the sake of devices: one that is refused, or all whose records are damaged. These are looked for at once:
    /// where they are many, to plan the batch anew for each would cost its length as often.
    Devices(BTreeMap<DeviceId, CommitError>),
    /// For its own sake.
    Whole(CommitError),
    /// The engine fails, which is everyone's misfortune.
    Engine(ReadError),
}

/// Takes what came of an op: a device whose records are damaged keeps nobody from looking at the others'.
pub(super) fn collect(
    damaged: &mut BTreeMap<DeviceId, CommitError>,
    device: Option<&DeviceId>,
    applied: Result<(), Stop>,
) -> Result<(), Box<Stopped>> {
    let Err(stop) = applied else { return Ok(()) };
    Err(Box::new(match (stop, device) {
        (Stop::Read(found @ ReadError::Damaged { .. }), Some(device)) => {
            damaged.insert(*device, CommitError::Damaged { device: *device, found: Box::new(found) });
            return Ok(());
        }
        (Stop::Read(found @ ReadError::Damaged { .. }), None) => {
            Stopped::Whole(CommitError::Unknown(found.to_string()))
        }
        (Stop::Read(cause), _) => Stopped::Engine(cause),
        // What the damaged have left in the draft may be the cause: without them it is asked again.
        (Stop::Refused(_), _) if !damaged.is_empty() => Stopped::Devices(std::mem::take(damaged)),
        (Stop::Refused(cause), Some(device)) => Stopped::Devices([(*device, cause)].into()),
        (Stop::Refused(cause), None) => Stopped::Whole(cause),
    }))
}
