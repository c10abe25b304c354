//! What a subcommand fails with, and the exit status that goes with it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::control::ControlError;

/// Why a subcommand failed. Its text is one line and says what to do next.
#[derive(Debug, Error)]
pub enum CliError {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The node, or the store, did not do it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file of the operator's.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// Stdout does not take the answer.
    #[error("stdout does not take the answer: {0}")]
    Output(io::Error),
    /// It was done, and did not succeed.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    /// The exit status.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            // Whoever reads has seen enough, as `head` does.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Control(_) | Self::File { .. } | Self::Output(_) | Self::Failed(_) => 1,
        }
    }
}
