use super::*;
use crate::auth::Session;
use crate::testing::device;
use proptest::prelude::*;
use unhidra_core::ids::{Epoch, Offset};

struct Gate;

impl Authority for Gate {
    fn rights(&self, token: &str) -> Result<Rights, TokenRefused> {
        let name: TokenName = token.parse().unwrap_or_default();
        let rights = |devices, may_command| {
            let name = name.clone();
            Rights { name, devices, may_command, expires_at: UnixTime::from_s(1000) }
        };
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
        assert_eq!(table.client.poll_event(), Some(Event::Entered(token.parse().unwrap())));
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

/// Its next message is always there before the timer.
#[test]
fn rights_end_also_for_who_always_has_something_to_say() {
    let mut table = Table::open("all");
    table.now = 1_000_000;
    table.say(r#"{"type":"ping","id":1}"#);
    assert_eq!(table.heard(), "");
    assert_eq!(table.client.poll_event(), Some(Event::Close(Close::TokenExpired)));
    let mut table = Table::new();
    table.now = 5000;
    table.say(r#"{"type":"authenticate","version":1,"token":"all"}"#);
    assert_eq!(table.client.poll_event(), Some(Event::Close(Close::AuthenticationTimeout)));
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
        r#"{"type":"cancel","device":"pump-8","command":"00000000000000000000000000000000"}"#,
        r#"{"type":"set","device":"pump-8","name":"interval","text":"5"}"#,
        r#"{"type":"settings","device":"pump-8"}"#,
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
    for text in [
        r#"{"type":"send","device":"pump-7","name":"reboot"}"#,
        r#"{"type":"cancel","device":"pump-7","command":"00000000000000000000000000000000"}"#,
        r#"{"type":"set","device":"pump-7","name":"interval","text":"5"}"#,
    ] {
        table.say(text);
        assert_eq!(table.code(), "forbidden", "{text}");
    }
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
        "cancel",
        "commands",
        "command",
        "set",
        "settings",
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
        (kind, device, rest).prop_map(|(kind, device, rest)| format!(r#"{{"type":"{kind}","device":{device}{rest}}}"#)),
        ".{0,40}",
    ]
}

#[test]
fn a_binary_message_ends_it() {
    let mut table = Table::open("all");
    table.client.handle_binary();
    assert_eq!(table.client.poll_event(), Some(Event::Close(Close::NotText)));
}

/// Whatever it asks to be done to a device.
#[test]
fn what_a_client_asks_for_is_asked_in_the_name_of_its_token() {
    let mut table = Table::open("one");
    let mut asked = Vec::new();
    for text in [
        r#"{"type":"send","id":1,"device":"pump-7","name":"reboot"}"#,
        r#"{"type":"set","id":2,"device":"pump-7","name":"interval","text":"60"}"#,
        r#"{"type":"cancel","id":3,"device":"pump-7","command":"01010101010101010101010101010101"}"#,
    ] {
        table.say(text);
        asked.push(match table.client.poll_event() {
            Some(Event::Send { new, .. }) => new.asked_by,
            Some(Event::Set { new, .. }) => new.asked_by,
            Some(Event::Cancel { cancel, .. }) => cancel.asked_by,
            other => panic!("{text}: {other:?}"),
        });
    }
    assert!(asked.iter().all(|by| &**by == "token:one"), "{asked:?}");
}
