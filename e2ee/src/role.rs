//! Who holds a session, and every bound that follows from it (PROTOCOL.md section 7).

use core::marker::PhantomData;
use core::time::Duration;

use crate::envelope::HEAD_LEN_MAX;
use crate::head::Head;
use crate::skipped::{Inline, SkippedKeys};
use crate::suite::Suite;

/// How long both sides keep receiving in the previous session.
pub const PREVIOUS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// A message that opens in the previous session later than this after the present one began shows
/// a device that does not know of the new one.
pub const PREVIOUS_USUAL: Duration = Duration::from_secs(60 * 60);
/// How many opened messages are remembered, over all sessions.
pub const RECENT_MAX: usize = 32;
/// A device starts a new session when its chain reaches this number...
pub const CHAIN_LEN_MAX: u32 = 32_768;
/// ... and no oftener than this, whatever the cause but a ResetRequest.
pub const RESTART_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// A device takes an owed DH step when its chain has as many messages...
pub const STEP_AFTER_MESSAGES: u32 = 128;
/// ... or is as old.
pub const STEP_AFTER: Duration = Duration::from_secs(10 * 60);

/// How far the node tries N on a known chain beyond its jump...
pub const LONG_TRY_MAX: u32 = 65_536;
/// ... and no oftener than this, a device.
pub const LONG_TRY_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The node sends `alive` when the device's chain is as old...
pub const ALIVE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// ... or has as many messages...
pub const ALIVE_AFTER_MESSAGES: u32 = 10_000;
/// ... and no oftener than this...
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// ... and not to a device that has left as many messages unanswered: half of what may be, so that
/// a command finds room whenever it comes.
pub const ALIVE_UNANSWERED_MAX: u32 = 32;

/// One side of a session. Implemented here alone: a bound is never the caller's choice.
pub trait Role: sealed::Sealed + Sized {
    /// Its byte in a state record.
    const BYTE: u8;
    /// How far N may jump at once.
    const JUMP_MAX: u32;
    /// How many skipped message keys a session keeps. When full the oldest goes.
    const SKIPPED_MAX: usize;
    /// How long it keeps them.
    const SKIPPED_AGE_MAX: Option<Duration>;
    /// How many messages it seals without opening one in between.
    const UNANSWERED_MAX: Option<u32>;
    /// Whether it makes a new ratchet key as soon as it opens a message under a new key of the
    /// other side, or owes the step for a while.
    const STEPS_AT_ONCE: bool;
    /// Where skipped message keys are.
    type Skipped: SkippedKeys;
    /// Where the head of an unconfirmed handshake is.
    type Head: HeadSlot;
}

/// A role that commits a seal and then releases its bytes; the device's leases do without.
pub trait CommitsFirst: Role {}

/// The device: few keys, kept inline; owed steps; leases.
#[derive(Debug)]
pub enum DeviceRole {}

impl Role for DeviceRole {
    const BYTE: u8 = 1;
    const JUMP_MAX: u32 = 128;
    const SKIPPED_MAX: usize = 16;
    const SKIPPED_AGE_MAX: Option<Duration> = None;
    const UNANSWERED_MAX: Option<u32> = None;
    const STEPS_AT_ONCE: bool = false;
    type Skipped = Inline<16>;
    type Head = KeptHead;
}

/// The node, with its skipped keys in `S`: out of line where there is an allocator, or 50 000
/// sessions would take a quarter of a gigabyte.
#[derive(Debug)]
pub struct NodeRole<S>(PhantomData<S>);

impl<S: SkippedKeys> Role for NodeRole<S> {
    const BYTE: u8 = 2;
    const JUMP_MAX: u32 = 2048;
    const SKIPPED_MAX: usize = 128;
    const SKIPPED_AGE_MAX: Option<Duration> = Some(Duration::from_secs(24 * 60 * 60));
    const UNANSWERED_MAX: Option<u32> = Some(64);
    const STEPS_AT_ONCE: bool = true;
    type Skipped = S;
    type Head = NoHead;
}

impl<S: SkippedKeys> CommitsFirst for NodeRole<S> {}

/// A side of a stock Double Ratchet, with the bounds of the oracle's transcripts.
#[derive(Debug)]
pub enum StockRole {}

impl Role for StockRole {
    const BYTE: u8 = 3;
    const JUMP_MAX: u32 = 64;
    const SKIPPED_MAX: usize = 64;
    const SKIPPED_AGE_MAX: Option<Duration> = None;
    const UNANSWERED_MAX: Option<u32> = None;
    const STEPS_AT_ONCE: bool = true;
    type Skipped = Inline<64>;
    type Head = NoHead;
}

impl CommitsFirst for StockRole {}

/// Where the head of a handshake waits until the node has answered in the new session.
pub trait HeadSlot: sealed::Sealed + Default {
    /// The most bytes a head in it has.
    const LEN_MAX: usize;
    /// The head, while unconfirmed.
    fn head(&self) -> Option<&[u8]>;
    /// Forgets it.
    fn confirm(&mut self);
    /// A slot with a head in it that was written down, where this role begins sessions.
    fn holding(suite: Suite, head: &[u8]) -> Option<Self>;
}

/// The device's.
#[derive(Debug, Default)]
pub struct KeptHead(pub(crate) Option<Head>);

impl HeadSlot for KeptHead {
    const LEN_MAX: usize = HEAD_LEN_MAX;
    fn head(&self) -> Option<&[u8]> {
        self.0.as_ref().map(Head::as_bytes)
    }
    fn confirm(&mut self) {
        self.0 = None;
    }
    fn holding(suite: Suite, head: &[u8]) -> Option<Self> {
        Head::from_bytes(suite, head).map(|head| Self(Some(head)))
    }
}

/// The side that answers has none.
#[derive(Debug, Default)]
pub struct NoHead;

impl HeadSlot for NoHead {
    const LEN_MAX: usize = 0;
    fn head(&self) -> Option<&[u8]> {
        None
    }
    fn confirm(&mut self) {}
    fn holding(_: Suite, _: &[u8]) -> Option<Self> {
        None
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::DeviceRole {}
    impl<S> Sealed for super::NodeRole<S> {}
    impl Sealed for super::StockRole {}
    impl Sealed for super::KeptHead {}
    impl Sealed for super::NoHead {}
}
