//! The command line: one file for each subcommand.
//!
//! A subcommand that reads or changes state asks the node that runs on the data folder, over its
//! socket; where none runs it opens the store itself. What was asked for goes to stdout, what goes
//! wrong to stderr; the exit status is 0, 1 where it failed, and 2 where it was asked wrongly.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::log::Format;

mod client;
mod console;
mod device;
mod error;
mod export;
mod output;
mod send;
mod version;
mod watch;

pub use error::CliError;

/// Carries readings from devices to clients: encrypted on the device by a Double Ratchet, made
/// durable, and opened only in the bridge.
///
/// Without a subcommand it runs the node.
#[derive(Debug, Parser)]
#[command(name = "unhidra", version, propagate_version = true)]
pub struct Args {
    /// What holds for every subcommand.
    #[command(flatten)]
    pub global: Global,
    /// What is to be done; `run` without.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What holds for every subcommand.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The configuration, TOML. Every key and its default stands in node/src/default.toml.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Sets one key of the configuration, as in `--set gateway.listen=127.0.0.1:9000`. May be
    /// given more than once; it outranks the file.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<String>,
    /// The data folder.
    #[arg(long, global = true, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Prints JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// The shape of the log on stderr.
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<Format>,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists, shows, tags and revokes devices.
    Device {
        /// Which of these.
        #[command(subcommand)]
        action: device::Action,
    },
    /// Prints readings as they arrive.
    Watch(watch::Watch),
    /// Sends a command to a device, sealed by its session.
    Send(send::Send),
    /// Prints every stored row.
    Export(export::Export),
    /// Prints the console's address with a fresh one-time token.
    Console(console::Console),
    /// Prints the version.
    Version,
}

fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("it has the form KEY=VALUE, as in gateway.listen=127.0.0.1:9000".to_owned()),
    }
}
