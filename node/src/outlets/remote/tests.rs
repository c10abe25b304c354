use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prometheus_client::registry::Registry as MetricsRegistry;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v5::{PubAck, Publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use unhidra_core::backoff::BackoffBounds;
use unhidra_core::ids::{Offset, Partition};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_store::memory::Options;
use unhidra_store::{MessageTag, Op};

use super::super::config::tests::config;
use super::super::courier::{Courier, Terms};
use super::super::cursor;
use super::super::dialer;
use super::super::filter::Filter;
use super::super::runner::{Runner, Sink};
use super::super::status::{Metrics, Status};
use super::super::testing::row;
use super::*;
use crate::clock::SystemClock;
use crate::commit::commit;
use crate::control::Control as _;
use crate::outside::Pace;
use crate::testing::{Ground, NOW, enroll_asked, id};

/// Another broker's side of one connection.
struct Peer {
    stream: TcpStream,
    read: BytesMut,
}

impl Peer {
    /// Lets in whoever comes, who may have so many messages on their way.
    async fn accept(listener: &TcpListener, receive_max: Option<u16>) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Self { stream, read: BytesMut::new() };
        assert!(matches!(peer.hear().await, Some(Packet::Connect(..))));
        // Success, no session of before, and where it is said Receive Maximum (section 3.2.2.3.3).
        let properties = receive_max.map_or(Vec::new(), |max| [&[0x21][..], &max.to_be_bytes()].concat());
        let len = u8::try_from(properties.len()).unwrap();
        peer.stream.write_all(&[&[0x20, 3 + len, 0, 0, len][..], &properties].concat()).await.unwrap();
        peer
    }

    async fn hear(&mut self) -> Option<Packet> {
        loop {
            if let Ok(packet) = Packet::read(&mut self.read, None) {
                return Some(packet);
            }
            if self.stream.read_buf(&mut self.read).await.ok()? == 0 {
                return None;
            }
        }
    }

    async fn say(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, None).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The bodies and identifiers of the next rows, so many.
    async fn rows(&mut self, count: usize) -> Vec<(String, u16)> {
        let mut rows = Vec::new();
        while rows.len() < count {
            match self.hear().await {
                Some(Packet::Publish(publish)) => {
                    rows.push((String::from_utf8(publish.payload.to_vec()).unwrap(), publish.pkid));
                }
                other => panic!("{other:?} in place of row {}", rows.len() + 1),
            }
        }
        rows
    }

    /// Holds that nothing is under way from the outlet. It is sent a message: before it reads that, and
    /// says so, it has sent all that it may.
    async fn has_heard_all(&mut self) {
        let mut asked = Publish::new("anything", QoS::AtLeastOnce, "", None);
        asked.pkid = 7;
        self.say(Packet::Publish(asked)).await;
        match self.hear().await {
            Some(Packet::PubAck(answer)) => assert_eq!(answer.pkid, 7),
            other => panic!("{other:?}, and no row more may be on its way"),
        }
    }

    async fn acknowledge(&mut self, row: &(String, u16)) {
        self.say(Packet::PubAck(PubAck::new(row.1, None))).await;
    }
}

fn bodies(rows: &[(String, u16)]) -> Vec<&str> {
    rows.iter().map(|(body, _)| body.as_str()).collect()
}

/// An outlet to a broker on this machine, at most four rows on their way.
fn remote(port: u16, more: &str) -> (Config, Remote) {
    let config = config(&format!(
        "kind = 'mqtt'\nfrom = 'oldest'\nformat = 'raw'\nurl = 'mqtt://127.0.0.1:{port}'\nbatch_rows = 4\n{more}"
    ));
    let address = config.server().unwrap();
    let template = Template::parse(&config.topic).unwrap();
    let credentials = Credentials { client_id: "a".to_owned(), user: String::new(), password: Default::default() };
    let dialer = dialer(&config, &address).unwrap();
    let remote = Remote::new(&config, dialer, &address, template, credentials, Epoch::new(1));
    (config, remote)
}

