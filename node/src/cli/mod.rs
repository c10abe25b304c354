//! The command line: one file for each subcommand.
//!
//! A subcommand that reads or changes state asks the node that runs on the data folder, over its
//! socket; where none runs it opens the store itself. What was asked for goes to stdout, what goes
//! wrong to stderr; the exit status is 0, 1 where it failed, and 2 where it was asked wrongly.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::actor;
use crate::clock::SystemClock;
use crate::config::{Purpose, Sources, keys_of};
use crate::control::UserAct;
use crate::folder::FolderError;
use crate::log::{self, Format};
use output::Output;
use reach::{Missing, reach};
use unhidra_core::time::Clock;

mod acl;
mod acts;
mod backup;
mod client;
mod clients;
mod commands;
mod console;
mod csv;
pub mod demo;
mod device;
mod enroll;
mod error;
mod export;
mod fingerprint;
mod keys;
mod moment;
mod open;
mod outlets;
mod output;
mod qr;
mod reach;
mod run;
mod send;
mod serve;
mod settings;
pub mod simulate;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod turn;
mod upstream;
mod user;
mod verify;
mod version;
mod watch;

pub use error::CliError;
pub use run::Ready;
pub use serve::Node;

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
#[derive(Clone, clap::Args)]
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

impl fmt::Debug for Global {
    // What is set may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Global")
            .field("config", &self.config)
            .field("set", &keys_of(&self.set))
            .field("data", &self.data)
            .field("json", &self.json)
            .field("log_format", &self.log_format)
            .finish()
    }
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the node.
    Run,
    /// Runs a node with simulated devices, and a client that checks them.
    Demo(demo::Demo),
    /// Runs simulated devices against any node.
    Simulate(simulate::command::Simulate),
    /// Enrols a device.
    Enroll(enroll::Enroll),
    /// Lists, shows, compares, tags and revokes devices.
    Device {
        /// Which of these.
        #[command(subcommand)]
        action: device::Action,
    },
    /// Lists the MQTT clients.
    Clients(clients::Clients),
    /// Prints who would get a message on a topic.
    Subscriptions(clients::Subscriptions),
    /// Ends a client's connection.
    Kick(clients::Kick),
    /// Shows where readings leave the node in the clear.
    Outlets(outlets::Outlets),
    /// Prints how the outside brokers stand.
    Upstream,
    /// Prints readings as they arrive.
    Watch(watch::Watch),
    /// Sends a command to a device, sealed by its session.
    Send(send::Send),
    /// Calls a command back that has not been sent.
    ///
    /// Once it is sent it cannot be called back, also where its connection was lost: the device may have it.
    Cancel(commands::Cancel),
    /// Lists the commands of a device, and what has become of them.
    Commands(commands::Commands),
    /// Sets something of a device: the last value by name, told it when it is here.
    Set(settings::Set),
    /// Lists what a device is set to, and whether it knows.
    Settings(settings::Settings),
    /// Prints stored rows, as JSON lines or CSV.
    Export(export::Export),
    /// Shows and changes the keys that encrypt the store.
    Keys {
        /// Which of these.
        #[command(subcommand)]
        action: keys::Action,
    },
    /// Prints who commanded, enrolled, revoked, changed a key.
    Acts(acts::Acts),
    /// Makes, checks and puts back backups.
    Backup {
        /// Which of these.
        #[command(subcommand)]
        action: backup::Action,
    },
    /// Looks after the store.
    Store {
        /// What is done.
        #[command(subcommand)]
        action: store::Action,
    },
    /// Adds, changes, removes and lists the users of MQTT.
    User {
        /// Which of these.
        #[command(subcommand)]
        action: user::Action,
    },
    /// Reads the rules of who may publish and subscribe where.
    Acl {
        /// What is asked of them.
        #[command(subcommand)]
        action: acl::Action,
    },
    /// Makes, lists and revokes the tokens of the gateway's clients.
    Token {
        /// Which of these.
        #[command(subcommand)]
        action: token::Action,
    },
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

