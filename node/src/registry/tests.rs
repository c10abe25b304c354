//! The registry, held to its rules over the memory engine.

use std::sync::Mutex;

use unhidra_broker::{Entrance, PeerCertificate};
use unhidra_core::ids::{DeviceNumber, Partition, Version};
use unhidra_store::memory::{Memory, Options};
use unhidra_store::{Batch, Fault, Health, Op, Slot, Unit};

use super::*;
use crate::commit::commit;
use crate::testing::{Ground, NOW, TRUST_DOMAIN, id};

mod busy;
mod durable;

fn enrolment(name: &str) -> Enrolment {
    Enrolment {
        id: id(name),
        identity_key: [1; 32],
        certificate: Fingerprint([2; 32]),
        certificate_expires: NOW,
        suite: Suite::X3dh,
        tags: BTreeSet::new(),
        class: String::new(),
    }
}

fn device_of(enrolment: Enrolment) -> Device {
    Device {
        id: enrolment.id,
        number: DeviceNumber::new(0),
        identity_key: enrolment.identity_key,
        certificate: enrolment.certificate,
        certificate_expires: enrolment.certificate_expires,
        suite: enrolment.suite,
        tags: enrolment.tags,
        class: enrolment.class,
        enrolled_at: NOW,
        standing: Standing::Enrolled,
    }
}

fn peer(name: &str) -> PeerCertificate {
    PeerCertificate {
        device: id(name),
        trust_domain: TRUST_DOMAIN.to_owned(),
        fingerprint: Fingerprint([2; 32]),
        not_after: UnixTime::from_s(u64::from(u32::MAX)),
        serials: Arc::default(),
    }
}

fn door(anonymous: bool) -> Entrance {
    Entrance { name: "test", anonymous, users: false }
}

fn tags(names: &[&str]) -> BTreeSet<Tag> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Heard {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Hooks for Heard {
    fn enrolled(&self, device: &Arc<Device>) {
        self.0.lock().unwrap().push(format!("enrolled {}", device.id));
    }
    fn revoked(&self, device: &DeviceId) {
        self.0.lock().unwrap().push(format!("revoked {device}"));
    }
    fn kept_out(&self, device: &DeviceId) {
        self.0.lock().unwrap().push(format!("kept out {device}"));
    }
}

#[tokio::test]
async fn who_comes_in_is_enrolled_with_this_certificate_and_not_revoked() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    for name in ["here", "gone"] {
        registry.enroll(enrolment(name), Replace::No).await.unwrap();
    }
    registry.revoke(id("gone")).await.unwrap();
    let other_certificate = PeerCertificate { fingerprint: Fingerprint([9; 32]), ..peer("here") };
    let other_domain = PeerCertificate { trust_domain: "elsewhere".to_owned(), ..peer("here") };
    for (identity, answer) in [
        (Identity::Device(peer("here")), Ok(Admitted::Device(id("here")))),
        (Identity::Device(peer("nobody")), Err(Denied::NotEnrolled)),
        (Identity::Device(peer("gone")), Err(Denied::Revoked)),
        (Identity::Device(other_certificate), Err(Denied::OtherCertificate)),
        (Identity::Device(other_domain), Err(Denied::OtherTrustDomain)),
        (Identity::Anonymous, Err(Denied::AnonymousForbidden)),
    ] {
        assert_eq!(registry.decide(&identity, &door(false)), answer, "{identity:?}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_comes_in_where_the_listener_says_so() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    assert_eq!(registry.decide(&Identity::Anonymous, &door(true)), Ok(Admitted::Client(None)));
    assert_eq!(registry.decide(&Identity::Device(peer("nobody")), &door(true)), Err(Denied::NotEnrolled));
}

#[tokio::test]
async fn what_was_changed_is_there_after_a_restart() {
    let mut ground = Ground::new();
    let registry = ground.registry().await;
    for number in 0..5 {
        registry.enroll(enrolment(&format!("pump-{number}")), Replace::No).await.unwrap();
    }
    registry.tag(id("pump-1"), tags(&["site=north"]), BTreeSet::new()).await.unwrap();
    registry.revoke(id("pump-2")).await.unwrap();
    let before = registry.page(None, 100);
    drop(registry);
    ground.reopen().await;
    let registry = ground.registry().await;
    assert_eq!(registry.page(None, 100), before);
    assert_eq!(registry.len(), 5);
    assert_eq!(registry.get(&id("pump-1")).unwrap().tags, tags(&["site=north"]));
    assert!(!registry.get(&id("pump-2")).unwrap().is_enrolled());
    let page = registry.page(Some(&id("pump-1")), 2);
    assert_eq!((page.rows.len(), page.rows[0].id, page.more), (2, id("pump-2"), true));
    assert!(!registry.page(Some(&id("pump-3")), 2).more);
}

#[tokio::test]
async fn each_device_has_a_number_of_its_own_and_keeps_it_with_its_tags() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    let a = registry.enroll(enrolment("a"), Replace::No).await.unwrap();
    let b = registry.enroll(enrolment("b"), Replace::No).await.unwrap();
    assert_ne!(a.number, b.number);
    let tagged = Enrolment { tags: tags(&["new"]), ..enrolment("a") };
    registry.tag(id("a"), tags(&["old"]), BTreeSet::new()).await.unwrap();
    let again = registry.enroll(tagged, Replace::Yes).await.unwrap();
    assert_eq!((again.number, &again.tags), (a.number, &tags(&["new", "old"])));
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_unless_it_is_replaced() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
    registry.revoke(id("pump-7")).await.unwrap();
    let other = Enrolment { certificate: Fingerprint([9; 32]), ..enrolment("pump-7") };
    let refused = registry.enroll(other.clone(), Replace::No).await;
    assert_eq!(refused, Err(RegistryError::Taken(id("pump-7"))));
    assert!(!registry.get(&id("pump-7")).unwrap().is_enrolled());
    let device = registry.enroll(other, Replace::Yes).await.unwrap();
    assert!(device.is_enrolled() && device.certificate == Fingerprint([9; 32]));
    assert_eq!(registry.decide(&Identity::Device(peer("pump-7")), &door(false)), Err(Denied::OtherCertificate));
}

#[tokio::test]
async fn a_new_identity_key_ends_the_sessions_and_a_new_certificate_does_not() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
    let device = id("pump-7");
    let session = Op::Session { device, slot: Slot::Present, expect: Version::default(), whole: vec![5; 100].into() };
    commit(&*ground.store, ground.store.partition_of(&device), vec![session]).await.unwrap();
    let present = async || ground.store.session(&device).await.unwrap().unwrap().present;

    let certificate = Enrolment { certificate: Fingerprint([9; 32]), ..enrolment("pump-7") };
    registry.enroll(certificate, Replace::Yes).await.unwrap();
    assert!(present().await.is_some());
    let key = Enrolment { identity_key: [8; 32], ..enrolment("pump-7") };
    registry.enroll(key, Replace::Yes).await.unwrap();
    assert!(present().await.is_none());
}