/// A node with an outlet and rows in its log.
struct Scene {
    ground: Ground,
    status: Arc<Status>,
    listener: TcpListener,
    stop: watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Scene {
    async fn begin(rows: u32) -> Self {
        Self::of((1..=rows).map(|_| "a"), None).await
    }

    /// With a row of each of these devices, and these bounds of the wait after what fails.
    async fn of(devices: impl IntoIterator<Item = &'static str>, backoff: Option<BackoffBounds>) -> Self {
        let ground = Ground::with(Options { partitions: 1, ..Options::SMALL });
        let registry = ground.registry().await;
        for device in ["a", "b"] {
            ground.control_over(registry.clone(), None).enroll(enroll_asked(device)).await.unwrap();
        }
        let rows = (1..).zip(devices).map(|(number, device)| reading_of(device, number)).collect();
        commit(&*ground.store, Partition::new(0), rows).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (config, remote) = remote(listener.local_addr().unwrap().port(), "");
        let terms = Terms {
            rows_max: config.batch_rows,
            bytes_max: config.batch_bytes,
            linger: Duration::ZERO,
            refusals_max: config.refusals_max,
            left_behind_max: config.left_behind_max,
            proofs: 1,
        };
        let metrics = Metrics::register(&mut MetricsRegistry::default());
        let status = Arc::new(Status::new("cloud", config.kind, String::new(), metrics));
        let backoff = backoff.unwrap_or_else(|| config.backoff());
        let runner = Runner {
            status: status.clone(),
            sink: Sink::Remote(Box::new(remote)),
            filter: Filter::new(&config),
            courier: Courier::new(terms, Pace::new(config.breaker(), backoff)),
            window: (config.batch_rows, config.batch_bytes),
            beginning: config.from,
            store: ground.store.clone(),
            registry,
            clock: Arc::new(SystemClock::start()),
            rng: StdRng::seed_from_u64(1),
        };
        let (stop, stopped) = watch::channel(false);
        Self { ground, status, listener, stop, running: tokio::spawn(runner.run(stopped)) }
    }

    /// Ends it; where its cursor stands then.
    async fn end(self) -> Option<Offset> {
        self.stop.send_replace(true);
        self.running.await.unwrap();
        cursor::load(&*self.ground.store, "cloud").await.unwrap()[0]
    }

    async fn commit(&self, number: u32) {
        commit(&*self.ground.store, Partition::new(0), vec![reading(number)]).await.unwrap();
    }
}

fn reading(number: u32) -> Op {
    reading_of("a", number)
}

fn reading_of(device: &str, number: u32) -> Op {
    let uplink = Uplink {
        device: id(device),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at: NOW,
        reading_id: None,
        body: Bytes::from(number.to_string()),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: [2; 4] }, uplink }
}

#[tokio::test]
async fn a_further_row_goes_with_each_puback_and_waits_for_no_other() {
    let scene = Scene::begin(9).await;
    let mut peer = Peer::accept(&scene.listener, None).await;
    let mut rows = peer.rows(4).await;
    assert_eq!(bodies(&rows), ["1", "2", "3", "4"]);
    for next in ["5", "6", "7", "8", "9"] {
        // Three others have none yet.
        peer.acknowledge(&rows.remove(0)).await;
        rows.extend(peer.rows(1).await);
        assert_eq!(rows.last().map(|(body, _)| body.as_str()), Some(next));
    }
    for row in &rows {
        peer.acknowledge(row).await;
    }
    // As many more as may be on their way say that those before them are none of these.
    for number in 10..14 {
        scene.commit(number).await;
    }
    assert_eq!(bodies(&peer.rows(4).await), ["10", "11", "12", "13"], "on the same connection");
    assert_eq!(scene.end().await, Some(Offset::new(9)));
}

#[tokio::test]
async fn a_new_row_goes_beside_those_on_their_way() {
    let scene = Scene::begin(1).await;
    let mut peer = Peer::accept(&scene.listener, None).await;
    assert_eq!(bodies(&peer.rows(1).await), ["1"]);
    scene.commit(2).await;
    assert_eq!(bodies(&peer.rows(1).await), ["2"], "though the first has no PUBACK");
    assert_eq!(scene.end().await, Some(Offset::ZERO));
}

#[tokio::test]
async fn what_a_lost_connection_took_with_it_goes_again_in_order_and_nothing_before_it() {
    let scene = Scene::begin(8).await;
    let mut peer = Peer::accept(&scene.listener, None).await;
    let rows = peer.rows(4).await;
    peer.acknowledge(&rows[0]).await;
    assert_eq!(bodies(&peer.rows(1).await), ["5"]);
    // Behind one that has none: it does not move the cursor.
    peer.acknowledge(&rows[2]).await;
    drop(peer);
    let mut peer = Peer::accept(&scene.listener, None).await;
    let rows = peer.rows(4).await;
    assert_eq!(bodies(&rows), ["2", "3", "4", "5"]);
    peer.acknowledge(&rows[0]).await;
    peer.acknowledge(&rows[1]).await;
    assert_eq!(bodies(&peer.rows(2).await), ["6", "7"]);
    assert_eq!(scene.end().await, Some(Offset::new(3)), "the last that was acknowledged without a gap");
}

