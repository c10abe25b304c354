//! Our side of a pairing: each role begins as the product begins it.

use std::num::NonZeroU8;

use rand::rngs::StdRng;
use sha2::{Digest, Sha256};
use unhidra_core::durable::{Durable, DurableSource};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, HEAD_LEN, HandshakeInit, Message, PrekeyRequest};
use unhidra_e2ee::error::{OpenError, SealError};
use unhidra_e2ee::handshake::{Enrolled, initiate, respond};
use unhidra_e2ee::identity::IdentitySecret;
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::recent::Recent;
use unhidra_e2ee::role::{DeviceRole, NodeRole, Role, StockRole};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::Sessions;
use unhidra_e2ee::skipped::Inline;
use unhidra_e2ee::stock::{initiator_key, responder_key};
use unhidra_e2ee::suite::Suite;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::peer::{Heard, Peer};

pub(crate) type Node = NodeRole<Inline<128>>;

/// What our side says first, or hears first.
pub(crate) const FIRST: &[u8] = b"hello bridge";
pub(crate) const NOON: UnixTime = UnixTime::from_s(1_900_000_000);

/// How each role seals: the device within a lease.
pub(crate) trait Side: Role {
    fn seal(ours: &mut Ours<Self>, text: &[u8], now: UnixTime, rng: &mut StdRng) -> Result<Vec<u8>, SealError>;
}

/// Our side, and what it has written.
pub(crate) struct Ours<R: Role> {
    pub(crate) sessions: Sessions<R>,
    lease: Option<Lease>,
    /// How many numbers a device leases at once.
    lease_len: NonZeroU8,
    /// How many ratchet keys of the other side it has heard.
    pub(crate) keys_heard: usize,
}

impl<R: Side> Ours<R> {
    fn of(session: Session<R>) -> Self {
        let sessions = Sessions::new(Some(session), None, Recent::default());
        Self { sessions, lease: None, lease_len: NonZeroU8::MIN.saturating_add(3), keys_heard: 0 }
    }

    pub(crate) fn present(&mut self) -> Result<&mut Session<R>, String> {
        self.sessions.present_mut().ok_or_else(|| "no session".into())
    }

    /// Everything opening could change.
    pub(crate) fn state(&mut self) -> Result<Vec<u8>, String> {
        let mut bytes: Vec<u8> = self.sessions.recent().tags().flat_map(|tag| tag.to_bytes()).collect();
        bytes.extend(record(self.present()?)?);
        Ok(bytes)
    }

    pub(crate) fn seal(&mut self, text: &[u8], now: UnixTime, rng: &mut StdRng) -> Result<Vec<u8>, SealError> {
        R::seal(self, text, now, rng)
    }

    pub(crate) fn open(&mut self, sealed: &[u8], now: UnixTime, rng: &mut StdRng) -> Result<Vec<u8>, OpenError> {
        let mut out = vec![0; sealed.len()];
        let (opened, _written_by_reboot) = match Envelope::parse(sealed) {
            Ok(Envelope::Message(message)) => self.sessions.open(&message, &mut out, now, rng)?,
            // A damaged type never reaches a session.
            _ => return Err(OpenError::UnknownKey { tried: false }),
        };
        self.keys_heard += usize::from(opened.stepped());
        Ok(opened.plaintext().to_vec())
    }

    /// Loses the memory: what is written goes on.
    pub(crate) fn reboot(&mut self) -> Result<(), String> {
        let record = record(self.present()?)?;
        let session = Session::decode(&record, None, None).map_err(|e| e.to_string())?;
        let recent = Recent::from_tags(self.sessions.recent().tags());
        self.sessions = Sessions::new(Some(session), None, recent);
        self.lease = None;
        Ok(())
    }
}

impl Side for StockRole {
    fn seal(ours: &mut Ours<Self>, text: &[u8], _: UnixTime, _: &mut StdRng) -> Result<Vec<u8>, SealError> {
        let session = ours.sessions.present_mut().ok_or(SealError::ChainSpent)?;
        let out = vec![0; session.sealed_len(text.len())];
        let (_delta, pending) = session.seal(text, out)?;
        Ok(pending.release(durable()))
    }
}

