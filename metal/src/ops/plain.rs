//! What both sides call: envelopes, plaintexts, identities, fingerprints.

use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::time::{Timestamp, UnixTime};
use unhidra_core::topic::{TopicFilter, TopicName};
use unhidra_e2ee::envelope::{Envelope, HandshakeInit, Message, PrekeyRequest, bundle_len, head_len};
use unhidra_e2ee::fingerprint::Fingerprint;
use unhidra_e2ee::identity::{IdentityKey, IdentitySecret};
use unhidra_e2ee::plaintext::{Kind, Plaintext, Status, padded_len};
use unhidra_e2ee::recent::{MessageTag, Recent};
use unhidra_e2ee::reset::ResetReason;
use unhidra_e2ee::suite::{Suite, built, is_built};

use super::{any, bytes, chunk, say, tell, used};
use crate::rng::FixedRng;

/// An instant of which nothing is known.
#[must_use]
pub fn now() -> UnixTime {
    UnixTime::from_ms(any(0))
}

/// A device id of which nothing is known.
#[must_use]
pub fn device_id() -> Option<DeviceId> {
    let text = core::str::from_utf8(bytes()).ok()?;
    DeviceId::parse(text).ok()
}

/// Everything of this module.
pub fn all() {
    core_nouns();
    envelopes();
    plaintexts();
    identities();
    recent();
}

fn core_nouns() {
    let Ok(text) = core::str::from_utf8(bytes()) else { return };
    used(TopicName::parse(text).inspect_err(|error| tell(error)).is_ok());
    if let (Ok(name), Ok(filter)) = (TopicName::parse(text), TopicFilter::parse(text)) {
        used(filter.matches(name));
    }
    used(DeviceId::parse(text).inspect_err(|error| tell(error)).is_ok());
    let id = CommandId::new(*chunk());
    used(*id.as_bytes());
    let (at, later) = (Timestamp::from_ms(any(0)), Timestamp::from_ms(any(1)));
    used(at.saturating_add(later.saturating_since(at)).as_ms());
    used(now().as_s());
    if let Some(id) = device_id() {
        used(id.as_str().len());
        say(&id);
    }
}

fn envelopes() {
    match Envelope::parse(bytes()) {
        Ok(Envelope::Message(message)) => message_fields(&message),
        Ok(Envelope::HandshakeInit(init)) => head_fields(&init),
        Ok(envelope) => say(&envelope),
        Err(error) => tell(&error),
    }
    if let Ok(request) = PrekeyRequest::parse(bytes()) {
        used(request.encode());
    }
    match built(any(1)) {
        Ok(suite) => used((suite.as_byte(), is_built(suite), bundle_len(suite), head_len(suite))),
        Err(error) => tell(&error),
    }
    if let Ok(text) = core::str::from_utf8(bytes()) {
        used(text.parse::<Suite>().inspect_err(|error| tell(error)).is_ok());
    }
    used(ResetReason::from_byte(any(1)).map(ResetReason::as_byte));
}

fn message_fields(message: &Message<'_>) {
    used((message.header(), message.ratchet_key(), message.previous_chain_len(), message.number()));
    used((message.ciphertext(), message.tag()));
}

fn head_fields(init: &HandshakeInit<'_>) {
    used((init.head(), init.suite(), init.identity(), init.ephemeral(), init.spk_id(), init.opk_id(), init.counter()));
    message_fields(&init.message());
}

fn plaintexts() {
    match Plaintext::decode(bytes()) {
        Ok(plaintext) => {
            let mut out = any([0; 2048]);
            used(plaintext.padded_len());
            if let Err(error) = plaintext.encode_padded(&mut out) {
                tell(&error);
            }
            used(out);
            say(&plaintext);
        }
        Err(error) => tell(&error),
    }
    used(padded_len(any(0)));
    used(Kind::from_number(any(0)).number());
    used(any(Status::Done).as_byte());
    used(Plaintext::new(any(Kind::Command)));
}

fn identities() {
    let secret = IdentitySecret::generate(&mut FixedRng::new(any(0)));
    used(*secret.seed());
    let own = IdentitySecret::from_seed(chunk()).public();
    match (IdentityKey::from_bytes(chunk()), device_id()) {
        (Ok(key), Some(id)) => {
            used(*key.as_bytes());
            let fingerprint = Fingerprint::of(&id, &key, &own);
            used((fingerprint.groups(), fingerprint.text(), fingerprint.code()));
            if let Err(error) = fingerprint.compare(bytes()) {
                tell(&error);
            }
        }
        (Err(error), _) => tell(&error),
        (Ok(_), None) => {}
    }
    say(&own);
}

fn recent() {
    let tags = bytes().chunks(12).filter_map(|tag| tag.first_chunk()).map(MessageTag::from_bytes);
    let recent = Recent::from_tags(tags);
    recent.tags().for_each(|tag| used(tag.to_bytes()));
    if let Ok(Envelope::Message(message)) = Envelope::parse(bytes()) {
        used(MessageTag::of(&message));
        if let Err(error) = recent.check(&message) {
            tell(&error);
        }
    }
}
