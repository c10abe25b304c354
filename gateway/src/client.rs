//! One client's side of the protocol, without I/O.
//!
//! ```text
//!               authenticate                     token expires, no pong,
//!   Greeting ------------------> Open             too many faults, drain
//!      |      right version,      |                        |
//!      |       good token         +------------------------+--> Closed
//!      +--- nothing in time, wrong version, bad token ---------->
//! ```
//!
//! A request that is wrong is answered with an error and changes nothing; the connection ends only
//! where going on makes no sense.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::MessageName;
use unhidra_core::time::{Timestamp, UnixTime};

use crate::auth::{Authority, Rights, Visible};
use crate::cursor::{Cursors, Position};
use crate::doors::NewCommand;
use crate::error::{Close, ErrorCode, TokenRefused};
use crate::frame::{self, Audience, Malformed, Reply, Request, RequestId, Seen};

/// Faulty frames, and pings, that a client may send at once; one more is allowed each second.
const BURST: u32 = 32;
/// Devices in one answer at most, and where the client does not say.
const DEVICES_MAX: u32 = 500;
/// Readings in one answer at most.
const HISTORY_MAX: u32 = 500;

/// What bounds a client.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) authenticate: Duration,
    pub(crate) ping: Duration,
    pub(crate) pong: Duration,
    pub(crate) frame_len_max: usize,
    pub(crate) subscriptions_max: usize,
    pub(crate) command_expires: Duration,
    pub(crate) command_expires_max: Duration,
}

/// What the client's requests are judged by.
pub(crate) struct Bench<'a> {
    pub(crate) now: Timestamp,
    pub(crate) unix_now: UnixTime,
    pub(crate) authority: &'a dyn Authority,
    pub(crate) cursors: &'a Cursors,
}

/// What the shell is to do. Every `id` goes back with the answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Event {
    Subscribe { id: RequestId, audience: Audience, from: From },
    Unsubscribe { id: RequestId, audience: Audience },
    Devices { id: RequestId, visible: Visible, after: Option<DeviceId>, limit: usize },
    History { id: RequestId, device: DeviceId, newest: usize },
    Send { id: RequestId, new: NewCommand },
    Commands { id: RequestId, device: DeviceId },
    Command { id: RequestId, device: DeviceId, command: CommandId },
    Close(Close),
}

/// Where a subscription begins.
#[derive(Debug, PartialEq)]
pub(crate) enum From {
    /// With what comes next.
    Now,
    /// With the first row there is.
    Beginning,
    /// Behind a place.
    After(Position),
}

/// One client.
pub(crate) struct Client {
    limits: Limits,
    state: State,
    subscriptions: BTreeSet<Audience>,
    faults: Budget,
    pings: Budget,
    replies: VecDeque<Bytes>,
    events: VecDeque<Event>,
}

enum State {
    Greeting { deadline: Timestamp },
    Open { rights: Rights, expires: Timestamp, ping: Ping },
    Closed,
}

enum Ping {
    Due { at: Timestamp },
    Awaited { until: Timestamp },
}

