//! What is on its way between the two, and everything an adversary has seen of it.

use unhidra_e2ee::envelope::{Envelope, Message};

/// The rows to the device.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum DownRow {
    Commands,
    Prekeys,
}

/// A publish of the device, or of somebody in its place.
#[derive(Clone)]
pub(crate) struct UpPacket {
    /// What the device knows it by; forged ones have none.
    pub(crate) publication: Option<u64>,
    pub(crate) is_get: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A publish of the node, or of somebody in its place.
#[derive(Clone)]
pub(crate) struct DownPacket {
    /// What the node knows it by; forged ones have none.
    pub(crate) ticket: Option<u64>,
    pub(crate) row: DownRow,
    pub(crate) bytes: Vec<u8>,
}

impl UpPacket {
    pub(crate) fn new(publication: Option<u64>, is_get: bool, bytes: &[u8]) -> Self {
        Self { publication, is_get, bytes: bytes.to_vec() }
    }
}

/// The network.
#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) up: Vec<UpPacket>,
    pub(crate) down: Vec<DownPacket>,
    /// All that ever left, in order.
    pub(crate) seen_up: Vec<UpPacket>,
    pub(crate) seen_down: Vec<DownPacket>,
    pub(crate) connected: bool,
    /// How many acknowledgements of the node will be lost.
    pub(crate) acks_lost: u8,
}

impl Wire {
    pub(crate) fn send_up(&mut self, packets: Vec<UpPacket>) {
        self.seen_up.extend(packets.iter().cloned());
        if self.connected {
            self.up.extend(packets);
        }
    }

    pub(crate) fn send_down(&mut self, packet: DownPacket) {
        self.seen_down.push(packet.clone());
        if self.connected {
            self.down.push(packet);
        }
    }

    /// The connection ends, and what is on its way with it.
    pub(crate) fn disconnect(&mut self) {
        self.connected = false;
        self.up.clear();
        self.down.clear();
    }

    /// The newest message of a row that satisfies `which`.
    pub(crate) fn last_up(&self, which: impl Fn(&Envelope<'_>) -> bool) -> Option<Vec<u8>> {
        let newest = self.seen_up.iter().rev().filter(|packet| !packet.is_get);
        newest.map(|packet| &packet.bytes).find(|bytes| Envelope::parse(bytes).is_ok_and(|e| which(&e))).cloned()
    }

    /// The same of the other direction.
    pub(crate) fn last_down(&self, which: impl Fn(&Envelope<'_>) -> bool) -> Option<Vec<u8>> {
        let newest = self.seen_down.iter().rev();
        newest.map(|packet| &packet.bytes).find(|bytes| Envelope::parse(bytes).is_ok_and(|e| which(&e))).cloned()
    }
}

/// The Message of an envelope that carries one.
pub(crate) fn inner_message(bytes: &[u8]) -> Option<Message<'_>> {
    match Envelope::parse(bytes) {
        Ok(Envelope::Message(message)) => Some(message),
        Ok(Envelope::HandshakeInit(init)) => Some(init.message()),
        _ => None,
    }
}

/// Where a Message begins in an envelope that carries one.
pub(crate) fn inner_at(bytes: &[u8]) -> usize {
    inner_message(bytes).map_or(0, |m| bytes.len() - m.header().len() - m.ciphertext().len() - m.tag().len())
}

/// The nonce that a bundle answers.
pub(crate) fn bundle_nonce(bytes: &[u8]) -> [u8; 16] {
    bytes[2..18].try_into().expect("a bundle has a nonce")
}
