//! What another program computes from the text of PROTOCOL.md (e2ee/oracle/vectors.py), against
//! this crate. README.md beside the files says what each holds.

use std::collections::VecDeque;
use std::num::NonZeroU8;

use rand_core::{TryCryptoRng, TryRng};
use serde::Deserialize;
use serde_json::Value;
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, EnvelopeError, PrekeyRequest};
use unhidra_e2ee::handshake::{BundleError, Enrolled, initiate, respond};
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::plaintext::{Kind, Plaintext, PlaintextError, Status, padded_len};
use unhidra_e2ee::prekey::{BundleParts, OneTimePrekeySecret, SignedPrekeySecret};
use unhidra_e2ee::record::STATE_LEN;
use unhidra_e2ee::reset::{ResetReason, sign_reset};
use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::suite::{Suite, is_built};

use crate::pair::{Node, durable, encode, handshake, message};

pub(crate) const HANDSHAKES: &str = include_str!("../vectors/handshakes.json");
const BUNDLES: &str = include_str!("../vectors/bundles.json");
const RESETS: &str = include_str!("../vectors/resets.json");
const PLAINTEXTS: &str = include_str!("../vectors/plaintexts.json");
const STATES: &str = include_str!("../vectors/states.json");

/// Bytes, written in hexadecimal.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct Hex(pub(crate) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = hex::FromHexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        hex::decode(text).map(Self)
    }
}

impl Hex {
    pub(crate) fn array<const N: usize>(&self) -> [u8; N] {
        self.0.as_slice().try_into().unwrap()
    }
}

/// The parties of a vector, and their prekeys.
#[derive(Deserialize)]
pub(crate) struct Given {
    device_id: String,
    device_seed: Hex,
    node_seed: Hex,
    spk_id: u32,
    spk: Hex,
    opk_id: u32,
    opk: Hex,
    kem_seed: Option<Hex>,
    pub(crate) kem_m: Option<Hex>,
    pub(crate) last_counter: u32,
}

pub(crate) struct Parties {
    pub(crate) id: DeviceId,
    pub(crate) device: IdentitySecret,
    pub(crate) node: IdentitySecret,
    pub(crate) spk: SignedPrekeySecret,
    pub(crate) opk: OneTimePrekeySecret,
}

impl Given {
    pub(crate) fn parties(&self) -> Parties {
        let opk = OneTimePrekeySecret::from_bytes(self.opk_id, &self.opk.array());
        Parties {
            id: DeviceId::parse(&self.device_id).unwrap(),
            device: IdentitySecret::from_seed(&self.device_seed.array()),
            node: IdentitySecret::from_seed(&self.node_seed.array()),
            spk: SignedPrekeySecret::from_bytes(self.spk_id, &self.spk.array()),
            opk: with_kem(opk, self.kem_seed.as_ref()),
        }
    }
}

#[cfg(feature = "pqxdh")]
fn with_kem(opk: OneTimePrekeySecret, seed: Option<&Hex>) -> OneTimePrekeySecret {
    use unhidra_e2ee::prekey::KemSeed;
    match seed {
        Some(seed) => opk.with_kem(KemSeed::from_bytes(&seed.array())),
        None => opk,
    }
}

#[cfg(not(feature = "pqxdh"))]
fn with_kem(opk: OneTimePrekeySecret, _: Option<&Hex>) -> OneTimePrekeySecret {
    opk
}

/// A generator that gives these secrets, in this order, and no other.
pub(crate) struct Draw(VecDeque<Vec<u8>>);

