//! `unhidra device list | show | fingerprint | tag | revoke`

use std::collections::BTreeSet;

use clap::Subcommand;
use unhidra_core::device::Tag;
use unhidra_core::ids::DeviceId;
use unhidra_core::suite::Suite;

use super::output::{Output, instant};
use super::{CliError, fingerprint};
use crate::control::{Control, DeviceRecord, DevicesAsked, Revoked, TagAsked};

/// What is done with devices.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Lists the devices in the order of their names.
    List {
        /// Only those that carry this tag; given more than once, all of them.
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<Tag>,
    },
    /// Shows one device.
    Show {
        /// Its name.
        device: DeviceId,
    },
    /// Shows what a person compares with the device itself: 60 digits, and a QR code.
    Fingerprint(fingerprint::Asked),
    /// Puts tags on a device and takes others off.
    Tag {
        /// Its name.
        device: DeviceId,
        /// Put on.
        #[arg(required_unless_present = "remove", value_name = "TAG")]
        add: Vec<Tag>,
        /// Taken off.
        #[arg(long, value_name = "TAG")]
        remove: Vec<Tag>,
    },
    /// Revokes a device: it is refused from now on, and its connection ends at once.
    Revoke {
        /// Its name.
        device: DeviceId,
    },
}

pub(super) async fn run(action: Action, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    match action {
        Action::List { tags } => list(&tags.into_iter().collect(), control, out).await,
        Action::Show { device } => show(&control.device(device).await?, out),
        Action::Fingerprint(asked) => fingerprint::run(asked, control, out).await,
        Action::Tag { device, add, remove } => {
            let asked = TagAsked { add: add.into_iter().collect(), remove: remove.into_iter().collect() };
            let device = control.tag(device, asked).await?;
            let tags = if device.tags.is_empty() { "no tags".to_owned() } else { tags(&device) };
            out.say(&device, &format!("{} carries {tags}", device.id))
        }
        Action::Revoke { device } => revoked(&control.revoke(device).await?, out),
    }
}

async fn list(wanted: &BTreeSet<Tag>, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut rows = Vec::new();
    let mut asked = DevicesAsked::default();
    loop {
        let page = control.devices(asked).await?;
        let after = page.devices.last().map(|device| device.id);
        for device in page.devices.iter().filter(|device| wanted.is_subset(&device.tags)) {
            if out.is_json() {
                out.object(device)?;
            } else {
                rows.push([
                    device.id.to_string(),
                    standing(device).to_owned(),
                    here(device).to_owned(),
                    suite(device),
                    instant(device.enrolled_at),
                    instant(device.certificate_expires),
                    tags(device),
                ]);
            }
        }
        if !page.more || after.is_none() {
            break;
        }
        asked = DevicesAsked { after };
    }
    match (out.is_json(), rows.is_empty()) {
        (true, _) => Ok(()),
        (false, true) if wanted.is_empty() => {
            out.line("no device is enrolled here; `unhidra enroll DEVICE_ID --out DIR` enrols one")
        }
        (false, true) => out.line("no device carries these tags"),
        (false, false) => {
            out.table(["DEVICE", "STANDING", "HERE", "SUITE", "ENROLLED", "CERTIFICATE ENDS", "TAGS"], &rows)
        }
    }
}

fn show(device: &DeviceRecord, out: &mut Output<'_>) -> Result<(), CliError> {
    if out.is_json() {
        return out.object(device);
    }
    let class = if device.class.is_empty() { "none" } else { &device.class };
    let tags = if device.tags.is_empty() { "none".to_owned() } else { tags(device) };
    let standing = match device.revoked_at {
        None => "enrolled".to_owned(),
        Some(at) => format!("revoked since {}", instant(at)),
    };
    for (name, value) in [
        ("device", device.id.to_string()),
        ("number", device.number.to_string()),
        ("standing", standing),
        ("here", here(device).to_owned()),
        ("tags", tags),
        ("class", class.to_owned()),
        ("suite", suite(device)),
        ("identity key", device.identity_key.to_string()),
        ("certificate", device.certificate.to_string()),
        ("certificate ends", instant(device.certificate_expires)),
        ("enrolled", instant(device.enrolled_at)),
    ] {
        out.line(&format!("{name:16}  {value}"))?;
    }
    let Some(resets) = device.resets else { return Ok(()) };
    let never = || "never".to_owned();
    out.line(&format!("{:16}  {}", "session reset", resets.last_at.map_or_else(never, instant)))?;
    let went_back = resets.went_back_at.map_or_else(never, |at| went_back(resets.went_back, at));
    out.line(&format!("{:16}  {went_back}", "state went back"))
}

/// A device whose state went back: how often, and what may have been done to it.
fn went_back(count: u32, last_at: u64) -> String {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let at = instant(last_at);
    format!("{times}, last at {at}: restored from an old copy, or two devices have its identity")
}

fn revoked(revoked: &Revoked, out: &mut Output<'_>) -> Result<(), CliError> {
    let id = revoked.device.id;
    let since = revoked.device.revoked_at.map(instant).unwrap_or_default();
    let text = match (revoked.before, revoked.was_online) {
        (true, _) => format!("{id} was revoked already, at {since}"),
        (false, Some(true)) => format!("{id} is revoked; it was connected, and its connection was closed"),
        (false, Some(false)) => format!("{id} is revoked; it was not connected"),
        (false, None) => format!("{id} is revoked; no node runs here"),
    };
    out.say(revoked, &text)
}

fn standing(device: &DeviceRecord) -> &'static str {
    if device.revoked_at.is_some() { "revoked" } else { "enrolled" }
}

/// By its name; a number alone is of a node that is newer.
fn suite(device: &DeviceRecord) -> String {
    Suite::from_byte(device.suite).map_or_else(|| device.suite.to_string(), |suite| suite.to_string())
}

fn here(device: &DeviceRecord) -> &'static str {
    match device.online {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    }
}

fn tags(device: &DeviceRecord) -> String {
    device.tags.iter().map(Tag::as_str).collect::<Vec<_>>().join(" ")
}
