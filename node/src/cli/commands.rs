//! `unhidra commands`, `unhidra cancel`

use serde_json::json;
use unhidra_core::ids::{CommandId, DeviceId};

use super::CliError;
use super::client::{Client, Frame};
use super::output::{Output, instant, name};
use crate::control::{CancelAsked, CommandRecord, CommandsAsked, Control};

/// How many are listed where nobody says.
const NEWEST: usize = 50;

/// How many the gateway gives at once (gateway/PROTOCOL.md section 5).
const FOLLOWED_MAX: u16 = 256;

/// Lists the commands of a device, and what has become of them.
#[derive(Debug, clap::Args)]
pub struct Commands {
    /// Whose.
    pub device: DeviceId,
    /// Only those that are not final.
    #[arg(long, conflicts_with = "newest")]
    pub open: bool,
    /// How many, the newest; with --follow at most 256.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub newest: Option<u16>,
    /// Goes on with every change, until it is interrupted. Needs a running node.
    #[arg(long)]
    pub follow: bool,
}

/// Calls a command back that has not been sent.
#[derive(Debug, clap::Args)]
pub struct Cancel {
    /// Whose.
    pub device: DeviceId,
    /// Which, as `unhidra send` and `unhidra commands` print it.
    #[arg(value_name = "ID")]
    pub id: CommandId,
}

pub(super) async fn list(asked: &Commands, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let newest = (!asked.open).then(|| asked.newest.map_or(NEWEST, usize::from));
    let found = control.commands(CommandsAsked { device: asked.device, newest }).await?;
    if out.is_json() {
        return found.commands.iter().try_for_each(|command| out.object(command));
    }
    if found.commands.is_empty() {
        let what = if asked.open { "no open command" } else { "no command" };
        return out.line(&format!("{} has {what}", asked.device));
    }
    let rows: Vec<_> = found.commands.iter().map(row).collect();
    out.table(["COMMAND", "NAME", "STATE", "SINCE", "ACCEPTED", "EXPIRES", "NOTE"], &rows)
}

/// Prints what there is and every change from then on.
pub(super) async fn follow(asked: &Commands, mut client: Client, out: &mut Output<'_>) -> Result<(), CliError> {
    if let Some(newest) = asked.newest.filter(|newest| *newest > FOLLOWED_MAX) {
        let text = format!("--follow begins with the newest {FOLLOWED_MAX} at most, and --newest {newest} is more");
        return Err(CliError::Usage(format!("{text}; without --follow it lists them")));
    }
    // First the changes, then what there is: nothing falls between the two.
    client.say(&json!({ "type": "subscribe", "device": asked.device.as_str() })).await?;
    let mut request = json!({ "type": "commands", "id": 1, "device": asked.device.as_str() });
    if !asked.open {
        request["newest"] = json!(asked.newest.map_or(NEWEST, usize::from));
    }
    client.say(&request).await?;
    loop {
        match client.next().await? {
            Frame::Commands { commands } => commands.iter().try_for_each(|command| show(command, out))?,
            Frame::CommandChanged { command } if command.device == asked.device => show(&command, out)?,
            _ => {}
        }
    }
}

pub(super) async fn cancel(asked: &Cancel, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let command = control.cancel(CancelAsked { device: asked.device, id: asked.id }).await?;
    let text = match command.attempts {
        0 => format!("{}  cancelled", command.id),
        _ => format!("{}  cancelled; it was sent before, and the device may have it all the same", command.id),
    };
    out.say(&command, &text)
}

fn show(command: &CommandRecord, out: &mut Output<'_>) -> Result<(), CliError> {
    let [id, name, state, since, _, _, note] = row(command);
    out.say(command, format!("{since}  {id}  {name}  {state}  {note}").trim_end())
}

fn row(command: &CommandRecord) -> [String; 7] {
    [
        command.id.to_string(),
        name(&command.name),
        command.state.as_str().to_owned(),
        instant(since(command)),
        instant(command.created_at),
        instant(command.expires_at),
        note(command),
    ]
}

/// When it came to where it stands.
fn since(command: &CommandRecord) -> u64 {
    let times = &command.times;
    let all = [times.done, times.failed, times.expired, times.cancelled, times.delivered, times.sent];
    all.into_iter().flatten().fold(times.accepted, u64::max)
}

fn note(command: &CommandRecord) -> String {
    let mut notes = Vec::new();
    if command.times.acting.is_some() && !command.is_final() {
        notes.push("acting".to_owned());
    }
    if command.attempts > 1 {
        notes.push(format!("sent {} times", command.attempts));
    }
    if let (Some(by), false) = (&command.by, command.cause.is_empty()) {
        notes.push(format!("{by}: {}", name(&command.cause)));
    }
    if let Some(late) = &command.late {
        notes.push(format!("late: the device says {}", late.status));
    }
    notes.join("; ")
}
