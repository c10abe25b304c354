//! Orders that were not taken, in the words of the command line.

use std::fmt;

use unhidra_bridge::{CommandRefused, SettingRefused};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::setting::SettingName;

use crate::control::ControlError;
use crate::pump::NotTaken;

/// What the command line is told of an order that was not taken.
pub(super) fn refused(
    not_taken: NotTaken,
    device: DeviceId,
    id: Option<CommandId>,
    name: Option<SettingName>,
) -> ControlError {
    let unavailable = |why: &dyn fmt::Display| ControlError::Unavailable(why.to_string());
    match (not_taken, id, name) {
        (NotTaken::TooLarge { len, max }, _, _) => {
            ControlError::Invalid(format!("a body of {len} bytes; at most {max} are allowed"))
        }
        (NotTaken::Bridge(CommandRefused::TooMany { open, max }), _, _) => ControlError::TooMany { open, max },
        (NotTaken::Bridge(CommandRefused::NoDevice) | NotTaken::Setting(SettingRefused::NoDevice), _, _) => {
            ControlError::NoDevice { id: device }
        }
        (NotTaken::Bridge(CommandRefused::IdTaken), Some(id), _) => ControlError::IdTaken { id },
        (NotTaken::Bridge(CommandRefused::TooLate { state }), _, _) => {
            ControlError::TooLate { state: state.as_str().to_owned() }
        }
        (NotTaken::NoCommand | NotTaken::Bridge(CommandRefused::NotOpen), Some(id), _) => {
            ControlError::NoCommand { id }
        }
        (NotTaken::Setting(SettingRefused::TooMany { max }), _, _) => ControlError::TooManySettings { max },
        (NotTaken::Setting(SettingRefused::NoSetting), _, Some(name)) => ControlError::NoSetting { name },
        (NotTaken::Bridge(refused), _, _) => unavailable(&refused),
        (NotTaken::Setting(refused), _, _) => unavailable(&refused),
        (NotTaken::NoCommand, None, _) => unavailable(&"there is no such command"),
    }
}