impl Draw {
    pub(crate) fn of<'a>(secrets: impl IntoIterator<Item = &'a Hex>) -> Self {
        Self(secrets.into_iter().map(|secret| secret.0.clone()).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryRng for Draw {
    type Error = std::convert::Infallible;
    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        panic!("secrets are drawn whole")
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        panic!("secrets are drawn whole")
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.copy_from_slice(&self.0.pop_front().expect("a secret nobody gave"));
        Ok(())
    }
}

impl TryCryptoRng for Draw {}

/// Whether the vectors of a suite play in this build. A byte that is no suite plays: as an error.
pub(crate) fn plays(suite: u8) -> bool {
    Suite::from_byte(suite).is_none_or(is_built)
}

#[derive(Deserialize)]
struct Contact {
    suite: u8,
    given: ContactGiven,
    expected: Expected,
}

#[derive(Deserialize)]
struct ContactGiven {
    #[serde(flatten)]
    parties: Given,
    ek: Hex,
    device_ratchet: Hex,
    node_ratchet: Hex,
    nonce: Hex,
    now_s: u64,
    first_text: Hex,
    answer_text: Hex,
}

#[derive(Deserialize)]
struct Expected {
    request: Hex,
    bundle: Hex,
    handshake_init: Hex,
    answer: Hex,
    reset: Hex,
    sad: Hex,
    root_key: Hex,
    sending_chain_key: Hex,
}

#[test]
fn a_first_contact_has_the_bytes_that_the_protocol_says() {
    let contacts: Vec<Contact> = serde_json::from_str(HANDSHAKES).unwrap();
    assert_eq!(contacts.iter().map(|contact| contact.suite).collect::<Vec<_>>(), [1, 2]);
    for Contact { suite, given, expected } in contacts.iter().filter(|contact| plays(contact.suite)) {
        let suite = Suite::from_byte(*suite).unwrap();
        let Parties { id, device: device_identity, node: node_identity, spk, opk } = given.parties.parties();
        let now = UnixTime::from_s(given.now_s);
        let request = PrekeyRequest { suite, nonce: given.nonce.array() };
        assert_eq!(request.encode().as_slice(), expected.request.0);

        let last_counter = given.parties.last_counter;
        let parts = BundleParts { device: &id, request, last_counter, now, spk: &spk, opk: &opk };
        let bundle = parts.sign(&node_identity).unwrap();
        assert_eq!(bundle.as_bytes(), expected.bundle.0);
        let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle.as_bytes()) else { panic!("no bundle") };
        let bundle = bundle.verify(&id, &node_identity.public(), &request.nonce).unwrap();
        assert_eq!(bundle.now(), now);

        let mut draw = Draw::of([&given.ek].into_iter().chain(&given.parties.kem_m).chain([&given.device_ratchet]));
        let mut device = initiate(&device_identity, &id, suite, &bundle, 0, now, &mut draw).unwrap();
        let record = encode(&device);
        assert_eq!(record[32..64], expected.root_key.0);
        assert_eq!(record[64..96], expected.sad.0);
        assert_eq!(record[208..240], expected.sending_chain_key.0);
        let (_delta, lease) = device.lease(NonZeroU8::MIN, now, &mut draw).unwrap();
        let mut out = [0; 1500];
        let init = device.seal_within(&lease.grant(durable()), &given.first_text.0, &mut out, now).unwrap();
        assert_eq!(init, expected.handshake_init.0);

        let device_key = device_identity.public();
        let enrolled = Enrolled { device: &id, identity: &device_key, suite };
        let mut text = [0; 16];
        let mut draw = Draw::of([&given.node_ratchet]);
        let (mut node, opened): (Session<Node>, _) =
            respond(&node_identity, enrolled, &spk, &opk, &handshake(init), &mut text, now, &mut draw).unwrap();
        assert_eq!(opened.plaintext(), given.first_text.0);
        let out = vec![0; node.sealed_len(given.answer_text.0.len())];
        let (_delta, pending) = node.seal(&given.answer_text.0, out).unwrap();
        let answer = pending.release(durable());
        assert_eq!(answer, expected.answer.0);
        let (opened, _delta) = device.open(&message(&answer), &mut text, now, &mut draw).unwrap();
        assert_eq!(opened.plaintext(), given.answer_text.0);

        let reset = sign_reset(&node_identity, &id, ResetReason::RolledBack, handshake(init).message().ratchet_key());
        assert_eq!(reset.as_slice(), expected.reset.0);
    }
}

/// Every value of the vector stands in the text, in the order of its bytes.
#[test]
fn the_worked_example_is_the_vector() {
    let text = include_str!("../../PROTOCOL.md");
    let (_, worked) = text.split_once("## 15. A first contact, worked").unwrap();
    let words: String = worked.split_whitespace().filter(|word| hex::decode(word).is_ok()).collect();
    let contacts: Vec<Value> = serde_json::from_str(HANDSHAKES).unwrap();
    let (given, expected) = (&contacts[0]["given"], &contacts[0]["expected"]);
    let mut seen = 0;
    for (name, value) in [given, expected].into_iter().flat_map(|fields| fields.as_object().unwrap()) {
        let Some(value) = value.as_str().filter(|value| value.len() >= 64) else { continue };
        assert!(words.contains(value), "{name}: {value}");
        seen += 1;
    }
    assert_eq!(seen, 20);
}

