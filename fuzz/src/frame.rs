//! What a WebSocket client says.

/// Reads a text frame as the gateway does.
pub(crate) fn run(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = unhidra_gateway::is_client_frame(text);
    }
}
