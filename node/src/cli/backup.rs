//! `unhidra backup create | verify | restore`

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;
use unhidra_core::time::Clock;
use unhidra_store::Keys;

use super::output::{Output, instant};
use super::{CliError, Global};
use crate::backup::{self, BackupError, Verified};
use crate::clock::SystemClock;
use crate::config::Purpose;
use crate::control::Control;
use crate::folder::Layout;
use crate::master::Source;

/// What is done with backups.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Makes a backup of the data folder, while the node runs or not.
    ///
    /// It holds all of the folder as it was at one instant, sealed as it lies there. The store's master
    /// key is not in it: keep that apart, and safe, for without it nobody opens the backup.
    Create(Create),
    /// Reads a backup to its end, and says whether it is whole and as it was written.
    Verify(Read),
    /// Puts a backup back into a new or an empty data folder, the one of --data.
    ///
    /// The node that starts on it asks each device for a new session before anything is sealed for it.
    /// What devices still have comes again; what was acknowledged since the backup, and is nowhere
    /// else, is lost.
    Restore(Read),
}

/// Makes a backup.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The file, which must not be there, or a folder, which gets a file named for this moment.
    #[arg(value_name = "FILE|DIR")]
    pub to: PathBuf,
    /// Shows how far it is on stderr, on a terminal or not.
    #[arg(long)]
    pub progress: bool,
}

/// Reads a backup.
#[derive(Debug, clap::Args)]
pub struct Read {
    /// The file.
    #[arg(value_name = "FILE")]
    pub from: PathBuf,
    /// Shows how far it is on stderr, on a terminal or not.
    #[arg(long)]
    pub progress: bool,
}

pub(super) async fn create(args: &Create, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let now = SystemClock::start().unix_now();
    let to = match args.to.is_dir() {
        true => args.to.join(format!("unhidra-{}.backup", instant(now.as_ms()).replace(':', "-"))),
        false => args.to.clone(),
    };
    if to.symlink_metadata().is_ok() {
        let to = to.display();
        return Err(CliError::Failed(format!("{to} is there already, and is not overwritten; name another file")));
    }
    let mut draft = Draft::begin(&to)?;
    let mut pieces = control.backup().await?;
    let mut progress = Progress::begin(args.progress, "written");
    while let Some(piece) = pieces.recv().await {
        draft.write(&piece?)?;
        progress.show(draft.len);
    }
    // What was written is read back before it has its name: a backup nobody has read is a hope.
    let path = draft.sync()?;
    let checked = on_a_thread(move || Ok(backup::verify(&path, None, |_| ())?)).await?;
    draft.keep(&to)?;
    progress.end();
    told(out, &to, &checked, "is a backup")
}

/// Reads or puts back: neither asks a node.
pub(super) async fn run(action: Action, global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
    match action {
        Action::Create(_) => Err(CliError::Usage("a backup is made of a data folder".to_owned())),
        Action::Verify(args) => {
            let from = args.from.clone();
            let keys = keys(&from, global).await?;
            let is_opened = keys.is_some();
            let what = match &keys {
                Some(_) => "is whole and as it was written, and every record opens",
                None => {
                    "is whole and as it was written; its records were not opened, for the master key is not at hand"
                }
            };
            let mut progress = Progress::begin(args.progress, "read");
            let checked =
                on_a_thread(move || Ok(backup::verify(&from, keys.as_ref(), |at| progress.show(at))?)).await?;
            let json = json!({ "file": args.from, "backup": checked, "records_opened": is_opened });
            out.say(&json, &line(&args.from, &checked, what))
        }
        Action::Restore(args) => restore(args, global, out).await,
    }
}

/// What opens the records of a backup, if it is where the configuration says.
async fn keys(backup: &Path, global: &Global) -> Result<Option<Keys>, CliError> {
    if !backup::is_sealed(backup)? {
        return Ok(Some(Keys::Plain));
    }
    let config = global.sources(Purpose::Node).load()?.config;
    let layout = Layout::at(&config.data)?;
    if let Some(path) = config.store.master_key_path(layout.root()) {
        // One that is there and cannot be come to is no key that is elsewhere: whoever asks thinks it is at hand.
        match path.try_exists() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(source) => return Err(CliError::File { path, source }),
        }
    }
    let master = Source::of(&config.store, layout.root()).read().await?;
    Ok(Some(Keys::sealed(master, SystemClock::start().unix_now())))
}

