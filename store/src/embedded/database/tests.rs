use std::fs;

use super::*;
use crate::config::tests::config;

/// Bytes of a record, and how full a table may be: the least that is allowed.
const RECORD: usize = 4096;
const FULL: u64 = 64 << 10;

fn opened(folder: &tempfile::TempDir) -> Database {
    let config = Config { memtable_bytes: FULL, readings_memtable_bytes: FULL, ..config() };
    fs::create_dir(folder.path().join("p0")).unwrap();
    Database::open(&folder.path().join("p0"), &config, 1).unwrap()
}

/// Writes a batch of four full tables.
fn fill(database: &Database, nth: u64) -> Result<(), String> {
    let count = 4 * FULL / RECORD as u64;
    let records: Vec<_> = (0..count).map(|n| ((nth * count + n).to_be_bytes().to_vec(), vec![7; RECORD])).collect();
    database.put_records(Table::Registry, &records)
}

#[test]
fn who_writes_faster_than_tables_are_written_out_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&folder);
    for nth in 0..16 {
        fill(&database, nth).unwrap();
        let tree = &database.table(Table::Registry).tree;
        assert_eq!(tree.active_memtable().size(), 0, "it was full");
        assert!(tree.sealed_memtable_count() <= SEALED_MAX, "{} after {nth}", tree.sealed_memtable_count());
    }
}

/// Else they would wait for good.
#[test]
fn who_waits_for_an_engine_that_has_failed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let database = opened(&folder);
    fs::rename(folder.path().join("p0"), folder.path().join("elsewhere")).unwrap();
    let told = (0..16).find_map(|nth| fill(&database, nth).err()).expect("nothing can be written out");
    assert!(told.contains("a thread of the engine's own has failed"), "{told}");
    database.close();
}
