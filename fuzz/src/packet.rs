//! What an MQTT client sends: a stream is cut into frames, and each is read in both versions.

use bytes::{Bytes, BytesMut};

use codec::{Frame, Packet, Version, split_frame};

#[path = "../../broker/src/packet/mod.rs"]
#[allow(unreachable_pub, dead_code, unused_imports, reason = "the broker's own codec; it is checked there")]
mod codec;

/// As the node's own bound: one that is longer is refused by its header.
const PACKET_BYTES_MAX: usize = 262_144;

/// Cuts and reads. What decodes is written and read again, and must be the same.
pub(crate) fn run(data: &[u8]) {
    for version in [Version::V3_1_1, Version::V5] {
        let mut stream = BytesMut::from(data);
        while let Ok(Some(frame)) = split_frame(&mut stream, PACKET_BYTES_MAX) {
            let Ok(packet) = Packet::decode(frame, version) else { break };
            let version = match &packet {
                Packet::Connect(connect) => connect.version,
                _ => version,
            };
            let written = packet.to_bytes(version);
            let again = Packet::decode(only_frame(&written), version);
            assert_eq!(again.as_ref(), Ok(&packet), "written as {written:02x?}");
        }
    }
}

fn only_frame(bytes: &Bytes) -> Frame {
    let mut stream = BytesMut::from(&bytes[..]);
    match split_frame(&mut stream, usize::MAX) {
        Ok(Some(frame)) if stream.is_empty() => frame,
        other => panic!("{bytes:02x?} is cut into {other:?} and {stream:02x?}"),
    }
}
