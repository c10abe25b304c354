//! The state record: what was written is read back, by every later version too.

use proptest::prelude::*;
use unhidra_e2ee::delta::{Lane, StateDelta};
use unhidra_e2ee::envelope::{HEAD_LEN_MAX, head_len};
use unhidra_e2ee::record::{STATE_LEN, StateError, StateTooLong};
use unhidra_e2ee::role::{DeviceRole, NodeRole, StockRole};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::skipped::Inline;
use unhidra_e2ee::suite::{Suite, is_built};

use crate::pair::{Node, Pair, encode, suites};

/// Version 1, written by the first landing. Never changed: a later version must read them.
const DEVICE_V1: &str = include_str!("../vectors/state-device-v1.hex");
const DEVICE_UNCONFIRMED_V1: &str = include_str!("../vectors/state-device-unconfirmed-v1.hex");
const NODE_V1: &str = include_str!("../vectors/state-node-v1.hex");
/// whole, receive record, send record, and a message that the session opens.
const NODE_WITH_CHAINS_V1: &str = include_str!("../vectors/state-node-chains-v1.hex");
/// Suite 2: a device that is not confirmed, its node, a HandshakeInit and the answer to it.
#[cfg(feature = "pqxdh")]
const PAIR_PQXDH_V1: &str = include_str!("../vectors/state-pair-pqxdh-v1.hex");

fn bytes(text: &str) -> Vec<u8> {
    hex::decode(text.trim()).unwrap()
}

#[test]
fn records_of_version_1_are_read() {
    let device = bytes(DEVICE_V1);
    let session = Session::<DeviceRole>::decode(&device, None, None).unwrap();
    assert_eq!(encode(&session), device);
    assert!(session.is_confirmed());

    let unconfirmed = bytes(DEVICE_UNCONFIRMED_V1);
    let session = Session::<DeviceRole>::decode(&unconfirmed, None, None).unwrap();
    assert_eq!(encode(&session), unconfirmed);
    assert!(!session.is_confirmed());

    let node = bytes(NODE_V1);
    let session = Session::<Node>::decode(&node, None, None).unwrap();
    assert_eq!(encode(&session), node);
    assert_eq!(node.len(), STATE_LEN + 2 + 34 * 48, "31 keys of the old chain are kept, and 3 of the new");
}

#[test]
fn chain_records_of_version_1_are_read() {
    let lines: Vec<Vec<u8>> = NODE_WITH_CHAINS_V1.lines().map(bytes).collect();
    let [whole, receive, send, sealed] = lines.as_slice() else { panic!("{} lines", lines.len()) };
    let mut session = Session::<Node>::decode(whole, Some(receive), Some(send)).unwrap();
    assert_eq!((session.next_number(), session.unanswered()), (3, 1));
    let mut pair = Pair::enrolled(0);
    let mut out = [0; 64];
    let (opened, _) = session.open(&crate::pair::message(sealed), &mut out, pair.now, &mut pair.rng).unwrap();
    assert_eq!(opened.plaintext(), b"from the fixture");
}

#[cfg(feature = "pqxdh")]
#[test]
fn records_of_suite_2_and_version_1_are_read() {
    let lines: Vec<Vec<u8>> = PAIR_PQXDH_V1.lines().map(bytes).collect();
    let [device, node, init, answer] = lines.as_slice() else { panic!("{} lines", lines.len()) };
    assert_eq!((device.len(), node.len()), (STATE_LEN + 2 + 1166, STATE_LEN + 2));
    let mut out = [0; 64];
    let mut pair = Pair::enrolled(0);

    let mut session = Session::<Node>::decode(node, None, None).unwrap();
    assert_eq!((encode(&session), session.suite()), (node.clone(), Suite::Pqxdh));
    let (opened, _) = session.open(&crate::pair::message(init), &mut out, pair.now, &mut pair.rng).unwrap();
    assert_eq!(opened.plaintext(), b"from the fixture");

    let mut session = Session::<DeviceRole>::decode(device, None, None).unwrap();
    assert_eq!((encode(&session), session.suite()), (device.clone(), Suite::Pqxdh));
    assert!(!session.is_confirmed() && init[..1166] == device[STATE_LEN + 2..]);
    let (opened, _) = session.open(&crate::pair::message(answer), &mut out, pair.now, &mut pair.rng).unwrap();
    assert_eq!(opened.plaintext(), b"hello");
    assert!(session.is_confirmed() && session.encoded_len() == STATE_LEN + 2);
}

