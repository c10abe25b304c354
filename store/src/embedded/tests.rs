use std::num::NonZeroU16;

use zeroize::Zeroizing;

use super::*;
use crate::config::tests::config;
use crate::contract::{self, Bench};
use crate::sealed::DataKey;

fn key(byte: u8) -> Keys {
    Keys::Data(DataKey::new(NonZeroU16::MIN, Zeroizing::new([byte; 32])))
}

struct Folder {
    folder: tempfile::TempDir,
    keys: fn() -> Keys,
}

impl Bench for Folder {
    fn open(&mut self, partitions: u16) -> BoxFuture<'_, Arc<dyn Store>> {
        let config = Config { partitions, queue_records: 2048, ..config() };
        let store = Embedded::open(&self.folder.path().join("store"), &config, (self.keys)()).unwrap();
        Box::pin(async move { Arc::new(store) as Arc<dyn Store> })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds_the_contract_sealed() {
    contract::hold(|| Folder { folder: tempfile::tempdir().unwrap(), keys: || key(1) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_holds_the_contract_plain() {
    contract::hold(|| Folder { folder: tempfile::tempdir().unwrap(), keys: || Keys::Plain }).await;
}
