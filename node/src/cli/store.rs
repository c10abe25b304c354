//! `unhidra store restored | status | verify`

use clap::Subcommand;
use serde::Serialize;
use unhidra_store::mark_restored;

use super::output::{Output, instant};
use super::reach::take_stopped;
use super::{CliError, Global, verify};
use crate::config::Purpose;
use crate::control::{Control, PartitionRecord};

/// What is done with the store.
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
    /// Prints what the store holds, how much of the disk it takes, and how old its oldest reading is.
    Status,
    /// Reads all of the store of a stopped node, and says what is damaged: file and byte, or record.
    ///
    /// The exit status is 1 where anything is. Nothing that is damaged is changed; a store whose files
    /// are whole is opened as the node opens it.
    Verify {
        /// Drops what is damaged and keeps the rest: the only way on without a backup.
        ///
        /// What is dropped is gone: readings, commands, devices. A lost record may be one that said
        /// which keys were used, so the store is marked as put back from a copy: each device is asked
        /// for a new session, and clients' cursors begin anew. Copy the data folder first.
        #[arg(long)]
        accept_loss: bool,
    },
}

/// What was done, as JSON.
#[derive(Serialize)]
struct Marked {
    restored: bool,
    epoch: String,
}

pub(super) async fn run(action: Action, global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
    match action {
        Action::Restored => restored(global, out).await,
        Action::Verify { accept_loss } => verify::run(accept_loss, global, out).await,
        Action::Status => Err(CliError::Usage("the status is asked of a data folder".to_owned())),
    }
}

/// What the store holds, of a running node or not.
pub(super) async fn status(control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let found = control.storage().await?;
    if out.is_json() {
        return out.object(&found);
    }
    let bound = match found.disk_bytes_max {
        0 => "without a bound".to_owned(),
        max => format!("of {max} allowed"),
    };
    out.line(&format!("health      {}", found.cause.as_ref().map_or(&found.health, |cause| cause)))?;
    out.line(&format!("disk bytes  {} {bound}", found.disk_bytes))?;
    let row = |partition: &PartitionRecord| {
        [
            partition.partition.to_string(),
            partition.disk_bytes.to_string(),
            partition.newest_offset.to_string(),
            partition.oldest_received_at.map_or_else(|| "none".to_owned(), instant),
        ]
    };
    let rows: Vec<_> = found.partitions.iter().map(row).collect();
    out.table(["PARTITION", "DISK BYTES", "NEWEST ROW", "OLDEST RECEIVED"], &rows)
}

async fn restored(global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
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
