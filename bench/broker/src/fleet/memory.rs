//! A device's storage that forgets with the run.

use std::convert::Infallible;

use unhidra_device_sdk::storage::{Record, Storage, Write};

/// Records in memory.
#[derive(Debug)]
pub(super) struct Memory {
    records: Vec<Vec<u8>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self { records: vec![Vec::new(); usize::from(Record::COUNT)] }
    }
}

impl Storage for Memory {
    type Error = Infallible;

    fn read(&mut self, record: Record, out: &mut [u8]) -> Result<Option<usize>, Infallible> {
        let bytes = &self.records[usize::from(record.index())];
        if bytes.is_empty() {
            return Ok(None);
        }
        out[..bytes.len()].copy_from_slice(bytes);
        Ok(Some(bytes.len()))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), Infallible> {
        for write in writes {
            let record = &mut self.records[usize::from(write.record.index())];
            record.clear();
            record.extend_from_slice(write.bytes);
        }
        Ok(())
    }
}
