//! What a node calls, and what the oracle's peer calls: the rest of e2ee.

use unhidra_e2ee::envelope::{Envelope, HandshakeInit, PrekeyRequest};
use unhidra_e2ee::handshake::{Enrolled, respond};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::Recent;
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::{NodeRole, Role, StockRole};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::skipped::Inline;
use unhidra_e2ee::stock::{initiator_key, responder_key};
use unhidra_e2ee::suite::Suite;

use super::device::{record, refused};
use super::plain::{device_id, now};
use super::{any, bytes, chunk, durable, say, tell, used};
use crate::rng::FixedRng;

type Node = NodeRole<Inline<128>>;

/// Every operation of a node, on sessions as they are read back.
pub fn all() {
    let Some(mut sessions) = sessions() else { return };
    let rng = &mut FixedRng::new(any(0));
    let spk = SignedPrekeySecret::generate(any(1), rng);
    let opk = OneTimePrekeySecret::generate(any(1), rng);
    used(OneTimePrekeySecret::generate_for(any(Suite::X3dh), any(1), rng).is_some());
    used((spk.id(), *spk.public(), *spk.secret(), opk.id(), *opk.public(), *opk.secret()));
    let spk = SignedPrekeySecret::from_bytes(any(1), chunk());
    let opk = with_kem(OneTimePrekeySecret::from_bytes(any(1), chunk()));
    used(opk.suite());
    sign(&spk, &opk);
    if let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(bytes()) {
        begin(&mut sessions, &spk, &opk, &init);
    }
    open(&mut sessions);
    if let Some(session) = sessions.present_mut() {
        seal(session);
    }
    sessions.set_restored();
    sessions.clock_is(now());
    used(sessions.expire(now()));
    sessions.expire_keys(now()).for_each(used);
    used(sessions.keys_expire_at());
    say(&sessions);
}

/// Every operation that the oracle's peer has and others do not.
pub fn stock() {
    let identity = IdentitySecret::from_seed(chunk());
    let Ok(other) = IdentityKey::from_bytes(chunk()) else { return };
    used(responder_key(&identity, chunk(), chunk(), &other, chunk()));
    let Some(key) = initiator_key(&identity, chunk(), &other, chunk(), chunk()) else { return };
    let rng = &mut FixedRng::new(any(0));
    if let Some(mut session) = Session::<StockRole>::sending_first(&key, *chunk(), *chunk(), rng) {
        used(session.seal(bytes(), any([0; 512])).is_ok());
    }
    let mut session = Session::receiving_first(&key, *chunk(), chunk());
    let mut out = any([0; 2048]);
    if let Ok(Envelope::Message(message)) = Envelope::parse(bytes()) {
        used(session.open(&message, &mut out, now(), rng).is_ok());
    }
    write(&session);
}

/// The prekey, of either suite.
#[cfg(feature = "pqxdh")]
fn with_kem(opk: OneTimePrekeySecret) -> OneTimePrekeySecret {
    use unhidra_e2ee::prekey::KemSeed;

    used(*KemSeed::generate(&mut FixedRng::new(any(0))).as_bytes());
    let opk = if any(false) { opk.with_kem(KemSeed::from_bytes(chunk())) } else { opk };
    used(opk.kem_seed().is_some());
    opk
}

#[cfg(not(feature = "pqxdh"))]
fn with_kem(opk: OneTimePrekeySecret) -> OneTimePrekeySecret {
    opk
}

fn read<R: Role>() -> Option<Session<R>> {
    let chain = any(Some(bytes()));
    Session::decode(bytes(), chain, chain).inspect_err(|error| tell(error)).ok()
}

fn write<R: Role>(session: &Session<R>) {
    let mut out = any([0; 2048]);
    used(session.encode(&mut out).is_ok());
    used(out);
}

fn sessions() -> Option<Sessions<Node>> {
    let present = read()?;
    Some(Sessions::new(Some(present), read(), Recent::default()))
}

fn sign(spk: &SignedPrekeySecret, opk: &OneTimePrekeySecret) {
    let (Some(device), Ok(request)) = (device_id(), PrekeyRequest::parse(bytes())) else { return };
    let node = IdentitySecret::from_seed(chunk());
    let parts = BundleParts { device: &device, request, last_counter: any(0), now: now(), spk, opk };
    match parts.sign(&node) {
        Ok(bundle) => used(bundle.as_bytes()),
        Err(error) => tell(&error),
    }
    used(sign_reset(&node, &device, any(ResetReason::Counter), chunk()));
}

fn begin(sessions: &mut Sessions<Node>, spk: &SignedPrekeySecret, opk: &OneTimePrekeySecret, init: &HandshakeInit<'_>) {
    let (Some(device), Ok(identity)) = (device_id(), IdentityKey::from_bytes(chunk())) else { return };
    let enrolled = Enrolled { device: &device, identity: &identity, suite: any(Suite::X3dh) };
    let mut out = any([0; 2048]);
    let node = IdentitySecret::from_seed(chunk());
    used(sessions.compare(init, any(0)));
    let begun = respond(&node, enrolled, spk, opk, init, &mut out, now(), &mut FixedRng::new(any(0)));
    match begun {
        Ok((session, opened)) => sessions.begin(session, Some(opened.tag())),
        Err(error) => {
            used((error.reset_due(), error.spent_dh_step()));
            tell(&error);
        }
    }
}

fn open(sessions: &mut Sessions<Node>) {
    let Ok(Envelope::Message(message)) = Envelope::parse(bytes()) else { return };
    let (mut out, rng) = (any([0; 2048]), &mut FixedRng::new(any(0)));
    used(sessions.needs_dh_step(&message, now()));
    match sessions.open(&message, &mut out, now(), rng) {
        Ok((_, moved)) => record(&moved.delta),
        Err(error) => refused(error, |error| tell(error)),
    }
    if let Err(error) = sessions.open_by_long_try(&message, &mut out, now(), rng) {
        refused(error, |error| tell(error));
    }
}

fn seal(session: &mut Session<Node>) {
    match session.seal(bytes(), any([0; 512])) {
        Ok((delta, pending)) => {
            record(&delta);
            used(pending.release(durable()));
        }
        Err(error) => tell(&error),
    }
    used((session.has_room_for_alive(), session.alive_due_at()));
    write(session);
}
