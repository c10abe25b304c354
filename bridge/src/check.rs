//! Whether what the store keeps for the bridge reads, for whoever looks over a store without serving
//! from it.

use unhidra_e2ee::role::NodeRole;
use unhidra_e2ee::session::Session;
use unhidra_store::{PrekeyKind, PrekeyRecord, StoredSession};

use crate::prekeys::{SignedPrekeys, one_time};
use crate::record::PeerRecord;
use crate::role::Shelf;

/// Reads a session, and what its chains have become since.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn check_session(session: &StoredSession) -> Result<(), String> {
    let StoredSession { whole, receive, send } = session;
    let read = Session::<NodeRole<Shelf>>::decode(whole, receive.as_deref(), send.as_deref());
    read.map(|_| ()).map_err(|cause| cause.to_string())
}

/// Reads what outlives a device's sessions.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn check_peer(bytes: &[u8]) -> Result<(), String> {
    PeerRecord::decode(bytes).map(|_| ()).map_err(|cause| cause.to_string())
}

/// Reads a prekey's secret.
///
/// # Errors
///
/// What is wrong with it, in words.
pub fn check_prekey(prekey: &PrekeyRecord) -> Result<(), String> {
    let read = match prekey.kind {
        PrekeyKind::Signed => SignedPrekeys::restore(std::slice::from_ref(prekey)).map(|_| ()),
        PrekeyKind::OneTime(_) => one_time(prekey).map(|_| ()),
    };
    read.map_err(|cause| cause.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use unhidra_core::time::UnixTime;

    use super::*;

    #[test]
    fn what_does_not_read_is_told_and_what_does_is_not() {
        assert_eq!(check_peer(&PeerRecord::new([7; 32]).encode()), Ok(()));
        assert!(check_peer(b"peer").unwrap_err().contains("version 112"));
        assert!(check_peer(&[3; 69]).unwrap_err().contains("69 bytes"));
        let session = |whole| StoredSession { whole: Bytes::from_static(whole), receive: None, send: None };
        assert!(check_session(&session(b"no session")).is_err());
        let device = "pump-7".parse().unwrap();
        for (kind, len, reads) in [
            (PrekeyKind::Signed, 32, true),
            (PrekeyKind::Signed, 33, false),
            (PrekeyKind::OneTime(device), 32, true),
            (PrekeyKind::OneTime(device), 96, true),
            (PrekeyKind::OneTime(device), 95, false),
        ] {
            let prekey = PrekeyRecord { kind, id: 1, created_at: UnixTime::EPOCH, secret: vec![9; len].into() };
            assert_eq!(check_prekey(&prekey).is_ok(), reads, "{kind:?} {len}");
        }
    }
}
