//! `unhidra watch`

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use unhidra_core::ids::DeviceId;
use zeroize::Zeroizing;

use super::CliError;
use super::client::{Client, Frame, GapRecord, NodeUrl, unexpected};
use super::export::text;
use super::output::Output;
use super::reach::Reached;
use crate::control::{Control, ControlError, RowKind, TokenAsked};

/// Prints readings as they arrive, until it is interrupted, and then the cursor to go on from.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Only this device's.
    pub device: Option<DeviceId>,
    /// First what came after this cursor, which an earlier `watch` has printed.
    #[arg(long, value_name = "CURSOR")]
    pub since: Option<String>,
    /// Ends after so many readings; 0 prints the cursor of this moment alone.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Where else to ask.
    #[command(flatten)]
    pub elsewhere: Elsewhere,
}

/// A node that is not the one of the data folder.
#[derive(Debug, clap::Args)]
pub struct Elsewhere {
    /// Asks a node elsewhere, through its gateway, as in `--node http://127.0.0.1:8080`.
    #[arg(long, value_name = "URL")]
    pub node: Option<NodeUrl>,
    /// With which token; without, that of the environment's UNHIDRA_TOKEN, which no list of
    /// processes shows. `unhidra console --json` makes one.
    #[arg(long, requires = "node", value_name = "TOKEN", allow_hyphen_values = true)]
    pub token: Option<TokenArg>,
}

/// A token that was typed. It is printed as `[token]`.
#[derive(Clone, Eq, PartialEq)]
pub struct TokenArg(Zeroizing<String>);

impl TokenArg {
    fn new(token: String) -> Self {
        Self(Zeroizing::new(token))
    }
}

impl FromStr for TokenArg {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text.to_owned()))
    }
}

impl fmt::Debug for TokenArg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[token]")
    }
}

impl Elsewhere {
    /// Whether one is named.
    pub(super) const fn is_named(&self) -> bool {
        self.node.is_some()
    }

    /// A connection to it.
    pub(super) async fn client(&self) -> Result<Client, CliError> {
        let token = self.token.clone().or_else(|| std::env::var("UNHIDRA_TOKEN").ok().map(TokenArg::new));
        let missing = "--node needs --token, or UNHIDRA_TOKEN in the environment";
        match (&self.node, token) {
            (Some(node), Some(token)) => Client::over_tcp(node, &token.0).await,
            _ => Err(CliError::Usage(missing.to_owned())),
        }
    }
}

/// Connects to the gateway of the node that runs on the folder, through its control socket.
pub(super) async fn through(reached: &Reached) -> Result<Client, CliError> {
    let Reached::Running { control, socket } = reached else {
        return Err(ControlError::NotRunning("watch".to_owned()).into());
    };
    let minted = control.mint(TokenAsked { name: None, may_command: false, lifetime_s: None, once: true }).await?;
    Client::over_socket(socket, &minted.token).await
}

pub(super) async fn run(args: &Watch, mut client: Client, out: &mut Output<'_>) -> Result<(), CliError> {
    let device = args.device.map_or_else(|| "*".to_owned(), |device| device.to_string());
    let mut request = json!({ "type": "subscribe", "id": 1, "device": device });
    if let Some(since) = &args.since {
        request["since"] = json!(since);
    }
    client.say(&request).await?;
    let mut cursor = match client.next().await? {
        Frame::Subscribed { cursor } => cursor,
        other => return Err(unexpected(&other)),
    };
    let ended = tokio::select! {
        ended = follow(args, &mut client, &mut cursor, out) => ended,
        ended = interrupted() => ended,
    };
    // Whatever ended it, what was seen can be gone on from.
    out.say(&json!({ "cursor": cursor }), &format!("go on with --since {cursor}"))?;
    ended
}

/// Completes when the system tells us to end.
async fn interrupted() -> Result<(), CliError> {
    let failed = |error| CliError::Failed(format!("signals cannot be listened to: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

async fn follow(args: &Watch, client: &mut Client, cursor: &mut String, out: &mut Output<'_>) -> Result<(), CliError> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        // Frames about commands and the like are not for a watcher.
        let Frame::Readings { cursor: at, gaps, readings } = client.next().await? else { continue };
        for gap in &gaps {
            let GapRecord { device, partition, offset } = gap;
            let text = format!("readings of {device} up to {partition}/{offset} are no longer kept");
            out.say(&json!({ "gap": gap }), &text)?;
        }
        for row in &readings {
            if out.is_json() {
                out.object(row)?;
            } else if row.kind != RowKind::Ignored {
                out.line(&text(row))?;
            }
        }
        // A cursor stands behind a whole frame, so a frame is shown whole.
        left = left.saturating_sub(readings.len() as u64);
        *cursor = at;
    }
    Ok(())
}
