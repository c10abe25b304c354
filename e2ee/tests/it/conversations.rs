//! Conversations as another program holds them from the text of PROTOCOL.md
//! (e2ee/oracle/vectors.py), event by event: every envelope, every refusal, and after each event
//! the whole state record.

use std::num::NonZeroU8;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::Envelope;
use unhidra_e2ee::error::OpenError;
use unhidra_e2ee::handshake::{Enrolled, initiate, respond};
use unhidra_e2ee::lease::Lease;
use unhidra_e2ee::recent::Recent;
use unhidra_e2ee::role::{DeviceRole, Role};
use unhidra_e2ee::session::Session;
use unhidra_e2ee::sessions::{Handshake, Sessions};
use unhidra_e2ee::suite::{Suite, is_built};

use crate::pair::{Node, durable, encode, handshake, message};
use crate::vectors::{Draw, Given, Hex, Parties, plays};

const MESSAGES: &str = include_str!("../vectors/messages.json");

#[derive(Deserialize)]
struct Conversation {
    suite: u8,
    given: ConversationGiven,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct ConversationGiven {
    #[serde(flatten)]
    parties: Given,
    /// How many numbers the device leases at once.
    lease: u8,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Who {
    Device,
    Node,
}

#[derive(Deserialize)]
struct Event {
    #[serde(flatten)]
    what: What,
    who: Who,
    now_ms: u64,
    /// Secrets that the side drew, in order.
    #[serde(default)]
    new_keys: Vec<Hex>,
    state_sha256: Hex,
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum What {
    Begin { bundle: Hex, nonce: Hex },
    Seal { text: Hex, envelope: Hex },
    Open { envelope: Hex, text: Option<Hex>, error: Option<String> },
    Reboot,
}

struct World<'a> {
    suite: Suite,
    given: &'a ConversationGiven,
    parties: Parties,
    device: Sessions<DeviceRole>,
    lease: Option<Lease>,
    node: Sessions<Node>,
}

fn error_name(error: OpenError) -> &'static str {
    match error {
        OpenError::Duplicate => "Duplicate",
        OpenError::RolledBack { .. } => "RolledBack",
        OpenError::TooOld { .. } => "TooOld",
        OpenError::TooFar { .. } => "TooFar",
        OpenError::UnknownKey { .. } => "UnknownKey",
        OpenError::HostileKey { .. } => "HostileKey",
        OpenError::BadTag { .. } => "BadTag",
        OpenError::OutTooSmall { .. } => "OutTooSmall",
    }
}

fn opened<R: Role>(
    sessions: &mut Sessions<R>,
    envelope: &[u8],
    now: UnixTime,
    draw: &mut Draw,
) -> Result<Vec<u8>, &'static str> {
    let mut out = vec![0; envelope.len()];
    let (opened, _moved) = sessions.open(&message(envelope), &mut out, now, draw).map_err(error_name)?;
    Ok(opened.plaintext().to_vec())
}

fn rebooted<R: Role>(sessions: &Sessions<R>) -> Sessions<R> {
    let record = encode(sessions.present().unwrap());
    let session = Session::decode(&record, None, None).unwrap();
    Sessions::new(Some(session), None, Recent::from_tags(sessions.recent().tags()))
}

