//! The ratchet: messages, steps, beginnings and sizes, beside vodozemac and beside the floor.

use std::hint::black_box;

use rand::SeedableRng;
use rand::rngs::StdRng;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::delta::StateDelta;
use unhidra_e2ee::role::{DeviceRole, StockRole};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::suite::Suite;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::measure::{Batch, Contest, timed};
use crate::report::{Entry, Goal, Row};

mod attack;
mod floor;
mod ours;
mod peer;

/// Messages of one batch. The node seals up to 64 that nobody answers.
const BATCH: usize = 32;

/// What is timed.
pub(crate) fn entries() -> Vec<Entry> {
    let symmetric = |over_floor, faster| Goal::ratios(Some(over_floor), Some(faster));
    let step = Goal::ratios(Some(1.1), None);
    let mut entries = vec![
        Entry::new("seal 64 B, node, with its record", seal(64), symmetric(1.25, 10.0)),
        Entry::new("seal 1 KB, node, with its record", seal(1024), symmetric(1.25, 8.0)),
        Entry::new("open 64 B in order, node, with its record", open(64), symmetric(1.35, 2.0)),
        Entry::new("open 1 KB in order, node, with its record", open(1024), symmetric(1.35, 1.5)),
        Entry::new("seal 64 B, device, with leases of 32", device_seal(64), Goal::default()),
        Entry::new("seal 1 KB, device, with leases of 32", device_seal(1024), Goal::default()),
        Entry::new("open 64 B in order, device", device_open(64), Goal::default()),
        Entry::new("open 64 B under a new key, node: a DH step", new_key(), step),
        Entry::new("both ways, a DH step with every message", turn(), step),
        Entry::new("begin, device, suite 1: bundle to 64 B sealed", initiate(Suite::X3dh), Goal::default()),
        Entry::new("begin, device, suite 2: bundle to 64 B sealed", initiate(Suite::Pqxdh), Goal::default()),
        Entry::new("begin, node, suite 1: handshake and 64 B opened", respond(Suite::X3dh), Goal::default()),
        Entry::new("begin, node, suite 2: handshake and 64 B opened", respond(Suite::Pqxdh), Goal::default()),
    ];
    entries.extend(attack::entries());
    entries
}

/// The node's seal, with the record of it that is to be written.
fn seal(len: usize) -> Contest {
    let text = vec![7; len];
    let mut pair = ours::Pair::confirmed();
    let mut out = vec![0; len + 57];
    let ours = {
        let text = text.clone();
        move || {
            let up = pair.device_seals(b"ok");
            pair.node_opens(&up);
            let session = pair.node.present_mut().expect("begun");
            timed(BATCH, |_| {
                let (delta, pending) = session.seal(black_box(&text), out.as_mut_slice()).expect("answered");
                if let StateDelta::Chain { bytes, .. } = &delta {
                    black_box(bytes.as_slice());
                }
                drop(black_box(pending));
            })
        }
    };
    let mut peer = peer::Pair::new();
    let peer = {
        let text = text.clone();
        move || timed(BATCH, |_| drop(black_box(peer.alice.encrypt(black_box(&text)))))
    };
    Contest { ours: Box::new(ours), peer: Some(Box::new(peer)), floor: Some(floor_of_seal(text)) }
}

fn floor_of_seal(mut text: Vec<u8>) -> Batch {
    let mut chain = [5; 32];
    Box::new(move || {
        timed(BATCH, |_| {
            black_box(floor::seal(&mut chain, black_box(&mut text)));
        })
    })
}

/// The node's open in order, from the bytes that arrived to the record that is to be written.
fn open(len: usize) -> Contest {
    let text = vec![7; len];
    let mut pair = ours::Pair::confirmed();
    let ours = {
        let text = text.clone();
        move || {
            let sealed: Vec<_> = (0..BATCH).map(|_| pair.device_seals(&text)).collect();
            timed(BATCH, |at| pair.node_opens(black_box(&sealed[at])))
        }
    };
    let mut peer = peer::Pair::new();
    let peer = {
        let text = text.clone();
        move || {
            let sealed: Vec<_> = (0..BATCH).map(|_| peer.alice.encrypt(&text).expect("honest keys")).collect();
            timed(BATCH, |at| drop(black_box(peer.bob.decrypt(black_box(&sealed[at])))))
        }
    };
    let (mut sealing, mut opening) = ([5; 32], [5; 32]);
    let floor = move || {
        let mut sealed: Vec<_> = (0..BATCH)
            .map(|_| {
                let mut buffer = text.clone();
                let tag = floor::seal(&mut sealing, &mut buffer);
                (buffer, tag)
            })
            .collect();
        timed(BATCH, |at| {
            let (buffer, tag) = &mut sealed[at];
            floor::open(&mut opening, black_box(buffer), tag);
        })
    };
    Contest { ours: Box::new(ours), peer: Some(Box::new(peer)), floor: Some(Box::new(floor)) }
}

/// The device's seal, the lease of 32 messages and its record included.
fn device_seal(len: usize) -> Contest {
    let text = vec![7; len];
    let mut pair = ours::Pair::confirmed();
    let mut out = vec![0; len + 57];
    let ours = {
        let text = text.clone();
        move || {
            timed(BATCH, |_| {
                black_box(pair.device_seals_into(black_box(&text), &mut out));
            })
        }
    };
    Contest { ours: Box::new(ours), peer: None, floor: Some(floor_of_seal(text)) }
}

/// The device's open in order.
fn device_open(len: usize) -> Contest {
    let text = vec![7; len];
    let mut pair = ours::Pair::confirmed();
    let ours = move || {
        let up = pair.device_seals(b"ok");
        pair.node_opens(&up);
        let sealed: Vec<_> = (0..BATCH).map(|_| pair.node_seals(&text)).collect();
        timed(BATCH, |at| pair.device_opens(black_box(&sealed[at])))
    };
    Contest { ours: Box::new(ours), peer: None, floor: None }
}

