//! What a device calls: all of it. Errors go to a log, or nowhere.

use core::fmt::Display;
use core::num::NonZeroU8;

use unhidra_e2ee::delta::StateDelta;
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::initiate;
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::recent::Recent;
use unhidra_e2ee::role::DeviceRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::suite::Suite;

use super::plain::{device_id, now};
use super::{any, bytes, chunk, durable, used};
use crate::rng::FixedRng;

/// Every operation of a device, on sessions as they are read back.
pub fn all(log: impl Fn(&dyn Display) + Copy) {
    let Some(mut sessions) = sessions(log) else { return };
    begin(&mut sessions, log);
    open(&mut sessions, log);
    if let Some(session) = sessions.present_mut() {
        seal(session, log);
        write(session, log);
        look(session);
    }
    sessions.clock_is(now());
    used(sessions.expire(now()));
    sessions.expire_keys(now()).for_each(used);
    used((sessions.keys_expire_at(), sessions.may_restart(now()), sessions.restart_due(now())));
    used(sessions.previous().is_some());
    sessions.recent().tags().for_each(used);
}

fn read(log: impl Fn(&dyn Display) + Copy) -> Option<Session<DeviceRole>> {
    let chain = any(Some(bytes()));
    Session::decode(bytes(), chain, chain).inspect_err(|error| log(error)).ok()
}

fn sessions(log: impl Fn(&dyn Display) + Copy) -> Option<Sessions<DeviceRole>> {
    let present = read(log)?;
    Some(Sessions::new(Some(present), read(log), Recent::default()))
}

fn begin(sessions: &mut Sessions<DeviceRole>, log: impl Fn(&dyn Display) + Copy) {
    let (Some(device), Ok(node)) = (device_id(), IdentityKey::from_bytes(chunk())) else { return };
    match Envelope::parse(bytes()) {
        Ok(Envelope::PreKeyBundle(bundle)) => match bundle.verify(&device, &node, chunk()) {
            Ok(verified) => {
                let own = IdentitySecret::from_seed(chunk());
                let (suite, rng) = (any(Suite::X3dh), &mut FixedRng::new(any(0)));
                used(verified.now());
                match initiate(&own, &device, suite, &verified, any(0), now(), rng) {
                    Ok(session) => sessions.begin(session, None),
                    Err(error) => log(&error),
                }
            }
            Err(error) => log(&error),
        },
        Ok(Envelope::ResetRequest(request)) => match request.verify(&device, &node) {
            Ok(verified) => used((sessions.obeys(&verified), verified.reason())),
            Err(error) => log(&error),
        },
        Ok(_) => {}
        Err(error) => log(&error),
    }
}

fn open(sessions: &mut Sessions<DeviceRole>, log: impl Fn(&dyn Display) + Copy) {
    let Ok(Envelope::Message(message)) = Envelope::parse(bytes()) else { return };
    let mut out = any([0; 2048]);
    used(sessions.needs_dh_step(&message, now()));
    match sessions.open(&message, &mut out, now(), &mut FixedRng::new(any(0))) {
        Ok((opened, moved)) => {
            used((opened.plaintext(), opened.tag(), opened.stepped()));
            used((moved.slot, moved.reset_due));
            record(&moved.delta);
        }
        Err(error) => refused(error, log),
    }
}

/// What a caller asks of the error of an open.
pub(super) fn refused(error: OpenError, log: impl Fn(&dyn Display) + Copy) {
    used((error.reset_due(), error.spent_dh_step(), error.is_within_long_try()));
    log(&error);
}

/// What a caller does with a delta.
pub(super) fn record(delta: &StateDelta) {
    if let StateDelta::Chain { lane, bytes } = delta {
        used((*lane, bytes.as_slice()));
    }
}

fn seal(session: &mut Session<DeviceRole>, log: impl Fn(&dyn Display) + Copy) {
    let count = any(NonZeroU8::MIN);
    match session.lease(count, now(), &mut FixedRng::new(any(0))) {
        Ok((delta, pending)) => {
            record(&delta);
            seal_within(session, &pending.grant(durable()), log);
        }
        Err(error) => log(&error),
    }
}

fn seal_within(session: &mut Session<DeviceRole>, lease: &Lease, log: impl Fn(&dyn Display) + Copy) {
    let mut out = any([0; 2048]);
    used(session.leased(lease, now()));
    match session.seal_within(lease, bytes(), &mut out, now()) {
        Ok(sealed) => used(sealed),
        Err(error) => log(&error),
    }
}

fn write(session: &Session<DeviceRole>, log: impl Fn(&dyn Display) + Copy) {
    let mut out = any([0; 2048]);
    used(session.encoded_len());
    if let Err(error) = session.encode(&mut out) {
        log(&error);
    }
    used(out);
}

fn look(session: &Session<DeviceRole>) {
    used((session.knows(chunk()), session.ratchet_key(), session.next_number(), session.counter()));
    used((session.suite(), session.began_at(), session.is_confirmed(), session.unanswered()));
    used(session.sealed_len(any(0)));
    used(IdentityKey::from_bytes(chunk()).is_ok_and(|key| session.serves(&key, any(Suite::X3dh))));
}