/// Every state the pair comes through, written and read, goes on as the one it was written from.
#[test]
fn a_session_read_back_goes_on() {
    for suite in suites() {
        goes_on(Pair::begun_with(suite, 1));
    }
}

fn goes_on(mut pair: Pair) {
    for round in 0..40 {
        pair.node_restarts();
        let up = [0; 3].map(|_| pair.device_seals(b"up"));
        pair.node_opens(&up[2]).unwrap();
        pair.node_restarts();
        pair.node_opens(&up[0]).unwrap();
        pair.device_reboots();
        let down = [0; 3].map(|_| pair.node_seals(b"down"));
        pair.device_opens(&down[1 + round % 2]).unwrap();
        pair.device_reboots();
        pair.device_opens(&down[0]).unwrap();
    }
}

#[test]
fn the_state_and_a_chain_are_as_small_as_promised() {
    let mut pair = Pair::confirmed(2);
    let up = pair.device_seals(b"");
    let (_, moved) = pair.node_open(&up).unwrap();
    let StateDelta::Chain { lane: Lane::Receive, bytes } = moved.delta else { panic!("a plain open") };
    assert_eq!(bytes.as_slice().len(), 45);
    pair.node_seals(b"");
    assert_eq!(pair.node_disk[0].send.as_ref().map(Vec::len), Some(41));
    assert_eq!(encode(pair.node.present().unwrap()).len(), STATE_LEN + 2);
    const { assert!(STATE_LEN <= 256) };
    assert_eq!(format!("{bytes:?} {:?}", pair.device.present().unwrap()).matches("secret").count(), 1);
}

#[test]
fn a_record_that_was_overtaken_counts_for_nothing() {
    let mut pair = Pair::confirmed(3);
    let up = [0; 3].map(|_| pair.device_seals(b""));
    pair.node_opens(&up[0]).unwrap();
    pair.node_seals(b"");
    let stale = pair.node_disk[0].clone();
    pair.node_opens(&up[2]).unwrap();
    let whole = pair.node_disk[0].clone();
    assert!(whole.receive.is_none());
    let read = |receive: &Option<Vec<u8>>, send: &Option<Vec<u8>>| {
        encode(&Session::<Node>::decode(&whole.whole, receive.as_deref(), send.as_deref()).unwrap())
    };
    assert_eq!(read(&stale.receive, &stale.send), whole.whole, "of the same chains, and behind");
    pair.device_reboots();
    let stepped = pair.device_seals(b"");
    pair.node_opens(&stepped).unwrap();
    let whole = pair.node_disk[0].clone();
    let read = Session::<Node>::decode(&whole.whole, stale.receive.as_deref(), stale.send.as_deref()).unwrap();
    assert_eq!(encode(&read), whole.whole, "of other chains");
}

#[test]
fn what_is_no_record_says_why() {
    let mut pair = Pair::confirmed(4);
    let late = [0; 3].map(|_| pair.device_seals(b""));
    pair.node_opens(&late[2]).unwrap();
    let whole = encode(pair.node.present().unwrap());
    let decode = |bytes: &[u8]| Session::<Node>::decode(bytes, None, None).map(drop).unwrap_err();
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        decode(&bytes)
    };
    assert_eq!(with(0, 2), StateError::Version { found: 2 });
    assert_eq!(with(1, 1), StateError::Role { found: 1, expected: 2 });
    assert_eq!(with(2, 3), StateError::Suite { found: 3 });
    if !is_built(Suite::Pqxdh) {
        assert_eq!(with(2, 2), StateError::SuiteNotBuilt { found: Suite::Pqxdh });
    }
    assert_eq!(with(3, 0x43), StateError::Flags { found: 0x43 });
    assert_eq!(with(3, 0x07), StateError::Flags { found: 0x07 }, "an old chain of no messages");
    for len in 0..whole.len() {
        assert_eq!(decode(&whole[..len]), StateError::Short, "{len}");
    }
    assert_eq!(decode(&[whole.clone(), vec![0; 2]].concat()), StateError::TooLong { extra: 2 });
    let with_head = [&whole[..3], &[whole[3] | 0x10], &whole[4..], &[0; 78]].concat();
    assert_eq!(decode(&with_head), StateError::Flags { found: whole[3] | 0x10 });
    let small = Session::<NodeRole<Inline<1>>>::decode(&whole, None, None).map(drop);
    assert_eq!(small, Err(StateError::TooManySkipped { max: 128 }), "no place for two");
    assert_eq!(
        Session::<StockRole>::decode(&whole, None, None).map(drop),
        Err(StateError::Role { found: 2, expected: 3 })
    );
}

