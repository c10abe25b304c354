//! What the rules of e2ee/PROTOCOL.md come to between two sides.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod pair;

mod bounds;
mod conversations;
mod edges;
mod envelopes;
mod fingerprints;
mod handshakes;
mod hostile;
mod leases;
mod opened;
mod oracle;
mod plaintexts;
mod random;
mod records;
mod resets;
#[cfg(feature = "pqxdh")]
mod suites;
mod tampering;
mod unchanged;
mod vectors;
