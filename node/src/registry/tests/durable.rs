//! What the registry has is what the disk has, also where the store does not say at once what became of a commit.

use tokio::task::JoinHandle;

use super::*;

/// Does something each time the store begins to reopen, before anybody is served again.
fn at_each_reopening(ground: &Ground, act: impl Fn(&Memory) + Send + 'static) -> JoinHandle<()> {
    let (store, mut health) = (ground.store.clone(), ground.store.health());
    tokio::spawn(async move {
        while health.wait_for(|health| *health == Health::Reopening).await.is_ok() {
            act(&store);
            if health.wait_for(|health| *health != Health::Reopening).await.is_err() {
                return;
            }
        }
    })
}

async fn told(ground: &Ground) -> (Arc<Registry>, Arc<Heard>, Arc<dyn Hooks>) {
    let registry = ground.registry().await;
    registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
    let heard = Arc::new(Heard::default());
    let hooks: Arc<dyn Hooks> = heard.clone();
    registry.tell(&hooks);
    (registry, heard, hooks)
}

fn other_keys() -> Enrolment {
    Enrolment { certificate: Fingerprint([9; 32]), identity_key: [8; 32], ..enrolment("pump-7") }
}

fn comes_in(registry: &Registry, certificate: u8) -> Result<Admitted, Denied> {
    let peer = PeerCertificate { fingerprint: Fingerprint([certificate; 32]), ..peer("pump-7") };
    registry.decide(&Identity::Device(peer), &door(false))
}

#[tokio::test]
async fn a_change_that_is_on_the_disk_is_made_whatever_its_commits_answer() {
    for (fault, is_written) in [(Fault::Written, true), (Fault::NotWritten, false)] {
        let ground = Ground::new();
        let (registry, heard, _hooks) = told(&ground).await;
        // Every commit fails from here on.
        ground.store.fail_next_commit(fault);
        let failing = at_each_reopening(&ground, move |store| store.fail_next_commit(fault));
        let enrolled = registry.enroll(other_keys(), Replace::Yes).await;
        assert_eq!(enrolled.is_ok(), is_written, "{enrolled:?}");
        let revoked = registry.revoke(id("pump-7")).await;
        assert_eq!(revoked.is_ok(), is_written, "{revoked:?}");
        failing.abort();

        let on_disk = ground.store.device(&id("pump-7")).await.unwrap().unwrap();
        assert_eq!(*registry.get(&id("pump-7")).unwrap(), on_disk);
        assert_eq!(on_disk.is_enrolled(), !is_written);
        // Out while nobody knows, which may be as long as the disk is full.
        let out = "kept out pump-7";
        let expected: &[&str] = if is_written { &[out, "enrolled pump-7", out, "revoked pump-7"] } else { &[out, out] };
        assert_eq!(heard.all(), expected);
        let hears = if is_written { Hears::Never } else { Hears::Now };
        assert_eq!(registry.hears(&id("pump-7")), hears);
    }
}

#[tokio::test]
async fn an_enrolment_that_is_durable_stands_though_it_is_not_read_back() {
    let ground = Ground::new();
    let (registry, heard, _hooks) = told(&ground).await;
    let certificate = Enrolment { certificate: Fingerprint([9; 32]), ..enrolment("pump-7") };
    ground.store.fail_reads_of(Some(id("pump-7")));
    registry.enroll(certificate, Replace::Yes).await.unwrap();
    assert_eq!(comes_in(&registry, 9), Ok(Admitted::Device(id("pump-7"))));
    ground.store.fail_reads_of(Some(id("pump-8")));
    registry.enroll(enrolment("pump-8"), Replace::No).await.unwrap();
    assert!(registry.get(&id("pump-8")).unwrap().is_enrolled());
    assert_eq!(heard.all(), ["enrolled pump-7", "enrolled pump-8"]);
}

#[tokio::test]
async fn nobody_comes_in_as_a_device_that_may_be_revoked_where_the_store_has_ended() {
    let mut ground = Ground::new();
    let (registry, heard, _hooks) = told(&ground).await;
    ground.store.fail_next_commit(Fault::Written);
    let ending = at_each_reopening(&ground, |store| drop(store.reopen()));
    let revoked = registry.revoke(id("pump-7")).await;
    let cause = Box::new(RegistryError::Read(ReadError::Unavailable));
    assert_eq!(revoked, Err(RegistryError::InDoubt { id: id("pump-7"), cause }));
    assert_eq!(comes_in(&registry, 2), Err(Denied::BeingChanged));
    assert_eq!(registry.hears(&id("pump-7")), Hears::Later);
    assert_eq!(heard.all(), ["kept out pump-7"]);
    ending.abort();
    ground.store = Arc::new(ground.store.reopen());
    assert_eq!(comes_in(&*ground.registry().await, 2), Err(Denied::Revoked));
}

#[tokio::test]
async fn a_doubt_ends_with_the_next_change_once_the_disk_is_read_again() {
    let ground = Ground::new();
    let (registry, heard, _hooks) = told(&ground).await;
    ground.store.fail_next_commit(Fault::Written);
    let failing = at_each_reopening(&ground, |store| store.fail_reads_of(Some(id("pump-7"))));
    let tag = || registry.tag(id("pump-7"), tags(&["a"]), BTreeSet::new());
    assert!(matches!(registry.enroll(other_keys(), Replace::Yes).await, Err(RegistryError::InDoubt { .. })));
    assert!(matches!(tag().await, Err(RegistryError::InDoubt { .. })), "built on a record that nobody knows");
    for certificate in [2, 9] {
        assert_eq!(comes_in(&registry, certificate), Err(Denied::BeingChanged));
    }
    failing.abort();
    ground.store.fail_reads_of(None);

    let device = tag().await.unwrap();
    assert_eq!((device.identity_key, device.certificate), ([8; 32], Fingerprint([9; 32])));
    assert_eq!(comes_in(&registry, 9), Ok(Admitted::Device(id("pump-7"))));
    assert_eq!(comes_in(&registry, 2), Err(Denied::OtherCertificate));
    assert_eq!(heard.all(), ["kept out pump-7", "enrolled pump-7"]);
}
