//! Damaged table files: what the engine has written out of its journals.

use unhidra_core::message::Reading;

use super::*;

/// A closed store with so many rows in table files, and those rows.
async fn written_out() -> (tempfile::TempDir, PathBuf, Vec<Reading>) {
    let (kept, path) = folder().await;
    let store = open(&path);
    for batch in 0..10 {
        let mut ops = row(5 + batch);
        ops.extend((0..40).map(|n| reading("a", 1000 + batch * 40 + n)));
        write(&*store, ops).await.unwrap();
    }
    store.compact().await.unwrap();
    let rows = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows;
    assert_eq!(rows.len(), 5 + 10 * 41);
    store.close().await;
    (kept, path, rows)
}

/// The table files of the store at `path`, without their beginning.
fn table_files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for tree in levels::trees(&path.join("p0")).unwrap() {
        found.extend(fs::read_dir(tree.join("tables")).unwrap().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found.iter().map(|file| file.strip_prefix(path).unwrap().to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() { copy(&from, &to) } else { _ = fs::copy(&from, &to).unwrap() }
    }
}

/// Reads rows and log, and gives what did not read.
async fn served(store: &Embedded, whole: &[Reading]) -> Vec<String> {
    let rows = store.history(&id("a"), Offset::ZERO, ALL).await;
    // Who must go on, from the newest back, is given the rest, and told of what is not.
    match store.readable_newest(&id("a"), ALL).await {
        Ok(Readable { page, damaged, .. }) => {
            assert_eq!(damaged.is_empty(), rows.is_ok(), "{damaged:?}");
            let mut given = page.rows;
            given.reverse();
            assert!(given.iter().all(|row| whole.contains(row)), "what is damaged is served");
            assert!(given.is_sorted_by(|one, next| one.offset < next.offset));
            println!("newest: {} of {}, {damaged:?}", given.len(), whole.len());
            assert!(given.len() > whole.len() / 2 && (given.len() < whole.len()) != damaged.is_empty());
        }
        Err(cause) => assert!(rows.is_err(), "{cause}"),
    }
    let log = store.log(Partition::new(0), Offset::ZERO, ALL).await;
    let mut refused = Vec::new();
    for read in [rows, log] {
        match read {
            Ok(page) => assert_eq!(page.rows, whole, "what is damaged is served"),
            Err(cause) => refused.push(cause.to_string()),
        }
    }
    refused
}

#[tokio::test]
async fn a_damaged_table_file_is_refused_and_named_and_the_rest_of_it_is_kept() {
    let (_folder, pristine, whole) = written_out().await;
    let files = table_files(&pristine);
    assert!(files.len() >= 2, "of readings and log at least: {files:?}");
    let place = tempfile::tempdir().unwrap();
    let mut kept = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let len = fs::metadata(pristine.join(file)).unwrap().len() as usize;
        for (m, at) in [len / 8, len / 2, len - len / 3, len - 20].into_iter().enumerate() {
            let path = place.path().join(format!("{n}-{m}"));
            copy(&pristine, &path);
            let damaged = path.join(file);
            flip(&damaged, at);
            // The engine looks at a block when it reads it: the node refuses to start, or to read.
            match Embedded::open(&path, &config(), key()) {
                Ok(store) => {
                    let refused = served(&store, &whole).await;
                    store.close().await;
                    assert!(refused.iter().all(|cause| cause.contains("damaged")), "{file:?} {at}: {refused:?}");
                }
                Err(cause) => assert!(cause.to_string().contains("p0"), "{file:?} {at}: {cause}"),
            }
            let verified = look(&path, false);
            let named = verified.findings.iter().find_map(|finding| match &finding.place {
                Place::File { path, offset } if *path == damaged => Some(*offset as usize),
                _ => None,
            });
            assert!(named.is_some_and(|offset| offset <= at), "{file:?} {at}: {verified:?}");

            let accepted = Acceptance { by: "uid 7".into(), at: ACCEPTED_AT };
            let mended = verify(&path, &config(), key(), Some(&accepted), &Texts, &mut |_| ());
            // The engine's own table says which tables there are, and the end of a file what is in it.
            let is_readable = !file.starts_with("p0/keyspaces/0") && at < len - 20;
            let mended = match mended {
                Ok(mended) => mended,
                Err(cause) => {
                    let cause = cause.to_string();
                    let said = cause.contains(&damaged.display().to_string()) && cause.contains("put a backup back");
                    assert!(said && !is_readable, "{file:?} {at} of {len}: {cause}");
                    continue;
                }
            };
            assert!(mended.is_mended);
            let store = open(&path);
            assert_eq!(store.restored(), Some(Restored::Copy), "every device resets");
            let rows = store.history(&id("a"), Offset::ZERO, ALL).await.unwrap().rows;
            let known = |row: &&Reading| whole.iter().any(|it| (it.offset, &it.uplink) == (row.offset, &row.uplink));
            assert_eq!(rows.iter().find(|row| !known(row)), None, "{file:?} {at}");
            assert!(rows.windows(2).all(|pair| pair[1].prev == pair[0].offset));
            assert_eq!(store.log(Partition::new(0), Offset::ZERO, ALL).await.unwrap().rows, rows);
            assert_eq!(acceptances(&store).await.len(), 1);
            store.close().await;
            drop(store);
            assert_eq!(look(&path, false).found, 0, "{file:?} {at}");
            kept.push(rows.len());
        }
    }
    println!("{} rows; kept after each flip: {kept:?}", whole.len());
    assert!(kept.len() >= 6, "{kept:?}");
    assert!(kept.iter().all(|kept| *kept > whole.len() / 2), "a block is lost, and no more: {kept:?}");
    assert!(kept.contains(&whole.len()) && kept.iter().any(|kept| *kept < whole.len()), "{kept:?}");
}

/// The part of a file that does not read may hold a device's newest rows: the older ones are given all the same,
/// and what is not is told.
#[tokio::test]
async fn where_the_newest_rows_do_not_read_the_older_ones_are_given() {
    let (_folder, path, whole) = written_out().await;
    let newest = whole.last().unwrap().offset;
    let store = open(&path);
    let as_it_lies = |view: &database::View<'_>| {
        let number = crate::query::number(view, &id("a"))?.expect("known");
        Ok(view.raw(table::Table::Readings, &table::reading(number, newest)))
    };
    let record = store.shared(Partition::new(0)).read(as_it_lies).unwrap();
    store.close().await;
    drop(store);
    let place_in = |file: &PathBuf| {
        let bytes = fs::read(path.join(file)).unwrap();
        bytes.windows(record.len()).position(|window| window == record).map(|at| (path.join(file), at))
    };
    let (file, at) = table_files(&path).iter().find_map(place_in).expect("it is in a table file");
    flip(&file, at);

    let store = open(&path);
    let Readable { page, damaged, .. } = store.readable_newest(&id("a"), ALL).await.unwrap();
    assert_eq!(damaged.iter().map(|row| row.offset).collect::<Vec<_>>(), [newest], "{damaged:?}");
    let mut given = page.rows;
    given.reverse();
    assert!(given.len() > whole.len() / 2 && given.len() < whole.len() && !page.more, "{}", given.len());
    assert_eq!(given, whole[..given.len()]);
    // None that reads is missing: the next one does not.
    let one = Limit { rows: 1, bytes: usize::MAX };
    let next = store.history(&id("a"), given.last().unwrap().offset, one).await;
    assert!(matches!(next, Err(crate::ReadError::Damaged { .. })), "{next:?}");
    store.close().await;
}
