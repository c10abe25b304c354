//! What is known of a power cut: the file `boot`.

use super::*;
use crate::config::Durability;

/// As a boot before this one, or another machine, would have left it.
const OTHER: &str = "boot = 00000000-0000-0000-0000-000000000000\n";

fn with(durability: Durability) -> Config {
    // No timer of ours comes before the end of a test.
    Config { durability, sync_interval_ms: 3_600_000, ..config() }
}

impl Folder {
    fn boot(&self) -> Option<String> {
        fs::read_to_string(self.path().join("boot")).ok()
    }

    /// The log's life, without opening the store.
    fn epoch(&self) -> Epoch {
        let text = fs::read_to_string(self.path().join("format")).unwrap();
        let epoch = text.lines().find_map(|line| line.strip_prefix("epoch = ")).unwrap();
        Epoch::new(u64::from_str_radix(epoch, 16).unwrap())
    }

    fn opened(&self, durability: Durability) -> Embedded {
        self.open_with((self.keys)(), &with(durability)).unwrap()
    }

    /// What a node that died in the middle of it leaves, and in which boot.
    fn cut_off(&self, text: &[u8]) {
        drop(self.opened(Durability::Fsync));
        fs::write(self.path().join("boot"), text).unwrap();
    }
}

#[tokio::test]
async fn while_commits_are_not_synced_the_boot_is_written_down_and_no_longer() {
    for durability in [Durability::Interval, Durability::None] {
        let folder = Folder::new(|| key(1));
        let store = folder.opened(durability);
        let boot = folder.boot().unwrap();
        assert!(boot.len() > OTHER.len() - 10 && boot.starts_with("boot = ") && boot.ends_with('\n'), "{boot:?}");
        write(&store, vec![Op::Device(device("a"))]).await.unwrap();
        assert_eq!(folder.boot(), Some(boot));
        store.close().await;
        assert_eq!(folder.boot(), None, "the last sync is over");
        drop(store);
        assert_eq!(folder.opened(durability).restored(), None);
        assert_eq!(folder.boot(), None, "a store that is dropped is closed in order too");
    }
    let folder = Folder::new(|| key(1));
    let store = folder.opened(Durability::Fsync);
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    assert_eq!(folder.boot(), None, "nothing is lost with a sync for each commit");
}

#[tokio::test]
async fn a_power_cut_puts_the_store_back_whatever_its_durability_is_now() {
    for durability in [Durability::Interval, Durability::None, Durability::Fsync] {
        // Another boot; a boot of a system that has no id for it; and what nobody can read.
        for left in [OTHER.as_bytes(), b"boot = unknown\n", b"", b"\xff"] {
            let folder = Folder::new(|| key(1));
            folder.cut_off(left);
            let before = folder.epoch();
            let store = folder.opened(durability);
            assert_eq!(store.restored(), Some(Restored::PowerCut), "{durability:?} {left:?}");
            assert_eq!(store.metrics().power_cuts.get(), 1, "it is counted once");
            assert_ne!(store.epoch(), before, "cursors of before are refused");
            let boot = folder.boot();
            assert_eq!(boot.is_some(), durability != Durability::Fsync, "and the next one is watched for: {boot:?}");
            assert_ne!(boot.as_deref().map(str::as_bytes), Some(left));
            // Whoever closes it without acting on that leaves it to do.
            let epoch = store.epoch();
            drop(store);
            let store = folder.opened(durability);
            assert_eq!((store.restored(), store.epoch()), (Some(Restored::PowerCut), epoch));
            let again = store.metrics().power_cuts.get();
            assert_eq!(again, 0, "the same one is not found anew");
            store.settle_restored().await.unwrap();
            assert_eq!(store.restored(), None);
            drop(store);
            assert_eq!(folder.opened(durability).restored(), None);
        }
    }
}

#[tokio::test]
async fn a_kill_puts_nothing_back_and_forgets_nothing() {
    let folder = Folder::new(|| key(1));
    let store = folder.opened(Durability::None);
    let (boot, epoch) = (folder.boot().unwrap(), store.epoch());
    drop(store);
    folder.cut_off(boot.as_bytes());
    let store = folder.opened(Durability::Interval);
    assert_eq!((store.restored(), store.epoch(), folder.boot()), (None, epoch, Some(boot.clone())));
    drop(store);
    folder.cut_off(boot.as_bytes());
    let store = folder.opened(Durability::Fsync);
    assert_eq!((store.restored(), store.epoch()), (None, epoch));
    assert_eq!(folder.boot(), None, "what was committed before is synced once it is open");
}

/// What was not synced when the files failed is not taken for synced when they are closed.
#[tokio::test]
async fn a_store_that_fails_for_good_stays_marked() {
    let folder = Folder::new(|| key(1));
    let store = folder.opened(Durability::Interval);
    let (mut first, _) = batch(&store, Partition::new(0), Vec::new());
    first.done = Box::new(|_| panic!("an answer that works, and fails"));
    let mut health = store.health();
    store.submit(first).unwrap();
    health.wait_for(|health| matches!(health, Health::Failed(_))).await.unwrap();
    store.close().await;
    drop(store);
    assert!(folder.boot().is_some());
}

/// A copy that was put back, and then a power cut: the first says more.
#[tokio::test]
async fn a_power_cut_does_not_hide_that_a_copy_was_put_back() {
    let folder = Folder::new(|| key(1));
    folder.cut_off(OTHER.as_bytes());
    let epoch = mark_restored(&folder.path()).unwrap();
    let store = folder.opened(Durability::None);
    assert_eq!(store.restored(), Some(Restored::Copy));
    assert_ne!(store.epoch(), epoch);
}
