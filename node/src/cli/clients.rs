//! `unhidra clients` and `unhidra kick`

use unhidra_core::ids::DeviceId;

use super::CliError;
use super::output::{Output, instant, name};
use crate::control::{ClientName, ClientRecord, ClientsAsked, Control, KickAsked, SubscriberRecord, SubscribersAsked};

/// How many clients a table shows where nobody says.
const LIMIT: usize = 1000;

/// How many go with one question, which has a bound.
const KICKED_AT_ONCE: usize = 256;

/// Lists the MQTT clients: those that are here, and those whose session waits for them.
#[derive(Debug, clap::Args)]
pub struct Clients {
    /// Only those whose client identifier or address holds this text.
    pub matching: Option<String>,
    /// Only those of this user.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Only those of this device.
    #[arg(long, value_name = "DEVICE", conflicts_with = "user")]
    pub device: Option<DeviceId>,
    /// Only those that came in by this listener, `tls` or `tcp` for instance.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// Only those that are here.
    #[arg(long, conflicts_with = "away")]
    pub connected: bool,
    /// Only those that are not, and whose session waits.
    #[arg(long)]
    pub away: bool,
    /// At most so many; 0 for all. Without it a table has 1000, and JSON all.
    #[arg(long, value_name = "COUNT")]
    pub limit: Option<usize>,
}

/// Ends a client's connection: it is told 0x98, administrative action. It may come back at once,
/// unless it is forbidden to; `unhidra device revoke` forbids it to a device.
#[derive(Debug, clap::Args)]
pub struct Kick {
    /// Who: a client identifier, whoever uses it.
    pub id: String,
    /// ID is a user: all its connections end.
    #[arg(long, conflicts_with = "device")]
    pub user: bool,
    /// ID is a device: all its connections end.
    #[arg(long)]
    pub device: bool,
    /// Ends the session too: its subscriptions and what waits for it are gone.
    #[arg(long)]
    pub forget: bool,
}

/// Prints who would get a message on a topic, by which filter, at which QoS, and of which groups
/// one member does. Of a filter, it prints every subscription that has a topic in common with it.
#[derive(Debug, clap::Args)]
pub struct Subscriptions {
    /// A topic, `site/boiler/temperature` for instance, or a filter, `site/#` for instance.
    pub topic: String,
}

pub(super) async fn subscriptions(
    args: Subscriptions,
    control: &dyn Control,
    out: &mut Output<'_>,
) -> Result<(), CliError> {
    let found = control.subscribers(SubscribersAsked { topic: args.topic }).await?;
    if out.is_json() {
        return found.subscribers.iter().try_for_each(|subscriber| out.object(subscriber));
    }
    if found.subscribers.is_empty() {
        return out.line("nobody");
    }
    let rows: Vec<_> = found.subscribers.iter().map(subscriber_row).collect();
    out.table(["CLIENT", "OWNER", "HERE", "QOS", "FILTER", "GROUP"], &rows)?;
    if found.more { out.line("and more; ask for fewer topics") } else { Ok(()) }
}

fn subscriber_row(subscriber: &SubscriberRecord) -> [String; 6] {
    [
        name(&subscriber.name.client_id),
        owner(&subscriber.name),
        if subscriber.connected { "yes" } else { "no" }.to_owned(),
        subscriber.qos.to_string(),
        name(&subscriber.filter),
        subscriber.share_name.as_deref().map(name).unwrap_or_default(),
    ]
}

fn owner(client: &ClientName) -> String {
    match (&client.device, &client.user) {
        (Some(device), _) => format!("device {device}"),
        (None, Some(user)) => format!("user {}", name(user)),
        (None, None) => "anybody".to_owned(),
    }
}

