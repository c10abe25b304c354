//! What of the stored rows is beyond its bounds, and what becomes of it.
//!
//! ```text
//! a device's rows, oldest first
//!
//!   |<---- beyond a bound ---->|<-------- kept -------->|
//!   deleted ... deleted, stubs,  rows ...          newest
//!                       |<------ the newest 64 -------->|
//! ```
//!
//! Only a beginning of a device's rows is ever trimmed, so that what is left has no hole. Its newest
//! [`STUBS`] rows are what a repeat is known by, and its newest one is where the log ends: those stay
//! beyond every bound, as stubs without name and body.
//!
//! Nothing is counted ahead and nothing is read at a start: what a device has is counted when
//! somebody looks, a bounded stretch at a time, and goes on from there the next time.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Duration;

use unhidra_core::ids::{DeviceId, DeviceNumber, Offset};
use unhidra_core::message::UplinkKind;
use unhidra_core::time::UnixTime;

use crate::record::Row;
use crate::rows::{Order, Rows, damaged};
use crate::table::{self, Table};
use crate::{ReadError, query};

/// How many of a device's newest rows stay beyond every bound, as stubs: twice what the bridge
/// knows repeats by ([`RECENT_TAGS`](crate::RECENT_TAGS)).
pub const STUBS: usize = 64;

/// How many rows are counted at once.
const COUNT_MAX: usize = 16_384;

/// What a row weighs beside its value: its two keys and their headers.
const ROW_OVERHEAD: u64 = 64;

/// How much of a device's rows is kept. What is not said is no bound.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bounds {
    /// How long after it was received.
    pub age: Option<Duration>,
    /// How many rows; fewer than [`STUBS`] are as many stubs all the same.
    pub rows: Option<u64>,
    /// How many bytes of them, about as they lie on the disk before it is compacted.
    pub bytes: Option<u64>,
}

/// What a device has, as far as it was counted, and where that begins.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Up to here all rows are gone. What was deleted is in the engine until it is compacted, and a look that went
    /// over it again would cost as much as all that ever went.
    gone: Offset,
    rows: u64,
    bytes: u64,
    /// The newest row that is counted.
    upto: Offset,
    /// Whether that was all.
    whole: bool,
    /// While more of it is to be looked at: up to here the rows behind `gone` are of the future.
    ahead: Offset,
}

/// Why rows go.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// Their time is over.
    Age,
    /// The device has more rows than it may.
    Rows,
    /// The device has more bytes than it may.
    Bytes,
    /// The disk is full.
    Disk,
}

/// What of one device's rows goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trim {
    /// Rows that are deleted, ascending.
    pub delete: Vec<Offset>,
    /// Rows of which a stub stays.
    pub stub: Vec<Offset>,
}

impl Trim {
    /// Whether nothing goes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.delete.is_empty() && self.stub.is_empty()
    }
}

/// What was found of one device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overdue {
    /// What goes.
    pub trim: Trim,
    /// How many rows go and why; stubs that go are not counted again.
    pub rows: Vec<(Reason, u64)>,
    /// How many bytes go.
    pub bytes: u64,
    /// Whether there is more to do at once.
    pub more: bool,
    /// What the device has once that is done, for the next look; `None` where there is no such device.
    pub tally: Option<Tally>,
    /// When the oldest row was received that stays whole. Not one of the future: those behind it are due before it.
    pub oldest: Option<UnixTime>,
}

/// The oldest rows of a partition.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Oldest {
    /// What goes, of each device.
    pub trims: Vec<(DeviceId, Trim)>,
    /// How many rows that are.
    pub rows: u64,
    /// How many bytes.
    pub bytes: u64,
    /// The place looked at last.
    pub reached: Offset,
    /// Whether the log ends there.
    pub end: bool,
    /// The first damaged record on the way, if there is one. Such a row stays, and the others go.
    pub damaged: Option<ReadError>,
}

