//! A transcript of the oracle, played again by both sides of this crate, byte for byte.

use std::convert::Infallible;
use std::fmt::Display;

use rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use unhidra_core::durable::DurableSource;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::role::StockRole;
use unhidra_e2ee::session::Session;
use unhidra_e2ee::stock::{initiator_key, responder_key};
use x25519_dalek::{PublicKey, StaticSecret};

#[derive(Deserialize)]
struct Transcript {
    x3dh: Agreement,
    priv_a: Vec<String>,
    priv_b: Vec<String>,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Agreement {
    seed_a: String,
    seed_b: String,
    ik_a: String,
    ik_b: String,
    spk_priv: String,
    spk: String,
    ek_priv: String,
    ek: String,
    opk_priv: String,
    opk: String,
    x3dh_sk: String,
    ad: String,
    sad: String,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
enum Side {
    A,
    B,
}

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Event {
    Send { who: Side, id: usize, pt: String, header: String, ct: String },
    Recv { who: Side, id: usize, ok: bool },
}

/// What a transcript held.
pub(crate) struct Played {
    pub(crate) sent: usize,
    pub(crate) opened: usize,
    pub(crate) refused: usize,
}

/// Plays a transcript.
///
/// # Errors
///
/// Where the first difference is, and which.
pub(crate) fn play(json: &str) -> Result<Played, String> {
    let transcript: Transcript = serde_json::from_str(json).map_err(|e| format!("no transcript: {e}"))?;
    let (key, sad) = agree(&transcript.x3dh)?;
    let spk_secret = bytes32("spk_priv", &transcript.x3dh.spk_priv)?;
    let spk = bytes32("spk", &transcript.x3dh.spk)?;

    let mut first_key = NextKey(transcript.next_key(Side::A, 0)?);
    let mut a = Session::sending_first(&key, sad, spk, &mut first_key).ok_or("the SPK has small order")?;
    let mut b = Session::receiving_first(&key, sad, &spk_secret);
    let mut played = Played { sent: 0, opened: 0, refused: 0 };
    let mut wire = Vec::new();
    for (at, event) in transcript.events.iter().enumerate() {
        let here = |difference: String| format!("event {at}: {difference}");
        match event {
            Event::Send { who, id, pt, header, ct } => {
                let session = if *who == Side::A { &mut a } else { &mut b };
                let sealed = send(session, pt).map_err(here)?;
                same("envelope", &hex::encode(&sealed), &format!("{header}{ct}")).map_err(here)?;
                same("id", id, &wire.len()).map_err(here)?;
                wire.push((pt.clone(), sealed));
                played.sent += 1;
            }
            Event::Recv { who, id, ok } => {
                let session = if *who == Side::A { &mut a } else { &mut b };
                let (pt, sealed) = wire.get(*id).ok_or_else(|| here(format!("message {id} was never sent")))?;
                let mut rng = NextKey(transcript.next_key(*who, at)?);
                receive(session, sealed, ok.then_some(pt.as_str()), &mut rng).map_err(here)?;
                if *ok { played.opened += 1 } else { played.refused += 1 }
            }
        }
    }
    Ok(played)
}

/// Checks the agreement from both sides, and gives SK and SAD.
fn agree(x3dh: &Agreement) -> Result<([u8; 32], [u8; 32]), String> {
    let identity = |name, text| bytes32(name, text).map(|seed| IdentitySecret::from_seed(&seed));
    let (a, b) = (identity("seed_a", &x3dh.seed_a)?, identity("seed_b", &x3dh.seed_b)?);
    same("ik_a", &hex::encode(a.public().as_bytes()), &x3dh.ik_a)?;
    same("ik_b", &hex::encode(b.public().as_bytes()), &x3dh.ik_b)?;
    let pair = |name, secret: &String, public: &String| {
        let secret = bytes32(name, secret)?;
        same(name, &hex::encode(public_of(secret)), public)?;
        Ok::<_, String>((secret, public_of(secret)))
    };
    let (spk_secret, spk) = pair("spk", &x3dh.spk_priv, &x3dh.spk)?;
    let (opk_secret, opk) = pair("opk", &x3dh.opk_priv, &x3dh.opk)?;
    let (ek_secret, ek) = pair("ek", &x3dh.ek_priv, &x3dh.ek)?;
    let key = |text| IdentityKey::from_bytes(&bytes32("ik", text)?).map_err(|e| e.to_string());
    let sent = initiator_key(&a, &ek_secret, &key(&x3dh.ik_b)?, &spk, &opk).ok_or("a key has small order")?;
    let received =
        responder_key(&b, &spk_secret, &opk_secret, &key(&x3dh.ik_a)?, &ek).ok_or("a key has small order")?;
    same("SK of A", &hex::encode(*sent), &x3dh.x3dh_sk)?;
    same("SK of B", &hex::encode(*received), &x3dh.x3dh_sk)?;
    let ad = [a.public().as_bytes().as_slice(), b.public().as_bytes()].concat();
    let sad: [u8; 32] = Sha256::digest(&ad).into();
    same("ad", &hex::encode(ad), &x3dh.ad)?;
    same("sad", &hex::encode(sad), &x3dh.sad)?;
    Ok((*sent, sad))
}

fn send(session: &mut Session<StockRole>, plaintext: &str) -> Result<Vec<u8>, String> {
    let plaintext = hex::decode(plaintext).map_err(|e| e.to_string())?;
    let out = vec![0; session.sealed_len(plaintext.len())];
    let (_delta, pending) = session.seal(&plaintext, out).map_err(|e| e.to_string())?;
    // A transcript has no power cuts: nothing waits for a write.
    Ok(pending.release(DurableSource::new_for_storage().durable()))
}

fn receive(
    session: &mut Session<StockRole>,
    sealed: &[u8],
    expected: Option<&str>,
    rng: &mut NextKey,
) -> Result<(), String> {
    let Ok(Envelope::Message(message)) = Envelope::parse(sealed) else { return Err("no Message".into()) };
    let mut out = vec![0; sealed.len()];
    let before = state(session)?;
    let opened =
        session.open(&message, &mut out, UnixTime::EPOCH, rng).map(|(opened, _)| hex::encode(opened.plaintext()));
    match (opened, expected) {
        (Ok(found), Some(expected)) => same("plaintext", &found, &expected.to_string()),
        (Err(_), None) if state(session)? == before => Ok(()),
        (Err(_), None) => Err("a refused message moved the session".into()),
        (Ok(_), None) => Err("opened what the oracle refused".into()),
        (Err(error), Some(_)) => Err(format!("did not open: {error}")),
    }
}

fn state(session: &Session<StockRole>) -> Result<Vec<u8>, String> {
    let mut record = vec![0; session.encoded_len()];
    session.encode(&mut record).map_err(|e| e.to_string())?;
    Ok(record)
}

impl Transcript {
    /// The ratchet key a side makes if it makes one now: that of its next message. One it made for
    /// a message it then refused is in the log too, so keys are found by their public halves.
    fn next_key(&self, side: Side, from: usize) -> Result<[u8; 32], String> {
        let next = self.events.iter().skip(from).find_map(|event| match event {
            Event::Send { who, header, .. } if *who == side => Some(header),
            _ => None,
        });
        let Some(header) = next else { return Ok([1; 32]) };
        let public = header.get(2..66).ok_or("a short header")?;
        let log = if side == Side::A { &self.priv_a } else { &self.priv_b };
        for secret in log {
            let secret = bytes32("private key", secret)?;
            if hex::encode(public_of(secret)) == public {
                return Ok(secret);
            }
        }
        Err(format!("no private key for {public}"))
    }
}

/// A generator that makes one key, as often as it is asked.
struct NextKey([u8; 32]);

impl TryRng for NextKey {
    type Error = Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(0)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(0)
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.iter_mut().zip(self.0).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

impl TryCryptoRng for NextKey {}

fn public_of(secret: [u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(secret)).to_bytes()
}

fn bytes32(name: &str, text: &str) -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|e| format!("{name}: {e}"))?;
    Ok(bytes)
}

fn same<T: Display + PartialEq>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what} is\n  {found}, expected\n  {expected}")) }
}