impl Side for Node {
    fn seal(ours: &mut Ours<Self>, text: &[u8], _: UnixTime, _: &mut StdRng) -> Result<Vec<u8>, SealError> {
        let session = ours.sessions.present_mut().ok_or(SealError::ChainSpent)?;
        let out = vec![0; session.sealed_len(text.len())];
        let (_delta, pending) = session.seal(text, out)?;
        Ok(pending.release(durable()))
    }
}

impl Side for DeviceRole {
    /// The bare Message: a stock peer knows nothing of heads.
    fn seal(ours: &mut Ours<Self>, text: &[u8], now: UnixTime, rng: &mut StdRng) -> Result<Vec<u8>, SealError> {
        let envelope = seal_envelope(ours, text, now, rng)?;
        match Envelope::parse(&envelope) {
            Ok(Envelope::HandshakeInit(init)) => Ok(envelope[init.head().len()..].to_vec()),
            _ => Ok(envelope),
        }
    }
}

fn seal_envelope(
    ours: &mut Ours<DeviceRole>,
    text: &[u8],
    now: UnixTime,
    rng: &mut StdRng,
) -> Result<Vec<u8>, SealError> {
    let session = ours.sessions.present_mut().ok_or(SealError::ChainSpent)?;
    let lease = match ours.lease.take() {
        Some(lease) if session.leased(&lease, now) > 0 => lease,
        _ => {
            let (_delta, pending) = session.lease(ours.lease_len, now, rng)?;
            pending.grant(durable())
        }
    };
    let mut out = vec![0; session.sealed_len(text.len())];
    let sealed = session.seal_within(&lease, text, &mut out, now)?.to_vec();
    ours.lease = Some(lease);
    Ok(sealed)
}

fn record<R: Role>(session: &Session<R>) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; session.encoded_len()];
    session.encode(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn durable() -> Durable {
    DurableSource::new_for_storage().durable()
}

/// The keys two sides begin with.
struct Keys {
    id: DeviceId,
    device: IdentitySecret,
    node: IdentitySecret,
    spk: SignedPrekeySecret,
    opk: OneTimePrekeySecret,
}

impl Keys {
    fn draw(rng: &mut StdRng) -> Result<Self, String> {
        Ok(Self {
            id: DeviceId::parse("pump-7").map_err(|e| e.to_string())?,
            device: IdentitySecret::generate(rng),
            node: IdentitySecret::generate(rng),
            spk: SignedPrekeySecret::generate(1, rng),
            opk: OneTimePrekeySecret::generate(1, rng),
        })
    }

    /// SK as the side that answers computes it.
    fn responder_key(&self, ephemeral: &[u8; 32]) -> Result<[u8; 32], String> {
        let device = self.device.public();
        let key = responder_key(&self.node, self.spk.secret(), self.opk.secret(), &device, ephemeral);
        key.map(|key| *key).ok_or_else(|| "a key has small order".into())
    }
}

fn opened(heard: Heard) -> Result<(), String> {
    match heard {
        Heard::Opened(text) if text == FIRST => Ok(()),
        Heard::Opened(_) => Err("the peer opened the first message as another".into()),
        Heard::Refused => Err("the peer refused the first message".into()),
    }
}

/// A stock side that begins.
pub(crate) fn stock_begins(peer: &mut Peer, rng: &mut StdRng) -> Result<Ours<StockRole>, String> {
    let keys = Keys::draw(rng)?;
    let (sk, sad) = ([7; 32], [9; 32]);
    let session = Session::sending_first(&sk, sad, *keys.spk.public(), rng).ok_or("the SPK has small order")?;
    let mut ours = Ours::of(session);
    let first = ours.seal(FIRST, NOON, rng).map_err(|e| e.to_string())?;
    opened(peer.answers(&sk, keys.spk.secret(), &sad, &first)?)?;
    Ok(ours)
}

/// A stock side that answers.
pub(crate) fn stock_answers(peer: &mut Peer, rng: &mut StdRng) -> Result<Ours<StockRole>, String> {
    let keys = Keys::draw(rng)?;
    let (sk, sad) = ([7; 32], [9; 32]);
    let mut ours = Ours::of(Session::receiving_first(&sk, sad, keys.spk.secret()));
    let first = peer.begins(&sk, keys.spk.public(), &sad, FIRST)?;
    match ours.open(&first, NOON, rng) {
        Ok(text) if text == FIRST => Ok(ours),
        other => Err(format!("the first message: {other:?}")),
    }
}

/// A device, begun by a bundle; the peer is told SK and SAD.
pub(crate) fn device(peer: &mut Peer, rng: &mut StdRng) -> Result<Ours<DeviceRole>, String> {
    let keys = Keys::draw(rng)?;
    let request = PrekeyRequest { suite: Suite::X3dh, nonce: [5; 16] };
    let (device, spk, opk) = (&keys.id, &keys.spk, &keys.opk);
    let parts = BundleParts { device, request, last_counter: 0, now: NOON, spk, opk };
    let bundle = parts.sign(&keys.node).map_err(|e| e.to_string())?;
    let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle.as_bytes()) else { return Err("no bundle".into()) };
    let bundle = bundle.verify(&keys.id, &keys.node.public(), &request.nonce).map_err(|e| e.to_string())?;
    let session = initiate(&keys.device, &keys.id, Suite::X3dh, &bundle, 0, NOON, rng).map_err(|e| e.to_string())?;
    let mut ours = Ours::of(session);
    let first = seal_envelope(&mut ours, FIRST, NOON, rng).map_err(|e| e.to_string())?;
    let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(&first) else { return Err("no handshake".into()) };
    let sk = keys.responder_key(init.ephemeral())?;
    // The record holds SAD at 64 (PROTOCOL.md section 12).
    let sad = record(ours.present()?)?.get(64..96).and_then(|sad| sad.try_into().ok()).ok_or("no SAD")?;
    opened(peer.answers(&sk, keys.spk.secret(), &sad, bare(&init, &first))?)?;
    Ok(ours)
}

