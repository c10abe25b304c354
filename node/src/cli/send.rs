//! `unhidra send`

use std::fmt;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use rand_core::CryptoRng;
use serde_json::json;
use tokio::time::{Sleep, sleep};
use unhidra_core::command::CommandState;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::MessageName;

use super::CliError;
use super::client::{Client, Frame, unexpected};
use super::output::Output;
use super::watch::Elsewhere;
use crate::control::{CommandRecord, Control, ControlError, SendAsked};

/// Sends a command to a device, sealed by its session. Where the device is not here it waits,
/// until it expires.
#[derive(clap::Args)]
pub struct Send {
    /// To whom.
    pub device: DeviceId,
    /// What to do, `reboot` for instance.
    #[arg(value_parser = command_name)]
    pub name: String,
    /// With what.
    #[arg(default_value = "", hide_default_value = true)]
    pub body: String,
    /// How long it is worth doing; without, as long as the node says.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub expires: Option<u64>,
    /// Your own id for it, 32 hexadecimal digits; without, one is drawn. Sent again under its id, the
    /// same command is not carried out twice, and what has become of it is printed. Where it is not
    /// known whether the node took the command, the error names the id.
    #[arg(long, value_name = "ID")]
    pub id: Option<CommandId>,
    /// Follows what becomes of it until nothing more will. Exit status 1 unless it is done.
    #[arg(long)]
    pub wait: bool,
    /// With --wait: for how long.
    #[arg(long, requires = "wait", value_name = "SECONDS", default_value_t = 30)]
    pub timeout: u64,
    /// Where else to ask.
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

impl fmt::Debug for Send {
    // What a device is told may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("device", &self.device)
            .field("name", &self.name)
            .field("body_len", &self.body.len())
            .field("id", &self.id)
            .field("elsewhere", &self.elsewhere)
            .finish_non_exhaustive()
    }
}

fn command_name(text: &str) -> Result<String, String> {
    text.parse::<MessageName>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// How often a node is asked what has become of a command. Its answer comes from memory or one
/// look into the store.
const POLL: Duration = Duration::from_millis(100);

/// Sends through the node of the data folder, or into its store.
pub(super) async fn run(
    args: &Send,
    control: &dyn Control,
    rng: &mut impl CryptoRng,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let running = control.info().await?.running;
    if args.wait && !running {
        return Err(ControlError::NotRunning("--wait".to_owned()).into());
    }
    let id = id_of(args, rng);
    let asked = SendAsked {
        device: args.device,
        id: Some(id),
        name: args.name.clone(),
        body: Bytes::copy_from_slice(args.body.as_bytes()),
        expires_in_ms: args.expires.map(|s| s * 1000),
    };
    let mut last = control.send(asked).await.map_err(|error| unheard(id, error.into()))?;
    let mut printed = show(&last, out);
    if !args.wait {
        if !running && !out.is_json() {
            printed = printed.and_then(|()| out.line("no node runs here; the next one sends it"));
        }
        return printed.map_err(|error| unread(id, error));
    }
    let followed = async {
        while !last.is_final() {
            sleep(POLL).await;
            let now = control.command(last.device, last.id).await.map_err(|error| unseen(id, &error))?;
            if now.state != last.state && printed.is_ok() {
                printed = show(&now, out);
            }
            last = now;
        }
        // What became of it is the answer, also where nobody reads how.
        done(&last).and(printed.map_err(|error| unread(id, error)))
    };
    let patience = pin!(sleep(Duration::from_secs(args.timeout)));
    in_time(patience, followed).await.unwrap_or_else(|| Err(late(args, id)))
}

/// Sends through the gateway of a node elsewhere.
pub(super) async fn run_elsewhere(
    args: &Send,
    mut client: Client,
    rng: &mut impl CryptoRng,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let id = id_of(args, rng);
    let mut request = json!({
        "type": "send", "id": 1, "device": args.device.as_str(), "name": args.name, "text": args.body,
        "command": id.to_string(),
    });
    if let Some(expires) = args.expires {
        request["expires_after_ms"] = json!(expires * 1000);
    }
    let mut patience = pin!(sleep(Duration::from_secs(args.timeout)));
    let first = async {
        client.say(&request).await?;
        match client.next().await? {
            Frame::Command { command } => Ok(command),
            other => Err(unexpected(&other)),
        }
    };
    let silent = || CliError::Failed(format!("the node has not answered within {} s", args.timeout));
    let first = in_time(patience.as_mut(), first).await.unwrap_or_else(|| Err(silent()));
    let mut last = first.map_err(|error| unheard(id, error))?;
    let mut printed = show(&last, out);
    let followed = async {
        while args.wait && !last.is_final() {
            match client.next().await.map_err(|error| unseen(id, &error))? {
                Frame::CommandChanged { command } if command.id == last.id => {
                    if command.state != last.state && printed.is_ok() {
                        printed = show(&command, out);
                    }
                    last = command;
                }
                _ => {}
            }
        }
        let printed = printed.map_err(|error| unread(id, error));
        if args.wait { done(&last).and(printed) } else { printed }
    };
    in_time(patience, followed).await.unwrap_or_else(|| Err(late(args, id)))
}

/// The id it goes under. It is drawn here and not by the node, so that it is known also where the node's
/// answer is lost.
fn id_of(args: &Send, rng: &mut impl CryptoRng) -> CommandId {
    args.id.unwrap_or_else(|| {
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        CommandId::new(id)
    })
}

/// What comes before patience ends; `None` where nothing does.
async fn in_time<T>(patience: Pin<&mut Sleep>, awaited: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        came = awaited => Some(came),
        () = patience => None,
    }
}

