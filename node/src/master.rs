//! Where the store's master key comes from: a file, a program, or the environment.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use unhidra_store::keyfile::{self, KeyFileError};
use unhidra_store::{Config, LocalMaster};
use zeroize::Zeroizing;

/// The most bytes a program may print.
const OUTPUT_MAX: u64 = 4096;

/// Where the master key is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// In a file.
    File(PathBuf),
    /// A program prints it.
    Command { argv: Vec<String>, timeout: Duration },
    /// In a variable of the environment.
    Environment(String),
}

/// Why there is no master key. Nothing of what was found is said.
#[derive(Debug, Error)]
pub enum MasterSourceError {
    /// Its file.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The program does not run.
    #[error("store.master_key_command: {program} does not run: {cause}")]
    Start {
        /// Which.
        program: String,
        /// What the system says.
        cause: io::Error,
    },
    /// The program failed.
    #[error("store.master_key_command: {program} ended with {status}")]
    Status {
        /// Which.
        program: String,
        /// How it ended.
        status: String,
    },
    /// The program takes too long.
    #[error(
        "store.master_key_command: {program} did not end within {timeout_s} s and was killed; \
         store.master_key_command_timeout_s says how long it may take"
    )]
    Late {
        /// Which.
        program: String,
        /// How long it had, in s.
        timeout_s: u64,
    },
    /// The environment has no such variable.
    #[error("store.master_key_env: the environment has no variable {name}, or it is no text")]
    NoVariable {
        /// Which.
        name: String,
    },
    /// What was found is no key.
    #[error(
        "{place} gives {len} bytes that are no key; \
         a key is 32 bytes, or 64 hexadecimal digits or base64 of 32 bytes on one line"
    )]
    Malformed {
        /// Which key of the configuration.
        place: &'static str,
        /// How much it was.
        len: usize,
    },
}

impl Source {
    /// Where a configuration says it is, for a node whose data is in `data`.
    pub(crate) fn of(config: &Config, data: &Path) -> Self {
        match config.master_key_path(data) {
            Some(path) => Self::File(path),
            None if config.master_key_command.argv().is_empty() => Self::Environment(config.master_key_env.clone()),
            None => Self::Command {
                argv: config.master_key_command.argv().to_vec(),
                timeout: Duration::from_secs(config.master_key_command_timeout_s),
            },
        }
    }

    /// Reads it, or makes the file where neither it nor the store in `store` exists.
    pub(crate) async fn read_or_create(&self, store: &Path) -> Result<LocalMaster, MasterSourceError> {
        match self {
            Self::File(path) => Ok(keyfile::load_or_create(path, store)?),
            Self::Command { .. } | Self::Environment(_) => self.read().await,
        }
    }

    /// Reads it.
    pub(crate) async fn read(&self) -> Result<LocalMaster, MasterSourceError> {
        match self {
            Self::File(path) => Ok(keyfile::load(path)?),
            Self::Command { argv, timeout } => {
                let printed = printed(argv, *timeout).await?;
                parsed("store.master_key_command", &printed)
            }
            Self::Environment(name) => {
                let no_variable = || MasterSourceError::NoVariable { name: name.clone() };
                let value = Zeroizing::new(std::env::var(name).map_err(|_| no_variable())?);
                parsed("store.master_key_env", value.as_bytes())
            }
        }
    }
}

fn parsed(place: &'static str, text: &[u8]) -> Result<LocalMaster, MasterSourceError> {
    LocalMaster::parse(text).ok_or(MasterSourceError::Malformed { place, len: text.len() })
}

/// What a program prints on stdout. Its stderr is ours: it says why it fails.
async fn printed(argv: &[String], timeout: Duration) -> Result<Zeroizing<Vec<u8>>, MasterSourceError> {
    let (program, arguments) = argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    let start = |cause| MasterSourceError::Start { program: program.into(), cause };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(start)?;
    let mut stdout = child.stdout.take().ok_or_else(|| start(io::ErrorKind::BrokenPipe.into()))?.take(OUTPUT_MAX);
    // Room for all of it at once, so that growing leaves no copy behind.
    let mut output = Zeroizing::new(Vec::with_capacity(OUTPUT_MAX as usize));
    let ended = tokio::time::timeout(timeout, async {
        stdout.read_to_end(&mut output).await?;
        drop(stdout);
        child.wait().await
    });
    let status = match ended.await {
        Ok(status) => status.map_err(start)?,
        // Dropped, the child is killed.
        Err(_) => return Err(MasterSourceError::Late { program: program.into(), timeout_s: timeout.as_secs() }),
    };
    if !status.success() {
        return Err(MasterSourceError::Status { program: program.into(), status: status.to_string() });
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(argv: &[&str]) -> Source {
        let argv = argv.iter().map(ToString::to_string).collect();
        Source::Command { argv, timeout: Duration::from_secs(60) }
    }

    async fn refused(source: &Source) -> String {
        source.read().await.expect_err("refused").to_string()
    }

    #[tokio::test]
    async fn a_program_prints_the_key_in_any_of_its_forms() {
        let hex = "07".repeat(32);
        for text in [hex.clone(), format!("{hex}\n"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n".into()] {
            let master = command(&["printf", "%s", &text]).read().await.unwrap();
            assert_eq!(master.as_bytes(), &[7; 32], "{text}");
        }
    }

    #[tokio::test]
    async fn a_program_that_fails_says_how_and_nothing_of_what_it_printed() {
        assert!(refused(&command(&["false"])).await.contains("false ended with exit status: 1"));
        assert!(refused(&command(&["/no/such/program"])).await.contains("does not run"));
        let text = refused(&command(&["printf", "hunter2"])).await;
        assert!(text.contains("7 bytes that are no key") && !text.contains("hunter2"), "{text}");
        let endless = refused(&command(&["head", "-c", "100000", "/dev/zero"])).await;
        assert!(endless.contains("no key") || endless.contains("ended with"), "{endless}");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_killed() {
        let argv = ["sleep", "1000"].map(str::to_owned).to_vec();
        let source = Source::Command { argv, timeout: Duration::from_millis(50) };
        let text = refused(&source).await;
        assert!(text.contains("did not end within") && text.contains("master_key_command_timeout_s"), "{text}");
    }

    #[tokio::test]
    async fn the_environment_is_asked_by_the_name_that_is_set() {
        let missing = Source::Environment("UNHIDRA_NO_SUCH_VARIABLE".into());
        assert!(refused(&missing).await.contains("UNHIDRA_NO_SUCH_VARIABLE"));
        // Every process has this one, and it is no key.
        let no_key = Source::Environment("PATH".into());
        assert!(refused(&no_key).await.contains("store.master_key_env gives"));
    }
}