async fn restore(args: Read, global: &Global, out: &mut Output<'_>) -> Result<(), CliError> {
    let config = global.sources(Purpose::Node).load()?.config;
    let layout = Layout::at(&config.data)?;
    let (root, key) = (layout.root().to_owned(), config.store.master_key_path(layout.root()));
    let from = args.from.clone();
    let mut progress = Progress::begin(args.progress, "read, of twice its size");
    let mut before = 0;
    let restored = on_a_thread(move || {
        let mut whole = 0;
        let count = |at: u64| {
            // It is read twice: once to be checked, once to be written.
            if at < before {
                whole += before;
            }
            before = at;
            progress.show(whole + at);
        };
        Ok(backup::restore(&from, &layout, &config.store, count)?)
    })
    .await?;
    told(out, &args.from, &restored, "is put back")?;
    if out.is_json() {
        return Ok(());
    }
    let of = instant(restored.head.created_at);
    for line in [
        format!("into {}, as it was at {of}. Before a node starts on it:", root.display()),
        key.map_or_else(
            || "- the master key comes from where the configuration says, and was not in the backup".to_owned(),
            |key| format!("- the master key, which was not in the backup, belongs at {}", key.display()),
        ),
        "- users, rules and certificates outside the data folder were not in the backup".to_owned(),
        format!("- who was revoked since {of} is not: revoke again; who was enrolled since is unknown: enrol again"),
        "The node then asks each device for a new session by itself. Clients' cursors begin anew, and may be shown"
            .to_owned(),
        "readings again that came since.".to_owned(),
    ] {
        out.line(&line)?;
    }
    Ok(())
}

fn told(out: &mut Output<'_>, path: &Path, found: &Verified, what: &str) -> Result<(), CliError> {
    out.say(&json!({ "file": path, "backup": found }), &line(path, found, what))
}

/// A backup, for people.
fn line(path: &Path, found: &Verified, what: &str) -> String {
    let Verified { head, end } = found;
    format!(
        "{} {what}: made at {}, {} records of {} bytes, {} files",
        path.display(),
        instant(head.created_at),
        end.records,
        end.bytes,
        end.files
    )
}

/// Runs what blocks for long.
async fn on_a_thread<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, CliError> + Send + 'static,
) -> Result<T, CliError> {
    tokio::task::spawn_blocking(run).await.unwrap_or_else(|error| Err(CliError::Failed(error.to_string())))
}

/// A file under another name until it is whole. Dropped before that, it goes.
struct Draft {
    path: PathBuf,
    file: File,
    len: u64,
    kept: bool,
}

impl Draft {
    fn begin(to: &Path) -> Result<Self, CliError> {
        let mut path = to.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        // One that was given up earlier is nobody's. It is never written into: it may be a link that somebody has put
        // there, or another's file.
        let opened = match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(source),
            _ => OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path),
        };
        let file = opened.map_err(|source| CliError::File { path: path.clone(), source })?;
        Ok(Self { path, file, len: 0, kept: false })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.file.write_all(bytes).map_err(|source| CliError::File { path: self.path.clone(), source })?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<PathBuf, CliError> {
        self.file.sync_all().map_err(|source| CliError::File { path: self.path.clone(), source })?;
        Ok(self.path.clone())
    }

    fn keep(&mut self, to: &Path) -> Result<(), CliError> {
        let failed = |source| CliError::File { path: to.to_owned(), source };
        fs::rename(&self.path, to).map_err(failed)?;
        self.kept = true;
        let folder = to.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // Whatever stands in the way now stood in the way of writing too, and was told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// How many bytes it has come to, on stderr.
struct Progress {
    shown: bool,
    what: &'static str,
    last: u64,
}

/// Bytes between two words about it.
const PROGRESS_EVERY: u64 = 16 * 1024 * 1024;

impl Progress {
    fn begin(asked: bool, what: &'static str) -> Self {
        Self { shown: asked || std::io::stderr().is_terminal(), what, last: 0 }
    }

    fn show(&mut self, bytes: u64) {
        if self.shown && bytes >= self.last + PROGRESS_EVERY {
            self.last = bytes;
            // Nobody is served by an error about a line that is gone in a moment.
            let _ = write!(std::io::stderr(), "\r{} MiB {}", bytes >> 20, self.what);
        }
    }

    fn end(&self) {
        if self.last > 0 {
            let _ = writeln!(std::io::stderr());
        }
    }
}

impl From<BackupError> for CliError {
    fn from(error: BackupError) -> Self {
        Self::Failed(error.to_string())
    }
}
