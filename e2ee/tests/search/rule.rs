//! The rules of sections 7 to 9 that live outside the crate, in what a bridge and a device do with
//! it. The model keeps each of them, unless it is told to leave one out.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// One rule.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Rule {
            $($(#[$doc])* $name,)+
        }

        impl Rule {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name, which is also that of the script that fails without it.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

rules! {
    /// 7: what the device seals, 31 more while the oldest is unacknowledged.
    Window = "device-sends-31-more",
    /// 7: the inner Message of a HandshakeInit is looked up among the last opened.
    RecentInit = "repeat-of-a-handshake-is-a-duplicate",
    /// 7: a duplicate is acknowledged.
    DuplicateAcknowledged = "duplicate-is-acknowledged",
    /// 7: a reading id among the last 64 is a duplicate.
    ReadingIds = "reading-id-is-remembered",
    /// 7: the long try.
    LongTry = "long-try",
    /// 7: the long try, once in 10 minutes.
    LongTryOnce = "long-try-once-in-10-minutes",
    /// 7: the device begins a session when a message of the node is beyond its jump.
    RestartWhenFar = "device-restarts-when-out-of-reach",
    /// 7: and when the node refuses a message again that was sealed anew in the same session.
    RestartWhenRefused = "device-restarts-when-refused-again",
    /// 7: the device begins a session when its chain is long.
    RestartWhenLong = "device-restarts-when-its-chain-is-long",
    /// 7: of a clock that was set back, the hour counts from then.
    ClockSetBack = "clock-set-back-ends-its-hours",
    /// 7: failed DH steps, 10 a minute.
    StepBudget = "ten-failed-steps-a-minute",
    /// 7: those of handshakes apart.
    HandshakesApart = "failed-messages-stop-no-handshake",
    /// 7: an unknown ratchet key or session is answered with a ResetRequest.
    AnswersUnknown = "unknown-key-is-answered",
    /// 7: so is a HandshakeInit whose prekeys are not held.
    AnswersUnknownPrekeys = "unknown-prekeys-are-answered",
    /// 7: one ResetRequest an hour.
    ResetOnce = "one-reset-an-hour",
    /// 7: one that was due within the hour is sent when it is over.
    ResetOwed = "reset-is-owed-over-the-hour",
    /// 7: the hour is committed before the request leaves.
    ResetHourCommitted = "reset-hour-is-committed-first",
    /// 8: a lease is written before its numbers are used.
    LeaseWritten = "lease-is-written-first",
    /// 8: a lease is taken with the first message, never at boot.
    NoLeaseAtBoot = "no-lease-at-boot",
    /// 8: nothing is sealed without a connection.
    SealConnected = "nothing-is-sealed-offline",
    /// 8: retransmission is not a seal.
    SameBytesAgain = "retransmission-is-no-seal",
    /// 8: the device writes, then acts.
    WriteThenAct = "device-writes-then-acts",
    /// 8: the command id is written with the message.
    CommandIdKept = "command-id-is-remembered",
    /// 8: a command past its expiry is not acted on.
    Expiry = "expired-command-is-not-acted-on",
    /// 8: nor one with an expiry before the device knows the time.
    ExpiryNeedsTime = "no-expiry-is-judged-without-the-time",
    /// 8: the node repeats no command past its expiry.
    NodeExpires = "node-repeats-no-expired-command",
    /// 8: the node commits, then acknowledges.
    CommitThenAcknowledge = "node-commits-then-acknowledges",
    /// 8: one commit moves the ratchet and appends the reading.
    OneCommit = "one-commit-moves-and-appends",
    /// 8: the node commits, then sends.
    CommitThenSend = "node-commits-then-sends",
    /// 8: a command is sealed anew under the same id after a crash.
    RepeatAnew = "command-is-repeated-after-a-crash",
    /// 8: a write that fails makes the session in memory void.
    VoidAfterFailure = "failed-write-voids-the-session",
    /// 8: what was refused is sealed anew in the next session or after 10 minutes.
    SealRefusedAnew = "refused-reading-is-sealed-anew",
    /// 8: a restored node makes new prekeys.
    RestoreNewPrekeys = "restored-node-makes-new-prekeys",
    /// 8: a restored session only receives.
    RestoreReceives = "restored-session-only-receives",
    /// 8: a restored node asks for a reset.
    RestoreAsks = "restored-node-asks-for-a-session",
    /// 9: the node answers a HandshakeInit with hello.
    Hello = "handshake-is-answered",
    /// 9: at most once a minute.
    HelloOnce = "one-hello-a-minute",
    /// 9: any message sealed within the minute serves.
    HelloServed = "any-message-is-a-hello",
    /// 9: an equal counter with the same EK is the same session.
    SameCounterOpens = "repeated-head-opens-in-its-session",
    /// 9: a refused counter is answered with a ResetRequest.
    RefusedCounterAnswered = "refused-counter-is-answered",
    /// 9: the last counter moves only in the commit that opens.
    CounterMovesWithOpen = "counter-moves-only-when-it-opens",
    /// 9: the one-time prekey is deleted only there.
    PrekeyGoesWithOpen = "prekey-goes-only-when-it-opens",
    /// 9: and it is deleted there.
    PrekeyGoes = "prekey-serves-once",
    /// 4, 9: the one-time prekey that waits is handed out again.
    PrekeyWaits = "prekey-waits-for-its-handshake",
    /// 9: a new IK sets the counter to 0.
    NewIdentityCounter = "new-identity-counts-from-nought",
    /// 9: a new IK ends all sessions.
    NewIdentityEnds = "new-identity-ends-all-sessions",
    /// 9: a device that has connected and has nothing to send says so.
    SpeaksUp = "device-speaks-up-when-it-connects",
    /// 9: the device sends what is in flight before its HandshakeInit.
    InFlightFirst = "in-flight-goes-first",
    /// 9: `alive`.
    Alive = "node-keeps-a-silent-chain-alive",
    /// 9: at most once an hour.
    AliveOnce = "one-alive-an-hour",
    /// 9: one old SPK is kept.
    KeepsOldPrekey = "one-old-signed-prekey-is-kept",
    /// 9: the SPK is rotated weekly.
    RotatesPrekey = "signed-prekey-is-rotated",
    /// 9: the device obeys a ResetRequest.
    Obeys = "reset-is-obeyed",
    /// 9: only one that names the ratchet key it now sends under.
    ObeysPresent = "reset-names-the-present-key",
    /// 4: a bundle answers one nonce.
    BundleNonce = "bundle-answers-one-nonce",
}
