//! What was kept, read back at the start.

use bytes::Bytes;
use thiserror::Error;
use tracing::{info, warn};

use super::fields::RecordError;
use super::journal::Journal;
use super::{MessageRecord, TimeOfDay};
use crate::Broker;
use crate::doors::{Change, PersistError, PersistTable};
use crate::router::message::Message;
use crate::router::retained::Kept;

/// How many records of a table are read between two lines in the log.
const PROGRESS: usize = 50_000;

/// Why the broker cannot go on with what was kept.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] PersistError),
    /// A record is none of ours, or damaged.
    #[error("the broker's record {key} in the table {table} is damaged: {cause}")]
    Record {
        /// In which table.
        table: &'static str,
        /// Under which key: its text where it is one, else its bytes.
        key: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl Broker {
    /// Goes on with the sessions and the messages that were kept. Call it once, before anybody is
    /// served. `time` says whether what the clock says has passed counts. Without a place where they
    /// are kept it does nothing.
    ///
    /// # Errors
    ///
    /// [`RestoreError`]: what is there is left as it is.
    pub async fn restore(&self, time: TimeOfDay) -> Result<(), RestoreError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let mut gone = Vec::new();
        self.restore_retained(journal, time, &mut gone).await?;
        self.restore_sessions(journal, time, &mut gone).await?;
        if !gone.is_empty() {
            info!(records = gone.len(), "what has expired meanwhile is deleted");
        }
        journal.write(gone, Vec::new());
        Ok(())
    }

    async fn restore_retained(
        &self,
        journal: &Journal,
        time: TimeOfDay,
        gone: &mut Vec<Change>,
    ) -> Result<(), RestoreError> {
        let (now, unix_now) = (self.doors.clock.now(), self.doors.clock.unix_now());
        let mut over = 0_usize;
        let mut put = |key: Bytes, value: Bytes| {
            let record = MessageRecord::decode(value)?;
            let left = record.left_at(unix_now, time);
            let message = Message::restored(&record.publish, record.qos, left.map(|left| now.saturating_add(left)));
            if message.is_expired(now) {
                gone.push(Change { table: PersistTable::Retained, key, value: None });
            } else if matches!(self.retained().put(&message.into()).0, Kept::NoRoom) {
                over += 1;
                gone.push(Change { table: PersistTable::Retained, key, value: None });
            }
            Ok(())
        };
        let count = read_table(journal, PersistTable::Retained, &mut put).await?;
        if over > 0 {
            warn!(messages = over, "retained messages beyond the bounds are dropped");
        }
        let kept = self.retained().size().0;
        if count > 0 {
            info!(messages = kept, "retained messages read");
        }
        Ok(())
    }
}

/// Shows `visit` each record of a table, and says how many there are.
pub(super) async fn read_table(
    journal: &Journal,
    table: PersistTable,
    visit: &mut (dyn FnMut(Bytes, Bytes) -> Result<(), RecordError> + Send),
) -> Result<usize, RestoreError> {
    let (mut after, mut count) = (None, 0_usize);
    loop {
        let page = journal.persist().read(table, after).await?;
        let last = page.rows.last().map(|(key, _)| key.clone());
        for (key, value) in page.rows {
            visit(key.clone(), value).map_err(|cause| damaged(table, &key, &cause))?;
            count += 1;
            if count.is_multiple_of(PROGRESS) {
                info!(table = table.name(), records = count, "reading what the broker kept");
            }
        }
        match last {
            Some(last) if page.more => after = Some(last),
            _ => return Ok(count),
        }
    }
}

fn damaged(table: PersistTable, key: &[u8], cause: &RecordError) -> RestoreError {
    let key = match std::str::from_utf8(key) {
        Ok(text) if !text.contains(char::is_control) => format!("{text:?}"),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    RestoreError::Record { table: table.name(), key, cause: cause.to_string() }
}