fn envelope_error(error: EnvelopeError) -> &'static str {
    match error {
        EnvelopeError::TooShort { .. } => "TooShort",
        EnvelopeError::TooLong { .. } => "TooLong",
        EnvelopeError::UnknownSuite { .. } => "UnknownSuite",
        EnvelopeError::UnknownReason { .. } => "UnknownReason",
        other => panic!("{other}"),
    }
}

#[derive(Deserialize)]
struct BundleCase {
    name: String,
    suite: u8,
    device_id: String,
    node: Hex,
    nonce: Hex,
    bundle: Hex,
    error: Option<String>,
}

#[test]
fn a_bundle_is_taken_or_refused_as_the_protocol_says() {
    let cases: Vec<BundleCase> = serde_json::from_str(BUNDLES).unwrap();
    let (mut taken, mut refused) = (0, 0);
    for case in cases.iter().filter(|case| plays(case.suite)) {
        let id = DeviceId::parse(&case.device_id).unwrap();
        let node = IdentityKey::from_bytes(&case.node.array()).unwrap();
        let found = match Envelope::parse(&case.bundle.0) {
            Err(error) => Err(envelope_error(error)),
            Ok(Envelope::PreKeyBundle(bundle)) => match bundle.verify(&id, &node, &case.nonce.array()) {
                Ok(_) => Ok(()),
                Err(BundleError::Nonce) => Err("Nonce"),
                Err(BundleError::Identity) => Err("Identity"),
                Err(BundleError::Signature(_)) => Err("Signature"),
            },
            Ok(other) => panic!("{other:?}"),
        };
        assert_eq!(found.err(), case.error.as_deref(), "{}, suite {}", case.name, case.suite);
        if found.is_ok() { taken += 1 } else { refused += 1 }
    }
    let suites = if is_built(Suite::Pqxdh) { 2 } else { 1 };
    assert_eq!((taken, refused), (suites, 14 * suites));
}

#[derive(Deserialize)]
struct ResetCase {
    name: String,
    device_id: String,
    node: Hex,
    request: Hex,
    reason: Option<u8>,
    error: Option<String>,
}

#[test]
fn a_reset_request_is_taken_or_refused_as_the_protocol_says() {
    let cases: Vec<ResetCase> = serde_json::from_str(RESETS).unwrap();
    for case in &cases {
        let id = DeviceId::parse(&case.device_id).unwrap();
        let node = IdentityKey::from_bytes(&case.node.array()).unwrap();
        let found = match Envelope::parse(&case.request.0) {
            Err(error) => Err(envelope_error(error)),
            Ok(Envelope::ResetRequest(request)) => request.verify(&id, &node).map_err(|_| "Signature"),
            Ok(other) => panic!("{other:?}"),
        };
        assert_eq!(found.map(|reset| reset.reason().as_byte()).ok(), case.reason, "{}", case.name);
        assert_eq!(found.err(), case.error.as_deref(), "{}", case.name);
    }
    assert_eq!(cases.len(), 14);
}

#[derive(Deserialize)]
struct Plaintexts {
    valid: Vec<ValidPlaintext>,
    with_unknown_keys: Vec<KindAlone>,
    invalid: Vec<InvalidPlaintext>,
    padded_len: Vec<PaddedLen>,
}

#[derive(Deserialize)]
struct ValidPlaintext {
    fields: PlaintextFields,
    padded: Hex,
}

#[derive(Deserialize)]
struct PlaintextFields {
    kind: u64,
    name: Option<String>,
    device_time_ms: Option<u64>,
    body: Option<Hex>,
    command_id: Option<Hex>,
    status: Option<u64>,
    expires_at_ms: Option<u64>,
    transfer: Option<u64>,
    chunk_offset: Option<u64>,
    total: Option<u64>,
    reading_id: Option<u64>,
}

#[derive(Deserialize)]
struct KindAlone {
    kind: u64,
    padded: Hex,
}

#[derive(Deserialize)]
struct InvalidPlaintext {
    padded: Hex,
    error: String,
}

#[derive(Deserialize)]
struct PaddedLen {
    map: usize,
    padded: usize,
}

fn status(number: u64) -> Status {
    let all = [Status::Accepted, Status::Done, Status::Failed, Status::Expired, Status::Unknown];
    all.into_iter().find(|status| u64::from(status.as_byte()) == number).unwrap()
}