impl Global {
    /// Where the configuration of a subcommand comes from.
    pub(crate) fn sources(&self, purpose: Purpose) -> Sources {
        Sources {
            purpose,
            file: self.config.clone(),
            set: self.set.clone(),
            data: self.data.clone(),
            log_format: self.log_format,
        }
    }
}

/// Does what was asked, and prints the answer to `stdout`.
///
/// # Errors
///
/// [`CliError`] knows its exit status.
pub async fn dispatch(args: Args, rng: StdRng, stdout: &mut dyn Write) -> Result<(), CliError> {
    let mut out = Output::new(args.global.json, stdout);
    match args.command.unwrap_or(Command::Run) {
        Command::Run => run::run(&args.global, rng, &mut out).await,
        Command::Demo(demo) => demo::run(&demo, &args.global, rng, &mut out).await,
        Command::Simulate(simulate) => simulate::command::run(&simulate, &args.global, rng, &mut out).await,
        Command::Version => version::run(&mut out),
        Command::Store { action: store::Action::Status } => {
            on_folder(&args.global, rng, &mut out, Asked::StoreStatus).await
        }
        Command::Store { action } => store::run(action, &args.global, &mut out).await,
        Command::User { action } => {
            let mut rng = rng;
            match user::run(action, &args.global, &mut rng, &mut out)? {
                Some(changed) => {
                    note(&args.global, rng, &mut out, changed.act()).await?;
                    changed.tell(&mut out)
                }
                None => Ok(()),
            }
        }
        Command::Acl { action } => acl::run(action, &args.global, &mut out),
        Command::Watch(watch) if watch.elsewhere.is_named() => {
            watch::run(&watch, watch.elsewhere.client().await?, &mut out).await
        }
        Command::Send(send) if send.elsewhere.is_named() => {
            let mut rng = rng;
            send::run_elsewhere(&send, send.elsewhere.client().await?, &mut rng, &mut out).await
        }
        Command::Watch(watch) => on_folder(&args.global, rng, &mut out, Asked::Watch(watch)).await,
        Command::Send(send) => on_folder(&args.global, rng, &mut out, Asked::Send(send)).await,
        Command::Cancel(cancel) => on_folder(&args.global, rng, &mut out, Asked::Cancel(cancel)).await,
        Command::Commands(asked) => on_folder(&args.global, rng, &mut out, Asked::Commands(asked)).await,
        Command::Set(set) => on_folder(&args.global, rng, &mut out, Asked::Set(set)).await,
        Command::Settings(asked) => on_folder(&args.global, rng, &mut out, Asked::Settings(asked)).await,
        Command::Enroll(enroll) => on_folder(&args.global, rng, &mut out, Asked::Enroll(enroll)).await,
        Command::Device { action } => on_folder(&args.global, rng, &mut out, Asked::Device(action)).await,
        Command::Clients(clients) => on_folder(&args.global, rng, &mut out, Asked::Clients(clients)).await,
        Command::Subscriptions(asked) => on_folder(&args.global, rng, &mut out, Asked::Subscriptions(asked)).await,
        Command::Kick(kick) => on_folder(&args.global, rng, &mut out, Asked::Kick(kick)).await,
        Command::Outlets(asked) => on_folder(&args.global, rng, &mut out, Asked::Outlets(asked)).await,
        Command::Backup { action: backup::Action::Create(create) } => {
            on_folder(&args.global, rng, &mut out, Asked::Backup(create)).await
        }
        Command::Backup { action } => backup::run(action, &args.global, &mut out).await,
        Command::Upstream => on_folder(&args.global, rng, &mut out, Asked::Upstream).await,
        Command::Export(export) => on_folder(&args.global, rng, &mut out, Asked::Export(export)).await,
        Command::Keys { action } => on_folder(&args.global, rng, &mut out, Asked::Keys(action)).await,
        Command::Acts(acts) => on_folder(&args.global, rng, &mut out, Asked::Acts(acts)).await,
        Command::Token { action } => on_folder(&args.global, rng, &mut out, Asked::Token(action)).await,
        Command::Console(console) => on_folder(&args.global, rng, &mut out, Asked::Console(console)).await,
    }
}

