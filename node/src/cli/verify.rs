//! `unhidra store verify`

use serde::Serialize;
use unhidra_core::time::Clock as _;
use unhidra_store::{Acceptance, Finding, Place};

use super::open::keys_of;
use super::output::Output;
use super::reach::take_stopped;
use super::{CliError, Global};
use crate::actor;
use crate::clock::SystemClock;
use crate::config::Purpose;
use crate::contents::Rooms;

/// What was found, as JSON.
#[derive(Serialize)]
struct Report {
    ok: bool,
    damaged: u64,
    records: u64,
    complete: bool,
    mended: bool,
    findings: Vec<Found>,
}

/// One finding: in a file, or a record.
#[derive(Serialize)]
struct Found {
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    found: String,
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        let found = finding.found.clone();
        let nothing = Self { file: None, offset: None, partition: None, table: None, key: None, found };
        match &finding.place {
            Place::File { path, offset } => {
                Self { file: Some(path.display().to_string()), offset: Some(*offset), ..nothing }
            }
            Place::Record { partition, table, key } => {
                Self { partition: Some(partition.get()), table: Some(table), key: Some(key.clone()), ..nothing }
            }
        }
    }
}

pub(super) async fn run(accept_loss: bool, global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
    let config = global.sources(Purpose::Node).load()?.config;
    let folder = take_stopped(&config).await?;
    let path = folder.layout().store();
    let now = SystemClock::start().unix_now();
    let keys = keys_of(&folder, &config, now).await?;
    let store = config.store.clone();
    let by = actor::user(rustix::process::geteuid().as_raw());
    let accepted = accept_loss.then(|| Acceptance { by: (*by).into(), at: now });
    let looked = tokio::task::spawn_blocking(move || {
        // What is looked at goes where errors go: stdout is for what was found.
        let progress = &mut |line: &str| eprintln!("{line}");
        unhidra_store::verify(&path, &store, keys, accepted.as_ref(), &Rooms, progress)
    });
    let verified = looked.await.map_err(|error| CliError::Failed(error.to_string()))??;
    let root = folder.layout().root().display();
    let report = Report {
        ok: verified.found == 0 || verified.is_mended,
        damaged: verified.found,
        records: verified.records,
        complete: verified.is_complete,
        mended: verified.is_mended,
        findings: verified.findings.iter().map(Found::from).collect(),
    };
    let printed = match out.is_json() {
        true => out.object(&report),
        false => {
            let line = |finding: &Finding| out.line(&format!("{}: {}", finding.place, finding.found));
            verified.findings.iter().try_for_each(line)
        }
    };
    let Report { damaged, records, .. } = report;
    let ended = match (damaged, verified.is_mended) {
        (0, _) if out.is_json() => Ok(()),
        (0, _) => out.line(&format!("{root}: {records} records read, nothing is damaged")),
        (_, true) if out.is_json() => Ok(()),
        (_, true) => out.line(&format!(
            "{root}: {damaged} damaged, and dropped; {records} records are kept, and the next `unhidra run` asks each \
             device for a new session"
        )),
        (_, false) => Err(CliError::Failed(format!(
            "{root}: {damaged} damaged{}; put a backup back, or drop what is damaged with `unhidra store verify \
             --accept-loss`",
            if verified.is_complete { "" } else { ", and so no record was read" }
        ))),
    };
    // Damage is the answer, also where nobody reads what is damaged.
    ended.and(printed)
}
