//! Rows for who must go on: those that do not read are passed over and told, never shown.
//!
//! A record that is not what was written is told by its own place. Where the file does not read the engine
//! gives no key either: what lies there is told by the last place that it may have, and so is whatever of
//! another device lies beside it.

use std::ops::ControlFlow;

use unhidra_core::ids::{DeviceId, DeviceNumber, Offset, Partition};
use unhidra_core::message::Reading;

use crate::query::{self, Filling, First, NEWEST_SCAN_MAX};
use crate::rows::{Order, Rows, damaged};
use crate::table::{self, Table};
use crate::{DamagedRow, Limit, ReadError, Readable};

/// A partition's rows after `after`, in order, for who began behind `since`.
pub(crate) fn log(
    rows: &dyn Rows,
    partition: Partition,
    since: Offset,
    after: Offset,
    max: Limit,
) -> Result<Readable, ReadError> {
    let (mut found, firsts, scanned) = query::walk_log(rows, partition, after, max);
    for First { number, device, prev } in firsts {
        // One that does not read is there: whoever read it was told.
        let is_asked = prev > since && prev <= after;
        if is_asked && matches!(rows.get(Table::Readings, &table::reading(number, prev)), Ok(None)) {
            found.gone.push((device, prev));
        }
    }
    match scanned {
        Ok(()) => {}
        Err(cause @ ReadError::Damaged { .. }) => {
            // The log itself does not read on. What came before is given; where nothing did, the next
            // place is passed over, for nobody can tell what stands there.
            if found.page.rows.is_empty() && found.damaged.is_empty() {
                let offset = after.next().ok_or_else(|| cause.clone())?;
                found.damaged.push(DamagedRow { offset, device: None, cause });
            }
            found.page.more = true;
        }
        Err(cause) => return Err(cause),
    }
    Ok(found)
}

/// A device's rows after `after`, in order.
pub(crate) fn history(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    after: Offset,
    max: Limit,
) -> Result<Readable, ReadError> {
    match query::history(rows, partition, device, after, max) {
        Err(ReadError::Damaged { .. }) => {}
        read => return read.map(Readable::from),
    }
    let Some(number) = query::number(rows, device)? else { return Ok(Readable::default()) };
    let most = max.rows.max(1);
    let (keys, broken) = keys(rows, number, Some(after), Order::Ascending, most)?;
    let reached = keys.last().copied();
    let mut found = Found::new(max);
    // Where the page is full it says so itself.
    let _ = found.add(rows, partition, device, number, keys, |_| true)?;
    let mut found = found.into_readable();
    match (reached, broken) {
        (Some(_), Some(_)) => found.page.more = true,
        (None, Some(cause)) => {
            // Nothing of the file reads from here on: where it does again is looked for.
            let (offset, more) = behind(rows, number, after)?;
            found.damaged.push(DamagedRow { offset, device: Some(*device), cause });
            found.page.more = more;
        }
        // More than were looked at may be there.
        (Some(reached), None) => {
            let (next, broken) = self::keys(rows, number, Some(reached), Order::Ascending, 1)?;
            found.page.more |= broken.is_some() || !next.is_empty();
        }
        (None, None) => {}
    }
    Ok(found)
}

/// A device's newest rows, newest first, without those nobody is shown.
pub(crate) fn newest(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    max: Limit,
) -> Result<Readable, ReadError> {
    match query::newest(rows, partition, device, max) {
        Err(ReadError::Damaged { .. }) => {}
        read => return read.map(Readable::from),
    }
    let Some(number) = query::number(rows, device)? else { return Ok(Readable::default()) };
    let mut found = Found::new(max);
    let (mut reached, mut left) = (None, NEWEST_SCAN_MAX);
    loop {
        let (places, broken) = keys(rows, number, reached, Order::Descending, left)?;
        left -= places.len();
        reached = places.last().copied().or(reached);
        let ended = found.add(rows, partition, device, number, places, query::is_shown)?;
        match broken {
            _ if ended.is_break() => break,
            // More than were looked at may be there.
            _ if left == 0 => {
                found.filling.page.more = true;
                break;
            }
            None => break,
            // Where the file reads again is looked for; the places down to there are told as one.
            Some(cause) => {
                let offset = before(rows, partition, device, number, reached)?;
                let Some(again) = beneath(rows, number, offset)? else {
                    found.damaged.push(DamagedRow { offset, device: Some(*device), cause });
                    break;
                };
                if found.tell(DamagedRow { offset, device: Some(*device), cause }).is_break() {
                    break;
                }
                // It may be the last one before the part that does not read: a look that ends before it
                // does not give it.
                if rows.get(Table::Readings, &table::reading(number, again)).is_ok_and(|value| value.is_some()) {
                    left -= 1;
                    if found.add(rows, partition, device, number, vec![again], query::is_shown)?.is_break() {
                        break;
                    }
                }
                reached = Some(again);
            }
        }
    }
    Ok(found.into_readable())
}

