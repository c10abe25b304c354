//! Backups of a store with files, made while it is written to, and put back.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use unhidra_core::ids::{DeviceId, Offset};
use unhidra_core::message::{Uplink, UplinkKind};
use unhidra_core::time::UnixTime;
use unhidra_store::{Keys, Limit, MessageTag, Op, Restored};

use super::*;
use crate::commit::commit;
use crate::config::{Config, Purpose, Sources};
use crate::control::Control;
use crate::folder::{Folder, Kind, Role};
use crate::testing::{Ground, NOW, enroll_asked, id};

const ALL: Limit = Limit { rows: usize::MAX, bytes: usize::MAX };

fn config() -> Config {
    let sources = Sources { purpose: Purpose::Node, file: None, set: Vec::new(), data: None, log_format: None };
    sources.load().unwrap().config
}

fn row(device: DeviceId, number: u32) -> Op {
    let uplink = Uplink {
        device,
        kind: UplinkKind::Reading,
        name: "temperature".into(),
        device_time: None,
        received_at: NOW,
        reading_id: None,
        body: number.to_string().into(),
    };
    Op::Reading { tag: MessageTag { key: [1; 4], number, tag: [2; 4] }, uplink }
}

/// A plain data folder with a device and `rows` readings.
async fn made(root: &Path, rows: u32) -> (Folder, Arc<Embedded>) {
    let folder = Folder::open(root, Kind::Plain, Role::Node).unwrap();
    std::fs::write(folder.layout().identity_key(), "a seed").unwrap();
    std::fs::write(folder.layout().pki().join("ca.pem"), "an authority").unwrap();
    let store = Arc::new(Embedded::open(&folder.layout().store(), &config().store, Keys::Plain).unwrap());
    let device = Ground::new().control(None).await.enroll(enroll_asked("pump-7")).await.unwrap().device;
    let registered = unhidra_core::device::Device {
        id: device.id,
        number: unhidra_core::ids::DeviceNumber::new(0),
        identity_key: device.identity_key.0,
        certificate: unhidra_core::device::Fingerprint(device.certificate.0),
        certificate_expires: UnixTime::from_ms(device.certificate_expires),
        suite: unhidra_core::suite::Suite::X3dh,
        tags: device.tags,
        class: device.class,
        enrolled_at: NOW,
        standing: unhidra_core::device::Standing::Enrolled,
    };
    commit(&*store, store.partition_of(&registered.id), vec![Op::Device(registered)]).await.unwrap();
    append(&store, 0..rows).await;
    (folder, store)
}

async fn append(store: &Embedded, numbers: std::ops::Range<u32>) {
    for first in numbers.clone().step_by(500) {
        let ops = (first..numbers.end.min(first + 500)).map(|n| row(id("pump-7"), n)).collect();
        commit(store, store.partition_of(&id("pump-7")), ops).await.unwrap();
    }
}

async fn bodies(store: &Embedded) -> Vec<String> {
    let rows = store.history(&id("pump-7"), Offset::ZERO, ALL).await.unwrap().rows;
    rows.iter().map(|row| String::from_utf8(row.uplink.body.to_vec()).unwrap()).collect()
}

