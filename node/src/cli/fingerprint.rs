//! `unhidra device fingerprint`: what a person compares, so that nobody stands between a device
//! and its node (e2ee/PROTOCOL.md section 14).

use std::path::PathBuf;

use serde::Serialize;
use unhidra_bridge::{CodeError, Comparison, Fingerprint, IdentityKey};
use unhidra_core::ids::DeviceId;

use super::CliError;
use super::output::Output;
use super::qr::Picture;
use crate::control::{Control, ControlError, KeyHex};

/// Whose fingerprint, and in which shape.
#[derive(Debug, clap::Args)]
pub struct Asked {
    /// Its name.
    pub device: DeviceId,
    /// Draws the QR code, with the digits below it, into this file too.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Compares with this code, as a scanner read it from the device: UNHIDRA:1:... The exit
    /// status is 1 unless both keys are the same.
    #[arg(long, value_name = "CODE")]
    pub scanned: Option<String>,
}

/// What a program is told.
#[derive(Serialize)]
pub(super) struct Shown {
    device: String,
    digits: String,
    /// What a QR code carries.
    pub(super) code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scanned: Option<&'static str>,
}

impl Shown {
    pub(super) fn new(device: &DeviceId, fingerprint: &Fingerprint) -> Self {
        Self {
            device: device.to_string(),
            digits: fingerprint.to_string().replace('\n', " "),
            code: String::from_utf8_lossy(&fingerprint.code()).into_owned(),
            scanned: None,
        }
    }
}

pub(super) async fn run(asked: Asked, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let device = control.device(asked.device).await?;
    if device.revoked_at.is_some() {
        return Err(ControlError::Revoked { id: device.id }.into());
    }
    let device_key = key("the device's", device.identity_key)?;
    let node_key = key("the node's", control.info().await?.node_identity_key)?;
    let fingerprint = Fingerprint::of(&device.id, &device_key, &node_key);
    let compared = asked.scanned.as_deref().map(|code| compare(&fingerprint, code)).transpose()?;
    if let Some(path) = asked.svg {
        let drawing = Picture::of(&fingerprint).svg(device.id.as_str(), &fingerprint.to_string());
        std::fs::write(&path, drawing).map_err(|source| CliError::File { path, source })?;
    }
    let is_json = out.is_json();
    let printed = match is_json {
        true => out.object(&Shown { scanned: compared.map(word), ..Shown::new(&device.id, &fingerprint) }),
        false => Ok(()),
    };
    match compared {
        _ if is_json && matches!(compared, None | Some(Comparison::Same)) => printed,
        None => {
            out.line(&format!("{fingerprint}\n\n{}", Picture::of(&fingerprint).terminal()))?;
            out.line("Compare all of it with what the device itself shows; a part is no comparison.")
        }
        Some(Comparison::Same) => out.line(&format!("the same: {} and this node have each other's keys", device.id)),
        // The answer, also where nobody reads it.
        Some(different) => Err(CliError::Failed(warning(different, &device.id))),
    }
}

fn key(whose: &str, KeyHex(bytes): KeyHex) -> Result<IdentityKey, CliError> {
    IdentityKey::from_bytes(&bytes).map_err(|error| CliError::Failed(format!("{whose} key: {error}")))
}

fn compare(fingerprint: &Fingerprint, code: &str) -> Result<Comparison, CliError> {
    fingerprint.compare(code.trim().as_bytes()).map_err(|error| match error {
        CodeError::NotACode => CliError::Usage(format!("--scanned: {error}")),
        CodeError::OtherVersion { .. } => CliError::Failed(format!("--scanned: {error}; are both sides up to date?")),
    })
}

const fn word(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Same => "same",
        Comparison::DifferentDevice => "different_device",
        Comparison::DifferentNode => "different_node",
        Comparison::DifferentBoth => "different_both",
    }
}

/// What differs, and what to do about it.
fn warning(comparison: Comparison, device: &DeviceId) -> String {
    match comparison {
        Comparison::DifferentNode => format!(
            "DIFFERENT: the device trusts another node than this one. Unless it belongs to that one, somebody is in \
             between: enrol it again with `unhidra enroll {device} --replace`, over a way you trust"
        ),
        Comparison::DifferentDevice => format!(
            "DIFFERENT: that is the code of another device, or this node holds another key for {device}. Look whether \
             it is {device} that was scanned; if so, enrol it again with `unhidra enroll {device} --replace`, over a \
             way you trust"
        ),
        Comparison::Same | Comparison::DifferentBoth => {
            format!(
                "DIFFERENT: that code is of another device with another node, or somebody is between {device} and this one"
            )
        }
    }
}
