//! What a node finds when it starts: written through the store itself.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use unhidra_core::device::{Device, Fingerprint, Standing};
use unhidra_core::ids::{DeviceId, DeviceNumber, Partition, Version};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::suite::Suite;
use unhidra_core::time::UnixTime;
use unhidra_store::{Batch, Config, Embedded, Keys, MessageTag, Op, Slot, Store, Unit, keyfile};

/// The node's own defaults.
const DEFAULTS: &str = include_str!("../../../../node/src/default.toml");
/// Bytes of a session in the store.
const SESSION_LEN: usize = 254;

/// A node's store, while the node is not running.
pub(super) struct Filler {
    pub(super) store: Embedded,
    now: UnixTime,
}

impl Filler {
    /// Opens the store in a folder that has `data` and `data.key`.
    pub(super) fn open(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut table: toml::Table = DEFAULTS.parse()?;
        let config: Config = table.remove("store").ok_or("no [store] in default.toml")?.try_into()?;
        let now = UnixTime::from_ms(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64);
        let keys = Keys::sealed(keyfile::load(&folder.join("data.key"))?, now);
        Ok(Self { store: Embedded::open(&folder.join("data/store"), &config, keys)?, now })
    }

    /// Submits, and waits for what was submitted before where there is no room.
    fn submit(&self, partition: Partition, ops: Vec<Op>, told: &mpsc::Sender<bool>) -> Result<(), Box<dyn Error>> {
        let told = told.clone();
        let done = Box::new(move |result: Result<_, _>| {
            let _ = told.send(result.is_ok());
        });
        let mut batch = Batch { partition, fence: self.store.fence(partition), ops, unit: Unit::Batch, done };
        while let Err(full) = self.store.submit(batch) {
            batch = *full.0;
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    fn all_done(told: mpsc::Sender<bool>, hear: &mpsc::Receiver<bool>) -> Result<(), Box<dyn Error>> {
        drop(told);
        if hear.iter().all(|done| done) { Ok(()) } else { Err("a batch was refused".into()) }
    }

    /// Adds devices, each with a session. What is in it nobody reads before the device speaks.
    pub(super) fn devices(&self, count: usize) -> Result<(), Box<dyn Error>> {
        let (told, hear) = mpsc::channel();
        for number in 0..count {
            let device = known(number)?;
            let registered = Device {
                id: device,
                number: DeviceNumber::new(0),
                identity_key: [7; 32],
                certificate: fingerprint(number),
                certificate_expires: UnixTime::from_ms(self.now.as_ms() + 86_400_000 * 300),
                suite: Suite::X3dh,
                tags: [].into(),
                class: String::new(),
                enrolled_at: self.now,
                standing: Standing::Enrolled,
            };
            let whole = Bytes::from(vec![7; SESSION_LEN]);
            let session = Op::Session { device, slot: Slot::Present, expect: Version::default(), whole };
            self.submit(self.store.partition_of(&device), vec![Op::Device(registered), session], &told)?;
        }
        Self::all_done(told, &hear)
    }

    /// Adds readings, of the first so many devices in turn.
    pub(super) fn readings(&self, devices: usize, count: usize, len: usize) -> Result<(), Box<dyn Error>> {
        let (told, hear) = mpsc::channel();
        let ids = (0..devices).map(known).collect::<Result<Vec<_>, _>>()?;
        // Bodies that do not compress, as sealed ones would not.
        let mut body = vec![0; len];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for first in (0..count).step_by(64) {
            let mut ops: BTreeMap<Partition, Vec<Op>> = BTreeMap::new();
            for number in first..count.min(first + 64) {
                for byte in body.iter_mut() {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = b'0' + ((state >> 33) % 64) as u8;
                }
                let uplink = Uplink {
                    device: ids[number % devices],
                    kind: UplinkKind::Reading,
                    name: "temperature".into(),
                    device_time: None,
                    received_at: self.now,
                    reading_id: None,
                    body: Bytes::copy_from_slice(&body),
                };
                let partition = self.store.partition_of(&uplink.device);
                let tag = MessageTag { key: [7; 4], number: number as u32, tag: [7; 4] };
                ops.entry(partition).or_default().push(Op::Reading { tag, uplink });
            }
            for (partition, ops) in ops {
                self.submit(partition, ops, &told)?;
            }
        }
        Self::all_done(told, &hear)
    }
}

/// A device that is known and away.
pub(super) fn known(number: usize) -> Result<DeviceId, Box<dyn Error>> {
    Ok(format!("known-{number:05}").parse()?)
}

/// One of its own.
fn fingerprint(number: usize) -> Fingerprint {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Fingerprint(bytes)
}
