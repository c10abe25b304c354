//! Leases: how a device seals many messages for one write of flash (PROTOCOL.md section 8).
//!
//! ```text
//! Session::lease(count) -> (StateDelta, PendingLease)     a due DH step is taken here
//!        write the delta -> Durable
//! PendingLease::grant(Durable) -> Lease
//! Session::seal_within(&Lease, ..)                        its bytes may leave at once
//! ```
//!
//! What is written holds the sending chain at the lease's end, always; so a device that loses its
//! memory goes on there and uses no number twice.
//!
//! A device has no other way to seal: what compiles for a role that commits first
//!
//! ```
//! # use unhidra_e2ee::{role::StockRole, session::Session};
//! fn seals(session: &mut Session<StockRole>) -> bool {
//!     session.seal(b"21.5", [0; 61]).is_ok()
//! }
//! ```
//!
//! does not for a device.
//!
//! ```compile_fail,E0599
//! # use unhidra_e2ee::{role::DeviceRole, session::Session};
//! fn seals(session: &mut Session<DeviceRole>) -> bool {
//!     session.seal(b"21.5", [0; 61]).is_ok()
//! }
//! ```

use unhidra_core::durable::Durable;

use crate::keys::KeyId;

/// A lease that is not yet durable.
#[derive(Debug)]
#[must_use = "a lease that is never granted seals nothing"]
pub struct PendingLease(pub(crate) Lease);

/// The right to seal the numbers of one chain up to an end.
#[derive(Debug, Eq, PartialEq)]
pub struct Lease {
    pub(crate) chain: KeyId,
    pub(crate) end: u32,
}

impl PendingLease {
    /// The lease, once the state that [`lease`](crate::session::Session::lease) asked to be
    /// written is durable.
    #[must_use]
    pub fn grant(self, _: Durable) -> Lease {
        self.0
    }
}