impl Client {
    pub(crate) fn new(limits: Limits, now: Timestamp) -> Self {
        let deadline = now.saturating_add(limits.authenticate);
        Self {
            limits,
            state: State::Greeting { deadline },
            subscriptions: BTreeSet::new(),
            faults: Budget::new(now),
            pings: Budget::new(now),
            replies: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Handles a text message.
    pub(crate) fn handle_text(&mut self, text: &str, bench: &Bench<'_>) {
        if let State::Open { ping, .. } = &mut self.state {
            *ping = Ping::Due { at: bench.now.saturating_add(self.limits.ping) };
        }
        let (id, request) = match Request::parse(text) {
            Ok(request) => request,
            Err(malformed) => return self.fault(&malformed, bench.now),
        };
        let outcome = match (&self.state, request) {
            (State::Closed, _) => Ok(()),
            (State::Greeting { .. }, Request::Authenticate { version, token }) => {
                self.authenticate(version, &token, bench);
                Ok(())
            }
            (State::Open { .. }, Request::Authenticate { .. }) => {
                Err((ErrorCode::AlreadyAuthenticated, "one connection, one token".to_owned()))
            }
            (State::Greeting { .. }, _) => {
                Err((ErrorCode::NotAuthenticated, "the first message is authenticate".to_owned()))
            }
            (State::Open { rights, .. }, request) => {
                let rights = rights.clone();
                self.serve(id, request, &rights, bench)
            }
        };
        if let Err((code, message)) = outcome {
            self.fault(&Malformed { id, code, message }, bench.now);
        }
    }

    /// Handles a binary message: there are none.
    pub(crate) fn handle_binary(&mut self) {
        self.close(Close::NotText);
    }

    /// Handles a ping of WebSocket itself. Each is answered below us, into a queue that only the
    /// peer's reading empties, so their number is bounded here.
    pub(crate) fn handle_ping(&mut self, now: Timestamp) {
        if !self.pings.spend(now) {
            self.close(Close::TooManyFaults);
        }
    }

    /// Acts on what is due.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) {
        match &mut self.state {
            State::Greeting { deadline } if *deadline <= now => self.close(Close::AuthenticationTimeout),
            State::Open { expires, .. } if *expires <= now => self.close(Close::TokenExpired),
            State::Open { ping: Ping::Awaited { until }, .. } if *until <= now => self.close(Close::NoAnswer),
            State::Open { ping: ping @ Ping::Due { .. }, .. } => {
                if let Ping::Due { at } = ping
                    && *at <= now
                {
                    *ping = Ping::Awaited { until: now.saturating_add(self.limits.pong) };
                    self.replies.push_back(Reply::Ping {}.encode());
                }
            }
            State::Greeting { .. } | State::Open { .. } | State::Closed => {}
        }
    }

    /// The next frame to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Bytes> {
        self.replies.pop_front()
    }

