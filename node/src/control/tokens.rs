//! Tokens for the gateway: made, listed, revoked.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use unhidra_core::time::UnixTime;
use unhidra_gateway::{Listed, TokenName, Use};

/// A token for the gateway.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TokenAsked {
    /// What it is called in the log of acts; `default` where nobody says.
    #[serde(default, with = "super::text::maybe")]
    pub name: Option<TokenName>,
    /// Whether its holder may send commands.
    pub may_command: bool,
    /// How long it lives, in s; as long as the gateway's own sessions without.
    pub lifetime_s: Option<u64>,
    /// Whether it is spent by its first use.
    pub once: bool,
}

impl TokenAsked {
    /// What it is called.
    pub(crate) fn name(&self) -> TokenName {
        self.name.clone().unwrap_or_default()
    }

    /// Whether it is worth an act: one that serves once and may only watch is not.
    pub(crate) const fn is_act(&self) -> bool {
        self.may_command || !self.once
    }

    /// What an act says of it.
    pub(crate) fn detail(&self) -> String {
        let rights = if self.may_command { "may command" } else { "may watch" };
        let uses = if self.once { "once" } else { "until it ends" };
        format!("token:{}, {rights}, {uses}", self.name())
    }
}

/// A token, and where it is good.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct Minted {
    /// The token.
    pub token: String,
    /// The gateway.
    pub gateway: Option<SocketAddr>,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted").field("token", &"[secret]").field("gateway", &self.gateway).finish()
    }
}

/// A token as it is listed.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TokenRecord {
    /// What it is called.
    pub name: String,
    /// Whether its holder may send commands.
    pub may_command: bool,
    /// Whether it is spent by its first use.
    pub once: bool,
    /// When it ends, in ms.
    pub expires_at: u64,
}

impl From<Listed> for TokenRecord {
    fn from(listed: Listed) -> Self {
        let Listed { rights, uses } = listed;
        Self {
            name: rights.name.to_string(),
            may_command: rights.may_command,
            once: uses == Use::Once,
            expires_at: UnixTime::as_ms(rights.expires_at),
        }
    }
}

/// Tokens that are to be revoked: all of one name.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeTokensAsked {
    /// What they are called.
    #[serde(with = "super::text")]
    pub name: TokenName,
}

/// What was revoked.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct RevokedTokens {
    /// How many tokens.
    pub tokens: usize,
    /// How many clients were connected by one, and are not any more.
    pub clients: usize,
}
