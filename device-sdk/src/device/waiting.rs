//! What came from the node and the application has yet to take.

use heapless::{String, Vec};
use unhidra_core::ids::CommandId;
use unhidra_core::time::UnixTime;

use crate::client::Delivery;
use crate::outbox::NAME_LEN_MAX;

/// A message of the node that waits for the application.
pub(super) struct Waiting<const BODY: usize> {
    pub(super) delivery: Option<Delivery>,
    pub(super) what: What,
    pub(super) name: String<NAME_LEN_MAX>,
    pub(super) body: Vec<u8, BODY>,
}

/// What it is.
#[derive(Clone, Copy)]
pub(super) enum What {
    Command { id: CommandId, expires_at: Option<UnixTime>, waits_for_time: bool },
    Setting { version: u64, is_removed: bool },
}
