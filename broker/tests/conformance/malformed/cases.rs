//! What is said wrong: every client packet of both versions, with every field broken in turn.

use std::collections::BTreeSet;

use super::grammar::{PROPERTIES, Row, Type, place};
use crate::peer::Version;

/// The first byte of a packet, and what follows its length.
pub(super) type Case = (u8, Vec<u8>);

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// A good value of a property.
fn good(row: &Row) -> Vec<u8> {
    let mut bytes = vec![row.id];
    match row.value {
        Type::Bit => bytes.push(1),
        Type::Two | Type::TwoSome => bytes.extend([0, 1]),
        Type::Four | Type::FourSome => bytes.extend([0, 0, 9, 0]),
        Type::VarSome => bytes.extend([0x81, 0x01]),
        Type::Text => bytes.extend([0, 2, b't', b'x']),
        Type::Binary => bytes.extend([0, 2, 0xFF, 0x00]),
        Type::Pair => bytes.extend([0, 1, b'k', 0, 2, b'v', b'v']),
    }
    bytes
}

/// Values a property cannot have.
fn bad(row: &Row) -> Vec<Vec<u8>> {
    let values: &[&[u8]] = match row.value {
        Type::Bit => &[&[2], &[255], &[]],
        Type::Two => &[&[], &[0]],
        Type::TwoSome => &[&[], &[0], &[0, 0]],
        Type::Four => &[&[], &[0], &[0, 0], &[0, 0, 0]],
        Type::FourSome => &[&[], &[0, 0, 0], &[0, 0, 0, 0]],
        Type::VarSome => &[&[], &[0], &[0x80], &[0x80, 0x00], &[0x81, 0x00], &[0xFF, 0xFF, 0xFF, 0xFF, 0x01]],
        Type::Text => &[
            &[],
            &[0],
            &[0, 1],
            &[0xFF, 0xFF, b'a'],
            &[0, 1, 0xFF],
            &[0, 1, 0],
            &[0, 3, 0xED, 0xA0, 0x80],
            &[0, 2, 0xC0, 0x80],
        ],
        Type::Binary => &[&[], &[0], &[0, 1], &[0xFF, 0xFF, 0]],
        Type::Pair => &[
            &[],
            &[0, 1, b'k'],
            &[0, 1, b'k', 0],
            &[0, 1, b'k', 0, 2, b'v'],
            &[0, 1, 0xFF, 0, 1, b'v'],
            &[0, 1, b'k', 0, 1, 0xFF],
            &[0, 1, 0, 0, 1, b'v'],
        ],
    };
    values.iter().map(|value| [&[row.id], *value].concat()).collect()
}

/// A block of properties behind its length.
fn block(of: &[u8]) -> Vec<u8> {
    let len = u8::try_from(of.len()).expect("a short block");
    if len < 0x80 { joined(&[&[len], of]) } else { joined(&[&[len, 1], of]) }
}

/// What properties stand in: a packet without them, cut where they go.
struct Holder {
    first: u8,
    at: u16,
    before: Vec<u8>,
    after: Vec<u8>,
}

/// Every packet of 5.0 that has properties, and that a client may send.
fn holders(connecting: bool) -> Vec<Holder> {
    let holder =
        |first, at, before: &[u8], after: &[u8]| Holder { first, at, before: before.into(), after: after.into() };
    if connecting {
        return vec![
            holder(0x10, place::CONNECT, b"\x00\x04MQTT\x05\x02\x00\x3C", b"\x00\x01c"),
            holder(0x10, place::WILL, b"\x00\x04MQTT\x05\x06\x00\x3C\x00\x00\x01c", b"\x00\x01w\x00\x01x"),
        ];
    }
    let mut list = vec![
        holder(0x30, place::PUBLISH, b"\x00\x03a/b", b"payload"),
        holder(0x32, place::PUBLISH, b"\x00\x03a/b\x00\x07", b"payload"),
        holder(0x82, place::SUBSCRIBE, b"\x00\x07", b"\x00\x03s/+\x00"),
        holder(0xA2, place::UNSUBSCRIBE, b"\x00\x07", b"\x00\x03s/+"),
        holder(0xE0, place::DISCONNECT, b"\x00", b""),
        holder(0xF0, place::AUTH, b"\x18", b""),
    ];
    list.extend([0x40, 0x50, 0x62, 0x70].map(|first| holder(first, place::ACK, b"\x00\x07\x00", b"")));
    list
}

