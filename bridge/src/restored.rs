//! What a node that was put back from a backup does to a device's records, before it serves
//! (e2ee/PROTOCOL.md section 8).
//!
//! Since the backup the device may have moved on, message keys were used that these sessions would
//! use again, and handshakes were recorded that these prekeys would open again. So the sessions only
//! receive, the one-time prekey goes, and the device is asked for a new session. The node's signed
//! prekeys are replaced too: [`SignedPrekeys::replace`](crate::SignedPrekeys::replace).

use bytes::Bytes;
use unhidra_core::device::Device;
use unhidra_store::{Op, PrekeyChange, PrekeyKind, PrekeyRecord};

use crate::record::PeerRecord;

/// What is to be written of one device: `peer` is its record as it lies
/// ([`Stored::peer`](unhidra_store::Stored::peer)), `prekeys` hold its one-time prekeys.
///
/// Done twice, it skips more ids, and nothing else.
#[must_use]
pub fn put_back(device: &Device, peer: Option<&[u8]>, prekeys: &[PrekeyRecord]) -> Vec<Op> {
    let kind = PrekeyKind::OneTime(device.id);
    let own = prekeys.iter().filter(|record| record.kind == kind);
    let mut ops: Vec<Op> = own.map(|record| Op::Prekey(PrekeyChange::Delete { kind, id: record.id })).collect();
    let record = peer.map_or_else(|| Ok(PeerRecord::new(device.identity_key)), PeerRecord::decode);
    match record {
        Ok(record) => {
            let bytes = Bytes::copy_from_slice(&record.put_back().encode());
            ops.push(Op::Peer { device: device.id, bytes });
        }
        // Such a device is not taken into memory at all: nothing is sealed in its sessions.
        Err(error) => tracing::error!(device = %device.id, %error, "its record stays as it is"),
    }
    ops
}