#[test]
fn a_field_that_is_absent_holds_nothing() {
    // It has sent and not received.
    let pair = Pair::begun(6);
    let whole = encode(pair.device.present().unwrap());
    let decode = |bytes: &[u8]| Session::<DeviceRole>::decode(bytes, None, None).map(drop);
    assert_eq!(decode(&whole), Ok(()));
    for at in 160..208 {
        let mut bytes = whole.clone();
        bytes[at] = 1;
        assert_eq!(decode(&bytes), Err(StateError::NotAbsent), "{at}");
    }
    let mut bytes = whole;
    bytes[3] &= !0x01;
    assert_eq!(decode(&bytes), Err(StateError::NotAbsent), "the sending chain");
}

#[test]
fn what_is_no_chain_record_says_why() {
    let mut pair = Pair::confirmed(5);
    let up = pair.device_seals(b"");
    pair.node_opens(&up).unwrap();
    let written = pair.node_disk[0].clone();
    let (receive, send) = (written.receive.unwrap(), written.send.unwrap());
    let decode =
        |receive: Option<&[u8]>, send: Option<&[u8]>| Session::<Node>::decode(&written.whole, receive, send).map(drop);
    assert_eq!(decode(Some(&receive), Some(&send)), Ok(()));
    assert_eq!(decode(Some(&send), None), Err(StateError::Chain));
    assert_eq!(decode(None, Some(&receive)), Err(StateError::Chain));
    assert_eq!(decode(Some(&receive[..44]), None), Err(StateError::Short));
    assert_eq!(decode(None, Some(&[])), Err(StateError::Short));
    assert_eq!(decode(None, Some(&[send.clone(), vec![0]].concat())), Err(StateError::TooLong { extra: 1 }));
}

#[test]
fn a_record_wants_its_room() {
    for suite in suites() {
        let pair = Pair::begun_with(suite, 6);
        let session = pair.device.present().unwrap();
        let needed = session.encoded_len();
        assert_eq!(needed, STATE_LEN + 2 + head_len(suite));
        assert_eq!(session.encode(&mut vec![0; needed - 1]), Err(StateTooLong { needed, found: needed - 1 }));
        assert!(needed <= Session::<DeviceRole>::ENCODED_LEN_MAX);
    }
    assert_eq!(Session::<DeviceRole>::ENCODED_LEN_MAX, 252 + 2 + 16 * 48 + HEAD_LEN_MAX);
    assert_eq!(Session::<Node>::ENCODED_LEN_MAX, 252 + 2 + 128 * 48);
}

proptest! {
    /// A record that was damaged is an error or another session, and never a panic.
    #[test]
    fn a_damaged_record_does_not_panic(
        seed in 0u64..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut: prop::sample::Index,
        whole_length: bool,
    ) {
        let mut pair = Pair::confirmed(seed);
        let up = [0; 3].map(|_| pair.device_seals(b"x"));
        pair.node_opens(&up[1]).unwrap();
        let mut whole = encode(pair.node.present().unwrap());
        for (at, byte) in damage {
            let at = at.index(whole.len());
            whole[at] = byte;
        }
        let len = if whole_length { whole.len() } else { cut.index(whole.len()) };
        if let Ok(mut session) = Session::<Node>::decode(&whole[..len], None, None) {
            let mut out = [0; 64];
            for sealed in &up {
                let _ = session.open(&crate::pair::message(sealed), &mut out, pair.now, &mut pair.rng).map(drop);
            }
            let len = session.sealed_len(1);
            let _ = session.seal(b"x", vec![0; len]).map(drop);
        }
    }
}