fn bare<'a>(init: &HandshakeInit<'_>, envelope: &'a [u8]) -> &'a [u8] {
    envelope.get(init.head().len()..).unwrap_or_default()
}

/// A node; the peer seals the first message, and the head around it is computed here, from the
/// text of sections 4 and 5.
pub(crate) fn node(peer: &mut Peer, rng: &mut StdRng) -> Result<Ours<Node>, String> {
    let keys = Keys::draw(rng)?;
    let ek_secret = *IdentitySecret::generate(rng).seed();
    let ek = PublicKey::from(&StaticSecret::from(ek_secret)).to_bytes();
    let (device, node) = (keys.device.public(), keys.node.public());
    let sk = initiator_key(&keys.device, &ek_secret, &node, keys.spk.public(), keys.opk.public())
        .ok_or("a key has small order")?;
    let ids = [keys.spk.id(), keys.opk.id(), 1].map(u32::to_be_bytes).concat();
    let head = [&[2, 1], device.as_bytes().as_slice(), &ek, &ids].concat();
    if head.len() != HEAD_LEN {
        return Err("a head of another length".into());
    }
    let sad: [u8; 32] = Sha256::new()
        .chain_update(b"unhidra/sad/v1")
        .chain_update([6])
        .chain_update("pump-7")
        .chain_update(node.as_bytes())
        .chain_update(keys.spk.public())
        .chain_update(keys.opk.public())
        .chain_update(&head)
        .finalize()
        .into();
    let first = [head, peer.begins(&sk, keys.spk.public(), &sad, FIRST)?].concat();
    let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(&first) else { return Err("no handshake".into()) };
    let enrolled = Enrolled { device: &keys.id, identity: &device, suite: Suite::X3dh };
    let mut out = [0; 64];
    let (session, text) =
        respond(&keys.node, enrolled, &keys.spk, &keys.opk, &init, &mut out, NOON, rng).map_err(|e| e.to_string())?;
    if text.plaintext() != FIRST {
        return Err("the first message opened as another".into());
    }
    Ok(Ours { keys_heard: 1, ..Ours::of(session) })
}

/// The Message in bytes that a schedule made.
pub(crate) fn message(sealed: &[u8]) -> Result<Message<'_>, String> {
    match Envelope::parse(sealed) {
        Ok(Envelope::Message(message)) => Ok(message),
        other => Err(format!("no Message: {other:?}")),
    }
}
