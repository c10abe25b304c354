//! A store that went back, of which the disk has damaged something since.

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::command::{CommandState, Life};
use unhidra_core::ids::{CommandId, Epoch, Version};
use unhidra_store::Slot;
use unhidra_store::memory::Memory;

use super::*;
use crate::control::Control;
use crate::testing::{Ground, NOW, enroll_asked, id};

const DEVICES: [&str; 3] = ["a", "b", "c"];

/// A store with devices, each with a session and a command that waits.
async fn filled() -> Memory {
    let ground = Ground::new();
    let control = ground.control(None).await;
    for name in DEVICES {
        control.enroll(enroll_asked(name)).await.unwrap();
        let (device, whole) = (id(name), Bytes::from_static(b"a session"));
        let command = Command {
            id: CommandId::new([1; 16]),
            device,
            name: "reboot".into(),
            body: Bytes::new(),
            created_at: NOW,
            expires_at: UnixTime::from_s(4_000_000_000),
            asked_by: None,
            life: Life::default(),
        };
        let session = Op::Session { device, slot: Slot::Present, expect: Version::default(), whole };
        commit(&*ground.store, ground.store.partition_of(&device), vec![session, Op::Command(command)]).await.unwrap();
    }
    let copy = ground.store.copy();
    ground.store.put_back(copy, Epoch::new(7))
}

async fn settled(store: &Memory) -> Result<Vec<DeviceId>, SettleError> {
    settle(store, NOW, &mut StdRng::seed_from_u64(7)).await.map(|unsettled| unsettled.all())
}

async fn is_put_back(store: &Memory, name: &str) -> bool {
    let stored = store.session(&id(name)).await.unwrap().unwrap();
    let command = store.command(&id(name), &CommandId::new([1; 16])).await.unwrap().unwrap();
    assert_eq!(stored.peer.is_some(), command.state() == CommandState::Failed, "{name}: all of it or nothing");
    stored.peer.is_some()
}

async fn device(store: &Memory, name: &str) -> Device {
    store.device(&id(name)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_device_with_a_damaged_record_is_left_out_until_it_is_made_ready_itself() {
    let store = filled().await;
    let whole = store.damage_session(&id("b")).unwrap();
    assert_eq!(settled(&store).await.unwrap(), [id("b")]);
    assert_eq!(store.restored(), None, "for the others it is over");
    assert!(is_put_back(&store, "a").await && is_put_back(&store, "c").await);
    assert!(settle_device(&store, &device(&store, "b").await, NOW).await.is_err());

    // The next life knows of it, also where its records read again.
    let store = store.reopen();
    store.mend_session(&id("b"), whole);
    assert_eq!(settled(&store).await.unwrap(), [id("b")]);
    assert!(!is_put_back(&store, "b").await);
    let told = settle_device(&store, &device(&store, "b").await, NOW).await.unwrap();
    assert_eq!(told.commands.iter().map(Command::state).collect::<Vec<_>>(), [CommandState::Failed]);
    assert!(is_put_back(&store, "b").await);
    assert_eq!(settled(&store.reopen()).await.unwrap(), []);
}

/// As after `unhidra store verify --accept-loss`, which marks the store.
#[tokio::test]
async fn a_store_that_goes_back_again_makes_ready_whom_it_left_out() {
    let store = filled().await;
    let whole = store.damage_session(&id("b")).unwrap();
    settled(&store).await.unwrap();
    let store = store.put_back(store.copy(), Epoch::new(8));
    store.mend_session(&id("b"), whole);
    assert_eq!(settled(&store).await.unwrap(), []);
    assert!(is_put_back(&store, "b").await);
}

/// A peer record may open with its key and be none all the same.
#[tokio::test]
async fn a_record_that_says_nothing_leaves_its_device_out() {
    let store = filled().await;
    let op = Op::Peer { device: id("b"), bytes: Bytes::from_static(b"damaged") };
    commit(&store, store.partition_of(&id("b")), vec![op]).await.unwrap();
    assert_eq!(settled(&store).await.unwrap(), [id("b")]);
}

#[tokio::test]
async fn where_nobody_can_tell_whose_a_damaged_record_is_nothing_is_served() {
    let store = filled().await;
    store.damage_device(&id("b"));
    let refused = settled(&store).await.unwrap_err();
    assert!(matches!(refused, SettleError::Read(ReadError::Damaged { .. })), "{refused}");
    assert_eq!(store.restored(), Some(Restored::Copy), "all of it again the next time");

    let store = filled().await;
    let op = Op::Broker { table: BrokerTable::Unsettled, key: Bytes::from_static(b"b"), value: Some(Bytes::new()) };
    commit(&store, Partition::new(0), vec![op]).await.unwrap();
    let refused = settled(&store).await.unwrap_err();
    assert!(refused.to_string().contains("unsettled/b"), "{refused}");
    assert_eq!(store.restored(), Some(Restored::Copy));
}
