//! What a subcommand fails with, and the exit status that goes with it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::ConfigError;
use crate::control::ControlError;
use crate::folder::FolderError;

/// Why a subcommand failed. Its text is one line and says what to do next.
#[derive(Debug, Error)]
pub enum CliError {
    /// It was asked wrongly.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log is none.
    #[error(transparent)]
    Log(#[from] crate::log::LogError),
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A key file in it.
    #[error(transparent)]
    Key(#[from] crate::keys::KeyFileError),
    /// The certificates.
    #[error(transparent)]
    Pki(#[from] unhidra_certs::PkiError),
    /// The master key of the store.
    #[error(transparent)]
    StoreKey(#[from] crate::master::MasterSourceError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] unhidra_store::OpenError),
    /// The store does not read.
    #[error(transparent)]
    Read(#[from] unhidra_store::ReadError),
    /// The files that say who may come in, and what they may do.
    #[error(transparent)]
    Access(#[from] crate::access::AccessError),
    /// The certificates cannot be offered.
    #[error(transparent)]
    Tls(#[from] crate::tls::TlsError),
    /// An outside broker's files.
    #[error(transparent)]
    Outside(#[from] crate::upstream::OutsideError),
    /// The node cannot be put together.
    #[error(transparent)]
    Build(#[from] crate::app::BuildError),
    /// A port that cannot be listened on.
    #[error("{key} = {address}: {source}; --set {key}=ADDRESS:PORT names another, and port 0 any that is free")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// What it says.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The node, or the store, did not do it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The gateway of a node refused it, in words.
    #[error("{message} ({code})")]
    Refused {
        /// Which refusal (gateway/PROTOCOL.md section 7).
        code: String,
        /// The same for people.
        message: String,
    },
    /// The simulated devices.
    #[error(transparent)]
    Simulate(#[from] super::simulate::SimulateError),
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
            Self::Usage(_) | Self::Config(_) | Self::Log(_) => 2,
            // Whoever reads has seen enough, as `head` does. Where the status is itself an answer, the subcommand
            // comes to it whether or not it is read, and fails with that instead.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Folder(_)
            | Self::Key(_)
            | Self::Pki(_)
            | Self::StoreKey(_)
            | Self::Open(_)
            | Self::Read(_)
            | Self::Tls(_)
            | Self::Access(_)
            | Self::Build(_)
            | Self::Outside(_)
            | Self::Listen { .. }
            | Self::Control(_)
            | Self::Refused { .. }
            | Self::Simulate(_)
            | Self::File { .. }
            | Self::Output(_)
            | Self::Failed(_) => 1,
        }
    }
}
