use std::os::unix::fs::PermissionsExt as _;

use bytes::Bytes;
use prometheus_client::registry::Registry as MetricsRegistry;
use rand::SeedableRng as _;
use unhidra_core::message::Uplink;
use unhidra_store::memory::Options;
use unhidra_store::{MessageTag, Op, Trim};

use super::super::config::tests::config;
use super::super::courier::Terms;
use super::super::dialer;
use super::super::signature::Signer;
use super::super::status::Metrics;
use super::*;
use crate::commit::commit;
use crate::control::Control as _;
use crate::outside::Pace;
use crate::testing::{Ground, NOW, enroll_asked, id};

fn reading(number: u32) -> Op {
    let uplink = Uplink {
        device: id("a"),
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at: NOW,
        reading_id: None,
        body: Bytes::from_static(b"21.5"),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: [2; 4] }, uplink }
}

/// An outlet to a webhook that is never called.
async fn outlet(ground: &Ground, registry: Arc<Registry>) -> Running {
    let secret = ground.folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = config(&format!(
        "kind = 'webhook'\nurl = 'http://127.0.0.1:1/'\nfrom = 'oldest'\nsecret_file = '{}'",
        secret.display()
    ));
    let address = config.server().unwrap();
    let (signer, epoch) = (Signer::load(&config.secret_file).unwrap(), ground.store.epoch());
    let place = ("127.0.0.1".to_owned(), address.path.clone());
    let webhook = Webhook::new(&config, dialer(&config, &address).unwrap(), place, signer, epoch, ground.clock.clone());
    let metrics = Metrics::register(&mut MetricsRegistry::default());
    let terms =
        Terms { rows_max: 10, bytes_max: 1000, linger: Duration::ZERO, refusals_max: 1, left_behind_max: 1, proofs: 1 };
    let runner = Runner {
        status: Arc::new(Status::new("hook", config.kind, String::new(), metrics)),
        sink: Sink::Webhook(Box::new(webhook)),
        filter: Filter::new(&config),
        courier: Courier::new(terms, Pace::new(config.breaker(), config.backoff())),
        window: (100, 100_000),
        beginning: config.from,
        store: ground.store.clone(),
        registry,
        clock: ground.clock.clone(),
        rng: StdRng::seed_from_u64(1),
    };
    runner.begin().await
}

/// Else years of readings would be told as lost, to whoever asked for the oldest there is.
#[tokio::test]
async fn what_went_before_it_began_is_not_missed_and_what_goes_from_then_on_is() {
    let ground = Ground::with(Options { partitions: 1, ..Options::SMALL });
    let registry = ground.registry().await;
    ground.control_over(registry.clone(), None).enroll(enroll_asked("a")).await.unwrap();
    commit(&*ground.store, Partition::new(0), (0..200).map(reading).collect()).await.unwrap();
    let begun = async |gone: u64| {
        let trim = Trim { delete: (1..=gone).map(Offset::new).collect(), stub: Vec::new() };
        commit(&*ground.store, Partition::new(0), vec![Op::Trim { device: id("a"), trim }]).await.unwrap();
        let mut outlet = outlet(&ground, registry.clone()).await;
        outlet.read().await;
        outlet.save().await;
        let first = outlet.window.first(1).next().map(|row| row.offset.get());
        (first, outlet.runner.status.record(NOW).missing)
    };
    assert_eq!(begun(100).await, (Some(101), 0));
    assert_eq!(begun(100).await, (Some(101), 0), "nothing was taken, and nothing went");
    assert_eq!(begun(110).await, (Some(111), 10));
}

/// Else one flipped bit would keep all that comes after it from leaving.
#[tokio::test]
async fn a_damaged_row_is_counted_and_those_around_it_go_on() {
    let ground = Ground::with(Options { partitions: 1, ..Options::SMALL });
    let registry = ground.registry().await;
    ground.control_over(registry.clone(), None).enroll(enroll_asked("a")).await.unwrap();
    commit(&*ground.store, Partition::new(0), (0..4).map(reading).collect()).await.unwrap();
    assert!(ground.store.damage_row(&id("a"), Offset::new(2)));
    let mut outlet = outlet(&ground, registry).await;
    assert!(outlet.read().await, "it reads to the end");
    let waiting: Vec<u64> = outlet.window.first(10).map(|row| row.offset.get()).collect();
    assert_eq!(waiting, [1, 3, 4]);
    let shown = outlet.runner.status.record(NOW);
    assert_eq!((shown.damaged, shown.missing), (1, 0));
    outlet.window.done(3);
    assert_eq!(outlet.window.cursors(), [Offset::new(4)]);
    // Once: it lies behind the outlet now.
    assert!(outlet.read().await);
    assert_eq!(outlet.runner.status.record(NOW).damaged, 1);
}