#[tokio::test]
async fn hooks_hear_of_each_change_once_it_stands() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    let heard = Arc::new(Heard::default());
    let hooks: Arc<dyn Hooks> = heard.clone();
    registry.tell(&hooks);
    registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
    registry.tag(id("pump-7"), tags(&["a"]), BTreeSet::new()).await.unwrap();
    assert!(matches!(registry.revoke(id("pump-7")).await, Ok(Revocation::Now(_))));
    assert!(matches!(registry.revoke(id("pump-7")).await, Ok(Revocation::Before(_))));
    assert_eq!(registry.revoke(id("pump-8")).await, Err(RegistryError::NoDevice(id("pump-8"))));
    assert_eq!(heard.all(), ["enrolled pump-7", "revoked pump-7", "revoked pump-7"]);
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_no_change_half_made() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    let heard = Arc::new(Heard::default());
    let hooks: Arc<dyn Hooks> = heard.clone();
    registry.tell(&hooks);
    registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
    let mut revoking = Box::pin(registry.revoke(id("pump-7")));
    // Asked once, so that the change is on its way, and dropped.
    let pending = std::future::poll_fn(|cx| std::task::Poll::Ready(revoking.as_mut().poll(cx).is_pending()));
    assert!(pending.await);
    drop(revoking);
    // Changes are made in order: behind this one stands the first.
    registry.tag(id("pump-7"), tags(&["a"]), BTreeSet::new()).await.unwrap();
    assert!(!registry.get(&id("pump-7")).unwrap().is_enrolled());
    assert_eq!(heard.all(), ["enrolled pump-7", "revoked pump-7"]);
}

#[tokio::test]
async fn a_commit_of_unknown_outcome_is_made_again() {
    for fault in [Fault::NotWritten, Fault::Written] {
        let mut ground = Ground::new();
        let registry = ground.registry().await;
        let first = registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
        ground.store.fail_next_commit(fault);
        assert!(matches!(registry.revoke(id("pump-7")).await, Ok(Revocation::Now(_))), "{fault:?}");
        ground.reopen().await;
        let device = ground.registry().await.get(&id("pump-7")).unwrap();
        assert!(!device.is_enrolled() && device.number == first.number, "{fault:?}");
    }
}

#[tokio::test]
async fn a_full_queue_is_waited_for() {
    let ground = Ground::with(Options { queue_records: 1, ..Options::SMALL });
    let registry = ground.registry().await;
    ground.store.stall();
    let (answer, others) = oneshot::channel();
    let filler = Batch {
        partition: Partition::new(0),
        fence: ground.store.fence(Partition::new(0)),
        ops: vec![Op::Device(device_of(enrolment("other")))],
        unit: Unit::Batch,
        done: Box::new(move |result| answer.send(result.is_ok()).unwrap()),
    };
    ground.store.submit(filler).unwrap();
    let enrolling = registry.enroll(enrolment("pump-7"), Replace::No);
    let (enrolled, ()) = tokio::join!(enrolling, async { ground.store.resume() });
    assert!(enrolled.is_ok() && others.await.unwrap());
}

#[tokio::test]
async fn a_store_that_is_closed_is_named_and_nothing_is_changed() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    ground.store.close().await;
    let refused = registry.enroll(enrolment("pump-7"), Replace::No).await;
    assert_eq!(refused, Err(RegistryError::Commit(CommitError::Closed)));
    assert!(registry.get(&id("pump-7")).is_none());
}

#[tokio::test]
async fn tags_come_and_go_and_are_bounded() {
    let ground = Ground::new();
    let registry = ground.registry().await;
    registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
    let device = registry.tag(id("pump-7"), tags(&["a", "b"]), tags(&["b", "c"])).await.unwrap();
    assert_eq!(device.tags, tags(&["a", "b"]));
    let device = registry.tag(id("pump-7"), BTreeSet::new(), tags(&["a"])).await.unwrap();
    assert_eq!(device.tags, tags(&["b"]));
    let many: BTreeSet<Tag> = (0..TAGS_MAX).map(|n| format!("t{n}").parse().unwrap()).collect();
    let refused = registry.tag(id("pump-7"), many, BTreeSet::new()).await;
    assert_eq!(refused, Err(RegistryError::TooManyTags { id: id("pump-7"), found: TAGS_MAX + 1 }));
    assert_eq!(registry.get(&id("pump-7")).unwrap().tags, tags(&["b"]));
}
