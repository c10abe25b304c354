//! Control over a real socket, against the same by hand.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use unhidra_core::command::{Command, CommandState, Life, Stage};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::{ReceiptStatus, Uplink, UplinkKind};
use unhidra_core::setting::Setting;
use unhidra_store::{MessageTag, Op, Store};

use super::*;
use crate::commit::commit;
use crate::testing::{Ground, NOW, enroll_asked, id, node_identity_key};

/// A node behind a socket.
struct Node {
    ground: Ground,
    remote: RemoteControl,
    socket: PathBuf,
    shutdown: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(live: Option<Arc<dyn Live>>) -> Self {
        Self::start_below(live, "").await
    }

    /// Starts one whose socket lies in a folder below its own.
    async fn start_below(live: Option<Arc<dyn Live>>, below: &str) -> Self {
        let ground = Ground::new();
        let control = Arc::new(ground.control(live).await);
        let folder = ground.folder.path().join(below);
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("control.sock");
        let listener = ControlListener::bind(&socket, PeerRule::own()).unwrap();
        let gateway = Router::new().route("/v1/ws", get(async || "the gateway's"));
        let (shutdown, down) = watch::channel(false);
        let served = tokio::spawn(serve(listener, router(control, gateway), down));
        Self { remote: RemoteControl::new(&socket), ground, socket, shutdown, served }
    }

    async fn enrolled(&self, name: &str) -> Enrolled {
        self.remote.enroll(enroll_asked(name)).await.unwrap()
    }

    /// What the socket answers to bytes.
    async fn raw(&self, request: &str) -> String {
        let mut peer = connect(&self.socket).await.unwrap();
        // A node that has heard enough closes before all of it is told, with its answer on the way.
        let _ = peer.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        while let Ok(1..) = peer.read_buf(&mut answer).await {}
        String::from_utf8(answer).unwrap()
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let len = body.len();
        let head = format!("POST {PREFIX}{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        self.raw(&format!("{head}Content-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}")).await
    }
}

/// An outlet as JSON.
const OUTLET: &str = r#"{"name":"hook","kind":"webhook","target":"https://a","state":"open","lag_rows":1,"lag_ms":2,
    "delivered":3,"unread":1,"left_behind":4,"missing":5,"damaged":8,"failures":6,"last_error":"no","last_error_at":7}"#;

/// A running node that keeps what it is sent.
#[derive(Default)]
struct Running(Mutex<Vec<String>>);

impl Live for Running {
    fn addresses(&self) -> Addresses {
        Addresses { mqtt: "127.0.0.1:8883".parse().ok(), gateway: "127.0.0.1:8080".parse().ok(), ..Default::default() }
    }

    fn is_online(&self, device: &DeviceId) -> bool {
        *device == id("here")
    }

    fn send(&self, asked: SendAsked) -> Asked<'_, Command> {
        self.0.lock().unwrap().push(asked.name.clone());
        Box::pin(async move {
            Ok(Command {
                id: CommandId::new([9; 16]),
                device: asked.device,
                name: asked.name.as_str().into(),
                body: asked.body,
                created_at: NOW,
                expires_at: NOW,
                asked_by: None,
                life: Life { stage: Stage::Sent, attempts: 1, ..Life::default() },
            })
        })
    }

    fn cancel(&self, asked: CancelAsked) -> Asked<'_, Command> {
        self.0.lock().unwrap().push(format!("cancel {}", asked.id));
        Box::pin(async { Err(ControlError::TooLate { state: "sent".to_owned() }) })
    }

    fn set(&self, asked: SetAsked) -> Asked<'_, Setting> {
        self.0.lock().unwrap().push(format!("set {}", asked.name));
        Box::pin(async move { Err(ControlError::NoSetting { name: asked.name }) })
    }

    fn mint(&self, asked: &TokenAsked) -> Result<String, ControlError> {
        Ok(format!("token may_command={} once={}", asked.may_command, asked.once))
    }

    fn tokens(&self) -> Vec<TokenRecord> {
        let name = "ann".to_owned();
        vec![TokenRecord { name, may_command: true, once: false, expires_at: 7 }]
    }

    fn revoke_tokens(&self, asked: &RevokeTokensAsked) -> RevokedTokens {
        let tokens = usize::from(asked.name.as_str() == "ann");
        RevokedTokens { tokens, clients: 2 * tokens }
    }

    fn clients(&self, asked: &ClientsAsked) -> Result<ClientsPage, ControlError> {
        let record = ClientRecord {
            name: ClientName { device: None, user: asked.user.clone(), client_id: "c".to_owned() },
            connection: None,
            expires_at: Some(1),
            subscriptions: 2,
            queued_messages: 3,
            queued_bytes: 4,
            dropped: 6,
            in_flight: 5,
        };
        Ok(ClientsPage { next: asked.after.clone(), clients: vec![record] })
    }

    fn upstreams(&self) -> Vec<crate::upstream::UpstreamRecord> {
        Vec::new()
    }

    fn subscribers(&self, asked: &SubscribersAsked) -> Result<SubscribersFound, ControlError> {
        Err(ControlError::Invalid(asked.topic.clone()))
    }

    fn outlets(&self) -> Vec<OutletRecord> {
        vec![serde_json::from_str(OUTLET).unwrap()]
    }

    fn kick(&self, asked: KickAsked) -> Asked<'_, Kicked> {
        self.0.lock().unwrap().push(format!("kick {} {}", asked.clients.len(), asked.forget));
        Box::pin(async { Ok(Kicked { clients: Vec::new() }) })
    }
}

