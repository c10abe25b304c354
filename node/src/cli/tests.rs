//! The command line as it is typed, against the store by hand and against a whole node.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::CommandFactory;
use clap::error::ErrorKind;
use unhidra_core::ids::CommandId;
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::Clock;
use unhidra_store::{MessageTag, Op, Store};

use super::enroll::Enroll;
use super::open::Opened;
use super::reach::Reached;
use super::*;
use crate::clock::SystemClock;
use crate::commit::commit;
use crate::config::Loaded;
use crate::control::{Control, ControlError};
use crate::folder::{Folder, FolderError, Kind, Layout, Role};
use crate::testing::{Ground, NOW, enroll_asked, id, node_identity_key};

mod backups;
mod exports;
mod fingerprint;
mod follows;
mod kept_keys;
mod secrets;
mod sends;
mod unread;

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn parse(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once("unhidra").chain(line.split_whitespace()))
}

/// What a subcommand on a folder prints.
async fn printed(control: &dyn Control, line: &str) -> Result<String, CliError> {
    let (text, ended) = ran(control, line).await;
    ended.map(|()| text)
}

/// What it prints, and how it ends.
async fn ran(control: &dyn Control, line: &str) -> (String, Result<(), CliError>) {
    let args = parse(line).unwrap();
    let mut text = Vec::new();
    let mut out = Output::new(args.global.json, &mut text);
    let ended = match args.command.unwrap() {
        Command::Device { action } => device::run(action, control, &mut out).await,
        Command::Send(send) => send::run(&send, control, &mut rng(), &mut out).await,
        Command::Store { action: store::Action::Status } => store::status(control, &mut out).await,
        Command::Export(export) => export::run(&export, control, &mut out).await,
        Command::Console(console) => console::run(console, control, &mut out).await,
        Command::Enroll(enroll) => enroll::run(&enroll, control, &mut rng(), &mut out).await,
        _ => panic!("{line} is not asked of control"),
    };
    (String::from_utf8(text).unwrap(), ended)
}

async fn refusal(control: &dyn Control, line: &str) -> String {
    let error = printed(control, line).await.unwrap_err();
    assert_eq!(error.exit_code(), 1, "{error}");
    error.to_string()
}

fn row(device: &str, number: u32, kind: UplinkKind, body: &'static [u8]) -> Op {
    let uplink = Uplink {
        device: id(device),
        kind,
        name: "temperature".into(),
        device_time: None,
        received_at: NOW,
        reading_id: None,
        body: Bytes::from_static(body),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: [2; 4] }, uplink }
}

async fn append(store: &dyn Store, device: &str, ops: Vec<Op>) {
    commit(store, store.partition_of(&id(device)), ops).await.unwrap();
}

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn without_a_subcommand_it_is_run() {
    assert!(parse("").unwrap().command.is_none());
    let args = parse("--data d --json --set a=1 --set b.c=x=y").unwrap();
    assert_eq!((args.global.data, args.global.json), (Some(PathBuf::from("d")), true));
    assert_eq!(args.global.set, ["a=1", "b.c=x=y"]);
}

#[test]
fn what_holds_for_all_stands_before_or_behind_the_subcommand() {
    for line in ["--data d device list --json", "device list --data d --json", "device --data d list --json"] {
        let args = parse(line).unwrap();
        assert_eq!((args.global.data, args.global.json), (Some(PathBuf::from("d")), true), "{line}");
    }
}