    /// The next thing to do.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.state {
            State::Greeting { deadline } => Some(*deadline),
            State::Open { expires, ping: Ping::Due { at: due } | Ping::Awaited { until: due }, .. } => {
                Some(*due.min(expires))
            }
            State::Closed => None,
        }
    }

    /// Forgets a subscription that the shell could not begin.
    pub(crate) fn not_subscribed(&mut self, audience: &Audience) {
        self.subscriptions.remove(audience);
    }

    fn authenticate(&mut self, version: u32, token: &str, bench: &Bench<'_>) {
        if version != frame::VERSION {
            return self.close(Close::VersionUnsupported);
        }
        let rights = match bench.authority.rights(token) {
            Ok(rights) => rights,
            Err(TokenRefused::Unknown) => return self.close(Close::TokenRefused),
            Err(TokenRefused::Expired) => return self.close(Close::TokenExpired),
        };
        let welcome = Reply::Welcome {
            version: frame::VERSION,
            server_time: bench.unix_now,
            expires_at: rights.expires_at,
            devices: match &rights.devices {
                Visible::All => Seen::All,
                Visible::Set(devices) => Seen::Set(devices),
            },
            may_command: rights.may_command,
            ping_s: self.limits.ping.as_secs(),
            frame_len_max: self.limits.frame_len_max,
            subscriptions_max: self.limits.subscriptions_max,
        };
        self.replies.push_back(welcome.encode());
        let expires = bench.now.saturating_add(rights.expires_at.saturating_since(bench.unix_now));
        let ping = Ping::Due { at: bench.now.saturating_add(self.limits.ping) };
        self.state = State::Open { rights, expires, ping };
    }

    fn serve(&mut self, id: RequestId, request: Request, rights: &Rights, bench: &Bench<'_>) -> Outcome {
        match request {
            Request::Authenticate { .. } | Request::Pong {} => {}
            Request::Ping {} => self.replies.push_back(Reply::Pong { id }.encode()),
            Request::Subscribe { device, since } => self.subscribe(id, device, since.as_deref(), rights, bench)?,
            Request::Unsubscribe { device } => {
                if !self.subscriptions.remove(&device) {
                    return Err((ErrorCode::NotSubscribed, format!("{device} is not subscribed to")));
                }
                self.events.push_back(Event::Unsubscribe { id, audience: device });
            }
            Request::Devices { after, limit } => {
                let limit = limit.unwrap_or(DEVICES_MAX).clamp(1, DEVICES_MAX) as usize;
                self.events.push_back(Event::Devices { id, visible: rights.devices.clone(), after, limit });
            }
            Request::History { device, newest } => {
                see(rights, &device)?;
                let newest = newest.clamp(1, HISTORY_MAX) as usize;
                self.events.push_back(Event::History { id, device, newest });
            }
            Request::Send { device, name, text, base64, expires_after_ms } => {
                command(rights, &device)?;
                let new = NewCommand {
                    device,
                    name: name.parse::<MessageName>().map_err(|error| (ErrorCode::BadRequest, error.to_string()))?,
                    body: body(text, base64)?,
                    expires_after: self.lifetime(expires_after_ms)?,
                };
                self.events.push_back(Event::Send { id, new });
            }
            Request::Commands { device } => {
                see(rights, &device)?;
                self.events.push_back(Event::Commands { id, device });
            }
            Request::Command { device, command } => {
                see(rights, &device)?;
                self.events.push_back(Event::Command { id, device, command });
            }
        }
        Ok(())
    }

    fn subscribe(
        &mut self,
        id: RequestId,
        audience: Audience,
        since: Option<&str>,
        rights: &Rights,
        bench: &Bench<'_>,
    ) -> Outcome {
        match &audience {
            Audience::All if rights.devices != Visible::All => {
                return Err((ErrorCode::Forbidden, "the token shows some devices: subscribe to each".to_owned()));
            }
            Audience::All => {}
            Audience::Device(device) => see(rights, device)?,
        }
        if self.subscriptions.contains(&audience) {
            return Err((ErrorCode::AlreadySubscribed, format!("{audience} is subscribed to already")));
        }
        let max = self.limits.subscriptions_max;
        if self.subscriptions.len() >= max {
            return Err((ErrorCode::TooManySubscriptions, format!("at most {max} subscriptions a connection")));
        }
        let from = match since {
            None => From::Now,
            Some("beginning") => From::Beginning,
            Some(cursor) => match bench.cursors.decode(cursor) {
                Ok(position) => From::After(position),
                Err(error) => return Err((error.code(), error.to_string())),
            },
        };
        self.subscriptions.insert(audience);
        self.events.push_back(Event::Subscribe { id, audience, from });
        Ok(())
    }

    fn lifetime(&self, ms: Option<u64>) -> Result<Duration, (ErrorCode, String)> {
        let asked = ms.map_or(self.limits.command_expires, Duration::from_millis);
        let max = self.limits.command_expires_max;
        if asked.is_zero() || asked > max {
            let message = format!("expires_after_ms is {}; 1 to {} are allowed", asked.as_millis(), max.as_millis());
            return Err((ErrorCode::BadRequest, message));
        }
        Ok(asked)
    }

    fn fault(&mut self, malformed: &Malformed, now: Timestamp) {
        let Malformed { id, code, message } = malformed;
        self.replies.push_back(Reply::Error { id: *id, code: *code, message }.encode());
        if !self.faults.spend(now) {
            self.close(Close::TooManyFaults);
        }
    }

    fn close(&mut self, close: Close) {
        if !matches!(self.state, State::Closed) {
            self.state = State::Closed;
            self.events.push_back(Event::Close(close));
        }
    }
}

type Outcome = Result<(), (ErrorCode, String)>;

// What a client may not see does not exist for it: the same answer whether or not it is enrolled.
fn see(rights: &Rights, device: &DeviceId) -> Outcome {
    if rights.devices.contains(device) {
        Ok(())
    } else {
        Err((ErrorCode::Forbidden, format!("the token does not show {device}")))
    }
}

fn command(rights: &Rights, device: &DeviceId) -> Outcome {
    see(rights, device)?;
    if rights.may_command { Ok(()) } else { Err((ErrorCode::Forbidden, "the token may not command".to_owned())) }
}

fn body(text: Option<String>, base64: Option<String>) -> Result<Bytes, (ErrorCode, String)> {
    match (text, base64) {
        (None, None) => Ok(Bytes::new()),
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => match STANDARD.decode(base64) {
            Ok(body) => Ok(body.into()),
            Err(error) => Err((ErrorCode::BadRequest, format!("base64: {error}"))),
        },
        (Some(_), Some(_)) => Err((ErrorCode::BadRequest, "a body is text or base64, not both".to_owned())),
    }
}

/// How often something that costs us may happen: a burst, and then once a second.
struct Budget {
    left: u32,
    counted_at: Timestamp,
}

impl Budget {
    const fn new(now: Timestamp) -> Self {
        Self { left: BURST, counted_at: now }
    }

