//! One ratchet session per device: opens uplinks, seals commands.
//!
//! [`Bridge`] is the state of one shard: the devices it owns and nothing of the others'. It does
//! no I/O and knows no clock. What happens to it comes in through the `handle_` methods, what
//! follows goes out through the `poll_` methods:
//!
//! ```text
//! Delivery, link, command ----> Bridge --poll_load---> read a device's records
//!          records, timeout -->        --poll_draft--> commit, then answer and publish
//! ```
//!
//! The bridge opens ahead of the store, so nothing it concludes may leave before its draft is
//! durable. Drafts are committed in the order they are taken; when one fails, [`Bridge::forget`]
//! drops every session, and all is read again.
//!
//! Cost: a device in memory is its session (about 300 bytes), its registry record, and 64 reading
//! ids once it has sent readings.

mod budget;
mod check;
mod commands;
mod config;
mod door;
mod draft;
mod gaps;
mod handshake;
mod link;
mod metrics;
mod peer;
mod prekeys;
mod record;
mod restored;
mod role;
mod settings;
mod shard;
mod stats;
mod told;
mod uplink;
pub mod upstream;

pub use check::{check_peer, check_prekey, check_session};
pub use commands::Outcome;
pub use config::{Config, ConfigError};
pub use draft::{Asked, CommandRefused, Connection, Draft, Effect, Payload, Publish, Ticket};
pub use handshake::begins;
pub use metrics::{Metrics, outcomes};
pub use peer::{Loaded, RestoreError, holds_old_keys};
pub use prekeys::{SignedPrekeys, SignedPrekeysError};
pub use record::{PeerRecordError, Resets};
pub use restored::{put_back, put_back_told};
pub use settings::{Changed, NewSetting, SettingList, SettingRefused};
pub use shard::{Bridge, Now};
pub use stats::Stats;
// The node makes and keeps the identity, and imports no ratchet: it has the type from here.
pub use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
// So with what a person compares.
pub use unhidra_e2ee::fingerprint::{CODE_LEN, CodeError, Comparison, Fingerprint};