/// A token is drawn at random, and may begin like an option.
#[test]
fn a_token_may_begin_with_a_hyphen() {
    for line in ["watch --node http://127.0.0.1:1 --token -Fx", "send d reboot --node http://127.0.0.1:1 --token --x"] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn what_is_typed_wrongly_is_refused_with_what_is_allowed() {
    for (line, kind, text) in [
        ("frobnicate", ErrorKind::InvalidSubcommand, "frobnicate"),
        ("runn", ErrorKind::InvalidSubcommand, "'run'"),
        ("run --port 7", ErrorKind::UnknownArgument, "--port"),
        ("device", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, "revoke"),
        ("device show", ErrorKind::MissingRequiredArgument, "<DEVICE>"),
        ("device fingerprint", ErrorKind::MissingRequiredArgument, "<DEVICE>"),
        ("simulate d --fingerprint --rate 2", ErrorKind::ArgumentConflict, "--fingerprint"),
        ("device show a/b", ErrorKind::ValueValidation, "allowed are A-Z a-z 0-9 . _ -"),
        ("set pump-7 interval", ErrorKind::MissingRequiredArgument, "VALUE"),
        ("set pump-7 interval 5 --remove", ErrorKind::ArgumentConflict, "--remove"),
        ("device tag a", ErrorKind::MissingRequiredArgument, "<TAG>"),
        ("device tag a b!c", ErrorKind::ValueValidation, "a tag has 1 to 64 characters"),
        ("export --from yesterday", ErrorKind::ValueValidation, "\"yesterday\" is no time"),
        ("export --format xml", ErrorKind::InvalidValue, "jsonl"),
        ("export a --device b", ErrorKind::ArgumentConflict, "--device"),
        ("enroll a", ErrorKind::MissingRequiredArgument, "--out <DIR>"),
        ("enroll --out d", ErrorKind::MissingRequiredArgument, "<DEVICE_ID>"),
        ("enroll ä --out d", ErrorKind::ValueValidation, "in a device id"),
        ("send a", ErrorKind::MissingRequiredArgument, "<NAME>"),
        ("send a b --expires 0", ErrorKind::ValueValidation, "1..=31536000"),
        ("send a b --expires soon", ErrorKind::ValueValidation, "soon"),
        ("send a b --timeout 5", ErrorKind::MissingRequiredArgument, "--wait"),
        ("watch --token x", ErrorKind::MissingRequiredArgument, "--node <URL>"),
        ("watch --node https://a", ErrorKind::ValueValidation, "does not speak TLS yet"),
        ("watch --count -1", ErrorKind::UnknownArgument, "-1"),
        ("--set broker.tls.listen run", ErrorKind::ValueValidation, "KEY=VALUE"),
        ("--set =x run", ErrorKind::ValueValidation, "KEY=VALUE"),
        ("--log-format xml run", ErrorKind::InvalidValue, "text, json"),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.kind(), kind, "{line}: {error}");
        assert!(error.to_string().contains(text), "{line}: {error}");
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    let long = parse(&format!("send a {}", "x".repeat(65))).unwrap_err().to_string();
    assert!(long.contains("a name has 1 to 64 bytes"), "{long}");
}

#[tokio::test]
async fn devices_are_listed_in_a_table_or_one_a_line() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    assert!(printed(&control, "device list").await.unwrap().contains("unhidra enroll"));
    assert_eq!(printed(&control, "device list --json").await.unwrap(), "");
    for name in ["pump-7", "b"] {
        control.enroll(enroll_asked(name)).await.unwrap();
    }
    printed(&control, "device tag pump-7 site=north old").await.unwrap();
    assert_eq!(
        printed(&control, "device tag pump-7 pressure --remove old").await.unwrap(),
        "pump-7 carries pressure site=north\n"
    );
    let table = printed(&control, "device list").await.unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("DEVICE  STANDING  HERE     SUITE  ENROLLED"), "{table}");
    assert!(lines[1].starts_with("b       enrolled  unknown  x3dh   2027-01-15T08:00:00.000Z"), "{table}");
    assert!(lines[2].starts_with("pump-7  enrolled") && lines[2].ends_with("pressure site=north"), "{table}");
    let tagged = printed(&control, "device list --json --tag pressure --tag site=north").await.unwrap();
    let tagged: Vec<serde_json::Value> = tagged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((tagged.len(), &tagged[0]["id"]), (1, &"pump-7".into()));
    assert_eq!(printed(&control, "device list --tag nowhere").await.unwrap(), "no device carries these tags\n");
    let shown = printed(&control, "device show pump-7").await.unwrap();
    assert!(shown.contains("standing          enrolled\n") && shown.contains("suite             x3dh\n"), "{shown}");
}

#[tokio::test]
async fn revoke_says_what_it_did() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    control.enroll(enroll_asked("pump-7")).await.unwrap();
    let first = printed(&control, "device revoke pump-7").await.unwrap();
    assert_eq!(first, "pump-7 is revoked; no node runs here\n");
    let second = printed(&control, "device revoke pump-7").await.unwrap();
    assert_eq!(second, "pump-7 was revoked already, at 2027-01-15T08:00:00.000Z\n");
    assert!(printed(&control, "device list").await.unwrap().contains("revoked"));
    assert!(refusal(&control, "device revoke pump-8").await.contains("no device pump-8 is enrolled here"));
    assert!(refusal(&control, "send pump-7 reboot").await.contains("pump-7 is revoked"));
}