/// What is asked of a data folder, whoever has it.
enum Asked {
    Enroll(enroll::Enroll),
    Device(device::Action),
    Clients(clients::Clients),
    Kick(clients::Kick),
    Upstream,
    Subscriptions(clients::Subscriptions),
    Outlets(outlets::Outlets),
    Watch(watch::Watch),
    Send(send::Send),
    Cancel(commands::Cancel),
    Commands(commands::Commands),
    Set(settings::Set),
    Settings(settings::Settings),
    Export(export::Export),
    Keys(keys::Action),
    Acts(acts::Acts),
    Backup(backup::Create),
    StoreStatus,
    Note(UserAct),
    Token(token::Action),
    Console(console::Console),
}

/// Has what was done to a user written down, where there is a data folder. The file of users is not
/// in it: that is changed by now, whatever becomes of this.
async fn note(global: &Global, rng: StdRng, out: &mut Output<'_>, act: UserAct) -> Result<(), CliError> {
    match on_folder(global, rng, out, Asked::Note(act)).await {
        Err(CliError::Folder(FolderError::Missing { .. })) | Ok(()) => Ok(()),
        Err(error) => {
            tracing::warn!(%error, "the user is changed, and the log of acts could not be told");
            Ok(())
        }
    }
}

/// Where no node runs, what is done is done in the name of who runs this.
async fn on_folder(global: &Global, rng: StdRng, out: &mut Output<'_>, asked: Asked) -> Result<(), CliError> {
    let own = actor::user(rustix::process::geteuid().as_raw());
    actor::by(own, ask(global, rng, out, asked)).await
}

async fn ask(global: &Global, mut rng: StdRng, out: &mut Output<'_>, asked: Asked) -> Result<(), CliError> {
    let config = global.sources(Purpose::Node).load()?.config;
    // A subcommand says what it has to say itself; the rooms it opens are heard when they warn.
    log::start(&log::Config { level: "warn".to_owned(), format: config.log.format })?;
    let missing = if matches!(asked, Asked::Enroll(_)) { Missing::Make } else { Missing::Refuse };
    let reached = reach(&config, missing, StdRng::from_rng(&mut rng)).await?;
    let control = reached.control();
    let done = match asked {
        Asked::Enroll(enroll) => enroll::run(&enroll, control, &mut rng, out).await,
        Asked::Device(action) => device::run(action, control, out).await,
        Asked::Clients(asked) => clients::list(asked, control, out).await,
        Asked::Subscriptions(asked) => clients::subscriptions(asked, control, out).await,
        Asked::Kick(asked) => clients::kick(asked, control, out).await,
        Asked::Outlets(asked) => outlets::run(asked, control, out).await,
        Asked::Upstream => upstream::run(control, out).await,
        Asked::Watch(watch) => match watch::through(&reached).await {
            Ok(client) => watch::run(&watch, client, out).await,
            Err(error) => Err(error),
        },
        Asked::Send(send) => send::run(&send, control, &mut rng, out).await,
        Asked::Cancel(cancel) => commands::cancel(&cancel, control, out).await,
        Asked::Commands(asked) if asked.follow => match watch::through(&reached).await {
            Ok(client) => commands::follow(&asked, client, out).await,
            Err(error) => Err(error),
        },
        Asked::Commands(asked) => commands::list(&asked, control, out).await,
        Asked::Set(set) => settings::set(&set, control, out).await,
        Asked::Settings(asked) => settings::list(&asked, control, out).await,
        Asked::StoreStatus => store::status(control, out).await,
        Asked::Backup(create) => backup::create(&create, control, out).await,
        Asked::Export(export) => export::run(&export, control, out).await,
        Asked::Keys(action) => keys::run(action, control, out).await,
        Asked::Note(act) => control.user_act(act).await.map_err(CliError::from),
        Asked::Acts(acts) => acts::run(acts, SystemClock::start().unix_now(), control, out).await,
        Asked::Token(action) => token::run(action, control, out).await,
        Asked::Console(console) => console::run(console, control, out).await,
    };
    reached.close().await;
    done
}
