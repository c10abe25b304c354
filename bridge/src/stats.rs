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
    /// Of them, those to devices whose state had gone back.
    pub went_back: u64,
    /// Messages sealed.
    pub sealed: u64,
    /// Commands whose time was over before an answer.
    pub expired: u64,
    /// Receipts of commands that are not open: said after the end, or of none there is.
    pub late_receipts: u64,
    /// Settings that a device has acknowledged.
    pub settings_known: u64,
    /// Messages whose device's records could not be read, or are damaged.
    pub unreadable: u64,
    /// Devices whose session records were not of the same moment as their rows.
    pub stale: u64,
    /// Message numbers that were passed over when a later one opened.
    pub passed_over: u64,
    /// Messages that opened after one with a higher number.
    pub late: u64,
}

impl Stats {
    /// Each count with its other, put together by `with`.
    fn zip(self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            opened: with(self.opened, other.opened),
            sessions: with(self.sessions, other.sessions),
            duplicates: with(self.duplicates, other.duplicates),
            repeated_readings: with(self.repeated_readings, other.repeated_readings),
            ignored: with(self.ignored, other.ignored),
            malformed: with(self.malformed, other.malformed),
            forged: with(self.forged, other.forged),
            too_old: with(self.too_old, other.too_old),
            too_far: with(self.too_far, other.too_far),
            long_tries: with(self.long_tries, other.long_tries),
            rolled_back: with(self.rolled_back, other.rolled_back),
            unknown: with(self.unknown, other.unknown),
            refused_handshakes: with(self.refused_handshakes, other.refused_handshakes),
            over_budget: with(self.over_budget, other.over_budget),
            bundles: with(self.bundles, other.bundles),
            resets: with(self.resets, other.resets),
            went_back: with(self.went_back, other.went_back),
            sealed: with(self.sealed, other.sealed),
            expired: with(self.expired, other.expired),
            unreadable: with(self.unreadable, other.unreadable),
            stale: with(self.stale, other.stale),
            late_receipts: with(self.late_receipts, other.late_receipts),
            settings_known: with(self.settings_known, other.settings_known),
            passed_over: with(self.passed_over, other.passed_over),
            late: with(self.late, other.late),
        }
    }

    /// What was counted since `before`.
    pub(crate) fn since(self, before: &Self) -> Self {
        self.zip(before, u64::saturating_sub)
    }

    /// Both together.
    pub(crate) fn and(self, other: &Self) -> Self {
        self.zip(other, u64::saturating_add)
    }
}
