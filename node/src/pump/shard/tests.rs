//! What a shard lets out, and when, by what the store's writer says of its drafts.

use unhidra_core::command::CommandState;
use unhidra_core::ids::Version;
use unhidra_store::{Op, Store as _};

use super::*;
use crate::testing::id;
use scene::{Scene, command};

mod double;
mod scene;

/// Whether it writes the prekey that the first request for a bundle makes.
fn writes_prekey(batch: &Batch) -> bool {
    batch.ops.iter().any(|op| matches!(op, Op::Prekey(_)))
}

fn writes_command(batch: &Batch) -> bool {
    batch.ops.iter().any(|op| matches!(op, Op::Command(_)))
}

/// The second draft is durable, and rests on the first, which is not: a message in it repeats one of the
/// first, and so writes nothing.
#[tokio::test(start_paused = true)]
async fn behind_a_draft_that_failed_nothing_is_let_out_and_the_repeat_is_taken_anew() {
    let mut scene = Scene::begin(&["a"]).await;
    assert_eq!(scene.store.reads_of(&id("a")), 1);
    let (first_command, first_told) = command("a", 1);
    let (second_command, second_told) = command("a", 2);
    scene.happens([first_command, scene.asks("a", 1)]);
    let first = scene.batch().await;
    assert!(writes_prekey(&first) && writes_command(&first));
    scene.happens([second_command, scene.asks("a", 2)]);
    let second = scene.batch().await;
    assert!(!writes_prekey(&second) && writes_command(&second), "it was concluded from the first");

    scene.store.health.send_replace(Health::Reopening);
    (first.done)(Err(CommitError::Unknown("the disk".into())));
    scene.commit(second);
    assert_eq!(scene.answer().await, (1, Answer::Retry), "dropped unanswered");
    assert_eq!(scene.answer().await, (2, Answer::Retry), "though its draft is durable");
    for told in [first_told, second_told] {
        assert_eq!(told.await.unwrap(), Err(CommandRefused::Unavailable));
    }

    // Nothing is taken before the store serves again, and nothing read.
    let (third_command, third_told) = command("a", 1);
    scene.happens([third_command, scene.asks("a", 3)]);
    scene.idle().await;
    assert_eq!((scene.has_batch(), scene.store.reads_of(&id("a"))), (false, 1));
    scene.store.health.send_replace(Health::Ready);
    let third = scene.batch().await;
    assert_eq!(scene.store.reads_of(&id("a")), 2, "what was in memory is void");
    assert!(writes_prekey(&third) && writes_command(&third), "it was never written");
    scene.commit(third);
    assert_eq!(scene.answer().await, (3, Answer::Accepted));
    assert_eq!(third_told.await.unwrap().unwrap().state(), CommandState::Accepted);
    assert_eq!(scene.store.prekeys(&id("a")).await.unwrap().len(), 1);
}

/// Where it is not the disk's doing that a device was left out, what is in memory of others may be wrong as
/// well. The store serves all along, and the second draft is durable.
#[tokio::test(start_paused = true)]
async fn behind_a_draft_that_was_refused_a_device_for_its_version_nothing_of_anybody_is_let_out() {
    let mut scene = Scene::begin(&["a", "b"]).await;
    scene.happens([scene.asks("a", 1), scene.asks("b", 2)]);
    let first = scene.batch().await;
    scene.happens([scene.asks("a", 3), scene.asks("b", 4)]);
    let second = scene.batch().await;
    let version = CommitError::Version { device: id("a"), expected: Version::new(1), found: Version::new(2) };
    scene.commit_without("a", version, first);
    assert_eq!(scene.answer().await, (1, Answer::Retry));
    assert_eq!(scene.answer().await, (2, Answer::Accepted), "it is durable, and rests on nothing");
    scene.idle().await;
    let reads = |scene: &Scene| ["a", "b"].map(|device| scene.store.reads_of(&id(device)));
    assert_eq!(reads(&scene), [1, 1], "nothing is read before all that is on its way is answered for");
    scene.commit(second);
    assert_eq!(scene.answer().await, (3, Answer::Retry), "it was concluded from what nobody has");
    assert_eq!(scene.answer().await, (4, Answer::Retry));
    scene.idle().await;
    assert_eq!(reads(&scene), [2, 2], "what was in memory is void");
    scene.happens([scene.asks("a", 5), scene.asks("b", 6)]);
    let repeats = scene.batch().await;
    assert!(writes_prekey(&repeats), "the first's was never written");
    scene.commit(repeats);
    assert_eq!(scene.answer().await, (5, Answer::Accepted));
    assert_eq!(scene.answer().await, (6, Answer::Accepted));
}

