//! What a WebSocket client says.

#[path = "../../gateway/src/frame.rs"]
#[allow(unreachable_pub, dead_code, reason = "the gateway's own codec; it is checked there")]
mod codec;

pub(crate) use codec::Id;

/// Reads a text frame as the gateway does.
pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = codec::Request::parse(text);
    }
}