/// The places of at most `max` of a device's rows, and what ended the look where it is damage.
fn keys(
    rows: &dyn Rows,
    number: DeviceNumber,
    after: Option<Offset>,
    order: Order,
    max: usize,
) -> Result<(Vec<Offset>, Option<ReadError>), ReadError> {
    let mut offsets = Vec::new();
    let mut wrong = None;
    let after = after.map(|after| table::reading(number, after));
    let looked = rows.keys(Table::Readings, &table::number_prefix(number), after.as_deref(), order, &mut |key| {
        match table::parse_reading(key) {
            Some(offset) => offsets.push(offset),
            None => wrong = Some(damaged(Table::Readings, key, "its key has another length")),
        }
        if wrong.is_none() && offsets.len() < max { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    match (looked, wrong) {
        (_, Some(wrong)) => Err(wrong),
        (Err(cause @ ReadError::Damaged { .. }), None) => Ok((offsets, Some(cause))),
        (looked, None) => looked.map(|()| (offsets, None)),
    }
}

/// What is read of a device's rows, up to the bounds of a page.
struct Found {
    filling: Filling<Reading>,
    damaged: Vec<DamagedRow>,
    damaged_max: usize,
}

impl Found {
    fn new(max: Limit) -> Self {
        Self { filling: Filling::new(max), damaged: Vec::new(), damaged_max: max.rows.max(1) }
    }

    /// Reads the rows in these places. Breaks where the page is full.
    fn add(
        &mut self,
        rows: &dyn Rows,
        partition: Partition,
        device: &DeviceId,
        number: DeviceNumber,
        places: Vec<Offset>,
        is_wanted: impl Fn(&Reading) -> bool,
    ) -> Result<ControlFlow<()>, ReadError> {
        for offset in places {
            if self.damaged.len() >= self.damaged_max {
                self.filling.page.more = true;
                return Ok(ControlFlow::Break(()));
            }
            let key = table::reading(number, offset);
            let value = match rows.get(Table::Readings, &key) {
                // Deleted since: the view is one, so it is not.
                Ok(None) => continue,
                Ok(Some(value)) => query::decode_row(partition, *device, &key, value),
                Err(cause) => Err(cause),
            };
            match value {
                Ok(reading) if !is_wanted(&reading) => {}
                Ok(reading) => {
                    let bytes = reading.uplink.body.len();
                    if self.filling.push(reading, bytes).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Err(cause @ ReadError::Damaged { .. }) => {
                    self.damaged.push(DamagedRow { offset, device: Some(*device), cause });
                }
                Err(cause) => return Err(cause),
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Tells of places that do not read and behind which there is more. Breaks where no further one has room.
    fn tell(&mut self, row: DamagedRow) -> ControlFlow<()> {
        self.damaged.push(row);
        if self.damaged.len() < self.damaged_max {
            return ControlFlow::Continue(());
        }
        self.filling.page.more = true;
        ControlFlow::Break(())
    }

    fn into_readable(self) -> Readable {
        Readable { page: self.filling.page, damaged: self.damaged, gone: Vec::new() }
    }
}

/// The last place that a device's row before `reached` may have: the one which that row names, where it reads.
/// Without one, the newest of the partition.
fn before(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    number: DeviceNumber,
    reached: Option<Offset>,
) -> Result<Offset, ReadError> {
    let Some(reached) = reached else { return query::log_end(rows) };
    let key = table::reading(number, reached);
    let named = rows.get(Table::Readings, &key).ok().flatten();
    let named = named.and_then(|value| query::decode_row(partition, *device, &key, value).ok()).map(|row| row.prev);
    Ok(named.unwrap_or_else(|| Offset::new(reached.get().saturating_sub(1))))
}

/// The last place before which a device's rows read again, where those up to `from` do not; `None` where
/// none does.
fn beneath(rows: &dyn Rows, number: DeviceNumber, from: Offset) -> Result<Option<Offset>, ReadError> {
    let reads = |before: u64| {
        keys(rows, number, Some(Offset::new(before)), Order::Descending, 1).map(|(_, broken)| broken.is_none())
    };
    let (mut high, mut step) = (from.get().saturating_add(1), 1_u64);
    let mut low = loop {
        let probe = high.saturating_sub(step);
        if reads(probe)? {
            break probe;
        }
        if probe == 0 {
            return Ok(None);
        }
        (high, step) = (probe, step.saturating_mul(2));
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reads(middle)? { low = middle } else { high = middle }
    }
    Ok(Some(Offset::new(low)))
}

/// The first place behind which a device's rows read again, where the one behind `from` does not, and
/// whether there may be one: the newest of the partition where none does.
fn behind(rows: &dyn Rows, number: DeviceNumber, from: Offset) -> Result<(Offset, bool), ReadError> {
    let reads = |after: u64| {
        keys(rows, number, Some(Offset::new(after)), Order::Ascending, 1).map(|(_, broken)| broken.is_none())
    };
    let end = query::log_end(rows)?.get();
    let (mut low, mut step) = (from.get(), 1_u64);
    let mut high = loop {
        let probe = from.get().saturating_add(step).min(end);
        if probe <= low {
            return Ok((Offset::new(end.max(from.get())), false));
        }
        if reads(probe)? {
            break probe;
        }
        (low, step) = (probe, step.saturating_mul(2));
    };
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reads(middle)? { high = middle } else { low = middle }
    }
    Ok((Offset::new(high), true))
}

#[cfg(test)]
mod tests;
