//! Answers that nobody reads: as behind a pipe whose other end is gone.

use std::io;

use super::*;

/// A reader that has seen enough.
pub(super) struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The status of a subcommand on a place of its own, when nobody reads what it prints.
async fn status(global: Global, line: &str) -> u8 {
    let args = parse(line).unwrap();
    let args = Args { global: Global { json: args.global.json, ..global }, ..args };
    dispatch(args, rng(), &mut Gone).await.map_or_else(|error| error.exit_code(), |()| 0)
}

/// Turns a byte of every file of a store that holds records.
fn damage(folder: &Path) -> usize {
    let mut turned = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            turned += damage(&path);
        } else if let Some(byte) = std::fs::read(&path).ok().filter(|bytes| bytes.len() > 4096).map(|b| b.len() / 2) {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[byte] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            turned += 1;
        }
    }
    turned
}

/// `unhidra store verify | head -1 && systemctl start unhidra`
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_the_status_of_verify_whoever_reads_it() {
    let place = Place::new();
    place.start().await.stop().await;
    let enrolled = place.reach(Missing::Refuse).await.unwrap();
    enrolled.control().enroll(enroll_asked("pump-7")).await.unwrap();
    enrolled.close().await;
    append_offline(&place, "pump-7", (0..500).map(|n| row("pump-7", n, UplinkKind::Reading, &[b'2'; 64])).collect())
        .await;
    for line in ["store verify", "store verify --json"] {
        assert_eq!(status(place.global(), line).await, 0, "nothing is damaged: {line}");
    }
    assert!(damage(&place.layout().store()) > 0);
    for line in ["store verify", "store verify --json"] {
        assert_eq!(status(place.global(), line).await, 1, "{line}");
    }
}

#[tokio::test]
async fn denied_is_the_status_of_acl_test_whoever_reads_it() {
    let place = Place::new();
    let rules = place.folder.path().join("acl.toml");
    std::fs::write(&rules, "[[rule]]\ndeny = \"all\"\ntopics = [\"secret/#\"]\n").unwrap();
    let file = rules.display();
    for (line, expected) in [
        (format!("acl test ann secret/x --file {file}"), 1),
        (format!("acl test ann secret/x --publish --json --file {file}"), 1),
        (format!("acl test ann open/x --file {file}"), 0),
    ] {
        assert_eq!(status(place.global(), &line).await, expected, "{line}");
    }
}

#[tokio::test]
async fn another_fingerprint_is_the_status_of_a_comparison_whoever_reads_it() {
    let ground = Ground::new();
    let control = ground.control(None).await;
    for name in ["a", "b"] {
        control.enroll(enroll_asked(name)).await.unwrap();
    }
    let shown = printed(&control, "device fingerprint b --json").await.unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let line = format!("device fingerprint a --json --scanned {}", shown["code"].as_str().unwrap());
    let Some(Command::Device { action }) = parse(&line).unwrap().command else { panic!("{line}") };
    let ended = device::run(action, &control, &mut Output::new(true, &mut Gone)).await;
    assert_eq!(ended.unwrap_err().exit_code(), 1);
}

/// What was done to a user is noted before it is told, for who cannot tell it ends there.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_removed_in_the_log_of_acts_too_where_nobody_reads_it() {
    let place = Place::new();
    place.start().await.stop().await;
    let users = place.folder.path().join("users");
    let mut global = place.global();
    global.set.push(format!("users.file={}", users.display()));
    let mut known = crate::access::Users::default();
    known.set("ann", crate::access::Hashed::of(b"open-sesame", &[1; crate::access::SALT_LEN]).unwrap());
    known.write(&users).unwrap();

    assert_eq!(status(global, "user remove ann").await, 0);
    assert!(!std::fs::read_to_string(&users).unwrap().contains("ann"));
    let reached = place.reach(Missing::Refuse).await.unwrap();
    let mut text = Vec::new();
    let Some(Command::Acts(acts)) = parse("acts --json").unwrap().command else { panic!("acts") };
    acts::run(acts, SystemClock::start().unix_now(), reached.control(), &mut Output::new(true, &mut text))
        .await
        .unwrap();
    reached.close().await;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("ann"), "{text}");
}
