//! What a device's readings are known by when they come again.

use std::ops::ControlFlow;

use unhidra_core::ids::{DeviceId, Offset, Partition};
use unhidra_core::message::UplinkKind;

use crate::ReadError;
use crate::query::{self, NEWEST_SCAN_MAX};
use crate::rows::{Order, Rows};
use crate::table::{self, Table};

/// The reading ids of a device's newest `max` rows, those that are stubs among them, oldest first. Rows that repeat
/// another are none.
pub(crate) fn of(
    rows: &dyn Rows,
    partition: Partition,
    device: &DeviceId,
    max: usize,
) -> Result<Vec<(Offset, u64)>, ReadError> {
    let Some(number) = query::number(rows, device)? else { return Ok(Vec::new()) };
    let (mut found, mut looked_at, mut counted) = (Vec::new(), 0, 0);
    rows.scan(Table::Readings, &table::number_prefix(number), None, Order::Descending, &mut |key, value| {
        if looked_at >= NEWEST_SCAN_MAX || counted >= max {
            return Ok(ControlFlow::Break(()));
        }
        looked_at += 1;
        let row = query::decode_row(partition, *device, key, value)?;
        counted += usize::from(row.uplink.kind != UplinkKind::Ignored);
        found.extend(row.uplink.reading_id.map(|id| (row.offset, id)));
        Ok(ControlFlow::Continue(()))
    })?;
    found.reverse();
    Ok(found)
}
