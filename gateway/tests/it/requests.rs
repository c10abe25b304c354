//! What clients ask, and what ends a connection.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_websockets::Message;
use unhidra_core::command::{By, Command, CommandState, Ended, Ending, Life, Stage};
use unhidra_core::ids::CommandId;
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;
use unhidra_gateway::{CommandRefused, TokenName, Use, Visible};

use crate::store::MemoryStore;
use crate::world::{Client, World, config, id};

async fn ask(client: &mut Client, frame: Value) -> Value {
    client.say(frame).await;
    client.hear().await
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_final_and_a_silent_client_is_asked_to_come_back() {
    let world = World::new();
    let mut client = world.connect().await;
    client.say(json!({ "type": "authenticate", "version": 1, "token": "guess" })).await;
    assert_eq!(client.end().await, 3500);
    let mut client = world.connect().await;
    client.say(json!({ "type": "authenticate", "version": 9, "token": world.token() })).await;
    assert_eq!(client.end().await, 3502);
    let mut client = world.connect().await;
    assert_eq!(client.end().await, 3004);
    let short = world.tokens.mint(TokenName::default(), Visible::All, true, Duration::from_secs(7), Use::Session);
    let mut client = world.connect().await;
    client.authenticate(&short).await;
    assert_eq!(client.end().await, 3501);
}

#[tokio::test(start_paused = true)]
async fn whoever_came_in_by_a_revoked_token_goes_and_nobody_else_does() {
    let world = World::new();
    let name: TokenName = "ann".parse().unwrap();
    let token = world.tokens.mint(name.clone(), Visible::All, true, Duration::from_secs(100), Use::Session);
    let (mut ann, mut other) = (world.connect().await, world.enter().await);
    ann.authenticate(&token).await;
    assert_eq!(ask(&mut ann, json!({ "type": "ping", "id": 1 })).await, json!({ "type": "pong", "id": 1 }));
    assert_eq!((world.tokens.revoke(&name), world.gateway.end(&name)), (1, 1));
    assert_eq!(ann.end().await, 3500);
    assert_eq!(ask(&mut other, json!({ "type": "ping", "id": 1 })).await, json!({ "type": "pong", "id": 1 }));
    let mut again = world.connect().await;
    again.say(json!({ "type": "authenticate", "version": 1, "token": token })).await;
    assert_eq!(again.end().await, 3500);
    assert_eq!(world.gateway.end(&name), 0);
}

/// However slowly it reads, and whatever it asks meanwhile.
#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_does_not_outlive_a_revoked_token() {
    let world = World::new();
    let name: TokenName = "ann".parse().unwrap();
    let token = world.tokens.mint(name.clone(), Visible::All, true, Duration::from_secs(1000), Use::Session);
    let mut ann = world.connect_on(world.dial_with(256)).await;
    ann.authenticate(&token).await;
    for id in 0..50 {
        ann.say(json!({ "type": "ping", "id": id })).await;
    }
    assert_eq!(world.gateway.end(&name), 1);
    let begun = Instant::now();
    ann.say(json!({ "type": "send", "id": 50, "device": "a", "name": "identify", "text": "" })).await;
    while world.metric("gateway_clients") == 1 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        let _answer = tokio::time::timeout(Duration::from_secs(1), ann.socket.next()).await;
    }
    assert!(begun.elapsed() <= Duration::from_secs(50), "{:?}", begun.elapsed());
    assert_eq!(world.script.taken.lock().unwrap().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_is_not_json_is_an_error_and_no_end() {
    let world = World::new();
    let mut client = world.connect().await;
    client.raw("garbage").await;
    assert_eq!(client.hear_type("error").await["code"], "not_json");
    client.authenticate(&world.token()).await;
    client.raw("{\"type\":").await;
    assert_eq!(client.hear_type("error").await["code"], "not_json");
    assert_eq!(ask(&mut client, json!({ "type": "ping", "id": 1 })).await, json!({ "type": "pong", "id": 1 }));
    for _ in 0..40 {
        client.raw("garbage").await;
    }
    assert_eq!(client.end().await, 3503);
}

#[tokio::test(start_paused = true)]
async fn an_oversized_frame_and_a_binary_one_end_the_connection() {
    let world = World::new();
    let mut client = world.enter().await;
    client.raw(&" ".repeat(5000)).await;
    assert_eq!(client.end().await, 1009);
    let mut client = world.enter().await;
    client.socket.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert_eq!(client.end().await, 3504);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_ends_the_connection() {
    let world = World::new();
    let mut client = world.enter().await;
    for _ in 0..40 {
        // The gateway may have hung up before the last of them.
        let _ = client.socket.send(Message::ping("")).await;
    }
    assert_eq!(client.end().await, 3503);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_answer_is_asked_to_come_back_and_others_stay() {
    let world = World::new();
    let (mut silent, mut polite) = (world.enter().await, world.enter().await);
    polite.hear_type("ping").await;
    polite.say(json!({ "type": "pong" })).await;
    assert_eq!(silent.end().await, 3002);
    polite.say(json!({ "type": "ping" })).await;
    polite.hear_type("pong").await;
}

#[tokio::test(start_paused = true)]
async fn devices_are_listed_in_pages_with_their_presence() {
    let world = World::new();
    for name in ["a", "b", "c"] {
        world.store.put_device(id(name), &["site=north"]);
    }
    world.gateway.presence(id("b"), true, UnixTime::from_ms(77));
    let mut client = world.enter().await;
    let page = ask(&mut client, json!({ "type": "devices", "id": 1, "limit": 2 })).await;
    assert_eq!(page["more"], true);
    assert_eq!(page["devices"][0]["device"], "a");
    assert_eq!(page["devices"][0]["online"], false);
    assert_eq!(page["devices"][0].get("since"), None);
    assert_eq!(page["devices"][0]["tags"], json!(["site=north"]));
    assert_eq!((&page["devices"][1]["online"], &page["devices"][1]["since"]), (&json!(true), &json!(77)));
    let page = ask(&mut client, json!({ "type": "devices", "id": 2, "after": "b" })).await;
    assert_eq!((&page["more"], &page["devices"][0]["device"]), (&json!(false), &json!("c")));

    let some = Visible::Set([id("a"), id("c"), id("zz")].into());
    let token = world.tokens.mint(TokenName::default(), some, false, Duration::from_secs(100), Use::Session);
    let mut client = world.connect().await;
    client.authenticate(&token).await;
    let page = ask(&mut client, json!({ "type": "devices" })).await;
    let names: Vec<&str> = page["devices"].as_array().unwrap().iter().filter_map(|d| d["device"].as_str()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[tokio::test(start_paused = true)]
async fn presence_is_told_to_those_who_watch() {
    let world = World::new();
    let mut client = world.enter().await;
    client.subscribe("a", None).await;
    client.hear_type("caught_up").await;
    world.gateway.presence(id("b"), true, UnixTime::from_ms(1));
    world.gateway.presence(id("a"), true, UnixTime::from_ms(2));
    let frame = client.hear_type("presence").await;
    assert_eq!(frame["devices"], json!([{ "device": "a", "online": true, "since": 2 }]));
}

#[tokio::test(start_paused = true)]
async fn history_gives_the_newest_in_order() {
    let world = World::new();
    world.publish("a", 30);
    let mut client = world.enter().await;
    let frame = ask(&mut client, json!({ "type": "history", "id": 5, "device": "a", "newest": 3 })).await;
    let texts: Vec<&str> = frame["readings"].as_array().unwrap().iter().filter_map(|r| r["text"].as_str()).collect();
    assert_eq!((texts, &frame["more"], &frame["id"]), (vec!["28", "29", "30"], &json!(true), &json!(5)));
    let frame = ask(&mut client, json!({ "type": "history", "device": "nobody", "newest": 3 })).await;
    assert_eq!((&frame["readings"], &frame["more"]), (&json!([]), &json!(false)));
    world.store.set_broken(true);
    let frame = ask(&mut client, json!({ "type": "history", "id": 6, "device": "a", "newest": 3 })).await;
    assert_eq!((&frame["code"], &frame["id"]), (&json!("unavailable"), &json!(6)));
}

fn moved(command: u8, stage: Stage) -> Command {
    Command {
        id: CommandId::new([command; 16]),
        device: id("a"),
        name: "reboot".into(),
        body: bytes::Bytes::from_static(b"secret"),
        created_at: UnixTime::from_ms(1000),
        expires_at: UnixTime::from_ms(9000),
        asked_by: None,
        life: Life { stage, ..Life::default() },
    }
}

fn over(how: Ending) -> Stage {
    Stage::Over(Ended::new(how, By::Device, "", UnixTime::from_ms(2000)))
}

#[tokio::test(start_paused = true)]
async fn who_sends_a_command_hears_what_becomes_of_it_and_the_answer_comes_first() {
    let world = World::new();
    *world.script.early.lock().unwrap() = Some(world.gateway.clone());
    let (mut sender, mut watcher, mut other) = (world.enter().await, world.enter().await, world.enter().await);
    watcher.subscribe("a", None).await;
    watcher.hear_type("caught_up").await;
    other.subscribe("b", None).await;
    other.hear_type("caught_up").await;
    let send =
        json!({ "type": "send", "id": 8, "device": "a", "name": "reboot", "text": "now", "expires_after_ms": 5000 });
    let answer = ask(&mut sender, send).await;
    assert_eq!(
        (&answer["type"], &answer["id"], &answer["command"]["state"]),
        (&json!("command"), &json!(8), &json!("accepted"))
    );
    assert_eq!(answer["command"]["command"], "01".repeat(16));
    assert_eq!(answer["command"]["expires_at"], 6000);
    for client in [&mut sender, &mut watcher] {
        assert_eq!(client.hear_type("command_changed").await["command"]["state"], "sent");
    }
    for (stage, state) in [(Stage::Delivered, CommandState::Delivered), (over(Ending::Done), CommandState::Done)] {
        world.gateway.command_changed(&moved(1, stage));
        for client in [&mut sender, &mut watcher] {
            let frame = client.hear_type("command_changed").await;
            assert_eq!(frame["command"]["state"], state.as_str());
            assert!(!frame.to_string().contains("secret"));
        }
    }
    world.gateway.command_changed(&moved(2, Stage::Sent));
    watcher.hear_type("command_changed").await;
    for client in [&mut sender, &mut other] {
        assert_eq!(ask(client, json!({ "type": "ping" })).await["type"], "pong", "it is no affair of theirs");
    }
    let taken = world.script.taken.lock().unwrap();
    assert_eq!((&*taken[0].body, taken[0].expires_after), (&b"now"[..], Duration::from_secs(5)));
}

#[tokio::test(start_paused = true)]
async fn a_refused_command_says_why() {
    let world = World::new();
    let mut client = world.enter().await;
    for (refusal, code) in [
        (CommandRefused::NoSuchDevice, "no_such_device"),
        (CommandRefused::TooManyOpen { max: 32 }, "too_many_open"),
        (CommandRefused::TooLarge { len: 9, max: 8 }, "too_large"),
        (CommandRefused::IdTaken, "id_taken"),
        (CommandRefused::Unavailable, "unavailable"),
    ] {
        world.script.refusals.lock().unwrap().push_back(refusal);
        let frame = ask(&mut client, json!({ "type": "send", "id": 1, "device": "a", "name": "x" })).await;
        assert_eq!((&frame["code"], &frame["id"]), (&json!(code), &json!(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn commands_can_be_asked_for() {
    let world = World::new();
    world.store.put_command(&moved(1, Stage::Delivered));
    world.store.put_command(&moved(2, over(Ending::Expired)));
    let mut client = world.enter().await;
    let frame = ask(&mut client, json!({ "type": "commands", "id": 1, "device": "a" })).await;
    assert_eq!(frame["commands"].as_array().unwrap().len(), 1, "those that are open");
    let frame = ask(&mut client, json!({ "type": "commands", "id": 2, "device": "a", "newest": 9 })).await;
    assert_eq!(frame["commands"].as_array().unwrap().len(), 2, "all there are");
    let one = |command: u8| json!({ "type": "command", "device": "a", "command": format!("{command:02x}").repeat(16) });
    assert_eq!(ask(&mut client, one(2)).await["command"]["state"], "expired");
    assert_eq!(ask(&mut client, one(3)).await["code"], "no_such_command");
}

#[tokio::test(start_paused = true)]
async fn a_command_is_called_back_or_it_is_said_why_not() {
    let world = World::new();
    let mut client = world.enter().await;
    let cancel = json!({ "type": "cancel", "id": 4, "device": "a", "command": "01".repeat(16) });
    let late = CommandRefused::TooLate { state: CommandState::Sent };
    for (refusal, code) in [(late, "too_late"), (CommandRefused::NoSuchCommand, "no_such_command")] {
        world.script.refusals.lock().unwrap().push_back(refusal);
        let frame = ask(&mut client, cancel.clone()).await;
        assert_eq!((&frame["code"], &frame["id"]), (&json!(code), &json!(4)));
    }
    assert_eq!(world.script.cancelled.lock().unwrap()[0].command, CommandId::new([1; 16]));
}

#[tokio::test(start_paused = true)]
async fn a_setting_is_set_asked_for_and_told_to_who_watches_without_its_value() {
    let world = World::new();
    let (mut client, mut watcher) = (world.enter().await, world.enter().await);
    watcher.subscribe("a", None).await;
    watcher.hear_type("caught_up").await;
    let set = json!({ "type": "set", "id": 4, "device": "a", "name": "interval", "text": "5s" });
    let frame = ask(&mut client, set).await;
    assert_eq!((&frame["type"], &frame["setting"]["text"]), (&json!("setting"), &json!("5s")));
    let new = world.script.set.lock().unwrap().remove(0);
    assert_eq!((new.name.as_str(), new.value.as_deref()), ("interval", Some(&b"5s"[..])));
    for fields in [r#""remove":true,"text":"x""#, r#""name":"hello","text":"x""#, r#""base64":"?""#] {
        let name = if fields.contains("name") { "" } else { r#""name":"interval","# };
        client.raw(&format!(r#"{{"type":"set","device":"a",{name}{fields}}}"#)).await;
        assert_eq!(client.hear().await["code"], "bad_request", "{fields}");
    }
    let setting = Setting {
        device: id("a"),
        name: new.name,
        value: new.value,
        version: 7,
        changed_at: UnixTime::from_ms(7),
        asked_by: None,
        acknowledged: None,
    };
    world.store.put_setting(&setting);
    let frame = ask(&mut client, json!({ "type": "settings", "device": "a" })).await;
    assert_eq!((&frame["settings"][0]["text"], &frame["settings"][0]["in_sync"]), (&json!("5s"), &json!(false)));
    world.gateway.setting_changed(&setting);
    let told = watcher.hear_type("setting_changed").await;
    assert_eq!((&told["setting"]["version"], told["setting"].get("text")), (&json!(7), None));
}

#[tokio::test(start_paused = true)]
async fn draining_asks_every_client_to_come_back_at_another_time() {
    let world = World::new();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(world.enter().await);
    }
    let gateway = world.gateway.clone();
    let drained = tokio::spawn(async move { gateway.drain().await });
    let mut waits = Vec::new();
    for client in &mut clients {
        let frame = client.hear_type("closing").await;
        assert_eq!((&frame["code"], &frame["reason"]), (&json!(3000), &json!("draining")));
        waits.push(frame["reconnect_after_ms"].as_u64().unwrap());
        assert_eq!(client.end().await, 3000);
    }
    waits.dedup();
    assert!(waits.len() == 4 && waits.iter().all(|ms| *ms < 5000), "{waits:?}");
    drained.await.unwrap();
    let answer = world.http(&crate::http::upgrade("localhost", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_gateway_ends_every_connection() {
    let world = World::new();
    let mut client = world.enter().await;
    let World { gateway, script, .. } = world;
    drop((gateway, script));
    assert_eq!(client.end().await, 1006);
}

#[tokio::test(start_paused = true)]
async fn more_clients_than_allowed_are_told_to_come_later() {
    let mut config = config();
    config.clients_max = 1;
    let world = World::with(config, MemoryStore::new(1, 1));
    let first = world.enter().await;
    let answer = world.http(&crate::http::upgrade("localhost", "")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 5"), "{answer}");
    drop(first);
    tokio::time::timeout(Duration::from_secs(60), async {
        while world.metric("gateway_clients") > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    world.enter().await;
}
