//! What is told of a message that was opened, and what no log may tell.

use std::time::Duration;

use crate::pair::{Pair, message};

#[test]
fn an_opened_message_says_whether_it_came_under_a_new_key() {
    let mut pair = Pair::confirmed(1);
    let came_anew = |pair: &mut Pair| {
        let sealed = pair.device_seals(b"21.5");
        let mut out = [0; 64];
        let (opened, _) = pair.node.open(&message(&sealed), &mut out, pair.now, &mut pair.rng).unwrap();
        opened.stepped()
    };
    pair.later(Duration::from_secs(600));
    assert!(came_anew(&mut pair), "the step that was owed");
    assert!(!came_anew(&mut pair));
}

#[test]
fn neither_plaintext_nor_what_waits_to_leave_is_printed() {
    let mut pair = Pair::confirmed(2);
    let sealed = pair.device_seals(b"secret");
    let mut out = [0; 64];
    let (opened, _) = pair.node.open(&message(&sealed), &mut out, pair.now, &mut pair.rng).unwrap();
    let printed = format!("{opened:?}");
    assert!(printed.starts_with("Opened { plaintext_len: 6, "), "{printed}");
    let bytes = format!("{:?}", opened.plaintext());
    assert!(!printed.contains(bytes.trim_matches(['[', ']'])), "{printed}");

    let session = pair.node.present_mut().unwrap();
    let (_, pending) = session.seal(b"secret", vec![0; session.sealed_len(6)]).unwrap();
    assert_eq!(format!("{pending:?}"), "Pending");
    let printed = format!("{:?}", pair.device.present().unwrap());
    assert!(printed.starts_with("Session { counter: 1, ") && printed.ends_with(".. }"), "{printed}");
}

#[test]
fn an_identity_prints_its_public_half_alone() {
    let pair = Pair::confirmed(3);
    let public = pair.node_identity.public();
    assert_eq!(format!("{:?}", pair.node_identity), "[secret]");
    assert_eq!(format!("{public:?}"), format!("IdentityKey({})", hex::encode(public.as_bytes())));
}