/// Every property where it may be and where it may not, once, twice, in pieces and with every
/// value it cannot have; identifiers no property has; lengths that are none.
fn of_properties(connecting: bool, cases: &mut BTreeSet<Case>) {
    for Holder { first, at, before, after } in holders(connecting) {
        let mut blocks: Vec<Vec<u8>> = vec![vec![0], vec![0x80, 0x00], vec![0x80], vec![0xFF; 5], vec![]];
        for row in &PROPERTIES {
            let once = good(row);
            blocks.push(block(&once));
            blocks.push(block(&joined(&[&once, &once])));
            blocks.extend((1..once.len()).map(|len| block(&once[..len])));
            blocks.extend(bad(row).iter().map(|property| block(property)));
            // Behind one that is good anywhere.
            blocks.push(block(&joined(&[b"\x26\x00\x01k\x00\x01v", &once])));
            // Lengths that are off by one.
            let mut short = block(&once);
            short[0] -= 1;
            let mut long = block(&once);
            long[0] += 1;
            blocks.extend([short, long]);
        }
        let known = |id: &u8| PROPERTIES.iter().any(|row| row.id == *id);
        blocks.extend((0..0x80).filter(|id| !known(id)).map(|id| block(&[id, 0, 0, 0, 0])));
        blocks.push(block(&[0x81, 0x01, 0]));
        blocks.push(block(&[0x83, 0x00, 0, 0]));
        // All that belong here at once.
        let all = PROPERTIES.iter().filter(|row| row.places & at != 0 && row.id != 0x0B).flat_map(good);
        blocks.push(block(&all.collect::<Vec<u8>>()));
        cases.extend(blocks.into_iter().map(|block| (first, joined(&[&before, &block, &after]))));
    }
}

/// A packet broken byte by byte: cut, stretched, and with every byte changed in many ways.
fn broken(first: u8, body: &[u8], cases: &mut BTreeSet<Case>) {
    cases.insert((first, body.to_vec()));
    cases.extend((0..16).map(|flags| (first & 0xF0 | flags, body.to_vec())));
    cases.extend((0..body.len()).map(|len| (first, body[..len].to_vec())));
    for extra in [&[0x00][..], &[0xFF], &[0, 1, b'a'], &[0, 1, b'a', 0]] {
        cases.insert((first, joined(&[body, extra])));
    }
    for at in 0..body.len() {
        let (before, byte, after) = (&body[..at], body[at], &body[at + 1..]);
        cases.insert((first, joined(&[before, after])));
        for inserted in [0x00, 0x01, 0xFF, byte] {
            cases.insert((first, joined(&[before, &[inserted, byte], after])));
        }
        let flipped = (0..8).map(|bit| byte ^ 1 << bit);
        for other in flipped.chain([0x00, 0xFF, 0x80, b'+', b'#', byte.wrapping_add(1), byte.wrapping_sub(1)]) {
            cases.insert((first, joined(&[before, &[other], after])));
        }
    }
}

