//! What a node whose store went back to an earlier moment (a backup that was put back, a power cut
//! that took the newest) does to a device's records, before it serves (e2ee/PROTOCOL.md section 8).
//!
//! Since that moment the device may have moved on, message keys were used that these sessions would
//! use again, and handshakes were recorded that these prekeys would open again. So the sessions only
//! receive, the one-time prekey goes, and the device is asked for a new session. The node's signed
//! prekeys are replaced too: [`SignedPrekeys::replace`](crate::SignedPrekeys::replace).

use bytes::Bytes;
use unhidra_core::command::{By, Command, Ended, Ending};
use unhidra_core::device::Device;
use unhidra_core::setting::Setting;
use unhidra_core::time::UnixTime;
use unhidra_store::{Op, PrekeyChange, PrekeyKind, PrekeyRecord};

use crate::record::{PeerRecord, PeerRecordError};

/// What is to be written of one device: `peer` is its record as it lies
/// ([`Stored::peer`](unhidra_store::Stored::peer)), `prekeys` hold its one-time prekeys.
///
/// Done twice, it skips more ids, and nothing else.
///
/// # Errors
///
/// [`PeerRecordError`] where its record is none: nobody knows what it holds its sessions to, so nothing may be
/// served from them.
pub fn put_back(device: &Device, peer: Option<&[u8]>, prekeys: &[PrekeyRecord]) -> Result<Vec<Op>, PeerRecordError> {
    let record = peer.map_or_else(|| Ok(PeerRecord::new(device.identity_key)), PeerRecord::decode)?;
    let kind = PrekeyKind::OneTime(device.id);
    let own = prekeys.iter().filter(|record| record.kind == kind);
    let mut ops: Vec<Op> = own.map(|record| Op::Prekey(PrekeyChange::Delete { kind, id: record.id })).collect();
    ops.push(Op::Peer { device: device.id, bytes: Bytes::copy_from_slice(&record.put_back().encode()) });
    Ok(ops)
}

/// What is to be written of what a device was to be told: `commands` are those that are not final in
/// the store as it is.
///
/// They may have been sent and carried out since, so they end, and are sent to
/// nobody. Settings are wanted still; the device may hold newer ones, so they get newer versions.
#[must_use]
pub fn put_back_told(commands: Vec<Command>, settings: Vec<Setting>, now: UnixTime) -> Vec<Op> {
    let cause = "the store went back to an earlier moment; it may have been carried out since";
    let commands = commands.into_iter().map(|mut command| {
        command.end(Ended::new(Ending::Failed, By::Node, cause, now));
        Op::Command(command)
    });
    let newest = settings.iter().map(|setting| setting.version).max().unwrap_or_default().max(now.as_ms());
    let settings = (1_u64..)
        .zip(settings)
        .map(|(n, setting)| Op::Setting(Setting { version: newest.saturating_add(n), acknowledged: None, ..setting }));
    commands.chain(settings).collect()
}
