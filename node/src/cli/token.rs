//! `unhidra token`

use clap::Subcommand;
use unhidra_gateway::TokenName;

use super::CliError;
use super::output::{Output, instant};
use crate::control::{Control, RevokeTokensAsked, TokenAsked};

/// What is done with the tokens of the gateway.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Makes a token for a client of the gateway, and prints it: it is shown once.
    ///
    /// It lives in the memory of the node that runs, and ends with it at the latest. What its holder
    /// asks to be done stands in the log of acts under `token:NAME`.
    Add {
        /// What it is called: 1 to 32 of A-Z a-z 0-9 . _ -. Several may have one name.
        name: TokenName,
        /// It may watch, and not send commands.
        #[arg(long)]
        read_only: bool,
        /// How long it lives, in s; without, as long as gateway.session_s says.
        #[arg(long, value_name = "SECONDS")]
        lifetime_s: Option<u64>,
    },
    /// Lists the tokens that have not ended, without the tokens themselves.
    List,
    /// Ends all tokens of a name, and the connections of those who came in by one.
    Revoke {
        /// What they are called.
        name: TokenName,
    },
}

pub(super) async fn run(action: Action, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    match action {
        Action::Add { name, read_only, lifetime_s } => {
            let asked = TokenAsked { name: Some(name), may_command: !read_only, lifetime_s, once: false };
            let minted = control.mint(asked).await?;
            out.say(&minted, &minted.token)
        }
        Action::List => list(control, out).await,
        Action::Revoke { name } => {
            let revoked = control.revoke_tokens(RevokeTokensAsked { name: name.clone() }).await?;
            if revoked.tokens == 0 && revoked.clients == 0 {
                let hint = "`unhidra token list` names those there are";
                return Err(CliError::Failed(format!("no token is called {name}; {hint}")));
            }
            let text = format!("{name}: {} tokens revoked, {} clients disconnected", revoked.tokens, revoked.clients);
            out.say(&revoked, &text)
        }
    }
}

async fn list(control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let tokens = control.tokens().await?;
    if out.is_json() {
        return tokens.iter().try_for_each(|token| out.object(token));
    }
    if tokens.is_empty() {
        return out.line("no tokens; `unhidra token add NAME` makes one");
    }
    let yes = |it: bool| if it { "yes" } else { "no" }.to_owned();
    let rows: Vec<_> = tokens
        .iter()
        .map(|token| {
            let ends = instant(token.expires_at);
            [token.name.clone(), yes(token.may_command), yes(token.once), ends]
        })
        .collect();
    out.table(["NAME", "COMMANDS", "ONCE", "ENDS"], &rows)
}
