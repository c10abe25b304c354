//! What waits for a device's records, and how much of it came by which door.
//!
//! Each door has the bound for itself. Whoever fills that of an outside broker waits with all that is
//! behind it; what comes by another door, and what clients ask, goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use unhidra_core::command::Command;
use unhidra_core::delivery::Delivery;
use unhidra_core::ids::CommandId;

use crate::draft::{Asked, CommandRefused, Effect};
use crate::settings::{NewSetting, SettingRefused};
use crate::upstream::{UpstreamId, Via};

/// What waits for a device's records.
pub(super) enum Parked {
    Delivery(Option<Via>, Delivery),
    Command(Asked, Command),
    Cancel(Asked, CommandId, Arc<str>),
    Setting(Asked, NewSetting),
}

impl Parked {
    /// The outside broker it came by, if by one.
    fn upstream(&self) -> Option<UpstreamId> {
        match self {
            Self::Delivery(via, _) => via.map(|via| via.upstream),
            Self::Command(..) | Self::Cancel(..) | Self::Setting(..) => None,
        }
    }
}

/// Why what waits for a device comes to nothing.
#[derive(Clone, Copy)]
pub(super) enum Unheard {
    NoDevice,
    Unavailable,
}

impl Unheard {
    /// What whoever asked is told. A delivery is answered, not told.
    pub(super) fn tell(self, waiting: Parked) -> Option<Effect> {
        let (command, setting) = match self {
            Self::NoDevice => (CommandRefused::NoDevice, SettingRefused::NoDevice),
            Self::Unavailable => (CommandRefused::Unavailable, SettingRefused::Unavailable),
        };
        match waiting {
            Parked::Delivery(..) => None,
            Parked::Command(asked, _) | Parked::Cancel(asked, ..) => Some(Effect::CommandAnswered(asked, Err(command))),
            Parked::Setting(asked, _) => Some(Effect::SettingAnswered(asked, Err(setting))),
        }
    }
}

/// How much is parked, by the door it came by. There are as many as outside brokers are configured,
/// and the front door, at which clients count too.
#[derive(Debug, Default)]
pub(super) struct Count(BTreeMap<Option<UpstreamId>, usize>);

impl Count {
    pub(super) fn add(&mut self, waiting: &Parked) {
        *self.0.entry(waiting.upstream()).or_default() += 1;
    }

    pub(super) fn remove(&mut self, waiting: &[Parked]) {
        for one in waiting {
            if let Some(count) = self.0.get_mut(&one.upstream()) {
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(super) fn at(&self, door: Option<UpstreamId>) -> usize {
        self.0.get(&door).copied().unwrap_or_default()
    }
}
