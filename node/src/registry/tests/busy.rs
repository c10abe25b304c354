//! A device that says something in every commit, and is given other keys.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Moves a device's session in every second commit until it is told to be silent: the next move waits for the
/// writer before anybody hears of the last.
fn speak(store: &Arc<Memory>, version: u32, is_silent: &Arc<AtomicBool>) {
    if is_silent.load(Ordering::Relaxed) {
        return;
    }
    let (device, expect) = (id("pump-7"), Version::new(version));
    let again = (Arc::downgrade(store), is_silent.clone());
    let batch = Batch {
        partition: store.partition_of(&device),
        fence: store.fence(store.partition_of(&device)),
        ops: vec![Op::Session { device, slot: Slot::Present, expect, whole: vec![5; 100].into() }],
        unit: Unit::Batch,
        done: Box::new(move |result| {
            if let (Ok(_), Some(store)) = (result, again.0.upgrade()) {
                speak(&store, version + 2, &again.1);
            }
        }),
    };
    store.submit(batch).unwrap();
}

/// Whoever holds the device's old keys, as far as the registry tells it anything.
struct OldKeys {
    registry: Arc<Registry>,
    is_silent: Arc<AtomicBool>,
    /// Whether it is silent once its connections are ended.
    obeys: bool,
    heard: Heard,
}

impl OldKeys {
    async fn speaking(ground: &Ground, obeys: bool) -> (Arc<Self>, Arc<dyn Hooks>) {
        let registry = ground.registry().await;
        registry.enroll(enrolment("pump-7"), Replace::No).await.unwrap();
        let keys = Arc::new(Self { registry, is_silent: Arc::default(), obeys, heard: Heard::default() });
        let hooks: Arc<dyn Hooks> = keys.clone();
        keys.registry.tell(&hooks);
        let (device, expect) = (id("pump-7"), Version::default());
        let first = Op::Session { device, slot: Slot::Present, expect, whole: vec![5; 100].into() };
        commit(&*ground.store, ground.store.partition_of(&device), vec![first]).await.unwrap();
        // While one of two is committed the other waits, ahead of whatever comes.
        speak(&ground.store, 1, &keys.is_silent);
        speak(&ground.store, 2, &keys.is_silent);
        (keys, hooks)
    }

    fn come_in(&self) -> Result<Admitted, Denied> {
        self.registry.decide(&Identity::Device(peer("pump-7")), &door(false))
    }

    async fn are_replaced(&self) -> Result<Arc<Device>, RegistryError> {
        let other = Enrolment { certificate: Fingerprint([9; 32]), identity_key: [8; 32], ..enrolment("pump-7") };
        self.registry.enroll(other, Replace::Yes).await
    }
}

impl Hooks for OldKeys {
    fn enrolled(&self, device: &Arc<Device>) {
        self.heard.enrolled(device);
    }
    fn revoked(&self, device: &DeviceId) {
        self.heard.revoked(device);
    }
    fn kept_out(&self, device: &DeviceId) {
        self.heard.kept_out(device);
        assert_eq!(self.come_in(), Err(Denied::BeingChanged));
        self.is_silent.store(self.obeys, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_device_is_kept_out_while_its_keys_are_replaced_if_it_says_something_in_every_commit() {
    let ground = Ground::new();
    let (keys, _hooks) = OldKeys::speaking(&ground, true).await;
    keys.are_replaced().await.unwrap();
    assert_eq!(keys.heard.all(), ["kept out pump-7", "enrolled pump-7"]);
    assert_eq!(keys.come_in(), Err(Denied::OtherCertificate));
    assert!(ground.store.session(&id("pump-7")).await.unwrap().unwrap().present.is_none());
}

#[tokio::test]
async fn who_cannot_be_silenced_is_to_be_revoked_first_and_comes_in_until_then() {
    let ground = Ground::new();
    let (keys, _hooks) = OldKeys::speaking(&ground, false).await;
    let refused = keys.are_replaced().await.unwrap_err();
    assert_eq!(refused, RegistryError::Busy(id("pump-7")));
    assert!(refused.to_string().contains("unhidra device revoke pump-7"));
    assert_eq!(keys.come_in(), Ok(Admitted::Device(id("pump-7"))));
    assert_eq!(keys.heard.all(), ["kept out pump-7"]);

    // This ends no session, and so is not in anybody's way.
    assert!(matches!(keys.registry.revoke(id("pump-7")).await, Ok(Revocation::Now(_))));
    assert_eq!(keys.come_in(), Err(Denied::Revoked));
    keys.is_silent.store(true, Ordering::Relaxed);
    keys.are_replaced().await.unwrap();
}
