//! `unhidra console`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::json;
use unhidra_gateway::TokenName;

use super::CliError;
use super::output::Output;
use crate::control::{Control, Minted, TokenAsked};

/// Prints the console's address with a fresh one-time token.
#[derive(Debug, clap::Args)]
pub struct Console {
    /// The token may watch, and not send commands.
    #[arg(long)]
    pub read_only: bool,
    /// What it is called in the log of acts: 1 to 32 of A-Z a-z 0-9 . _ -.
    #[arg(long, value_name = "NAME", default_value = "console")]
    pub name: TokenName,
}

pub(super) async fn run(args: Console, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let asked = TokenAsked { name: Some(args.name), may_command: !args.read_only, lifetime_s: None, once: true };
    let minted = control.mint(asked).await?;
    match url(&minted) {
        Some(url) => out.say(&json!({ "url": url, "token": minted.token }), &url),
        None => Err(CliError::Failed("the gateway of this node is off; set gateway.listen".to_owned())),
    }
}

/// The console's address. The token stands in the fragment, which no browser sends anywhere.
pub(crate) fn url(minted: &Minted) -> Option<String> {
    minted.gateway.map(|gateway| format!("http://{}/#token={}", reachable(gateway), minted.token))
}

/// An address to dial, where the node listens on all.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_can_be_dialled_and_holds_the_token_in_its_fragment() {
        for (listen, url_expected) in [
            ("127.0.0.1:8080", "http://127.0.0.1:8080/#token=abc"),
            ("0.0.0.0:80", "http://127.0.0.1:80/#token=abc"),
            ("[::]:8080", "http://[::1]:8080/#token=abc"),
        ] {
            let minted = Minted { token: "abc".to_owned(), gateway: listen.parse().ok() };
            assert_eq!(url(&minted).unwrap(), url_expected);
        }
        assert_eq!(url(&Minted { token: "abc".to_owned(), gateway: None }), None);
    }
}