#[tokio::test]
async fn send_without_a_node_queues_and_does_not_wait() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    control.enroll(enroll_asked("pump-7")).await.unwrap();
    assert!(refusal(&control, "send pump-7 reboot --wait").await.contains("unhidra run"));
    assert!(ground.store.open_commands(&id("pump-7")).await.unwrap().is_empty());
    let sent = printed(&control, "send pump-7 reboot now --expires 5").await.unwrap();
    let (command, rest) = sent.split_once("  accepted\n").unwrap();
    assert!(command.parse::<CommandId>().is_ok() && rest.contains("the next one sends it"), "{sent}");
    let [open] = &ground.store.open_commands(&id("pump-7")).await.unwrap()[..] else { panic!("one") };
    assert_eq!((&*open.body, open.expires_at), (b"now".as_slice(), NOW.saturating_add(Duration::from_secs(5))));
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn enroll_writes_what_a_device_needs_and_keeps_its_secrets_to_itself() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    let out = ground.folder.path().join("devices").join("pump-7");
    let line = format!("enroll pump-7 --out {} --tag site=north", out.display());
    assert!(printed(&control, &line).await.unwrap().starts_with("pump-7 is enrolled"));

    assert_eq!(mode(&out), 0o700);
    for (name, bits) in
        [("key.pem", 0o600), ("identity.key", 0o600), ("cert.pem", 0o644), ("ca.pem", 0o644), ("device.toml", 0o644)]
    {
        assert_eq!(mode(&out.join(name)), bits, "{name}");
    }
    let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    let device: toml::Table = read("device.toml").parse().unwrap();
    let text = |key: &str| device[key].as_str().unwrap().to_owned();
    assert_eq!((text("id"), device["suite"].as_integer()), ("pump-7".to_owned(), Some(1)));
    assert_eq!((text("trust_domain"), text("prefix")), ("unhidra.local".to_owned(), "unhidra".to_owned()));
    let node = crate::control::KeyHex(node_identity_key());
    assert_eq!(text("node_identity_key"), node.to_string());

    // The keys belong to what the registry has.
    let enrolled = control.device(id("pump-7")).await.unwrap();
    let seed = crate::keys::load(&out.join("identity.key")).unwrap();
    let identity = unhidra_bridge::IdentitySecret::from_seed(seed.as_bytes());
    assert_eq!(enrolled.identity_key.0, *identity.public().as_bytes());
    let key = unhidra_certs::KeyPair::from_pem(read("key.pem").as_bytes()).unwrap();
    let certificate = unhidra_certs::Certificate::parse_pem(read("cert.pem").as_bytes()).unwrap().remove(0);
    assert_eq!(certificate.p256_point(), Some(key.public_point()));
    assert_eq!(certificate.fingerprint().0, enrolled.certificate.0);
    assert!(enrolled.tags.contains(&"site=north".parse().unwrap()));

    // What the device shows of itself is what the node shows of it.
    let (_, shown) = simulate::fingerprints(&[out]).unwrap().remove(0);
    assert!(printed(&control, "device fingerprint pump-7").await.unwrap().starts_with(&shown.to_string()));
}

#[tokio::test]
async fn enroll_takes_a_suite_by_its_name_or_its_number() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    for (name, asked, byte, shown) in [
        ("a", "", 1, "x3dh"),
        ("b", "--suite x3dh", 1, "x3dh"),
        ("c", "--suite pqxdh", 2, "pqxdh"),
        ("d", "--suite 2", 2, "pqxdh"),
    ] {
        let out = ground.folder.path().join(name);
        printed(&control, &format!("enroll {name} --out {} {asked}", out.display())).await.unwrap();
        let device: toml::Table = std::fs::read_to_string(out.join("device.toml")).unwrap().parse().unwrap();
        assert_eq!(device["suite"].as_integer(), Some(byte), "{asked}");
        assert_eq!(control.device(id(name)).await.unwrap().suite, u8::try_from(byte).unwrap());
        assert!(
            printed(&control, &format!("device show {name}"))
                .await
                .unwrap()
                .contains(&format!("suite             {shown}\n"))
        );
    }
    let table = printed(&control, "device list").await.unwrap();
    assert_eq!((table.matches("x3dh").count(), table.matches("pqxdh").count()), (2, 2), "{table}");
    let wrong = parse("enroll e --out e --suite 3").unwrap_err().to_string();
    assert!(wrong.contains("no suite; there are x3dh (1) and pqxdh (2)"), "{wrong}");
}

