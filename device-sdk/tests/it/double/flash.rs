//! A medium that loses power at a given write, before or after a given record of it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use unhidra_device_sdk::storage::{Record, Storage, Write};

/// Where power fails: in this write, when so many of its records are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Cut {
    /// The write, from 0.
    pub(crate) write: usize,
    /// Records of it that are written.
    pub(crate) records: usize,
}

/// The chip, which outlives the device.
#[derive(Clone, Default)]
pub(crate) struct Flash(Rc<RefCell<Chip>>);

#[derive(Default)]
struct Chip {
    records: HashMap<u8, Vec<u8>>,
    /// How many records each write had.
    writes: Vec<usize>,
    cut: Option<Cut>,
    off: bool,
}

#[derive(Debug, Eq, PartialEq)]
pub(crate) struct PowerLost;

impl Flash {
    pub(crate) fn cut_at(&self, cut: Cut) {
        self.0.borrow_mut().cut = Some(cut);
    }

    pub(crate) fn power_on(&self) {
        let mut chip = self.0.borrow_mut();
        (chip.off, chip.cut) = (false, None);
    }

    /// How many records each write so far had.
    pub(crate) fn writes(&self) -> Vec<usize> {
        self.0.borrow().writes.clone()
    }

    /// What the chip holds, to be put back later: a rollback.
    pub(crate) fn image(&self) -> HashMap<u8, Vec<u8>> {
        self.0.borrow().records.clone()
    }

    pub(crate) fn put_back(&self, image: HashMap<u8, Vec<u8>>) {
        self.0.borrow_mut().records = image;
    }
}

impl Storage for Flash {
    type Error = PowerLost;

    fn read(&mut self, record: Record, out: &mut [u8]) -> Result<Option<usize>, PowerLost> {
        let chip = self.0.borrow();
        Ok(chip.records.get(&record.index()).map(|bytes| {
            out[..bytes.len()].copy_from_slice(bytes);
            bytes.len()
        }))
    }

    fn write(&mut self, writes: &[Write<'_>]) -> Result<(), PowerLost> {
        let mut chip = self.0.borrow_mut();
        assert!(!chip.off, "a device without power writes");
        let this = chip.writes.len();
        chip.writes.push(writes.len());
        let cut = chip.cut.filter(|cut| cut.write == this);
        for write in writes.iter().take(cut.map_or(usize::MAX, |cut| cut.records)) {
            chip.records.insert(write.record.index(), write.bytes.to_vec());
        }
        chip.off = cut.is_some();
        if chip.off { Err(PowerLost) } else { Ok(()) }
    }
}
