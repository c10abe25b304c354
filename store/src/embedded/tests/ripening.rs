//! What each reading adds leaves the memory before its table is full.

use super::*;

/// More small rows than fit into a second of commits, and far fewer than fill the table.
const PATIENCE: u32 = 30_000;

impl Embedded {
    fn files_of(&self, table: Table) -> usize {
        let files = |view: &super::super::database::View<'_>| Ok(view.table_files(table));
        self.shared(Partition::new(0)).read(files).unwrap()
    }
}

fn row(n: u32, body: &str) -> Op {
    Op::Reading { tag: contract::tag(n), uplink: uplink("a", body) }
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_that_are_old_are_written_out_before_the_table_is_full_and_all_are_there() {
    let config = Config { readings_memtable_bytes: 16 << 20, readings_memtable_s: 1, ..config() };
    are_written_out(Table::Readings, config).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_the_log_whose_table_grows_as_that_of_the_sessions_does() {
    let config = Config { sessions_memtable_bytes: 1 << 20, sessions_memtable_s: 1, ..config() };
    are_written_out(Table::Log, config).await;
}

async fn are_written_out(table: Table, config: Config) {
    let folder = Folder::new(|| key(1));
    let store = folder.open_with(key(1), &config).unwrap();
    write(&store, vec![Op::Device(device("a"))]).await.unwrap();
    let (mut rows, body) = (0_u32, "x".repeat(1000));
    // An eighth, and a little more.
    for _ in 0..22 {
        let batch = (0..100).map(|n| row(rows + n, &body)).collect();
        rows += 100;
        write(&store, batch).await.unwrap();
    }
    // Until a second is over, and the engine has done it.
    let mut small = 0;
    while store.files_of(table) == 0 {
        write(&store, vec![row(rows, "21.5")]).await.unwrap();
        (rows, small) = (rows + 1, small + 1);
        assert!(small < PATIENCE, "it was never written out");
    }
    store.close().await;
    let store = folder.open_with(key(1), &config).unwrap();
    let all = Limit { rows: 100_000, bytes: 1 << 30 };
    let page = store.history(&id("a"), Offset::ZERO, all).await.unwrap();
    assert_eq!(page.rows.len(), rows as usize);
    store.close().await;
}
