//! Rows for who must go on: those that do not read are passed over and told, never shown.
//!
//! A record that is not what was written is told by its own place. Where the file does not read the engine
//! gives no key either: what lies there is told by the last place that it may have, and so is whatever of
//! another device lies beside it.

use std::ops::ControlFlow;

use unhidra_core::ids::{DeviceId, DeviceNumber, Offset, Partition};
use unhidra_core::message::Reading;

use crate::query::{self, Filling, NEWEST_SCAN_MAX};
use crate::rows::{Order, Rows, damaged};
use crate::table::{self, Table};
use crate::{DamagedRow, Limit, ReadError, Readable};

/// A partition's rows after `after`, in order.
pub(crate) fn log(rows: &dyn Rows, partition: Partition, after: Offset, max: Limit) -> Result<Readable, ReadError> {
    let (mut found, scanned) = query::walk_log(rows, partition, after, max);
    match scanned {
        Ok(()) => return Ok(found),
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
    let mut found = read(rows, partition, device, number, keys, max, |_| true)?;
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
    let (keys, broken) = keys(rows, number, None, Order::Descending, NEWEST_SCAN_MAX)?;
    let looked_at = keys.len();
    let mut found = read(rows, partition, device, number, keys, max, query::is_shown)?;
    found.page.more |= looked_at == NEWEST_SCAN_MAX;
    if let Some(cause) = broken {
        // What is older than the last row that reads does not: that row names the place before it.
        let offset = match found.page.rows.last() {
            Some(_) if found.page.more => return Ok(found),
            Some(last) => last.prev,
            None => return Err(cause),
        };
        found.damaged.push(DamagedRow { offset, device: Some(*device), cause });
        found.page.more = true;
    }
    Ok(found)
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

/// The rows in these places, as many as `max` allows.
fn read(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    number: DeviceNumber,
    places: Vec<Offset>,
    max: Limit,
    is_wanted: impl Fn(&Reading) -> bool,
) -> Result<Readable, ReadError> {
    let mut filling = Filling::new(max);
    let mut damaged = Vec::new();
    for offset in places {
        if damaged.len() >= max.rows.max(1) {
            filling.page.more = true;
            break;
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
                if filling.push(reading, bytes).is_break() {
                    break;
                }
            }
            Err(cause @ ReadError::Damaged { .. }) => {
                damaged.push(DamagedRow { offset, device: Some(*device), cause });
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(Readable { page: filling.page, damaged })
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