#[tokio::test]
async fn enroll_overwrites_nothing_and_leaves_nothing_half_done() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    let root = ground.folder.path();
    let at = |name: &str| root.join(name);
    let enroll = |out: &str, more: &str| format!("enroll pump-7 --out {} {more}", root.join(out).display());
    printed(&control, &enroll("first", "")).await.unwrap();
    let before = std::fs::read(at("first/key.pem")).unwrap();

    let refused = refusal(&control, &enroll("first", "--replace")).await;
    assert!(refused.contains("first/key.pem is there already"), "{refused}");
    assert_eq!(std::fs::read(at("first/key.pem")).unwrap(), before);

    let refused = refusal(&control, &enroll("second", "")).await;
    assert!(refused.contains("--replace"), "{refused}");
    assert!(!at("second").exists());

    std::fs::create_dir(at("third")).unwrap();
    refusal(&control, &enroll("third", "")).await;
    assert_eq!(std::fs::read_dir(at("third")).unwrap().count(), 0, "what was there stays, and nothing more");

    let certificate = control.device(id("pump-7")).await.unwrap().certificate;
    printed(&control, &enroll("third", "--replace")).await.unwrap();
    assert_ne!(control.device(id("pump-7")).await.unwrap().certificate, certificate);

    std::fs::write(at("file"), "").unwrap();
    assert!(refusal(&control, &enroll("file", "--replace")).await.contains("file"));
    assert!(refusal(&control, &enroll("file/below", "--replace")).await.contains("below"));
}

#[test]
fn a_seed_is_never_printed() {
    let enroll = Enroll {
        device: id("a"),
        out: "d".into(),
        tags: Vec::new(),
        class: String::new(),
        suite: Suite::X3dh,
        replace: false,
    };
    let identity = unhidra_bridge::IdentitySecret::from_seed(&[0xab; 32]);
    assert!(!format!("{enroll:?} {identity:?}").contains("abab"));
}

/// A data folder somewhere, with listeners that disturb nobody.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn global(&self) -> Global {
        let set = ["broker.tls.listen", "gateway.listen", "admin.listen"].map(|key| format!("{key}=127.0.0.1:0"));
        Global {
            config: None,
            set: set.to_vec(),
            data: Some(self.folder.path().join("node")),
            json: false,
            log_format: None,
        }
    }

    fn loaded(&self) -> Loaded {
        self.global().sources(Purpose::Node).load().unwrap()
    }

    fn layout(&self) -> Layout {
        Layout::at(&self.loaded().config.data).unwrap()
    }

    fn open(&self) -> Folder {
        let data = self.loaded().config.data;
        // A child that another test is about to start holds copies of every lock of this process
        // until it becomes its program.
        for _ in 0..1_000_000 {
            match Folder::open(&data, Kind::Sealed, Role::Node) {
                Err(FolderError::Held { .. }) => std::thread::yield_now(),
                opened => return opened.unwrap(),
            }
        }
        panic!("{} is held", data.display());
    }

    async fn reach(&self, missing: Missing) -> Result<Reached, CliError> {
        reach(&self.loaded().config, missing, rng()).await
    }

    async fn start(&self) -> Node {
        Node::start(self.loaded(), self.open(), rng()).await.unwrap()
    }

    async fn refused(&self) -> String {
        match self.reach(Missing::Refuse).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("reached"),
        }
    }
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_made_by_enroll_alone() {
    let place = Place::new();
    assert!(place.refused().await.contains("there is no data folder"));
    let reached = place.reach(Missing::Make).await.unwrap();
    assert!(!reached.control().info().await.unwrap().running);
    reached.close().await;
    place.reach(Missing::Refuse).await.unwrap().close().await;
}

