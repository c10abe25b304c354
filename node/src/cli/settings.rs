//! `unhidra set`, `unhidra settings`

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;
use unhidra_core::ids::DeviceId;
use unhidra_core::setting::SettingName;

use super::CliError;
use super::output::{Output, instant, name};
use crate::control::{Control, RowBody, SetAsked, SettingRecord};

/// Sets something of a device: the last value by name, told it when it is here, and again when it
/// comes back without having taken it.
#[derive(clap::Args)]
pub struct Set {
    /// Whose.
    pub device: DeviceId,
    /// Which, `interval` for instance.
    pub name: SettingName,
    /// To what.
    #[arg(required_unless_present_any = ["file", "remove"], conflicts_with_all = ["file", "remove"])]
    pub value: Option<String>,
    /// To what stands in a file.
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    pub file: Option<PathBuf>,
    /// Removes it; the device is told to forget it.
    #[arg(long)]
    pub remove: bool,
}

impl fmt::Debug for Set {
    // What a device is set to may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set")
            .field("device", &self.device)
            .field("name", &self.name)
            .field("value_len", &self.value.as_ref().map(String::len))
            .field("file", &self.file)
            .field("remove", &self.remove)
            .finish()
    }
}

/// Lists what a device is set to, and whether it knows.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// Whose.
    pub device: DeviceId,
}

pub(super) async fn set(asked: &Set, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let value = match (&asked.value, &asked.file) {
        (Some(text), _) => Some(RowBody::Text(text.clone())),
        (None, Some(path)) => {
            let read = std::fs::read(path).map_err(|source| CliError::File { path: path.clone(), source })?;
            Some(RowBody::Base64(Bytes::from(read)))
        }
        (None, None) => None,
    };
    let setting = control.set(SetAsked { device: asked.device, name: asked.name.clone(), value }).await?;
    let done = if setting.removed { "removed" } else { "set" };
    let text = match setting.in_sync {
        true => format!("{} is {done}; the device knows", name(setting.name.as_str())),
        false => format!("{} is {done}; the device is told when it is here", name(setting.name.as_str())),
    };
    out.say(&setting, &text)
}

pub(super) async fn list(asked: &Settings, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let found = control.settings(asked.device).await?;
    if out.is_json() {
        return found.settings.iter().try_for_each(|setting| out.object(setting));
    }
    if found.settings.is_empty() {
        return out.line(&format!("{} has no settings", asked.device));
    }
    let rows: Vec<_> = found.settings.iter().map(row).collect();
    out.table(["NAME", "VALUE", "CHANGED", "VERSION", "ACKNOWLEDGED", "IN SYNC"], &rows)
}

fn row(setting: &SettingRecord) -> [String; 6] {
    let value = match &setting.value {
        None => "(removed)".to_owned(),
        Some(RowBody::Text(text)) => name(text),
        Some(RowBody::Base64(bytes)) => format!("({} bytes)", bytes.len()),
    };
    [
        name(setting.name.as_str()),
        value,
        instant(setting.changed_at),
        setting.version.to_string(),
        setting.acknowledged_version.map_or_else(|| "none".to_owned(), |version| version.to_string()),
        if setting.in_sync { "yes" } else { "no" }.to_owned(),
    ]
}