#[test]
fn a_plaintext_has_the_bytes_that_the_protocol_says() {
    let plaintexts: Plaintexts = serde_json::from_str(PLAINTEXTS).unwrap();
    for ValidPlaintext { fields, padded } in &plaintexts.valid {
        let plaintext = Plaintext {
            kind: Kind::from_number(fields.kind),
            name: fields.name.as_deref(),
            device_time: fields.device_time_ms.map(UnixTime::from_ms),
            body: fields.body.as_ref().map(|body| body.0.as_slice()),
            command_id: fields.command_id.as_ref().map(|id| CommandId::new(id.array())),
            status: fields.status.map(status),
            expires_at: fields.expires_at_ms.map(UnixTime::from_ms),
            transfer: fields.transfer,
            chunk_offset: fields.chunk_offset,
            total: fields.total,
            reading_id: fields.reading_id,
        };
        let mut out = vec![0xee; plaintext.padded_len()];
        assert_eq!(plaintext.encode_padded(&mut out), Ok(padded.0.len()));
        assert_eq!(out, padded.0);
        assert_eq!(Plaintext::decode(&padded.0), Ok(plaintext));
    }
    for KindAlone { kind, padded } in &plaintexts.with_unknown_keys {
        assert_eq!(Plaintext::decode(&padded.0).unwrap().kind.number(), *kind, "{padded:?}");
    }
    for InvalidPlaintext { padded, error } in &plaintexts.invalid {
        let found = match Plaintext::decode(&padded.0).unwrap_err() {
            PlaintextError::Cbor => "Cbor",
            PlaintextError::Value { .. } => "Value",
            PlaintextError::NoKind => "NoKind",
            PlaintextError::Padding { .. } => "Padding",
        };
        assert_eq!(found, error, "{}", hex::encode(&padded.0));
    }
    for PaddedLen { map, padded } in &plaintexts.padded_len {
        assert_eq!(padded_len(*map), *padded, "a map of {map}");
    }
    let Plaintexts { valid, with_unknown_keys, invalid, padded_len } = &plaintexts;
    assert_eq!((valid.len(), with_unknown_keys.len(), invalid.len(), padded_len.len()), (28, 3, 45, 16));
}

#[derive(Deserialize)]
struct StateCase {
    name: String,
    version: u8,
    whole: Hex,
    fields: Option<StateFields>,
    receive: Option<Hex>,
    send: Option<Hex>,
    merged: Option<Hex>,
}

#[derive(Deserialize)]
struct StateFields {
    role: String,
    suite: u8,
    counter: u32,
    began_ms: u64,
    own_key: Hex,
    peer_key: Hex,
    next_number: Option<u32>,
    answered: u32,
    skipped: Vec<Value>,
    head_len: usize,
}

/// Reads a record, compares what can be seen of it, and gives what is written again.
fn read_back<R: Role>(case: &StateCase) -> Vec<u8> {
    let [receive, send] = [&case.receive, &case.send].map(|record| record.as_ref().map(|hex| hex.0.as_slice()));
    let session = Session::<R>::decode(&case.whole.0, receive, send).unwrap();
    if let Some(fields) = &case.fields {
        assert_eq!(session.suite().as_byte(), fields.suite);
        assert_eq!((session.counter(), session.began_at().as_ms()), (fields.counter, fields.began_ms));
        assert_eq!(session.ratchet_key().as_slice(), fields.own_key.0);
        assert!(session.knows(&fields.peer_key.array()));
        assert_eq!(session.next_number(), fields.next_number.unwrap_or_default());
        assert_eq!(session.unanswered(), fields.next_number.unwrap_or_default().saturating_sub(fields.answered));
        assert_eq!(session.is_confirmed(), fields.head_len == 0);
        assert_eq!(case.whole.0.len(), STATE_LEN + 2 + 48 * fields.skipped.len() + fields.head_len);
    }
    encode(&session)
}

/// Every record there ever was, for ever: a version that is added keeps those before it.
#[test]
fn every_state_record_is_read_and_written_again() {
    let cases: Vec<StateCase> = serde_json::from_str(STATES).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for case in &cases {
        let (role, suite) = (case.whole.0[1], case.whole.0[2]);
        assert_eq!(case.version, 1);
        seen.insert((role, suite, case.name.clone()));
        if !plays(suite) {
            continue;
        }
        let written = match role {
            1 => read_back::<DeviceRole>(case),
            2 => read_back::<Node>(case),
            other => panic!("role {other}"),
        };
        let expected = case.merged.as_ref().unwrap_or(&case.whole);
        assert_eq!(hex::encode(written), hex::encode(&expected.0), "{} of role {role}, suite {suite}", case.name);
        assert!(case.fields.as_ref().is_none_or(|fields| fields.role == ["", "device", "node"][usize::from(role)]));
    }
    assert_eq!(seen.len(), 20, "{seen:?}");
}