#[tokio::test]
async fn a_stale_socket_is_removed_and_the_store_opened() {
    let place = Place::new();
    drop(place.open());
    let socket = place.layout().control_socket();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let reached = place.reach(Missing::Refuse).await.unwrap();
    assert!(matches!(reached, Reached::Alone(_)) && !socket.exists());
    reached.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_answer_is_named_with_its_pid() {
    let place = Place::new();
    let held = place.open();
    let refused = place.refused().await;
    let pid = std::process::id();
    assert!(refused.contains(&format!("a node with pid {pid} uses")), "{refused}");
    assert!(refused.contains("does not answer on") && refused.contains("control.sock"), "{refused}");
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn one_subcommand_waits_for_another() {
    let place = Place::new();
    let other = place.open();
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(other);
    };
    let (reached, ()) = tokio::join!(place.reach(Missing::Refuse), release);
    reached.unwrap().close().await;
}

/// Writes into the store of a folder no node runs on.
async fn append_offline(place: &Place, device: &str, ops: Vec<Op>) {
    let clock = SystemClock::start();
    let opened = Opened::open(place.open(), &place.loaded().config, &mut rng(), clock.unix_now()).await.unwrap();
    append(&*opened.store, device, ops).await;
    opened.store.close().await;
}

async fn watched(place: &Place, line: &str) -> Result<String, CliError> {
    let args = parse(line).unwrap();
    let Some(Command::Watch(watch)) = args.command else { panic!("{line}") };
    let reached = place.reach(Missing::Refuse).await?;
    let mut text = Vec::new();
    let watching = async {
        let client =
            if watch.elsewhere.is_named() { watch.elsewhere.client().await? } else { watch::through(&reached).await? };
        watch::run(&watch, client, &mut Output::new(args.global.json, &mut text)).await
    };
    let watched = watching.await;
    // Else its store is closed some time later, and in use for who comes next.
    reached.close().await;
    watched?;
    Ok(String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_nobody_watched_is_shown_by_its_cursor_after_a_restart() {
    let place = Place::new();
    let node = place.start().await;
    let enrolled = place.reach(Missing::Refuse).await.unwrap().control().enroll(enroll_asked("pump-7")).await.unwrap();
    assert_eq!(enrolled.server, node.addresses().mqtt);
    let text = watched(&place, "watch --count 0").await.unwrap();
    let cursor = text.trim().strip_prefix("go on with --since ").unwrap().to_owned();
    node.stop().await;
    assert!(matches!(watched(&place, "watch").await, Err(CliError::Control(ControlError::NotRunning(_)))));

    append_offline(&place, "pump-7", vec![row("pump-7", 0, UplinkKind::Reading, b"21.5")]).await;
    let node = place.start().await;
    let text = watched(&place, &format!("watch pump-7 --count 1 --json --since {cursor}")).await.unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["device"], &lines[0]["text"]), (&"pump-7".into(), &"21.5".into()));
    assert!(lines[1]["cursor"].is_string() && lines.len() == 2);
    // The same from elsewhere, by a token.
    let control = node.control();
    let token = |may_command| crate::control::TokenAsked { name: None, may_command, lifetime_s: None, once: true };
    let minted = control.mint(token(false)).await.unwrap();
    let gateway = node.addresses().gateway.unwrap();
    let line = format!("watch --node http://{gateway} --token {} --count 1 --since {cursor}", minted.token);
    assert!(watched(&place, &line).await.unwrap().contains("temperature       21.5"));
    let spent = watched(&place, &line).await.unwrap_err().to_string();
    assert!(spent.contains("token_refused"), "{spent}");

    let minted = control.mint(token(true)).await.unwrap();
    let line = format!("send pump-7 reboot --node http://{gateway} --token {}", minted.token);
    let mut text = Vec::new();
    dispatch(parse(&line).unwrap(), rng(), &mut text).await.unwrap();
    assert!(String::from_utf8(text).unwrap().ends_with("  accepted\n"));
    let asked = async |line: &str| -> Result<String, CliError> {
        let args = parse(line).unwrap();
        let (reached, mut text) = (place.reach(Missing::Refuse).await?, Vec::new());
        let mut out = Output::new(args.global.json, &mut text);
        match args.command {
            Some(Command::Token { action }) => token::run(action, reached.control(), &mut out).await?,
            Some(Command::Acts(acts)) => acts::run(acts, NOW, reached.control(), &mut out).await?,
            other => panic!("{other:?}"),
        }
        Ok(String::from_utf8(text).unwrap())
    };
    // A token of a name: what its holder does is told from what others do, until it is revoked.
    let ann = asked("token add ann").await.unwrap();
    let line = format!("send pump-7 reboot --node http://{gateway} --token {}", ann.trim());
    // Another process draws another id for its command.
    dispatch(parse(&line).unwrap(), StdRng::seed_from_u64(8), &mut Vec::new()).await.unwrap();
    assert!(asked("token list").await.unwrap().contains("ann"));
    assert_eq!(asked("token revoke ann").await.unwrap(), "ann: 1 tokens revoked, 0 clients disconnected\n");
    assert!(dispatch(parse(&line).unwrap(), rng(), &mut Vec::new()).await.is_err());
    assert!(asked("token revoke ann").await.unwrap_err().to_string().contains("no token is called ann"));
    let acts = asked("acts --json").await.unwrap();
    let acts: Vec<serde_json::Value> = acts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of =
        |deed: &str| acts.iter().filter(|act| act["deed"] == deed).map(|act| act["by"].clone()).collect::<Vec<_>>();
    assert_eq!(of("command"), ["token:default", "token:ann"]);
    let own = crate::actor::user(rustix::process::geteuid().as_raw());
    let own = serde_json::Value::from(&*own);
    assert_eq!((of("token add"), of("token revoke")), (vec!["node".into(), own.clone()], vec![own]));
    assert!(!acts.iter().any(|act| act.to_string().contains(ann.trim())), "no token is written down");
    let forged = watched(&place, "watch --count 1 --since AAAA").await.unwrap_err().to_string();
    assert!(forged.contains("cursor_invalid"), "{forged}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_folder_is_marked_as_put_back_and_the_next_node_acts_on_it() {
    let place = Place::new();
    let marks = async || {
        let args = Args { global: place.global(), ..parse("store restored").unwrap() };
        let mut text = Vec::new();
        dispatch(args, rng(), &mut text).await.map(|()| String::from_utf8(text).unwrap())
    };
    assert!(marks().await.unwrap_err().to_string().contains("there is no data folder"));
    let node = place.start().await;
    let refused = marks().await.unwrap_err();
    assert!(refused.to_string().contains("stop it first"), "{refused}");
    node.stop().await;

    let format = || std::fs::read_to_string(place.layout().store().join("format")).unwrap();
    let before = format();
    assert!(marks().await.unwrap().contains("asks each device for a new session"));
    assert!(format().contains("restored = yes"));
    place.start().await.stop().await;
    let after = format();
    assert!(!after.contains("restored") && after != before, "another epoch: {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_by_its_key_and_lets_go_of_the_folder() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut global = place.global();
    global.set.push(format!("gateway.listen={address}"));
    let loaded = global.sources(Purpose::Node).load().unwrap();
    let error = Node::start(loaded, place.open(), rng()).await.unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let text = error.to_string();
    assert!(text.contains(&format!("gateway.listen = {address}")) && text.contains("port 0"), "{text}");
    place.start().await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_takes_its_watchers_leave_and_its_socket_with_it() {
    let place = Place::new();
    let node = place.start().await;
    let reached = place.reach(Missing::Refuse).await.unwrap();
    let mut client = watch::through(&reached).await.unwrap();
    let (heard, ()) = tokio::join!(client.next(), node.stop());
    let heard = heard.unwrap_err().to_string();
    assert!(heard.contains("draining"), "{heard}");
    assert!(!place.layout().control_socket().exists());
    drop(place.open());
}

#[test]
fn every_error_has_its_exit_status() {
    for (error, code) in [
        (CliError::Usage(String::new()), 2),
        (ControlError::NoDevice { id: id("a") }.into(), 1),
        (CliError::Failed(String::new()), 1),
        (CliError::Output(std::io::ErrorKind::BrokenPipe.into()), 0),
        (CliError::Output(std::io::ErrorKind::Other.into()), 1),
    ] {
        assert_eq!(error.exit_code(), code, "{error:?}");
    }
    let config = Global { set: vec!["broker.nothing=1".to_owned()], ..Place::new().global() };
    let error = CliError::from(config.sources(Purpose::Node).load().unwrap_err());
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("broker.nothing"), "{error}");
}