/// A device's own part of a draft may come to nothing, for a record of it is damaged: what it has in the
/// drafts behind rests on that, up to the one that was in the making then. Nobody else's does.
#[tokio::test(start_paused = true)]
async fn of_a_device_that_is_left_out_nothing_is_let_out_up_to_the_draft_in_the_making_and_others_are_served() {
    let mut scene = Scene::begin(&["a", "b"]).await;
    let (first_command, first_told) = command("a", 1);
    let (second_command, second_told) = command("a", 2);
    let (others_command, others_told) = command("b", 3);
    scene.happens([first_command, scene.asks("a", 1), scene.asks("b", 2)]);
    let first = scene.batch().await;
    scene.happens([second_command, others_command, scene.asks("a", 3), scene.asks("b", 4)]);
    let second = scene.batch().await;

    let found = ReadError::Damaged { record: "sessions/1".into(), cause: "it is too short".into() };
    let damaged = CommitError::Damaged { device: id("a"), found: Box::new(found) };
    scene.commit_without("a", damaged, first);
    assert_eq!(scene.answer().await, (1, Answer::Retry));
    assert_eq!(scene.answer().await, (2, Answer::Accepted));
    assert_eq!(first_told.await.unwrap(), Err(CommandRefused::Unavailable));
    scene.commit(second);
    assert_eq!(scene.answer().await, (3, Answer::Retry), "though nothing was left out of its draft");
    assert_eq!(scene.answer().await, (4, Answer::Accepted));
    assert_eq!(second_told.await.unwrap(), Err(CommandRefused::Unavailable));
    assert!(others_told.await.unwrap().is_ok());

    // Its records are left alone for a minute. The draft after the second was in the making when it was
    // left out.
    assert_eq!(scene.store.reads_of(&id("a")), 1);
    scene.ground.clock.advance(std::time::Duration::from_secs(61));
    for (token, answer) in [(5, Answer::Retry), (6, Answer::Accepted)] {
        scene.happens([scene.asks("a", token)]);
        let next = scene.batch().await;
        scene.commit(next);
        assert_eq!(scene.answer().await, (token, answer));
    }
    assert_eq!((scene.store.reads_of(&id("a")), scene.store.reads_of(&id("b"))), (2, 1), "the others stay in memory");
}

/// A batch is kept that the store has no room for, and nothing goes past it.
#[tokio::test(start_paused = true)]
async fn a_batch_that_has_no_room_goes_again_when_there_is_some_and_in_order() {
    let mut scene = Scene::begin(&["a"]).await;
    scene.store.has_no_room_for(2);
    scene.happens([scene.asks("a", 1)]);
    scene.refused().await;
    scene.happens([scene.asks("a", 2)]);
    scene.idle().await;
    assert!(!scene.has_batch(), "there is room for one by now, and the first waits for the signal");
    scene.store.signal_room();
    // Somebody else was before it.
    scene.refused().await;
    scene.idle().await;
    assert!(!scene.has_batch());
    scene.store.signal_room();
    let first = scene.batch().await;
    assert!(writes_prekey(&first), "the first goes first");
    let second = scene.batch().await;
    assert!(!writes_prekey(&second));
    scene.commit(first);
    scene.commit(second);
    assert_eq!(scene.answer().await, (1, Answer::Accepted));
    assert_eq!(scene.answer().await, (2, Answer::Accepted));
}

/// The writer takes what waits between its no and the shard's wait: nobody says it again.
#[tokio::test(start_paused = true)]
async fn room_that_comes_with_the_refusal_is_not_missed() {
    let mut scene = Scene::begin(&["a"]).await;
    scene.store.has_no_room_for(1);
    scene.store.frees_at_once();
    scene.happens([scene.asks("a", 1)]);
    let batch = scene.batch().await;
    scene.commit(batch);
    assert_eq!(scene.answer().await, (1, Answer::Accepted));
}

/// A batch that waits for room when the one before it fails is dropped with it: it rests on that one.
#[tokio::test(start_paused = true)]
async fn a_batch_that_waits_for_room_is_void_with_the_draft_before_it() {
    let mut scene = Scene::begin(&["a"]).await;
    scene.happens([scene.asks("a", 1)]);
    let first = scene.batch().await;
    scene.store.has_no_room_for(1);
    let (blocked_command, told) = command("a", 1);
    scene.happens([blocked_command, scene.asks("a", 2)]);
    scene.refused().await;
    scene.store.health.send_replace(Health::Reopening);
    (first.done)(Err(CommitError::Unknown("the disk".into())));
    let mut void = [scene.answer().await, scene.answer().await];
    void.sort_by_key(|(token, _)| *token);
    assert_eq!(void, [(1, Answer::Retry), (2, Answer::Retry)]);
    assert_eq!(told.await.unwrap(), Err(CommandRefused::Unavailable));
    scene.store.signal_room();
    scene.store.health.send_replace(Health::Ready);
    scene.idle().await;
    assert!(!scene.has_batch(), "it went to the store after all");
    scene.happens([scene.asks("a", 3)]);
    let repeat = scene.batch().await;
    assert!(writes_prekey(&repeat));
    scene.commit(repeat);
    assert_eq!(scene.answer().await, (3, Answer::Accepted));
}
