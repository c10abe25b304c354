//! Forged messages: they do not open, they change nothing (the pair compares every byte of its
//! state after each failure), and what they were made from still opens.

use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::role::StockRole;
use unhidra_e2ee::session::Session;

use crate::pair::{Pair, message};

/// Flips every bit of a message in turn, then hands in the message itself.
fn flip_every_bit(pair: &mut Pair, sealed: &[u8]) {
    for bit in 0..sealed.len() * 8 {
        let mut forged = sealed.to_vec();
        forged[bit / 8] ^= 1 << (bit % 8);
        if let Ok(Envelope::Message(_)) = Envelope::parse(&forged) {
            pair.node_open(&forged).expect_err("a forged message opened");
        }
    }
    pair.node_open(sealed).expect("the message itself");
}

#[test]
fn a_forged_message_in_order_changes_nothing() {
    let mut pair = Pair::confirmed(1);
    let sealed = pair.device_seals(b"in order");
    flip_every_bit(&mut pair, &sealed);
}

#[test]
fn a_forged_message_ahead_keeps_no_keys() {
    let mut pair = Pair::confirmed(2);
    let skipped = [0; 5].map(|_| pair.device_seals(b"late"));
    let sealed = pair.device_seals(b"ahead");
    flip_every_bit(&mut pair, &sealed);
    for late in skipped {
        assert_eq!(pair.node_opens(&late).unwrap(), b"late");
    }
}

#[test]
fn a_forged_message_that_is_late_leaves_its_key() {
    let mut pair = Pair::confirmed(3);
    let late = pair.device_seals(b"late");
    let ahead = pair.device_seals(b"ahead");
    pair.node_opens(&ahead).unwrap();
    flip_every_bit(&mut pair, &late);
}

#[test]
fn a_forged_message_under_a_new_key_takes_no_step() {
    let mut pair = Pair::confirmed(4);
    pair.device_reboots();
    let stepped = pair.device_seals(b"a new key");
    flip_every_bit(&mut pair, &stepped);
    let answer = pair.node_seals(b"answer");
    assert_eq!(pair.device_opens(&answer).unwrap(), b"answer");
}

#[test]
fn a_wrong_tag_on_a_known_chain_resets_nothing() {
    let mut pair = Pair::confirmed(5);
    let mut forged = pair.device_seals(b"x");
    *forged.last_mut().unwrap() ^= 1;
    let error = pair.node_open(&forged).unwrap_err();
    assert_eq!(error, OpenError::BadTag { number: 1 });
    assert_eq!((error.reset_due(), error.spent_dh_step()), (None, false));
}

fn under_key(sealed: &[u8], key: [u8; 32]) -> Vec<u8> {
    let mut forged = sealed.to_vec();
    forged[1..33].copy_from_slice(&key);
    forged
}

#[test]
fn hostile_ratchet_keys_are_refused() {
    let mut pair = Pair::confirmed(6);
    let sealed = pair.device_seals(b"x");
    let own = *pair.node.present().unwrap().ratchet_key();
    let mut own_with_high_bit = own;
    own_with_high_bit[31] |= 0x80;
    let mut other_with_high_bit = [7; 32];
    other_with_high_bit[31] = 0x87;
    for key in [own, own_with_high_bit, other_with_high_bit] {
        assert_eq!(pair.node_opens_under(&sealed, key), OpenError::HostileKey { tried: false });
    }
    let mut one = [0; 32];
    one[0] = 1;
    for key in [[0; 32], one] {
        let error = pair.node_opens_under(&sealed, key);
        assert_eq!(error, OpenError::HostileKey { tried: true });
        assert!(error.spent_dh_step() && error.reset_due().is_none());
    }
    assert_eq!(pair.node_opens(&sealed).unwrap(), b"x");
}

impl Pair {
    fn node_opens_under(&mut self, sealed: &[u8], key: [u8; 32]) -> OpenError {
        self.node_open(&under_key(sealed, key)).unwrap_err()
    }
}

#[test]
fn the_signed_prekey_is_no_ratchet_key_to_receive_under() {
    let mut pair = Pair::begun(7);
    let sealed = pair.node_seals(b"hello");
    let forged = under_key(&sealed, *pair.spk.public());
    assert_eq!(pair.device_open(&forged).map(drop), Err(OpenError::HostileKey { tried: false }));
}

#[test]
fn a_message_of_ones_own_is_no_message_of_the_other() {
    let mut pair = Pair::confirmed(8);
    let own = pair.device_seals(b"x");
    assert_eq!(pair.device_open(&own).map(drop), Err(OpenError::HostileKey { tried: false }));
}

#[test]
fn a_session_begun_under_a_key_of_small_order_is_none() {
    let mut rng = Pair::enrolled(9).rng;
    assert!(Session::<StockRole>::sending_first(&[1; 32], [2; 32], [0; 32], &mut rng).is_none());
}

#[test]
fn a_buffer_that_is_too_small_costs_nothing() {
    let mut pair = Pair::confirmed(10);
    let sealed = pair.device_seals(b"seven b");
    let found = pair.node.open(&message(&sealed), &mut [0; 6], pair.now, &mut pair.rng).map(drop);
    assert_eq!(found, Err(OpenError::OutTooSmall { needed: 7, found: 6 }));
    assert_eq!(pair.node_opens(&sealed).unwrap(), b"seven b");
}
