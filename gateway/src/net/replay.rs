//! One page of the store for a stream that is behind.

use bytes::Bytes;
use unhidra_core::ids::Offset;
use unhidra_store::{Limit, ReadError, Readable};

use crate::Shared;
use crate::cursor::Position;
use crate::frame::{self, Audience};
use crate::gap;
use crate::intake::{CHUNK_BYTES, CHUNK_ROWS};
use crate::outbox::Replay;

const PAGE: Limit = Limit { rows: CHUNK_ROWS, bytes: CHUNK_BYTES };

/// What was read, and how far that brings the stream.
pub(crate) struct ReplayPage {
    pub(crate) to: Position,
    /// `None` where nothing lay between.
    pub(crate) frame: Option<Bytes>,
    pub(crate) readings: usize,
}

/// Reads the next page of `replay`.
pub(crate) async fn page(shared: &Shared, replay: &Replay) -> Result<ReplayPage, ReadError> {
    let store = &shared.doors.store;
    let (partition, read) = match &replay.audience {
        Audience::All => match replay.until.beyond(&replay.from) {
            None => return Ok(ReplayPage { to: replay.until.clone(), frame: None, readings: 0 }),
            Some(partition) => {
                let (since, from) = (replay.since.at(partition), replay.from.at(partition));
                (partition, store.readable_log(partition, since, from, PAGE).await?)
            }
        },
        Audience::Device(device) => {
            let partition = store.partition_of(device);
            (partition, store.readable_history(device, replay.from.at(partition), PAGE).await?)
        }
    };
    let until = replay.until.at(partition);
    let next = gap::next_after(&read.page.rows, until);
    let (read, reached) = cut(read, until);
    let next = if reached == until { next } else { Vec::new() };
    if let Some(first) = read.damaged.first() {
        let (rows, cause) = (read.damaged.len(), &first.cause);
        tracing::warn!(%partition, rows, offset = %first.offset, %cause, "a client's replay passes over damaged rows");
    }
    let (rows, gaps) = gap::part(partition, read, replay.from.at(partition), &next);
    let place = replay.from.with(partition, reached);
    // One device's rows all lie in one log: with that, the stream has reached all of them.
    let to = match &replay.audience {
        Audience::Device(_) if reached >= until => replay.until.with(partition, reached),
        Audience::All | Audience::Device(_) => place,
    };
    let frame = (!rows.is_empty() || !gaps.is_empty()).then(|| {
        let texts: Vec<Bytes> = rows.iter().map(frame::encode_reading).collect();
        frame::readings_frame(&replay.audience, &shared.hub.cursors().encode(&to), &gaps, &texts)
    });
    Ok(ReplayPage { to, frame, readings: rows.len() })
}

/// The rows of a page up to `until`, and the place behind them: `until` itself where the page shows
/// that nothing lies between. A frame's gaps stand before its readings, so the page ends before a damaged
/// row that has others before it.
fn cut(mut read: Readable, until: Offset) -> (Readable, Offset) {
    let (rows, damaged) = (&mut read.page.rows, &mut read.damaged);
    let first = rows.first().map(|row| row.offset);
    let stop = first.and_then(|first| damaged.iter().map(|row| row.offset).find(|offset| *offset > first));
    let stop = stop.filter(|stop| *stop <= until);
    let is_within = |offset: Offset| offset <= until && stop.is_none_or(|stop| offset < stop);
    let had = rows.len() + damaged.len();
    rows.truncate(rows.partition_point(|row| is_within(row.offset)));
    damaged.truncate(damaged.partition_point(|row| is_within(row.offset)));
    let whole = rows.len() + damaged.len() == had;
    let reached = match stop.is_some() || (whole && read.page.more) {
        true => read.reached(until).min(until),
        false => until,
    };
    (read, reached)
}

#[cfg(test)]
mod tests {
    use unhidra_store::{DamagedRow, Page};

    use super::*;
    use crate::testing::reading;

    #[test]
    fn a_page_ends_where_the_live_frames_begin() {
        let rows = |offsets: &[u64]| offsets.iter().map(|n| reading("a", *n, 0, b"")).collect::<Vec<_>>();
        let table = [
            // rows, more, until, rows kept, reached
            (&[1, 2, 3][..], true, 9, 3, 3),
            (&[1, 2, 3][..], false, 9, 3, 9),
            (&[1, 2, 3][..], true, 3, 3, 3),
            (&[1, 2, 3][..], true, 2, 2, 2),
            (&[1, 5, 9][..], true, 7, 2, 7),
            (&[][..], false, 7, 0, 7),
            (&[8][..], true, 7, 0, 7),
        ];
        for (offsets, more, until, kept, reached) in table {
            let read = Readable::from(Page { rows: rows(offsets), more });
            let (left, to) = cut(read, Offset::new(until));
            assert_eq!((left.page.rows.len(), to.get()), (kept, reached), "{offsets:?} {more} {until}");
        }
    }

    #[test]
    fn a_page_ends_before_a_damaged_row_that_has_others_before_it() {
        let table = [
            // rows, damaged, until, rows kept, damaged kept, reached
            (&[1, 3, 4][..], &[2][..], 9, 1, 0, 1),
            (&[3, 4][..], &[1, 2][..], 9, 2, 2, 9),
            (&[3, 4, 6][..], &[2, 5][..], 9, 2, 1, 4),
            (&[3, 4][..], &[2, 9][..], 7, 2, 1, 7),
            (&[][..], &[2][..], 7, 0, 1, 7),
        ];
        for (offsets, bad, until, kept, told, reached) in table {
            let rows = offsets.iter().map(|n| reading("a", *n, 0, b"")).collect();
            let cause = ReadError::Unavailable;
            let damaged = |n: &u64| DamagedRow { offset: Offset::new(*n), device: None, cause: cause.clone() };
            let damaged = bad.iter().map(damaged).collect();
            let read = Readable { damaged, ..Page { rows, more: false }.into() };
            let (left, to) = cut(read, Offset::new(until));
            assert_eq!(
                (left.page.rows.len(), left.damaged.len(), to.get()),
                (kept, told, reached),
                "{offsets:?} {bad:?}"
            );
        }
    }

    #[test]
    fn an_empty_page_that_promises_more_still_ends() {
        // A store that does this is wrong; a client must not spin on it.
        let read = Readable::from(Page { rows: Vec::new(), more: true });
        let (_, to) = cut(read, Offset::new(4));
        assert_eq!(to, Offset::new(4));
    }
}