/// Looks for what of a device's rows is beyond `bounds` at `now`: at most `max` rows at once.
pub(crate) fn overdue(
    rows: &dyn Rows,
    device: &DeviceId,
    bounds: &Bounds,
    now: UnixTime,
    tally: Option<Tally>,
    max: usize,
) -> Result<Overdue, ReadError> {
    let Some(number) = query::number(rows, device)? else { return Ok(Overdue::default()) };
    let counts = bounds.rows.is_some() || bounds.bytes.is_some();
    let from = tally.unwrap_or_default();
    let tally = if counts { count(rows, number, from)? } else { from.anew() };
    let is_counted = counts && tally.whole;
    let mut unfinished = counts && !tally.whole;
    let mut ahead = tally.ahead;
    let mut found = Overdue { tally: Some(tally), more: unfinished, ..Overdue::default() };
    let mut beyond = Beyond { bounds, now, over: Offset::ZERO, left: is_counted.then_some(tally) };
    let mut gone = Vec::new();
    let mut reasons: HashMap<Reason, u64> = HashMap::new();
    let after = table::reading(number, tally.gone);
    rows.scan(Table::Readings, &table::number_prefix(number), Some(&after), Order::Ascending, &mut |key, value| {
        if gone.len() >= max.max(1) {
            found.more = true;
            return Ok(ControlFlow::Break(()));
        }
        let offset = offset_of(key)?;
        let size = weight(value.len());
        let row = Row::decode(*device, offset, value).map_err(|e| damaged(Table::Readings, key, e))?;
        let trimmed = row.uplink.kind == UplinkKind::Trimmed;
        let received_at = row.uplink.received_at;
        let mut why = if trimmed { None } else { beyond.reason(offset, received_at) };
        if !trimmed && why.is_none() {
            match beyond.behind(rows, device, number, offset.max(ahead), received_at)? {
                Behind::Over(over) => {
                    (beyond.over, why) = (over, Some(Reason::Age));
                    ahead = Offset::new(over.get().saturating_sub(1));
                }
                Behind::Young(oldest) => {
                    found.oldest = oldest;
                    return Ok(ControlFlow::Break(()));
                }
                Behind::Further(upto) => {
                    (ahead, unfinished, found.more) = (upto, true, true);
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        if let Some(why) = why {
            *reasons.entry(why).or_default() += 1;
        }
        beyond.take(size);
        gone.push(Gone { offset, size, trimmed });
        Ok(ControlFlow::Continue(()))
    })?;
    let tally = Tally { ahead: if found.more { ahead } else { Offset::ZERO }, ..tally };
    if gone.is_empty() {
        return Ok(Overdue { tally: Some(tally), ..found });
    }
    let floor = floor(rows, number)?;
    let mut left = tally;
    for row in gone {
        if row.offset < floor {
            found.trim.delete.push(row.offset);
            found.bytes += row.size;
            left = Tally { gone: row.offset, ..left.without(row.size) };
        } else if !row.trimmed {
            found.trim.stub.push(row.offset);
            found.bytes += row.size.saturating_sub(ROW_OVERHEAD);
        }
    }
    // What a stub weighs shows once it is written.
    found.tally = Some(if found.trim.stub.is_empty() { left } else { left.anew() });
    found.rows = reasons.into_iter().collect();
    // Stubs alone, all of them seen before: nothing that another look would end.
    found.more &= !found.trim.is_empty() || unfinished;
    Ok(found)
}

/// Which of a partition's rows are its oldest behind `after`, whatever their age: at most `max`.
pub(crate) fn oldest(rows: &dyn Rows, after: Offset, max: usize) -> Result<Oldest, ReadError> {
    let mut found = Oldest { reached: after, end: true, ..Oldest::default() };
    let mut devices: HashMap<DeviceNumber, (DeviceId, Offset)> = HashMap::new();
    let mut trims: HashMap<DeviceId, Trim> = HashMap::new();
    let mut looked_at = 0;
    let from = table::log(after, DeviceNumber::new(u32::MAX));
    rows.scan(Table::Log, &[], Some(&from), Order::Ascending, &mut |key, _| {
        if looked_at >= max.max(1) {
            found.end = false;
            return Ok(ControlFlow::Break(()));
        }
        looked_at += 1;
        let wrong = || damaged(Table::Log, key, "its key has another length");
        let (offset, number) = table::parse_log(key).ok_or_else(wrong)?;
        found.reached = offset;
        let mut read = || {
            let (device, floor) = match devices.get(&number) {
                Some(known) => *known,
                None => *devices.entry(number).or_insert((query::device_of(rows, number)?, floor(rows, number)?)),
            };
            let row_key = table::reading(number, offset);
            let value = rows.get(Table::Readings, &row_key)?;
            let value =
                value.ok_or_else(|| damaged(Table::Readings, &row_key, "the log names it and it is missing"))?;
            let size = weight(value.len());
            let row = Row::decode(device, offset, value).map_err(|e| damaged(Table::Readings, &row_key, e))?;
            Ok((device, floor, size, row.uplink.kind == UplinkKind::Trimmed))
        };
        let (device, floor, size, trimmed) = match read() {
            Ok(row) => row,
            // Else the disk would fill for the sake of one row.
            Err(error @ ReadError::Damaged { .. }) => {
                found.damaged.get_or_insert(error);
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => return Err(error),
        };
        let trim = trims.entry(device).or_default();
        if offset < floor {
            trim.delete.push(offset);
            found.bytes += size;
        } else if !trimmed {
            trim.stub.push(offset);
            found.bytes += size.saturating_sub(ROW_OVERHEAD);
        }
        found.rows += u64::from(!trimmed);
        Ok(ControlFlow::Continue(()))
    })?;
    found.trims = trims.into_iter().filter(|(_, trim)| !trim.is_empty()).collect();
    Ok(found)
}

/// When the oldest row of a partition was received that is whole; looks at the first `max` alone.
pub(crate) fn oldest_at(rows: &dyn Rows, max: usize) -> Result<Option<UnixTime>, ReadError> {
    let mut found = None;
    let mut looked_at = 0;
    rows.scan(Table::Log, &[], None, Order::Ascending, &mut |key, _| {
        looked_at += 1;
        let wrong = || damaged(Table::Log, key, "its key has another length");
        let (offset, number) = table::parse_log(key).ok_or_else(wrong)?;
        let row_key = table::reading(number, offset);
        let read = || {
            let Some(value) = rows.get(Table::Readings, &row_key)? else { return Ok(None) };
            let row = Row::decode(query::device_of(rows, number)?, offset, value);
            row.map(Some).map_err(|e| damaged(Table::Readings, &row_key, e))
        };
        match read() {
            Ok(Some(row)) if row.uplink.kind != UplinkKind::Trimmed => {
                found = Some(row.uplink.received_at);
                return Ok(ControlFlow::Break(()));
            }
            // A damaged row is passed over, as one that is not there.
            Ok(_) | Err(ReadError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(if looked_at < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(found)
}

/// What all rows weigh, of an engine that has no disk.
pub(crate) fn bytes(rows: &dyn Rows) -> Result<u64, ReadError> {
    let mut bytes = 0;
    rows.scan(Table::Readings, &[], None, Order::Ascending, &mut |_, value| {
        bytes += weight(value.len());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(bytes)
}

/// A row on its way out.
struct Gone {
    offset: Offset,
    size: u64,
    trimmed: bool,
}

/// Which rows are beyond the bounds, oldest first.
struct Beyond<'a> {
    bounds: &'a Bounds,
    now: UnixTime,
    /// The time of this row is over: whatever they say, those before it came earlier.
    over: Offset,
    /// What is left of the device once the rows taken so far are gone, if all of it was counted.
    left: Option<Tally>,
}

/// What stands behind rows of the future.
enum Behind {
    /// This row, and its time is over.
    Over(Offset),
    /// A row of the present that is young, received then, or none.
    Young(Option<UnixTime>),
    /// More rows of the future than are looked at once, up to here.
    Further(Offset),
}

impl Beyond<'_> {
    fn reason(&self, offset: Offset, received_at: UnixTime) -> Option<Reason> {
        if offset <= self.over || self.is_over(received_at) {
            return Some(Reason::Age);
        }
        let left = self.left?;
        if self.bounds.rows.is_some_and(|most| left.rows > most) {
            return Some(Reason::Rows);
        }
        self.bounds.bytes.is_some_and(|most| left.bytes > most).then_some(Reason::Bytes)
    }

    fn is_over(&self, received_at: UnixTime) -> bool {
        self.bounds.age.is_some_and(|age| received_at.saturating_add(age) <= self.now)
    }

    /// What is behind `after`, where `received_at` is the time of a row that is not over. A row of the future, as a
    /// clock that was set back leaves it, says nothing of the rows behind it, and else would keep them for years.
    fn behind(
        &self,
        rows: &dyn Rows,
        device: &DeviceId,
        number: DeviceNumber,
        after: Offset,
        received_at: UnixTime,
    ) -> Result<Behind, ReadError> {
        if self.bounds.age.is_none() || received_at <= self.now {
            return Ok(Behind::Young(Some(received_at)));
        }
        let mut found = Behind::Young(None);
        let (mut looked_at, mut upto) = (0, after);
        let from = table::reading(number, after);
        rows.scan(Table::Readings, &table::number_prefix(number), Some(&from), Order::Ascending, &mut |key, value| {
            if looked_at >= COUNT_MAX {
                found = Behind::Further(upto);
                return Ok(ControlFlow::Break(()));
            }
            looked_at += 1;
            upto = offset_of(key)?;
            // A damaged row is passed over: bounds of rows and bytes hold before it all the same.
            let Ok(row) = Row::decode(*device, upto, value) else { return Ok(ControlFlow::Continue(())) };
            let received_at = row.uplink.received_at;
            if row.uplink.kind == UplinkKind::Trimmed || received_at > self.now {
                return Ok(ControlFlow::Continue(()));
            }
            found = if self.is_over(received_at) { Behind::Over(upto) } else { Behind::Young(Some(received_at)) };
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    const fn take(&mut self, size: u64) {
        if let Some(left) = self.left {
            self.left = Some(left.without(size));
        }
    }
}

impl Tally {
    /// The same to be counted anew, from where its rows begin.
    #[must_use]
    pub const fn anew(self) -> Self {
        Self { rows: 0, bytes: 0, upto: Offset::ZERO, whole: false, ..self }
    }

    const fn without(self, size: u64) -> Self {
        Self { rows: self.rows.saturating_sub(1), bytes: self.bytes.saturating_sub(size), ..self }
    }
}

/// Goes on counting a device's rows, a bounded stretch of them.
fn count(rows: &dyn Rows, number: DeviceNumber, from: Tally) -> Result<Tally, ReadError> {
    let mut tally = Tally { whole: true, ..from };
    let mut counted = 0;
    let after = table::reading(number, from.upto.max(from.gone));
    rows.scan(Table::Readings, &table::number_prefix(number), Some(&after), Order::Ascending, &mut |key, value| {
        if counted >= COUNT_MAX {
            tally.whole = false;
            return Ok(ControlFlow::Break(()));
        }
        counted += 1;
        tally.upto = offset_of(key)?;
        tally.rows += 1;
        tally.bytes += weight(value.len());
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(tally)
}

/// The oldest of a device's newest [`STUBS`] rows.
fn floor(rows: &dyn Rows, number: DeviceNumber) -> Result<Offset, ReadError> {
    let mut floor = Offset::ZERO;
    let mut seen = 0;
    rows.scan(Table::Readings, &table::number_prefix(number), None, Order::Descending, &mut |key, _| {
        floor = offset_of(key)?;
        seen += 1;
        Ok(if seen < STUBS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok(floor)
}

fn offset_of(key: &[u8]) -> Result<Offset, ReadError> {
    table::parse_reading(key).ok_or_else(|| damaged(Table::Readings, key, "its key has another length"))
}

const fn weight(value: usize) -> u64 {
    value as u64 + ROW_OVERHEAD
}