async fn collect(pieces: &mut Pieces) -> Result<Vec<u8>, ControlError> {
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.recv().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_holds_what_was_there_when_it_began_and_nothing_later() {
    let place = tempfile::tempdir().unwrap();
    let (folder, store) = made(&place.path().join("node"), 20_000).await;
    let source = Source::new(store.clone(), folder.layout().clone(), Vec::new());
    let mut pieces = source.begin(NOW).await.unwrap();
    // It waits to be taken: what is written now is later than all of it.
    append(&store, 20_000..25_000).await;
    let path = place.path().join("file");
    std::fs::write(&path, collect(&mut pieces).await.unwrap()).unwrap();
    let checked = verify(&path, Some(&Keys::Plain), |_| ()).unwrap();
    assert_eq!((checked.head.created_at, checked.head.partitions), (NOW.as_ms(), store.partitions()));
    assert!(checked.end.records > 40_000, "rows and log: {checked:?}");

    let layout = Layout::at(&place.path().join("back")).unwrap();
    let restored = restore(&path, &layout, &config().store, |_| ()).unwrap();
    assert_eq!(restored, checked);
    assert_eq!(std::fs::read(layout.identity_key()).unwrap(), b"a seed");
    assert_eq!(std::fs::read(layout.pki().join("ca.pem")).unwrap(), b"an authority");
    assert_eq!(std::fs::metadata(layout.root()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(layout.identity_key()).unwrap().permissions().mode() & 0o777, 0o600);
    let _folder = Folder::open(layout.root(), Kind::Plain, Role::Node).unwrap();
    let back = Embedded::open(&layout.store(), &config().store, Keys::Plain).unwrap();
    assert_eq!(back.restored(), Some(Restored::Copy), "whoever opens it is told");
    assert_ne!(back.epoch(), store.epoch(), "clients' cursors begin anew");
    assert_eq!(bodies(&back).await, (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(bodies(&store).await.len(), 25_000);
    append(&back, 30_000..30_001).await;
    assert_eq!(bodies(&back).await.last().map(String::as_str), Some("30000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_closes_its_files_ends_the_backup_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let (folder, store) = made(&place.path().join("node"), 20_000).await;
    let source = Source::new(store.clone(), folder.layout().clone(), Vec::new());
    let mut pieces = source.begin(NOW).await.unwrap();
    store.close().await;
    let refused = collect(&mut pieces).await.unwrap_err();
    assert_eq!(refused, ControlError::Unavailable("the store does not serve now".to_owned()));
    drop((source, store));
    // Nothing of the copy holds the files.
    assert!(Embedded::open(&folder.layout().store(), &config().store, Keys::Plain).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_whole_backup_is_not_put_back_and_nothing_is_overwritten() {
    let place = tempfile::tempdir().unwrap();
    let (folder, store) = made(&place.path().join("node"), 100).await;
    let mut pieces = Source::new(store.clone(), folder.layout().clone(), Vec::new()).begin(NOW).await.unwrap();
    let whole = collect(&mut pieces).await.unwrap();
    let path = place.path().join("file");
    let into = |name: &str| Layout::at(&place.path().join(name)).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let refused = restore(&path, &into("back"), &config().store, |_| ()).unwrap_err();
    assert!(refused.to_string().contains("was not finished, or was cut"), "{refused}");
    assert!(!into("back").root().exists(), "nothing was begun");
    std::fs::write(&path, &whole).unwrap();
    let refused = restore(&path, folder.layout(), &config().store, |_| ()).unwrap_err();
    assert!(matches!(refused, BackupError::NotEmpty { .. }), "{refused}");
}

#[test]
fn files_of_a_backup_go_nowhere_but_into_the_folder() {
    let root = Path::new("/data");
    for (name, allowed) in [
        ("format", true),
        ("pki/ca.pem", true),
        ("store/format", true),
        ("", false),
        ("../x", false),
        ("a/../../x", false),
        ("/etc/passwd", false),
        ("./x", false),
        ("lock", false),
        ("store/p0", false),
        ("store/boot", false),
    ] {
        assert_eq!(folder::place(root, name).is_some(), allowed, "{name:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_sockets_and_drafts_are_left_out() {
    let place = tempfile::tempdir().unwrap();
    let (folder, _store) = made(&place.path().join("node"), 1).await;
    std::fs::write(folder.layout().root().join("format.new"), "a draft").unwrap();
    std::fs::write(folder.layout().store().join("boot"), "boot = 1\n").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.layout().control_socket()).unwrap();
    let root = folder.layout().root().to_owned();
    std::fs::create_dir(folder.layout().store().join("p0.lost")).unwrap();
    std::fs::write(root.join("master.key"), "nobody's").unwrap();
    std::fs::write(place.path().join("cursor"), "linked").unwrap();
    std::os::unix::fs::symlink(place.path().join("cursor"), root.join("cursor.key")).unwrap();
    // By whatever name it is known.
    let apart = [place.path().join("node/../node/master.key"), place.path().join("none")];
    let files: BTreeMap<String, Vec<u8>> = folder::files(folder.layout(), &apart).unwrap().into_iter().collect();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["cursor.key", "format", "identity.key", "pki/ca.pem", "store/format"]);
    assert_eq!(files["cursor.key"], b"linked");
    let refused = |what: &str| {
        let refused = folder::files(folder.layout(), &apart).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    };
    std::fs::remove_file(place.path().join("cursor")).unwrap();
    refused("cursor.key");
    std::fs::remove_file(root.join("cursor.key")).unwrap();
    std::os::unix::fs::symlink(place.path(), root.join("elsewhere")).unwrap();
    refused("elsewhere");
    std::fs::remove_file(root.join("elsewhere")).unwrap();
    std::fs::remove_file(root.join("identity.key")).unwrap();
    refused("it has no file identity.key");
}