/// Why there is no answer to a command. A refusal is said as it is. After anything else the node may
/// have taken it, and under another id it would be carried out twice.
fn unheard(id: CommandId, error: CliError) -> CliError {
    let is_refused = match &error {
        CliError::Control(error) => !error.leaves_doubt(),
        CliError::Usage(_) => true,
        CliError::Refused { code, .. } => code != "unavailable",
        _ => false,
    };
    if is_refused {
        return error;
    }
    CliError::Failed(format!(
        "{error}; whether the command was taken is not known: send it again with --id {id}, under which it is taken once"
    ))
}

/// Why nothing more is heard of a command that was taken.
fn unseen(id: CommandId, error: &dyn fmt::Display) -> CliError {
    CliError::Failed(format!("{error}; the command {id} was taken and stands until it expires"))
}

/// Why nobody was told of a command that was taken, where that is a failure.
fn unread(id: CommandId, error: CliError) -> CliError {
    if error.exit_code() == 0 {
        return error;
    }
    CliError::Failed(format!("{error}; the command {id} was taken"))
}

fn late(args: &Send, id: CommandId) -> CliError {
    let Send { device, timeout, .. } = args;
    CliError::Failed(format!("{device} has not answered within {timeout} s; the command {id} stands until it expires"))
}

fn show(command: &CommandRecord, out: &mut Output<'_>) -> Result<(), CliError> {
    out.say(command, &format!("{}  {}", command.id, command.state.as_str()))
}

fn done(command: &CommandRecord) -> Result<(), CliError> {
    let CommandRecord { id, device, name, .. } = command;
    let why = if command.cause.is_empty() { String::new() } else { format!(": {}", command.cause) };
    let text = match command.state {
        CommandState::Done => return Ok(()),
        CommandState::Failed => format!("{device} did not do {name}{why}"),
        CommandState::Cancelled => format!("the command {id} was cancelled"),
        CommandState::Expired => format!("the command {id} expired before it was known to be done{why}"),
        CommandState::Accepted | CommandState::Sent | CommandState::Delivered => {
            format!("the command {id} is {}", command.state.as_str())
        }
    };
    Err(CliError::Failed(text))
}