fn send_asked(device: &str) -> SendAsked {
    SendAsked {
        device: id(device),
        id: None,
        name: "reboot".to_owned(),
        body: Bytes::from_static(b"\xffnow"),
        expires_in_ms: Some(1000),
    }
}

#[tokio::test]
async fn a_device_is_enrolled_tagged_shown_and_revoked_over_the_socket() {
    let node = Node::start(None).await;
    let enrolled = node.enrolled("pump-7").await;
    assert!(enrolled.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(enrolled.ca_pem.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_eq!((enrolled.prefix.as_str(), enrolled.trust_domain.as_str()), ("unhidra", "unhidra.local"));
    assert_eq!((enrolled.node_identity_key, enrolled.server), (KeyHex(node_identity_key()), None));

    let asked = TagAsked { add: ["site=north".parse().unwrap()].into(), ..TagAsked::default() };
    let tagged = node.remote.tag(id("pump-7"), asked).await.unwrap();
    assert_eq!(tagged, DeviceRecord { tags: tagged.tags.clone(), ..enrolled.device });
    let never = Some(ResetsRecord::default());
    assert_eq!(node.remote.device(id("pump-7")).await.unwrap(), DeviceRecord { resets: never, ..tagged });

    let revoked = node.remote.revoke(id("pump-7")).await.unwrap();
    assert!(!revoked.before && revoked.was_online.is_none());
    assert_eq!(revoked.device.revoked_at, Some(NOW.as_ms()));
    assert!(node.remote.revoke(id("pump-7")).await.unwrap().before);
}

#[tokio::test]
async fn devices_come_in_pages_in_the_order_of_their_names() {
    let node = Node::start(None).await;
    for name in ["c", "a", "b"] {
        node.enrolled(name).await;
    }
    let names = |page: DevicesPage| page.devices.iter().map(|device| device.id).collect::<Vec<_>>();
    let all = node.remote.devices(DevicesAsked::default()).await.unwrap();
    assert!(!all.more);
    assert_eq!(names(all), [id("a"), id("b"), id("c")]);
    let after = node.remote.devices(DevicesAsked { after: Some(id("b")) }).await.unwrap();
    assert_eq!(names(after), [id("c")]);
}

#[tokio::test]
async fn a_path_of_any_length_is_served() {
    let below = "a-folder-with-a-name-of-some-length/".repeat(8);
    let node = Node::start_below(None, &below).await;
    assert!(node.socket.as_os_str().len() > 2 * SOCKET_PATH_MAX);
    assert_eq!(node.remote.info().await.unwrap().pid, std::process::id());
}

#[tokio::test]
async fn an_error_crosses_the_socket_whole() {
    let node = Node::start(None).await;
    node.enrolled("pump-7").await;
    node.enrolled("gone").await;
    node.remote.revoke(id("gone")).await.unwrap();
    let (remote, nobody) = (&node.remote, id("nobody"));
    let command = CommandId::new([1; 16]);
    let long = SendAsked { body: vec![0; 101].into(), ..send_asked("pump-7") };
    let unnamed = SendAsked { name: String::new(), ..send_asked("pump-7") };
    let invalid = |found: Option<ControlError>| match found {
        Some(ControlError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(remote.device(nobody).await.err(), Some(ControlError::NoDevice { id: nobody }));
    assert_eq!(remote.revoke(nobody).await.err(), Some(ControlError::NoDevice { id: nobody }));
    assert_eq!(remote.enroll(enroll_asked("pump-7")).await.err(), Some(ControlError::Taken { id: id("pump-7") }));
    assert_eq!(remote.send(send_asked("gone")).await.err(), Some(ControlError::Revoked { id: id("gone") }));
    assert_eq!(remote.command(id("pump-7"), command).await.err(), Some(ControlError::NoCommand { id: command }));
    assert_eq!(
        remote.mint(TokenAsked { name: None, may_command: true, lifetime_s: None, once: true }).await.err(),
        Some(ControlError::NotRunning("a token for the gateway".to_owned()))
    );
    assert!(invalid(remote.send(long).await.err()).contains("101 bytes; at most 100"));
    assert!(invalid(remote.send(unnamed).await.err()).contains("a name has 1 to 64 bytes"));
    let rows = RowsAsked::all(Span::Partition(2));
    assert!(invalid(remote.rows(rows).await.err()).contains("partition 2; there are 2"));
}

#[tokio::test]
async fn an_enrolment_at_fault_is_refused_and_enrols_nobody() {
    let node = Node::start(None).await;
    let good = enroll_asked("pump-7");
    for (asked, cause) in [
        (EnrollAsked { csr_pem: "hello".to_owned(), ..good.clone() }, "the request"),
        (EnrollAsked { suite: 0, ..good.clone() }, "suite 0; there are 1 (x3dh) and 2 (pqxdh)"),
        (EnrollAsked { class: "a b".to_owned(), ..good.clone() }, "a class has at most 64 characters"),
        (EnrollAsked { suite: 9, ..good.clone() }, "suite 9; there are 1 (x3dh) and 2 (pqxdh)"),
        // Not a point of the curve.
        (EnrollAsked { identity_key: KeyHex([2; 32]), ..good.clone() }, "no Ed25519 public key"),
    ] {
        let refused = node.remote.enroll(asked).await.unwrap_err().to_string();
        assert!(refused.contains(cause), "{refused}");
    }
    assert!(node.remote.devices(DevicesAsked::default()).await.unwrap().devices.is_empty());
    assert!(node.remote.enroll(good).await.is_ok());
}

#[tokio::test]
async fn without_a_node_a_command_waits_in_the_store_up_to_a_bound_and_expires() {
    let node = Node::start(None).await;
    node.enrolled("pump-7").await;
    let queued = node.remote.send(send_asked("pump-7")).await.unwrap();
    assert_eq!((queued.state, queued.is_final()), (CommandState::Accepted, false));
    let stored = node.ground.store.command(&id("pump-7"), &queued.id).await.unwrap().unwrap();
    assert_eq!(
        (&*stored.name, &*stored.body, stored.state()),
        ("reboot", b"\xffnow".as_slice(), CommandState::Accepted)
    );
    node.remote.send(send_asked("pump-7")).await.unwrap();
    let refused = node.remote.send(send_asked("pump-7")).await.err();
    assert_eq!(refused, Some(ControlError::TooMany { open: 2, max: 2 }));

    node.ground.clock.advance(std::time::Duration::from_millis(1001));
    let expired = node.remote.command(id("pump-7"), queued.id).await.unwrap();
    assert_eq!((expired.state, expired.is_final()), (CommandState::Expired, true));
    // What has expired makes room, and without a time of its own a command has the node's.
    let last = SendAsked { expires_in_ms: None, ..send_asked("pump-7") };
    let last = node.remote.send(last).await.unwrap();
    assert_eq!(last.expires_at - last.created_at, 60_000);
}

#[tokio::test]
async fn without_a_node_a_repeat_is_known_and_what_waits_is_called_back() {
    let node = Node::start(None).await;
    node.enrolled("pump-7").await;
    let own = SendAsked { id: Some(CommandId::new([7; 16])), ..send_asked("pump-7") };
    let first = node.remote.send(own.clone()).await.unwrap();
    assert_eq!(node.remote.send(own.clone()).await.unwrap(), first, "sent again, it is the same");
    let other = SendAsked { name: "other".to_owned(), ..own };
    assert_eq!(node.remote.send(other).await, Err(ControlError::IdTaken { id: first.id }));

    let cancel = |id| node.remote.cancel(CancelAsked { device: "pump-7".parse().unwrap(), id });
    let cancelled = cancel(first.id).await.unwrap();
    assert_eq!((cancelled.state, cancelled.by.as_deref()), (CommandState::Cancelled, Some("client")));
    assert_eq!(cancel(first.id).await.unwrap(), cancelled, "called back again, it is the same");
    let nothing = CommandId::new([8; 16]);
    assert_eq!(cancel(nothing).await, Err(ControlError::NoCommand { id: nothing }));

    let listed = |newest| node.remote.commands(CommandsAsked { device: id("pump-7"), newest });
    assert!(listed(None).await.unwrap().commands.is_empty());
    assert_eq!(listed(Some(9)).await.unwrap().commands, [cancelled]);
}

#[tokio::test]
async fn without_a_node_settings_wait_in_the_store() {
    let node = Node::start(None).await;
    node.enrolled("pump-7").await;
    let set = |name: &str, value: Option<&str>| {
        let value = value.map(|text| RowBody::Text(text.to_owned()));
        node.remote.set(SetAsked { device: id("pump-7"), name: name.parse().unwrap(), value })
    };
    let first = set("interval", Some("5")).await.unwrap();
    assert_eq!((first.in_sync, first.removed), (false, false));
    let second = set("interval", Some("6")).await.unwrap();
    assert!(second.version > first.version);
    let removed = set("interval", None).await.unwrap();
    assert!(removed.removed && removed.value.is_none());
    assert!(matches!(set("other", None).await, Err(ControlError::NoSetting { .. })));
    assert!(matches!(set("big", Some(&"x".repeat(4097))).await, Err(ControlError::Invalid(_))));
    assert_eq!(node.remote.settings(id("pump-7")).await.unwrap().settings, [removed]);
    assert!(matches!(node.remote.settings(id("nobody")).await, Err(ControlError::NoDevice { .. })));
}

#[tokio::test]
async fn a_running_node_is_asked_for_what_only_it_has() {
    let running = Arc::new(Running::default());
    let node = Node::start(Some(running.clone())).await;
    assert_eq!(node.enrolled("here").await.server, "127.0.0.1:8883".parse().ok());
    node.enrolled("away").await;
    let info = node.remote.info().await.unwrap();
    assert!(info.running && info.devices == 2 && info.partitions == 2);
    assert_eq!(node.remote.device(id("here")).await.unwrap().online, Some(true));
    assert_eq!(node.remote.device(id("away")).await.unwrap().online, Some(false));
    assert_eq!(node.remote.send(send_asked("here")).await.unwrap().state, CommandState::Sent);
    let cancel = CancelAsked { device: id("here"), id: CommandId::new([9; 16]) };
    assert_eq!(node.remote.cancel(cancel).await, Err(ControlError::TooLate { state: "sent".to_owned() }));
    let set = SetAsked { device: id("here"), name: "interval".parse().unwrap(), value: None };
    assert!(matches!(node.remote.set(set).await, Err(ControlError::NoSetting { .. })));
    let asked = running.0.lock().unwrap().clone();
    assert_eq!(asked, ["reboot".to_owned(), format!("cancel {}", "09".repeat(16)), "set interval".to_owned()]);
    let minted =
        node.remote.mint(TokenAsked { name: None, may_command: true, lifetime_s: None, once: true }).await.unwrap();
    assert_eq!(minted.token, "token may_command=true once=true");
    assert!(!format!("{minted:?}").contains("may_command"), "a token is printed by nobody but its receiver");
    assert_eq!(node.remote.tokens().await.unwrap()[0].name, "ann");
    let revoke = |name: &str| RevokeTokensAsked { name: name.parse().unwrap() };
    assert_eq!(node.remote.revoke_tokens(revoke("bob")).await, Ok(RevokedTokens { tokens: 0, clients: 0 }));
    assert_eq!(node.remote.revoke_tokens(revoke("ann")).await, Ok(RevokedTokens { tokens: 1, clients: 2 }));
    assert_eq!(node.remote.revoke(id("here")).await.unwrap().was_online, Some(true));
}

#[tokio::test]
async fn rows_come_back_as_they_were_stored() {
    let node = Node::start(None).await;
    node.enrolled("pump-7").await;
    let device = id("pump-7");
    let row = |number: u32, kind, body: &'static [u8]| Op::Reading {
        tag: MessageTag { key: [1; 4], number, tag: [2; 4] },
        uplink: Uplink {
            device,
            kind,
            name: "temperature".into(),
            device_time: None,
            received_at: NOW,
            reading_id: Some(u64::MAX),
            body: Bytes::from_static(body),
        },
    };
    let receipt = UplinkKind::Receipt { command: CommandId::new([5; 16]), status: ReceiptStatus::Done };
    let ops = vec![
        row(0, UplinkKind::Reading, "21.5 °C".as_bytes()),
        row(1, receipt, b"\xff\x00"),
        row(2, UplinkKind::Ignored, b"?"),
    ];
    let store = &node.ground.store;
    let partition = store.partition_of(&device);
    commit(&**store, partition, ops).await.unwrap();

    let of_device = node.remote.rows(RowsAsked::all(Span::Device(device))).await.unwrap();
    let of_partition = node.remote.rows(RowsAsked::all(Span::Partition(partition.get()))).await.unwrap();
    assert_eq!(of_device, of_partition);
    let [reading, receipt, ignored] = &of_device.rows[..] else { panic!("{of_device:?}") };
    assert_eq!((reading.kind, reading.offset, reading.prev), (RowKind::Reading, 1, 0));
    assert_eq!((reading.reading_id, reading.body.clone()), (Some(u64::MAX), Some(RowBody::Text("21.5 °C".to_owned()))));
    assert_eq!((receipt.kind, receipt.prev, receipt.status.as_deref()), (RowKind::Receipt, 1, Some("done")));
    assert_eq!(receipt.body.as_ref().unwrap().as_bytes(), b"\xff\x00");
    assert_eq!(ignored.kind, RowKind::Ignored);
    let after = node.remote.rows(RowsAsked { after: 2, ..RowsAsked::all(Span::Device(device)) }).await.unwrap();
    assert_eq!(after.rows.iter().collect::<Vec<_>>(), [ignored]);
    let other = RowsAsked::all(Span::Partition(1 - partition.get()));
    assert!(node.remote.rows(other).await.unwrap().rows.is_empty());
    // Nothing that is asked for, and still the way on.
    let of = Span::Device(device);
    let later = RowsAsked { from: Some(NOW.as_ms() + 1), ..RowsAsked::all(of.clone()) };
    let page = node.remote.rows(later).await.unwrap();
    assert_eq!((page.rows.len(), page.next), (0, Some(3)));
    for (class, found) in [("", 3), ("pump", 0)] {
        let asked = RowsAsked { to: Some(NOW.as_ms() + 1), class: Some(class.into()), ..RowsAsked::all(of.clone()) };
        assert_eq!(node.remote.rows(asked).await.unwrap().rows.len(), found, "{class:?}");
    }
}

#[tokio::test]
async fn what_is_no_question_is_answered_with_what_is_wrong() {
    let node = Node::start(None).await;
    for (path, body, status, cause) in [
        ("/devices", "{", "400", "EOF while parsing"),
        ("/devices", "{}", "400", "missing field `id`"),
        ("/devices", r#"{"id":"a/b"}"#, "400", "in a device id"),
        ("/rows", r#"{"of":{"partition":0},"after":0,"max":1}"#, "400", "unknown field `max`"),
        ("/rows", r#"{"of":{"galaxy":0},"after":0}"#, "400", "galaxy"),
        ("/devices/a%2Fb/revoke", "", "400", "in a device id"),
        ("/nothing", "{}", "404", "of another version"),
        ("/info", "{}", "404", "of another version"),
    ] {
        let answer = node.post(path, body).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(cause), "{path} {body}: {answer}");
    }
    let long = format!(r#"{{"of":"{}"}}"#, "x".repeat(300 * 1024));
    let answer = node.post("/rows", &long).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("more than 262144 bytes"), "{answer}");
    let garbage = node.raw("\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    assert!(node.remote.info().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_never_told_to_its_end_is_given_up() {
    let node = Node::start(None).await;
    let head = format!("POST {PREFIX}/rows HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{");
    let answer = node.raw(&head).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("not told within 10 s"), "{answer}");
    let silent = node.raw("").await;
    assert_eq!(silent, "", "whoever says nothing is closed");
}

#[tokio::test]
async fn what_is_not_controls_is_the_gateways() {
    let node = Node::start(None).await;
    let answer = node.raw("GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.ends_with("the gateway's"), "{answer}");
}

#[tokio::test]
async fn a_node_that_went_away_is_said_to_have() {
    let node = Node::start(None).await;
    node.shutdown.send_replace(true);
    node.served.await.unwrap();
    assert!(!Path::new(&node.socket).exists());
    assert!(matches!(node.remote.info().await, Err(ControlError::Unasked(_))));
    // One that takes the question and says nothing.
    let silent = std::os::unix::net::UnixListener::bind(&node.socket).unwrap();
    let hang_up = std::thread::spawn(move || drop(silent.accept()));
    assert!(matches!(node.remote.info().await, Err(ControlError::Transport(_))));
    hang_up.join().unwrap();
}

#[tokio::test]
async fn clients_are_asked_for_and_kicked_over_the_socket() {
    let running = Arc::new(Running::default());
    let node = Node::start(Some(running.clone())).await;
    let name = ClientName { device: Some(id("pump-7")), user: None, client_id: "schlüssel/ä".to_owned() };
    let asked = ClientsAsked { user: Some("alice".to_owned()), after: Some(name.clone()), ..ClientsAsked::default() };
    let page = node.remote.clients(asked).await.unwrap();
    assert_eq!((page.clients[0].name.user.as_deref(), page.next), (Some("alice"), Some(name.clone())));
    node.remote.kick(KickAsked { clients: vec![name], forget: true }).await.unwrap();
    assert_eq!(*running.0.lock().unwrap(), ["kick 1 true"]);
}

#[tokio::test]
async fn without_a_node_there_are_no_clients() {
    let node = Node::start(None).await;
    let refused = node.remote.clients(ClientsAsked::default()).await.unwrap_err();
    assert!(matches!(refused, ControlError::NotRunning(_)), "{refused}");
}

#[tokio::test]
async fn what_is_done_over_the_socket_is_done_in_the_name_of_its_user() {
    let node = Node::start(None).await;
    node.enrolled("pump-7").await;
    let tags = TagAsked { add: ["site=north".parse().unwrap()].into(), remove: Default::default() };
    node.remote.tag(id("pump-7"), tags.clone()).await.unwrap();
    node.remote.tag(id("pump-7"), tags).await.unwrap();
    node.remote.revoke(id("pump-7")).await.unwrap();
    node.remote.revoke(id("pump-7")).await.unwrap();
    node.enrolled("pump-8").await;
    node.remote.user_act(UserAct { user: "ann".to_owned(), done: UserDeed::Added }).await.unwrap();
    let mut found = Vec::new();
    for partition in 0..2 {
        let page = node.remote.acts(ActsAsked { partition, ..ActsAsked::default() }).await.unwrap();
        assert_eq!(page.next, None);
        found.extend(page.acts);
    }
    let own = format!("uid {}", rustix::process::geteuid().as_raw());
    assert!(found.iter().all(|act| act.by == own && act.at == NOW.as_ms()), "{found:?}");
    let on = |device: Option<&str>| -> Vec<(&str, &str)> {
        let of = found.iter().filter(|act| act.device == device.map(id));
        of.map(|act| (act.deed.as_str(), act.detail.as_str())).collect()
    };
    // What changed nothing is not told twice.
    assert_eq!(on(Some("pump-7")), [("enroll", ""), ("tag", "+site=north"), ("revoke", "")]);
    assert_eq!((on(Some("pump-8")), on(None)), (vec![("enroll", "")], vec![("user add", "ann")]));
    let partition = node.ground.store.partition_of(&id("pump-8")).get();
    let of_one = ActsAsked { partition, device: Some(id("pump-8")), ..ActsAsked::default() };
    assert_eq!(node.remote.acts(of_one.clone()).await.unwrap().acts.len(), 1);
    let later = ActsAsked { since: Some(NOW.as_ms() + 1), ..of_one };
    assert!(node.remote.acts(later).await.unwrap().acts.is_empty());
    let beyond = node.remote.acts(ActsAsked { partition: 2, ..ActsAsked::default() }).await;
    assert!(matches!(beyond, Err(ControlError::Invalid(_))));
    // A store in memory has no keys, and says so.
    assert!(matches!(node.remote.keys().await, Err(ControlError::NotRunning(_))));
}
