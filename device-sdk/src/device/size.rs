//! How large a device's packets are.

use unhidra_e2ee::envelope::{BUNDLE_LEN_MAX, HEAD_LEN_MAX, MESSAGE_OVERHEAD};

use crate::outbox::NAME_LEN_MAX;
use crate::topics::TOPIC_LEN_MAX;

/// The bytes of the largest packet of a device whose bodies have at most `body` bytes, either way.
#[must_use]
pub const fn packet_len(body: usize) -> usize {
    // Fixed header, topic, packet identifier, no properties.
    const PUBLISH_OVERHEAD: usize = 5 + 2 + TOPIC_LEN_MAX + 2 + 1;
    let message = HEAD_LEN_MAX + MESSAGE_OVERHEAD + padded_len(body + MAP_OVERHEAD);
    PUBLISH_OVERHEAD + if message > BUNDLE_LEN_MAX { message } else { BUNDLE_LEN_MAX }
}

/// What the map around a body can add: kind, name, device time, lengths, command id, status,
/// expiry, reading id (e2ee/PROTOCOL.md section 6).
const MAP_OVERHEAD: usize = 3 + (3 + NAME_LEN_MAX) + 10 + 6 + 18 + 2 + 10 + 10;

const fn padded_len(map: usize) -> usize {
    let least = map + 1;
    match least {
        0..=64 => 64,
        65..=128 => 128,
        129..=256 => 256,
        257..=512 => 512,
        _ => least.div_ceil(1024) * 1024,
    }
}
