//! One page of the store for a stream that is behind.

use std::cmp::Ordering;

use bytes::Bytes;
use unhidra_core::ids::Offset;
use unhidra_core::message::Reading;
use unhidra_store::{Limit, Page, ReadError};

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
    let (partition, page) = match &replay.audience {
        Audience::All => match replay.until.beyond(&replay.from) {
            None => return Ok(ReplayPage { to: replay.until.clone(), frame: None, readings: 0 }),
            Some(partition) => (partition, store.log(partition, replay.from.at(partition), PAGE).await?),
        },
        Audience::Device(device) => {
            let partition = store.partition_of(device);
            (partition, store.history(device, replay.from.at(partition), PAGE).await?)
        }
    };
    let (rows, reached) = cut(page, replay.until.at(partition));
    let (rows, gaps) = gap::part(partition, rows, replay.from.at(partition));
    let place = replay.from.with(partition, reached);
    // One device's rows all lie in one log: with that, the stream has reached all of them.
    let to = match &replay.audience {
        Audience::Device(_) if reached >= replay.until.at(partition) => replay.until.with(partition, reached),
        Audience::All | Audience::Device(_) => place,
    };
    let frame = (!rows.is_empty() || !gaps.is_empty()).then(|| {
        let texts: Vec<Bytes> = rows.iter().map(frame::encode_reading).collect();
        frame::readings_frame(&replay.audience, &shared.hub.cursors().encode(&to), &gaps, &texts)
    });
    Ok(ReplayPage { to, frame, readings: rows.len() })
}

/// The rows of a page up to `until`, and the place behind them: `until` itself where the page shows
/// that nothing lies between.
fn cut(mut page: Page<Reading>, until: Offset) -> (Vec<Reading>, Offset) {
    let within = page.rows.partition_point(|row| row.offset <= until);
    let whole = within == page.rows.len();
    page.rows.truncate(within);
    let last = page.rows.last().map(|row| row.offset);
    let reached = match (last, whole && page.more) {
        (Some(last), true) if last.cmp(&until) == Ordering::Less => last,
        _ => until,
    };
    (page.rows, reached)
}

#[cfg(test)]
mod tests {
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
            let page = Page { rows: rows(offsets), more };
            let (left, to) = cut(page, Offset::new(until));
            assert_eq!((left.len(), to.get()), (kept, reached), "{offsets:?} {more} {until}");
        }
    }

    #[test]
    fn an_empty_page_that_promises_more_still_ends() {
        // A store that does this is wrong; a client must not spin on it.
        let (_, to) = cut(Page { rows: Vec::new(), more: true }, Offset::new(4));
        assert_eq!(to, Offset::new(4));
    }
}
