//! What one message of an attacker makes a node pay. None of them opens, but where it says so; what
//! the budgets of the bridge then let through is in e2ee/PROTOCOL.md, section 7.

use std::hint::black_box;

use unhidra_e2ee::suite::Suite;

use super::ours::{Pair, message};
use crate::measure::{Contest, timed};
use crate::report::{Entry, Goal};

/// Where the parts of a Message are.
const RATCHET_KEY: usize = 1;
const NUMBER: usize = 37;

pub(crate) fn entries() -> Vec<Entry> {
    let entry = |name: &str, contest| Entry::new(name, contest, Goal::default());
    vec![
        entry("attack: a repeat", duplicate()),
        entry("attack: wrong tag, known chain", forged(|_, _| ())),
        entry("attack: wrong tag, known chain, 2 048 ahead", forged(|pair, sealed| ahead(pair, sealed, 2048))),
        entry("attack: wrong tag, unknown key", forged(|_, sealed| unknown(sealed))),
        entry("attack: wrong tag, unknown key, 2 048 ahead", {
            forged(|_, sealed| {
                unknown(sealed);
                sealed[NUMBER..NUMBER + 4].copy_from_slice(&2048_u32.to_be_bytes());
            })
        }),
        entry("attack: by a device, opens 2 048 ahead", jump()),
        entry("attack: wrong tag, long try of 65 536", long_try()),
        entry("attack: handshake, suite 1, wrong tag", handshake(Suite::X3dh)),
        entry("attack: handshake, suite 2, wrong tag", handshake(Suite::Pqxdh)),
    ]
}

/// A message that was opened before.
fn duplicate() -> Contest {
    let mut pair = Pair::confirmed();
    let sealed = pair.device_seals(&[7; 64]);
    pair.node_opens(&sealed);
    refused(32, move || pair.try_node_opens(black_box(&sealed)).is_err())
}

/// A message of the device, its tag made wrong, and then changed.
fn forged(change: impl Fn(&mut Pair, &mut [u8])) -> Contest {
    let (mut pair, sealed) = with_forgery(change);
    refused(4, move || pair.try_node_opens(black_box(&sealed)).is_err())
}

fn with_forgery(change: impl Fn(&mut Pair, &mut [u8])) -> (Pair, Vec<u8>) {
    let mut pair = Pair::confirmed();
    let mut sealed = pair.device_seals(&[7; 64]);
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
    }
    change(&mut pair, &mut sealed);
    (pair, sealed)
}

/// Another number of the same chain: so many beyond the next one.
fn ahead(pair: &mut Pair, sealed: &mut [u8], by: u32) {
    let number = message(&pair.device_seals(b"")).number() - 1 + by;
    sealed[NUMBER..NUMBER + 4].copy_from_slice(&number.to_be_bytes());
}

/// Another ratchet key: the base point, which is no key of small order.
fn unknown(sealed: &mut [u8]) {
    sealed[RATCHET_KEY..RATCHET_KEY + 32].fill(0);
    sealed[RATCHET_KEY] = 9;
}

/// A device that skips as far as it may, every time: the node keeps 128 keys and writes all.
fn jump() -> Contest {
    let mut pair = Pair::confirmed();
    alone(move || {
        for _ in 0..2048 {
            pair.device_seals(b"");
        }
        let sealed = pair.device_seals(&[7; 64]);
        timed(1, |_| pair.node_opens(black_box(&sealed)))
    })
}

/// The farthest a node ever reaches: once in 10 minutes a device.
fn long_try() -> Contest {
    let (mut pair, sealed) = with_forgery(|pair, sealed| ahead(pair, sealed, 65_536));
    refused(1, move || pair.try_long(black_box(&sealed)).is_err())
}

/// A handshake that names the waiting prekeys, and whose message does not open.
fn handshake(suite: Suite) -> Contest {
    let mut pair = Pair::enrolled(suite);
    let bundle = pair.bundle();
    let session = pair.initiate(&bundle);
    pair.device.begin(session, None);
    let mut sealed = pair.device_seals(&[7; 64]);
    if let Some(last) = sealed.last_mut() {
        *last ^= 1;
    }
    refused(1, move || pair.try_respond(black_box(&sealed)).is_err())
}

fn refused(operations: usize, mut is_refused: impl FnMut() -> bool + 'static) -> Contest {
    alone(move || timed(operations, |_| assert!(is_refused(), "it opened")))
}

fn alone(ours: impl FnMut() -> f64 + 'static) -> Contest {
    Contest { ours: Box::new(ours), peer: None, floor: None }
}
