//! Opens the records of a copy without putting it back, to see that they open.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::copy::Piece;
use super::database::salt_in;
use super::folder::{OpenError, ring_of};
use crate::keyring::Keyring;
use crate::master::MasterKey;
use crate::rows::damaged;
use crate::sealed::{Sealing, UnsealError};
use crate::table::{self, Table};
use crate::{Keys, ReadError};

/// What opens the records of a copy.
pub struct Checking {
    /// The ring, where the copy is sealed.
    ring: Option<Arc<Keyring>>,
    /// Of each partition what opens its records, and the salts of its openings.
    partitions: HashMap<u16, (Sealing, HashMap<u32, [u8; 32]>)>,
}

impl std::fmt::Debug for Checking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checking").field("sealed", &self.ring.is_some()).finish_non_exhaustive()
    }
}

impl Checking {
    /// Takes the store's format file and key ring as a copy has them, which came from `path`.
    ///
    /// # Errors
    ///
    /// [`OpenError`] where the keys do not open the ring, or the copy is sealed and they are none.
    pub fn begin(path: &Path, format: &[u8], ring: Option<&[u8]>, keys: &Keys) -> Result<Self, OpenError> {
        let text = String::from_utf8_lossy(format);
        let ring = match (ring_of(path, &text)?, ring, keys) {
            (None, _, _) => None,
            (Some(_), _, Keys::Plain) => return Err(OpenError::Sealed { path: path.into() }),
            (Some(id), ring, Keys::Sealed { master, .. }) => {
                let master: Arc<dyn MasterKey> = Arc::clone(master);
                Some(Arc::new(Keyring::of_copy(path, ring.unwrap_or_default(), id, master)?))
            }
        };
        Ok(Self { ring, partitions: HashMap::new() })
    }

    /// Opens every record of a piece. What opens a partition's records comes before them, as in a copy.
    ///
    /// # Errors
    ///
    /// [`ReadError::Damaged`] names the record that does not open.
    pub fn check(&mut self, piece: &Piece) -> Result<(), ReadError> {
        let unknown = || ReadError::Engine(format!("the copy has a table {}, of a newer version", piece.table));
        let table = Table::ALL.into_iter().find(|known| known.as_byte() == piece.table).ok_or_else(unknown)?;
        let (sealing, salts) = self.partitions.entry(piece.partition).or_insert_with(|| {
            let sealing = match &self.ring {
                None => Sealing::Plain,
                // Nothing is sealed here, and no opening has the number 0.
                Some(ring) => Sealing::data(Arc::clone(ring), 0, [0; 32]),
            };
            (sealing, HashMap::new())
        });
        for (key, record) in &piece.records {
            if table == Table::Openings {
                let opening = table::tail::<4>(key).map(u32::from_be_bytes);
                let salt = opening.zip(salt_in(record));
                let (opening, salt) = salt.ok_or_else(|| damaged(table, key, "it is no opening"))?;
                salts.insert(opening, salt);
            } else if !table.is_index() {
                let opened =
                    sealing.open_any::<UnsealError>(table, key, record, |opening| Ok(salts.get(&opening).copied()));
                opened.map_err(|cause| damaged(table, key, cause))?;
            }
        }
        Ok(())
    }
}
