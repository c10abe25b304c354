//! `unhidra store restored`

use clap::Subcommand;
use serde::Serialize;
use unhidra_store::mark_restored;

use super::output::Output;
use super::reach::take_stopped;
use super::{CliError, Global};
use crate::config::Purpose;

/// What is done with the store of a stopped node.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Says that the data folder was put back from a copy: a backup, a snapshot, another disk.
    ///
    /// Run it once after putting the copy back, before the node starts on it. The devices have moved
    /// on since the copy was made, and without a word the node would seal under keys that it has
    /// used. At its next start the node makes new prekeys, seals nothing in the sessions it finds
    /// and asks each device for a new one; the devices do the rest. Readings taken since the copy
    /// may reach clients twice, and clients' cursors begin anew.
    ///
    /// What was done to the registry since the copy is undone by it: enrol again who was enrolled
    /// since, and revoke again who was revoked.
    ///
    /// It is safe to run it when in doubt, and more than once.
    Restored,
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Marked {
    restored: bool,
    epoch: String,
}

pub(super) async fn run(action: Action, global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
    let Action::Restored = action;
    let config = global.sources(Purpose::Node).load()?.config;
    let folder = take_stopped(&config).await?;
    let epoch = mark_restored(&folder.layout().store())?;
    let marked = Marked { restored: true, epoch: format!("{:016x}", epoch.get()) };
    let root = folder.layout().root().display();
    out.say(
        &marked,
        &format!(
            "{root} is marked as put back from a copy; the next `unhidra run` on it asks each device for a new session"
        ),
    )
}