/// Opening under a new ratchet key: the node steps both ways at once, and encodes the whole state.
fn new_key() -> Contest {
    let mut pair = ours::Pair::confirmed();
    let ours = move || {
        let sealed = pair.sealed_under_a_new_key(&[7; 64]);
        timed(1, |_| pair.node_opens(black_box(&sealed)))
    };
    Contest { ours: Box::new(ours), peer: None, floor: Some(floor_of_step()) }
}

/// A message each way, each under a new key: both sides seal, step and open.
fn turn() -> Contest {
    let mut rng = StdRng::seed_from_u64(3);
    let spk = StaticSecret::random_from_rng(&mut rng);
    let spk_public = PublicKey::from(&spk).to_bytes();
    let mut alice = Session::<StockRole>::sending_first(&[1; 32], [2; 32], spk_public, &mut rng).expect("honest key");
    let mut bob = Session::<StockRole>::receiving_first(&[1; 32], [2; 32], spk.as_bytes());
    let text = [7; 64];
    let (mut sealed, mut opened) = ([0; 64 + 57], [0; 64]);
    let ours = move || {
        timed(2, |at| {
            let (from, to) = if at == 0 { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
            let written = from.seal(&text, sealed.as_mut_slice());
            drop(black_box(written.expect("a chain")));
            let message = ours::message(&sealed);
            drop(black_box(to.open(&message, &mut opened, UnixTime::EPOCH, &mut rng).expect("in order")));
        })
    };
    let mut peer = peer::Pair::new();
    let peer = move || timed(2, |at| peer.send(at == 0, &text));
    Contest { ours: Box::new(ours), peer: Some(Box::new(peer)), floor: Some(floor_of_step()) }
}

fn floor_of_step() -> Batch {
    let their = PublicKey::from(&StaticSecret::from([9; 32]));
    let (mut root, mut own, mut rng) = ([1; 32], StaticSecret::from([8; 32]), StdRng::seed_from_u64(5));
    Box::new(move || {
        timed(2, |_| {
            black_box(floor::step(&mut root, &mut own, black_box(&their), &mut rng));
        })
    })
}

/// What the device does from the bundle to the first message sealed.
fn initiate(suite: Suite) -> Contest {
    let mut pair = ours::Pair::enrolled(suite);
    let bundle = pair.bundle();
    let ours = move || {
        pair.device = Default::default();
        timed(1, |_| {
            let session = pair.initiate(black_box(&bundle));
            pair.device.begin(session, None);
            black_box(pair.device_seals(&[7; 64]));
        })
    };
    let mut accounts = peer::Accounts::new();
    let peer = move || {
        let key = accounts.one_time_key();
        timed(1, |_| drop(black_box(accounts.initiate(key, &[7; 64]))))
    };
    let mut floor = floor::Initiation::new();
    let floor = move || {
        timed(1, |_| {
            black_box(floor.run());
        })
    };
    Contest { ours: Box::new(ours), peer: Some(Box::new(peer)), floor: Some(Box::new(floor)) }
}

/// What the node does with a HandshakeInit.
fn respond(suite: Suite) -> Contest {
    let mut pair = ours::Pair::enrolled(suite);
    let bundle = pair.bundle();
    let session = pair.initiate(&bundle);
    pair.device.begin(session, None);
    let sealed = pair.device_seals(&[7; 64]);
    let ours = move || timed(1, |_| drop(black_box(pair.respond(black_box(&sealed)))));
    let mut accounts = peer::Accounts::new();
    let peer = move || {
        let key = accounts.one_time_key();
        let (_, first) = accounts.initiate(key, &[7; 64]);
        timed(1, |_| drop(black_box(accounts.respond(&first))))
    };
    let their = PublicKey::from(&StaticSecret::from([9; 32]));
    let mut rng = StdRng::seed_from_u64(5);
    let floor = move || {
        timed(1, |_| {
            black_box(floor::respond(black_box(&their), &mut rng));
        })
    };
    Contest { ours: Box::new(ours), peer: Some(Box::new(peer)), floor: Some(Box::new(floor)) }
}

/// What a session takes, and what a message writes. The peer writes its pickle, whatever moved.
pub(crate) fn sizes() -> Vec<Row> {
    let mut pair = ours::Pair::confirmed();
    let serialised = pair.node.present().expect("begun").encoded_len();
    let written = |delta: &StateDelta| match delta {
        StateDelta::Chain { bytes, .. } => bytes.as_slice().len(),
        StateDelta::Whole => serialised,
    };
    let session = pair.node.present_mut().expect("begun");
    let (sent, _) = session.seal(&[7; 64], vec![0; 64 + 57]).expect("answered");
    let up = pair.device_seals(&[7; 64]);
    let received = pair.node.open(&ours::message(&up), &mut [0; 64], pair.now, &mut pair.rng).expect("honest").1.delta;
    let peer = peer::Pair::new();
    let pickle = serde_json::to_vec(&peer.bob.pickle()).map_or(0, |bytes| bytes.len());
    let memory = size_of::<vodozemac::olm::Session>();
    let device = size_of::<Session<DeviceRole>>();
    vec![
        Row::size("session in memory, node", size_of::<Session<ours::Node>>(), memory, Some(320)),
        Row::size("session in memory, device, 16 skipped keys", device, memory, None),
        Row::size("session serialised", serialised, pickle, Some(256)),
        Row::size("written for a message sealed", written(&sent), pickle, Some(80)),
        Row::size("written for a message opened in order", written(&received), pickle, Some(80)),
    ]
}