    fn spend(&mut self, now: Timestamp) -> bool {
        let earned = now.saturating_since(self.counted_at).as_secs();
        self.counted_at = self.counted_at.saturating_add(Duration::from_secs(earned));
        self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)).min(BURST);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Session;
    use crate::testing::device;
    use proptest::prelude::*;
    use unhidra_core::ids::{Epoch, Offset};

    struct Gate;

    impl Authority for Gate {
        fn rights(&self, token: &str) -> Result<Rights, TokenRefused> {
            let rights = |devices, may_command| Rights { devices, may_command, expires_at: UnixTime::from_s(1000) };
            match token {
                "all" => Ok(rights(Visible::All, true)),
                "reader" => Ok(rights(Visible::All, false)),
                "one" => Ok(rights(Visible::Set([device("pump-7")].into()), true)),
                "old" => Err(TokenRefused::Expired),
                _ => Err(TokenRefused::Unknown),
            }
        }
        fn exchange(&self, _: &str) -> Result<Session, TokenRefused> {
            Err(TokenRefused::Unknown)
        }
    }

    struct Table {
        client: Client,
        cursors: Cursors,
        now: u64,
    }

    impl Table {
        fn new() -> Self {
            let limits = Limits {
                authenticate: Duration::from_secs(5),
                ping: Duration::from_secs(25),
                pong: Duration::from_secs(10),
                frame_len_max: 1024,
                subscriptions_max: 2,
                command_expires: Duration::from_secs(60),
                command_expires_max: Duration::from_secs(600),
            };
            let cursors = Cursors::new(&[1; 32], Epoch::new(1), 1);
            Self { client: Client::new(limits, Timestamp::ZERO), cursors, now: 0 }
        }

        fn open(token: &str) -> Self {
            let mut table = Self::new();
            table.say(&format!(r#"{{"type":"authenticate","version":1,"token":"{token}"}}"#));
            assert!(table.heard().starts_with(r#"{"type":"welcome""#));
            table
        }

        fn say(&mut self, text: &str) {
            let bench = Bench {
                now: Timestamp::from_ms(self.now),
                unix_now: UnixTime::from_ms(self.now),
                authority: &Gate,
                cursors: &self.cursors,
            };
            self.client.handle_text(text, &bench);
        }

        fn wait_until(&mut self, ms: u64) {
            self.now = ms;
            self.client.handle_timeout(Timestamp::from_ms(ms));
        }

        fn heard(&mut self) -> String {
            self.client.poll_transmit().map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
        }

        fn code(&mut self) -> String {
            let value: serde_json::Value = serde_json::from_str(&self.heard()).unwrap_or_default();
            value["code"].as_str().unwrap_or_default().to_owned()
        }
    }

    #[test]
    fn nothing_is_served_before_authenticate_and_five_seconds_are_all_there_is() {
        let mut table = Table::new();
        table.say(r#"{"type":"devices","id":4}"#);
        assert_eq!(
            table.heard(),
            r#"{"type":"error","id":4,"code":"not_authenticated","message":"the first message is authenticate"}"#
        );
        assert_eq!(table.client.poll_timeout(), Some(Timestamp::from_ms(5000)));
        table.wait_until(4999);
        assert_eq!(table.client.poll_event(), None);
        table.wait_until(5000);
        assert_eq!(table.client.poll_event(), Some(Event::Close(Close::AuthenticationTimeout)));
        assert_eq!(table.client.poll_timeout(), None);
        table.say(r#"{"type":"authenticate","version":1,"token":"all"}"#);
        assert_eq!(table.heard(), "", "closed is closed");
    }

    #[test]
    fn a_token_and_a_version_are_right_or_the_connection_ends() {
        for (version, token, close) in
            [(1, "wrong", Close::TokenRefused), (1, "old", Close::TokenExpired), (2, "all", Close::VersionUnsupported)]
        {
            let mut table = Table::new();
            table.say(&format!(r#"{{"type":"authenticate","version":{version},"token":"{token}"}}"#));
            assert_eq!(table.client.poll_event(), Some(Event::Close(close)));
        }
        let mut table = Table::open("all");
        table.say(r#"{"type":"authenticate","version":1,"token":"all"}"#);
        assert_eq!(table.code(), "already_authenticated");
    }

    #[test]
    fn rights_end_while_the_connection_lives() {
        let mut table = Table::open("all");
        table.now = 999_000;
        table.say(r#"{"type":"ping","id":1}"#);
        assert_eq!(table.heard(), r#"{"type":"pong","id":1}"#);
        assert_eq!(table.client.poll_timeout(), Some(Timestamp::from_ms(1_000_000)));
        table.wait_until(1_000_000);
        assert_eq!(table.client.poll_event(), Some(Event::Close(Close::TokenExpired)));
    }

    #[test]
    fn a_silent_client_is_asked_and_then_closed_and_any_word_is_an_answer() {
        let mut table = Table::open("all");
        table.wait_until(25_000);
        assert_eq!(table.heard(), r#"{"type":"ping"}"#);
        table.say(r#"{"type":"pong"}"#);
        assert_eq!(table.client.poll_timeout(), Some(Timestamp::from_ms(50_000)));
        table.wait_until(50_000);
        assert_eq!(table.heard(), r#"{"type":"ping"}"#);
        table.wait_until(59_999);
        assert_eq!(table.client.poll_event(), None);
        table.wait_until(60_000);
        assert_eq!(table.client.poll_event(), Some(Event::Close(Close::NoAnswer)));
    }

    #[test]
    fn a_subscription_begins_where_it_is_told_to() {
        let mut table = Table::open("all");
        let place: Position = [Offset::new(7)].into_iter().collect();
        let cursor = table.cursors.encode(&place);
        table.say(r#"{"type":"subscribe","id":1,"device":"*","since":"beginning"}"#);
        table.say(&format!(r#"{{"type":"subscribe","id":2,"device":"pump-7","since":"{cursor}"}}"#));
        let event = |id, audience, from| Some(Event::Subscribe { id: Some(id), audience, from });
        assert_eq!(table.client.poll_event(), event(1, Audience::All, From::Beginning));
        let pump = Audience::Device(device("pump-7"));
        assert_eq!(table.client.poll_event(), event(2, pump, From::After(place)));
        for (text, code) in [
            (r#"{"type":"subscribe","device":"*"}"#, "already_subscribed"),
            (r#"{"type":"subscribe","device":"pump-8"}"#, "too_many_subscriptions"),
            (r#"{"type":"unsubscribe","device":"pump-8"}"#, "not_subscribed"),
        ] {
            table.say(text);
            assert_eq!(table.code(), code, "{text}");
        }
        table.say(r#"{"type":"unsubscribe","id":3,"device":"*"}"#);
        assert_eq!(table.client.poll_event(), Some(Event::Unsubscribe { id: Some(3), audience: Audience::All }));
        table.say(r#"{"type":"subscribe","device":"*"}"#);
        assert!(matches!(table.client.poll_event(), Some(Event::Subscribe { from: From::Now, .. })));
    }

    #[test]
    fn a_cursor_that_cannot_be_resumed_is_an_error_and_no_subscription() {
        let mut table = Table::open("all");
        let elsewhere = |key, epoch| {
            let place: Position = [Offset::new(7)].into_iter().collect();
            Cursors::new(&[key; 32], Epoch::new(epoch), 1).encode(&place)
        };
        for (cursor, code) in [
            (elsewhere(2, 1), "cursor_invalid"),
            (elsewhere(1, 2), "cursor_expired"),
            ("nonsense".to_owned(), "cursor_invalid"),
        ] {
            table.say(&format!(r#"{{"type":"subscribe","device":"*","since":"{cursor}"}}"#));
            assert_eq!(table.code(), code);
        }
        assert_eq!(table.client.poll_event(), None);
        table.say(r#"{"type":"subscribe","device":"*"}"#);
        assert!(table.client.poll_event().is_some());
    }

    #[test]
    fn a_client_sees_and_commands_what_its_token_shows() {
        let mut table = Table::open("one");
        for text in [
            r#"{"type":"subscribe","device":"*"}"#,
            r#"{"type":"subscribe","device":"pump-8"}"#,
            r#"{"type":"history","device":"pump-8","newest":1}"#,
            r#"{"type":"send","device":"pump-8","name":"reboot"}"#,
            r#"{"type":"commands","device":"pump-8"}"#,
            r#"{"type":"command","device":"pump-8","command":"00000000000000000000000000000000"}"#,
        ] {
            table.say(text);
            assert_eq!(table.code(), "forbidden", "{text}");
        }
        assert_eq!(table.client.poll_event(), None);
        table.say(r#"{"type":"subscribe","device":"pump-7"}"#);
        table.say(r#"{"type":"send","device":"pump-7","name":"reboot"}"#);
        assert!(matches!(table.client.poll_event(), Some(Event::Subscribe { .. })));
        assert!(matches!(table.client.poll_event(), Some(Event::Send { .. })));
        let mut table = Table::open("reader");
        table.say(r#"{"type":"send","device":"pump-7","name":"reboot"}"#);
        assert_eq!(table.code(), "forbidden");
    }

    #[test]
    fn a_command_has_a_name_one_body_and_an_end() {
        let mut table = Table::open("all");
        for (fields, code) in [
            (r#""name":"""#, "bad_request"),
            (r#""name":"a\u0007""#, "bad_request"),
            (r#""name":"a","text":"x","base64":"eA==""#, "bad_request"),
            (r#""name":"a","base64":"?""#, "bad_request"),
            (r#""name":"a","expires_after_ms":0"#, "bad_request"),
            (r#""name":"a","expires_after_ms":600001"#, "bad_request"),
        ] {
            table.say(&format!(r#"{{"type":"send","device":"a",{fields}}}"#));
            assert_eq!(table.code(), code, "{fields}");
        }
        table.say(r#"{"type":"send","id":9,"device":"a","name":"set","base64":"/wA=","expires_after_ms":5000}"#);
        let Some(Event::Send { id: Some(9), new }) = table.client.poll_event() else { panic!("no send") };
        assert_eq!((&*new.body, new.expires_after), (&[0xff, 0][..], Duration::from_secs(5)));
        table.say(r#"{"type":"send","device":"a","name":"set"}"#);
        let Some(Event::Send { new, .. }) = table.client.poll_event() else { panic!("no send") };
        assert_eq!((new.body.len(), new.expires_after), (0, Duration::from_secs(60)));
    }

    #[test]
    fn faults_and_pings_are_forgiven_one_a_second() {
        let mut table = Table::open("all");
        for _ in 0..BURST {
            table.say("garbage");
            table.client.handle_ping(Timestamp::from_ms(table.now));
        }
        assert_eq!(table.client.poll_event(), None);
        table.now += 1000;
        table.say("garbage");
        table.client.handle_ping(Timestamp::from_ms(table.now));
        assert_eq!(table.client.poll_event(), None);
        table.client.handle_ping(Timestamp::from_ms(table.now));
        assert_eq!(table.client.poll_event(), Some(Event::Close(Close::TooManyFaults)));
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_is_answered(texts in prop::collection::vec(any_text(), 1..60)) {
            let mut table = Table::open("one");
            for text in texts {
                table.now += 10;
                table.say(&text);
                while let Some(reply) = table.client.poll_transmit() {
                    prop_assert!(serde_json::from_slice::<serde_json::Value>(&reply).is_ok());
                }
                let limits = table.client.subscriptions.len();
                prop_assert!(limits <= 2);
                while let Some(event) = table.client.poll_event() {
                    prop_assert!(!format!("{event:?}").contains("pump-8"), "not shown, not served: {event:?}");
                }
            }
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        let kind = prop::sample::select(vec![
            "authenticate",
            "subscribe",
            "unsubscribe",
            "devices",
            "history",
            "send",
            "commands",
            "command",
            "ping",
            "pong",
            "nonsense",
        ]);
        let device = prop::sample::select(vec![r#""pump-7""#, r#""pump-8""#, r#""*""#, "7", r#""a/b""#]);
        let rest = prop::sample::select(vec![
            "",
            r#","newest":3"#,
            r#","name":"x""#,
            r#","since":"beginning""#,
            r#","since":"x""#,
            r#","id":1"#,
            r#","command":"00000000000000000000000000000000""#,
            r#","version":1,"token":"all""#,
        ]);
        prop_oneof![
            (kind, device, rest)
                .prop_map(|(kind, device, rest)| format!(r#"{{"type":"{kind}","device":{device}{rest}}}"#)),
            ".{0,40}",
        ]
    }

    #[test]
    fn a_binary_message_ends_it() {
        let mut table = Table::open("all");
        table.client.handle_binary();
        assert_eq!(table.client.poll_event(), Some(Event::Close(Close::NotText)));
    }
}