/// First packets.
pub(super) fn connects() -> BTreeSet<Case> {
    let mut cases = BTreeSet::new();
    of_properties(true, &mut cases);
    broken(0x10, b"\x00\x04MQTT\x04\x02\x00\x3C\x00\x03abc", &mut cases);
    broken(0x10, b"\x00\x04MQTT\x04\xF6\x00\x3C\x00\x01c\x00\x03w/x\x00\x02go\x00\x01u\x00\x01p", &mut cases);
    broken(0x10, b"\x00\x04MQTT\x05\x02\x00\x3C\x05\x11\x00\x00\x00\x09\x00\x03abc", &mut cases);
    let will = b"\x00\x04MQTT\x05\xCE\x00\x3C\x08\x21\x00\x09\x27\x00\x00\x10\x00\x00\x01c\x05\x18\x00\x00\x00\x00\x00\x03w/x\x00\x02go\x00\x01u\x00\x01p";
    broken(0x10, will, &mut cases);
    broken(0x10, b"\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c", &mut cases);
    // Every combination of the connect flags, with and without all fields.
    for level in [4, 5] {
        for flags in 0..=255 {
            let no: &[u8] = if level == 5 { &[0] } else { &[] };
            let head = joined(&[b"\x00\x04MQTT", &[level, flags, 0, 60], no, b"\x00\x01c"]);
            cases.insert((0x10, head.clone()));
            let will: &[u8] = if flags & 4 != 0 { &joined(&[no, b"\x00\x01w\x00\x01x"]) } else { &[] };
            let name: &[u8] = if flags & 0x80 != 0 { b"\x00\x01u" } else { &[] };
            let word: &[u8] = if flags & 0x40 != 0 { b"\x00\x01p" } else { &[] };
            cases.insert((0x10, joined(&[&head, will, name, word])));
        }
    }
    cases
}

/// Packets of a client that is in.
pub(super) fn packets(version: Version) -> BTreeSet<Case> {
    let mut cases = BTreeSet::new();
    let five = version == Version::V5;
    let no: &[u8] = if five { &[0] } else { &[] };
    let said: &[u8] = if five { b"\x0D\x01\x01\x02\x00\x00\x00\x09\x23\x00\x01\x09\x00\x00" } else { &[] };
    let user: &[u8] = if five { b"\x07\x26\x00\x01k\x00\x01v" } else { &[] };
    for (first, id) in [(0x30, &b""[..]), (0x31, b""), (0x32, b"\x00\x07"), (0x3D, b"\x12\x34")] {
        broken(first, &joined(&[b"\x00\x03a/b", id, no, b"payload"]), &mut cases);
        broken(first, &joined(&[b"\x00\x03a/b", id, said, b"xy"]), &mut cases);
    }
    for first in [0x40, 0x50, 0x62, 0x70] {
        broken(first, b"\x00\x07", &mut cases);
        if five {
            cases.extend((0..=255).map(|reason| (first, vec![0, 7, reason])));
            broken(first, &joined(&[b"\x00\x07\x00", user]), &mut cases);
        }
    }
    broken(0x82, &joined(&[b"\x00\x07", no, b"\x00\x03s/+\x01"]), &mut cases);
    broken(0x82, &joined(&[b"\x00\x07", user, b"\x00\x03s/+\x01\x00\x01t\x00"]), &mut cases);
    cases.extend((0..=255).map(|options| (0x82, joined(&[b"\x00\x07", no, b"\x00\x01s", &[options]]))));
    broken(0xA2, &joined(&[b"\x00\x07", no, b"\x00\x03s/+"]), &mut cases);
    broken(0xA2, &joined(&[b"\x00\x07", user, b"\x00\x01s\x00\x01t"]), &mut cases);
    broken(0xC0, b"", &mut cases);
    broken(0xE0, b"", &mut cases);
    if five {
        cases.extend((0..=255).map(|reason| (0xE0, vec![reason])));
        cases.extend((0..=255).map(|reason| (0xF0, vec![reason, 0])));
        broken(0xE0, b"\x04\x05\x11\x00\x00\x00\x00", &mut cases);
        broken(0xF0, b"\x18\x09\x15\x00\x01m\x16\x00\x02\x01\x02", &mut cases);
        of_properties(false, &mut cases);
    }
    broken(0xF0, b"", &mut cases);
    // A second CONNECT, and what only a server sends.
    cases.insert((0x10, joined(&[b"\x00\x04MQTT", &[if five { 5 } else { 4 }, 2, 0, 60], no, b"\x00\x01c"])));
    for (first, body) in
        [(0x20, joined(&[b"\x00\x00", no])), (0x90, joined(&[b"\x00\x07", no, b"\x00"])), (0xD0, vec![])]
    {
        broken(first, &body, &mut cases);
    }
    broken(0xB0, &joined(&[b"\x00\x07", no, if five { b"\x00" } else { b"" }]), &mut cases);
    cases.extend((0..=255).map(|first| (first, vec![])));
    cases
}
