//! The AEAD alone, by length: what the choice of its backends rests on.

use std::hint::black_box;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};

use crate::measure::{Contest, timed};
use crate::report::{Entry, Goal};

const LENGTHS: [usize; 12] = [16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

pub(crate) fn entries() -> Vec<Entry> {
    LENGTHS.into_iter().map(|len| Entry::new(format!("AEAD {len} B"), seal(len), Goal::default())).collect()
}

fn seal(len: usize) -> Contest {
    let mut text = vec![7; len];
    let operations = (16_384 / len).clamp(1, 32);
    let ours = move || {
        timed(operations, |at| {
            let cipher = ChaCha20Poly1305::new((&[at as u8; 32]).into());
            let tag = cipher.encrypt_inout_detached(&Default::default(), &[3; 73], black_box(&mut text[..]).into());
            black_box(tag.expect("short"));
        })
    };
    Contest { ours: Box::new(ours), peer: None, floor: None }
}
