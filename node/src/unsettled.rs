//! Devices that were left out when a store that went back to an earlier moment was made ready
//! ([`crate::restored`]), for a record of theirs did not read.
//!
//! The mark of the store is gone since, for all the others. So each of these has one of its own: what of such
//! a device may read again later is of the moment before, and nothing is served from it until that has been
//! done to it what was done to the others.
//!
//! ```text
//! key    the device's id, in its partition
//! value  version 1 (1), when it was left out in ms since the Unix epoch (8)
//! ```

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_store::{BrokerTable, Limit, Op, ReadError, Store};

const VERSION: u8 = 1;
const LEN: usize = 9;

/// The devices that are not served before they are made ready each for itself. At most as many as there are.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<BTreeSet<DeviceId>>);

impl Unsettled {
    /// Reads which there are.
    ///
    /// # Errors
    ///
    /// [`ReadError`]: a record that is none names no device, so nobody may be served.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, ReadError> {
        let mut found = BTreeSet::new();
        let mut after: Option<Bytes> = None;
        loop {
            let page = store.broker_records(BrokerTable::Unsettled, after.as_deref(), Limit::default()).await?;
            for (key, value) in &page.rows {
                let record = || format!("unsettled/{}", String::from_utf8_lossy(key));
                let device = parse(key, value).map_err(|cause| ReadError::Damaged { record: record(), cause })?;
                found.insert(device);
            }
            after = page.rows.last().map(|(key, _)| key.clone());
            if !page.more || after.is_none() {
                return Ok(Self(Mutex::new(found)));
            }
        }
    }

    /// Whether this one is among them.
    pub(crate) fn contains(&self, device: &DeviceId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(device)
    }

    /// All of them, in the order of their ids.
    pub(crate) fn all(&self) -> Vec<DeviceId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// This one is made ready, durably.
    pub(crate) fn remove(&self, device: &DeviceId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(device);
    }
}

/// What writes down that a device was left out, to its own partition.
pub(crate) fn mark(device: &DeviceId, now: UnixTime) -> Op {
    let mut value = Vec::with_capacity(LEN);
    value.push(VERSION);
    value.extend_from_slice(&now.as_ms().to_be_bytes());
    Op::Broker { table: BrokerTable::Unsettled, key: key(device), value: Some(value.into()) }
}

/// What takes that away.
pub(crate) fn unmark(device: &DeviceId) -> Op {
    Op::Broker { table: BrokerTable::Unsettled, key: key(device), value: None }
}

/// Whether a record is one of these, for whoever looks a store over.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn check(key: &[u8], value: &[u8]) -> Result<(), String> {
    parse(key, value).map(|_| ())
}

fn key(device: &DeviceId) -> Bytes {
    Bytes::copy_from_slice(device.as_bytes())
}

fn parse(key: &[u8], value: &[u8]) -> Result<DeviceId, String> {
    if value.len() != LEN || value.first() != Some(&VERSION) {
        let version = value.first().map_or_else(|| "none".to_owned(), u8::to_string);
        return Err(format!("{} bytes of version {version}; version {VERSION} has {LEN}", value.len()));
    }
    let text = std::str::from_utf8(key).map_err(|error| format!("its key is no id of a device: {error}"))?;
    DeviceId::parse(text).map_err(|error| format!("its key is no id of a device: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_its_bytes_are_fixed() {
        let device = DeviceId::parse("pump-7").unwrap();
        let Op::Broker { table, key, value } = mark(&device, UnixTime::from_ms(0x0102)) else { panic!("a record") };
        assert_eq!((table, &*key), (BrokerTable::Unsettled, &b"pump-7"[..]));
        let value = value.unwrap();
        assert_eq!(&*value, [1, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(parse(&key, &value), Ok(device));
    }

    #[test]
    fn what_is_no_mark_is_named() {
        let good = [1, 0, 0, 0, 0, 0, 0, 0, 0];
        for (key, value, says) in [
            (&b"pump-7"[..], &good[..8], "8 bytes of version 1"),
            (b"pump-7", &[2, 0, 0, 0, 0, 0, 0, 0, 0], "9 bytes of version 2"),
            (b"pump-7", &[], "0 bytes of version none"),
            (b"", &good, "no id of a device"),
            (b"\xff", &good, "no id of a device"),
        ] {
            let error = check(key, value).unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
