//! What the bridge counts, as plain numbers; `metrics.rs` shows them.

/// Counts since they were last taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Messages that opened, handshakes' first ones too.
    pub opened: u64,
    /// Handshakes that began a session.
    pub sessions: u64,
    /// Repeats of messages taken before.
    pub duplicates: u64,
    /// Repeats of readings, sealed anew.
    pub repeated_readings: u64,
    /// Opened, and no valid plaintext or of an unknown kind.
    pub ignored: u64,
    /// Bytes that are no envelope, or one that a device does not send.
    pub malformed: u64,
    /// Envelopes whose tag does not verify.
    pub forged: u64,
    /// Message numbers whose key is gone.
    pub too_old: u64,
    /// Message numbers beyond the jump.
    pub too_far: u64,
    /// Long tries of such numbers, whether they opened or not.
    pub long_tries: u64,
    /// The same number with another tag: a device whose state went back.
    pub rolled_back: u64,
    /// Ratchet keys or prekeys this node does not know.
    pub unknown: u64,
    /// Handshakes of another identity key, suite or counter.
    pub refused_handshakes: u64,
    /// Refused unread, the budget for failed key agreements being spent.
    pub over_budget: u64,
    /// Bundles given out.
    pub bundles: u64,
    /// ResetRequests sent.
    pub resets: u64,
    /// Messages sealed.
    pub sealed: u64,
    /// Commands whose time was over before an answer.
    pub expired: u64,
    /// Receipts of commands that are not open: said after the end, or of none there is.
    pub late_receipts: u64,
    /// Settings that a device has acknowledged.
    pub settings_known: u64,
    /// Devices whose records could not be read.
    pub unreadable: u64,
    /// Devices whose session records were not of the same moment as their rows.
    pub stale: u64,
}