impl World<'_> {
    fn begin(&mut self, bundle: &[u8], nonce: &Hex, event: &Event, now: UnixTime) {
        let Ok(Envelope::PreKeyBundle(bundle)) = Envelope::parse(bundle) else { panic!("no bundle") };
        let Parties { id, device, node, .. } = &self.parties;
        let bundle = bundle.verify(id, &node.public(), &nonce.array()).unwrap();
        let [ek, ratchet] = event.new_keys.as_slice() else { panic!("two keys") };
        let mut draw = Draw::of([ek].into_iter().chain(&self.given.parties.kem_m).chain([ratchet]));
        let session = initiate(device, id, self.suite, &bundle, 0, now, &mut draw).unwrap();
        assert!(draw.is_empty());
        self.device.begin(session, None);
    }

    fn device_seals(&mut self, text: &[u8], now: UnixTime, draw: &mut Draw) -> Vec<u8> {
        let session = self.device.present_mut().unwrap();
        let covered = self.lease.as_ref().map_or(0, |lease| session.leased(lease, now));
        if covered == 0 {
            let count = NonZeroU8::new(self.given.lease).unwrap();
            let (_delta, lease) = session.lease(count, now, draw).unwrap();
            self.lease = Some(lease.grant(durable()));
        }
        let mut out = vec![0; session.sealed_len(text.len())];
        session.seal_within(self.lease.as_ref().unwrap(), text, &mut out, now).unwrap().to_vec()
    }

    fn node_seals(&mut self, text: &[u8]) -> Vec<u8> {
        let session = self.node.present_mut().unwrap();
        let out = vec![0; session.sealed_len(text.len())];
        let (_delta, pending) = session.seal(text, out).unwrap();
        pending.release(durable())
    }

    fn node_opens(&mut self, envelope: &[u8], now: UnixTime, draw: &mut Draw) -> Result<Vec<u8>, &'static str> {
        if self.node.present().is_none() {
            let (init, mut out) = (handshake(envelope), vec![0; envelope.len()]);
            let Parties { id, device, node, spk, opk } = &self.parties;
            let device = device.public();
            let enrolled = Enrolled { device: id, identity: &device, suite: self.suite };
            let (session, opened) = respond(node, enrolled, spk, opk, &init, &mut out, now, draw).unwrap();
            let (text, tag) = (opened.plaintext().to_vec(), opened.tag());
            self.node.begin(session, Some(tag));
            return Ok(text);
        }
        if let Ok(Envelope::HandshakeInit(init)) = Envelope::parse(envelope) {
            assert_eq!(self.node.compare(&init, 1), Handshake::Same);
        }
        opened(&mut self.node, envelope, now, draw)
    }

    fn play(&mut self, event: &Event) {
        let now = UnixTime::from_ms(event.now_ms);
        let mut draw = Draw::of(&event.new_keys);
        match (&event.what, event.who) {
            (What::Begin { bundle, nonce }, Who::Device) => {
                self.begin(&bundle.0, nonce, event, now);
                draw = Draw::of([]);
            }
            (What::Begin { .. }, Who::Node) => panic!("a node begins nothing"),
            (What::Seal { text, envelope }, Who::Device) => {
                assert_eq!(hex::encode(self.device_seals(&text.0, now, &mut draw)), hex::encode(&envelope.0));
            }
            (What::Seal { text, envelope }, Who::Node) => {
                assert_eq!(hex::encode(self.node_seals(&text.0)), hex::encode(&envelope.0));
            }
            (What::Open { envelope, text, error }, who) => {
                let found = match who {
                    Who::Device => opened(&mut self.device, &envelope.0, now, &mut draw),
                    Who::Node => self.node_opens(&envelope.0, now, &mut draw),
                };
                assert_eq!(found.clone().err(), error.as_deref());
                assert_eq!(found.ok().as_ref(), text.as_ref().map(|text| &text.0));
            }
            (What::Reboot, Who::Device) => {
                self.device = rebooted(&self.device);
                self.lease = None;
            }
            (What::Reboot, Who::Node) => self.node = rebooted(&self.node),
        }
        assert!(draw.is_empty(), "a key was not drawn");
        let state = match event.who {
            Who::Device => encode(self.device.present().unwrap()),
            Who::Node => encode(self.node.present().unwrap()),
        };
        assert_eq!(Sha256::digest(&state).as_slice(), event.state_sha256.0, "the state: {}", hex::encode(&state));
    }
}

#[test]
fn a_conversation_has_the_bytes_and_the_state_that_the_protocol_says() {
    let conversations: Vec<Conversation> = serde_json::from_str(MESSAGES).unwrap();
    assert_eq!(conversations.iter().map(|told| told.suite).collect::<Vec<_>>(), [1, 2]);
    let mut played = 0;
    for Conversation { suite, given, events } in conversations.iter().filter(|told| plays(told.suite)) {
        let suite = Suite::from_byte(*suite).unwrap();
        let parties = given.parties.parties();
        let (device, node) = Default::default();
        let mut world = World { suite, given, parties, device, lease: None, node };
        for (at, event) in events.iter().enumerate() {
            let here = std::panic::AssertUnwindSafe(|| world.play(event));
            assert!(std::panic::catch_unwind(here).is_ok(), "suite {suite}, event {at}");
        }
        let refused = events.iter().filter(|event| matches!(event.what, What::Open { error: Some(_), .. })).count();
        assert!(events.len() > 150 && refused > 15, "{refused} refused of {}", events.len());
        played += 1;
    }
    assert_eq!(played, if is_built(Suite::Pqxdh) { 2 } else { 1 });
}
