//! `unhidra keys status | rotate | rewrap`

use std::path::{self, PathBuf};

use clap::Subcommand;

use super::CliError;
use super::output::{Output, instant};
use crate::control::{Control, KeyRecord, KeysStatus, RewrapAsked};

/// What is done with the keys that encrypt the store.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Shows the keys, how old they are, and when they change.
    Status,
    /// Makes a new key for each purpose at once. What is stored stays readable.
    Rotate,
    /// Wraps all keys under another master key.
    ///
    /// Where the master key is in a file, the new one takes its place there: keep a copy of it as
    /// you did of the old one. Where a program or the environment gives it, put the new one there
    /// first and run this, or name it with --new-key-file and put it there afterwards: until the
    /// node has started with it, either opens the store.
    Rewrap {
        /// A file with the new master key, mode 0600. Without it, one is drawn, or read anew from
        /// the program or the environment.
        #[arg(long, value_name = "FILE")]
        new_key_file: Option<PathBuf>,
    },
}

pub(super) async fn run(action: Action, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    match action {
        Action::Status => show(&control.keys().await?, out),
        Action::Rotate => show(&control.rotate_keys().await?, out),
        Action::Rewrap { new_key_file } => {
            // The node has another working folder.
            let absolute =
                |file: PathBuf| path::absolute(&file).map_err(|source| CliError::File { path: file, source });
            let asked = RewrapAsked { new_key_file: new_key_file.map(absolute).transpose()? };
            let rewrapped = control.rewrap_keys(asked).await?;
            let text = match (&rewrapped.replaced, rewrapped.done) {
                (Some(file), _) => format!(
                    "the keys are wrapped under the master key {}, which is in {file}; keep a copy of it elsewhere: \
                     without it nothing that is stored can be read",
                    rewrapped.master_key
                ),
                (None, true) => format!("the keys are wrapped under the master key {}", rewrapped.master_key),
                (None, false) => format!(
                    "the keys are wrapped under the master key {} too; put it where the configuration says and start \
                     the node anew: from then on it alone opens the store",
                    rewrapped.master_key
                ),
            };
            out.say(&rewrapped, &text)
        }
    }
}

fn show(status: &KeysStatus, out: &mut Output<'_>) -> Result<(), CliError> {
    if out.is_json() {
        return out.object(status);
    }
    out.line(&format!("master key  {} ({})", status.master_key, status.master_key_from))?;
    if let Some(next) = &status.next_master_key {
        out.line(&format!("changing to {next}; the change ends when a node starts with it"))?;
    }
    out.line(&format!("generation  {}", status.generation))?;
    out.line("")?;
    let rows: Vec<_> = status.keys.iter().map(row).collect();
    out.table(["KEY", "PURPOSE", "STATE", "CREATED", "AGE", "ROTATES IN", "EXPIRES IN"], &rows)
}

fn row(key: &KeyRecord) -> [String; 7] {
    let left = |days: f64| if days <= 0.0 { "due".to_owned() } else { format!("{days:.1} d") };
    [
        key.id.to_string(),
        key.purpose.clone(),
        key.state.clone(),
        instant(key.created_at),
        format!("{:.1} d", key.age_days),
        key.rotates_in_days.map_or_else(|| "-".to_owned(), left),
        left(key.expires_in_days),
    ]
}