/// Takes all rows but one, over which it ends the connection or says this. Adds those that come to `came`.
async fn takes_all_but(bad: &str, says: Option<PubAckReason>, listener: &TcpListener, came: &mut Vec<String>) {
    loop {
        let mut peer = Peer::accept(listener, None).await;
        while let Some(packet) = peer.hear().await {
            let Packet::Publish(publish) = packet else { continue };
            let row = (String::from_utf8(publish.payload.to_vec()).unwrap(), publish.pkid);
            came.push(row.0.clone());
            if row.0 != bad {
                peer.acknowledge(&row).await;
                continue;
            }
            let Some(reason) = says else { break };
            peer.say(Packet::PubAck(PubAck { reason, ..PubAck::new(row.1, None) })).await;
        }
    }
}

/// Completes once so many rows are delivered and left behind.
async fn shows(status: &Status, delivered: u64, left_behind: u64) {
    let shown = async {
        while status.record(NOW).delivered < delivered || status.record(NOW).left_behind < left_behind {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), shown).await.expect("it goes on");
}

#[tokio::test]
async fn a_row_that_ends_every_connection_holds_up_no_other_device() {
    let at_once = BackoffBounds { base: Duration::from_millis(1), cap: Duration::from_millis(1) };
    for says in [None, Some(PubAckReason::UnspecifiedError), Some(PubAckReason::QuotaExceeded)] {
        let scene = Scene::of(["a", "a", "b", "a"], Some(at_once)).await;
        let mut came = Vec::new();
        tokio::select! {
            () = takes_all_but("2", says, &scene.listener, &mut came) => {}
            () = shows(&scene.status, 3, 1) => {}
        }
        let shown = scene.status.record(NOW);
        assert_eq!((shown.delivered, shown.left_behind), (3, 1), "the witness is no row more: {came:?}");
        assert!(came.iter().filter(|body| *body == "2").count() > 10, "as often as that: {came:?}");
        assert_eq!(scene.end().await, Some(Offset::new(4)), "{says:?}");
    }
}

#[tokio::test]
async fn a_broker_that_ends_every_connection_loses_nothing_and_gets_all_once_it_does_not() {
    let at_once = BackoffBounds { base: Duration::from_millis(1), cap: Duration::from_millis(1) };
    let scene = Scene::of(["a", "b", "a"], Some(at_once)).await;
    // One fewer than open the breaker.
    for _ in 0..19 {
        let mut peer = Peer::accept(&scene.listener, None).await;
        assert_eq!(peer.rows(1).await.len(), 1);
    }
    assert_eq!(scene.status.record(NOW).left_behind, 0);
    let (mut came, status) = (Vec::new(), scene.status.clone());
    tokio::select! {
        () = takes_all_but("none", None, &scene.listener, &mut came) => {}
        () = shows(&status, 3, 0) => {}
    }
    assert_eq!((status.record(NOW).left_behind, scene.end().await), (0, Some(Offset::new(3))), "{came:?}");
}

/// However many wait: after the first, each goes with the PUBACK of another and with nothing else.
#[tokio::test]
async fn what_the_other_side_may_have_on_its_way_is_its_to_say() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (announced, window) in [(Some(1), 1), (Some(2), 2), (Some(3), 3), (Some(4), 4), (Some(9), 4), (None, 4)] {
        let (_, mut remote) = remote(port, "");
        let (opened, mut peer) = tokio::join!(remote.open(), Peer::accept(&listener, announced));
        assert_eq!(opened, Ok(()));
        let item = Item { row: row("a", 1, "temperature"), device: None };
        assert_eq!((0..9).take_while(|_| remote.offer(&item) == Offered::Sent).count(), 4, "all wait");
        let mut rows = peer.rows(window).await;
        peer.has_heard_all().await;
        for _ in window..4 {
            peer.acknowledge(&rows.remove(0)).await;
            rows.extend(peer.rows(1).await);
            peer.has_heard_all().await;
        }
        for row in &rows {
            peer.acknowledge(row).await;
        }
        let mut taken = 0;
        while taken < 4 {
            taken += remote.acknowledged().await.unwrap();
        }
    }
}

#[tokio::test]
async fn no_more_rows_and_bytes_are_on_their_way_than_are_configured() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (more, fit) in [("", 4), ("batch_bytes = 8", 2), ("batch_bytes = 1", 1)] {
        let (_, mut remote) = remote(port, more);
        let (opened, mut peer) = tokio::join!(remote.open(), Peer::accept(&listener, None));
        assert_eq!(opened, Ok(()));
        let item = Item { row: row("a", 1, "temperature"), device: None };
        let offered = (0..9).take_while(|_| remote.offer(&item) == Offered::Sent).count();
        assert_eq!((offered, remote.on_their_way()), (fit, fit), "{more}");
        let rows = peer.rows(fit).await;
        peer.acknowledge(&rows[0]).await;
        assert_eq!(remote.acknowledged().await, Ok(1));
        assert_eq!((remote.offer(&item), remote.offer(&item)), (Offered::Sent, Offered::Full), "{more}");
    }
}