pub(super) async fn list(args: Clients, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let Clients { matching, user, device, listener, connected, away, limit } = args;
    let asked = ClientsAsked {
        matching,
        user,
        device,
        listener,
        connected: (connected || away).then_some(connected),
        ..ClientsAsked::default()
    };
    let limit = match limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if out.is_json() => usize::MAX,
        None => LIMIT,
    };
    let is_json = out.is_json();
    let mut rows = Vec::new();
    let mut count = 0;
    let complete = each(asked, limit, control, |client| {
        count += 1;
        if is_json {
            return out.object(client);
        }
        rows.push(row(client));
        Ok(())
    })
    .await?;
    if is_json {
        return Ok(());
    }
    if rows.is_empty() {
        return out.line("no such client");
    }
    let heading = [
        "CLIENT",
        "OWNER",
        "ADDRESS",
        "LISTENER",
        "MQTT",
        "SINCE",
        "KEEP ALIVE",
        "SUBS",
        "QUEUED",
        "IN FLIGHT",
        "DROPPED",
    ];
    out.table(heading, &rows)?;
    if complete { Ok(()) } else { out.line(&format!("and more than these {count}; --limit 0 shows all")) }
}

pub(super) async fn kick(args: Kick, control: &dyn Control, out: &mut Output<'_>) -> Result<(), CliError> {
    let Kick { id, user, device, forget } = args;
    let asked = match (user, device) {
        (true, _) => ClientsAsked { user: Some(id.clone()), ..ClientsAsked::default() },
        (_, true) => {
            let device = DeviceId::parse(&id).map_err(|error| CliError::Usage(error.to_string()))?;
            ClientsAsked { device: Some(device), ..ClientsAsked::default() }
        }
        (false, false) => ClientsAsked { client_id: Some(id.clone()), ..ClientsAsked::default() },
    };
    let mut found = Vec::new();
    let mut away = 0;
    each(asked, usize::MAX, control, |client| {
        if client.connection.is_some() || forget {
            found.push(client.name.clone());
        } else {
            away += 1;
        }
        Ok(())
    })
    .await?;
    let mut kicked = Vec::new();
    for some in found.chunks(KICKED_AT_ONCE) {
        kicked.extend(control.kick(KickAsked { clients: some.to_vec(), forget }).await?.clients);
    }
    for client in &kicked {
        let connection = client.connection.as_ref().map(|c| format!("from {} by {}", c.peer, c.listener));
        let what = match (connection, forget) {
            (Some(connection), false) => format!("its connection {connection} is ended"),
            (Some(connection), true) => format!("its connection {connection} is ended, and its session with it"),
            (None, _) => "it was away, and its session is ended".to_owned(),
        };
        out.say(client, &format!("{}: {what}", name(&client.name.to_string())))?;
    }
    match (kicked.is_empty(), away) {
        (false, _) => Ok(()),
        (true, 0) => Err(CliError::Failed(format!("nobody here is {:?}; `unhidra clients` names all who are", id))),
        (true, _) => {
            Err(CliError::Failed(format!("{id:?} is not connected; --forget ends the session that waits for it")))
        }
    }
}

/// Shows the clients asked for one by one, at most `limit`. Says whether those were all.
async fn each(
    mut asked: ClientsAsked,
    limit: usize,
    control: &dyn Control,
    mut show: impl FnMut(&ClientRecord) -> Result<(), CliError>,
) -> Result<bool, CliError> {
    let mut left = limit;
    loop {
        let page = control.clients(asked.clone()).await?;
        for client in &page.clients {
            if left == 0 {
                return Ok(false);
            }
            left -= 1;
            show(client)?;
        }
        match page.next {
            Some(next) => asked.after = Some(next),
            None => return Ok(true),
        }
    }
}

fn row(client: &ClientRecord) -> [String; 11] {
    let [address, listener, version, since, keep_alive] = match (&client.connection, client.expires_at) {
        (Some(c), _) => {
            let keep_alive = if c.keep_alive_s == 0 { "none".to_owned() } else { format!("{} s", c.keep_alive_s) };
            [c.peer.clone(), c.listener.clone(), c.version.clone(), instant(c.since), keep_alive]
        }
        (None, Some(at)) => {
            ["away".to_owned(), String::new(), String::new(), format!("until {}", instant(at)), String::new()]
        }
        (None, None) => ["passing".to_owned(), String::new(), String::new(), String::new(), String::new()],
    };
    [
        name(&client.name.client_id),
        owner(&client.name),
        address,
        listener,
        version,
        since,
        keep_alive,
        client.subscriptions.to_string(),
        format!("{} ({} B)", client.queued_messages, client.queued_bytes),
        client.in_flight.to_string(),
        client.dropped.to_string(),
    ]
}
