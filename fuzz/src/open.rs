//! Messages of a fixed pair, each as it is or spoilt, in any order.
//!
//! The first byte is the suite, bit 0: 1 is suite 2. Then four bytes a step: which message, where it is spoilt (two bytes), and with what; 0 leaves it as
//! it is, and 1 cuts it off there. A spoilt message opens nowhere and changes nothing, and so a
//! whole one opens after it: once.

use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::suite::Suite;

use crate::fixed::{Fixed, LATER, Side, open};

/// Steps that are played; each may cost two DH steps.
const STEPS_MAX: usize = 24;

pub(crate) fn run(data: &[u8]) {
    let [suite, script @ ..] = data else { return };
    let fixed = Fixed::of(Suite::ALL[usize::from(suite & 1)]);
    let mut node = fixed.node();
    let mut device = fixed.device();
    let mut opened = vec![false; fixed.messages.len()];
    for step in script.as_chunks::<4>().0.iter().take(STEPS_MAX) {
        let [which, high, low, spoil] = *step;
        let which = usize::from(which) % fixed.messages.len();
        let message = &fixed.messages[which];
        let at = usize::from(u16::from_be_bytes([high, low])) % message.sealed.len();
        let mut bytes = message.sealed.clone();
        match spoil {
            0 => {}
            1 => bytes.truncate(at),
            _ => bytes[at] ^= spoil,
        }
        let is_whole = bytes == message.sealed;
        let inner_at = match Envelope::parse(&message.sealed) {
            Ok(Envelope::HandshakeInit(init)) => init.head().len(),
            _ => 0,
        };
        let inner_is_whole = bytes.get(inner_at..) == message.sealed.get(inner_at..);
        let result = match message.to {
            Side::Node => open(&mut node, &bytes, LATER),
            Side::Device => open(&mut device, &bytes, LATER),
        };
        match result {
            Some(plaintext) => {
                assert!(inner_is_whole, "a spoilt message opened");
                assert!(!opened[which], "message {which} opened twice");
                assert_eq!(plaintext, message.plaintext);
                opened[which] = true;
            }
            None => assert!(!is_whole || opened[which], "message {which} no longer opens"),
        }
    }
}
