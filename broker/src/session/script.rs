//! A whole session under a script of bytes: what comes, when, and what the shell does meanwhile.
//! For the fuzzer, and for the tests, which replay what it keeps.
//!
//! ```text
//! script    settings(1) step*
//! settings  5.0(bit 0) device(bit 1) the node stores sessions(bit 2) bounds of 1(bit 3)
//! step      0 len(1) bytes     the client sends these
//!           1 s(1)             time passes
//!           2 which(1) code(1) a message of the client is answered
//!           3 what(1)          a message for the client: QoS (bits 0 and 1), topic (bit 2)
//!           4 behind(1)        steps are stored, all but so many
//!           5 row(1)           the node sends to the device
//!           6 how(1)           the stream is lost (0), taken over (1), or the node drains (2)
//!           7 reads(1)         the shell reads, or not
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use unhidra_core::delivery::{AckToken, Answer, DownlinkRow, Refusal};
use unhidra_core::ids::{ClientId, DeviceId};
use unhidra_core::time::Timestamp;

use super::{Event, Resumable, Rules, Session, Transmit};
use crate::acl::{Acl, Principal, RuleSet};
use crate::config::{Limits, tests as bounds};
use crate::doors::{Admitted, Ticket};
use crate::packet::{Packet, Properties, Property, QoS, ReasonCode, Text, split_frame};
use crate::router::message::{Filling, Incoming, Message, Queued};

/// Steps a script may take: a longer one shows nothing new.
const STEPS_MAX: usize = 4_096;

struct Run {
    rules: Arc<Rules>,
    who: Arc<Principal>,
    session: Session,
    now: Timestamp,
    input: BytesMut,
    tokens: Vec<AckToken>,
    unkept: Vec<u64>,
    tickets: u64,
}

/// Runs a script.
///
/// # Panics
///
/// The session breaks one of its promises: a bound is passed, or what it sends is no packet.
pub(crate) fn run(script: &[u8]) {
    let mut script = script.iter().copied();
    let Some(settings) = script.next() else { return };
    let mut run = Run::new(settings);
    for _ in 0..STEPS_MAX {
        let Some(step) = script.next() else { break };
        let Some(argument) = script.next() else { break };
        match step {
            0 => run.input.extend(script.by_ref().take(usize::from(argument))),
            1 => run.now = run.now.saturating_add(Duration::from_secs(u64::from(argument))),
            2 => run.answer(argument, script.next().unwrap_or_default()),
            3 => run.deliver(argument),
            4 => run.keep(usize::from(argument)),
            5 => run.send(argument),
            6 => run.end(argument),
            7 => run.session.reading(argument != 0, run.now),
            _ => {}
        }
        run.serve();
    }
    run.end(0);
}

impl Run {
    fn new(settings: u8) -> Self {
        let has = |bit: u8| settings & bit != 0;
        let mut limits = bounds::limits();
        if has(8) {
            limits = Limits { receive_max: 1, in_flight_max: 1, subscriptions_per_session: 1, ..limits };
        }
        let acl = Acl::new("unhidra", RuleSet::default());
        let rules = Arc::new(Rules { acl, limits, mqtt: bounds::mqtt(), stores_sessions: has(4), referral: None });
        let device = DeviceId::parse("pump-7").map(Admitted::Device);
        let admitted = device.ok().filter(|_| has(2)).unwrap_or(Admitted::Client(None));
        let Ok(client_id) = ClientId::parse("c") else { panic!("an identifier") };
        let session = Session::new(rules.clone(), Timestamp::ZERO);
        Self {
            rules,
            who: Arc::new(Principal::new(admitted, client_id)),
            session,
            now: Timestamp::ZERO,
            input: BytesMut::new(),
            tokens: Vec::new(),
            unkept: Vec::new(),
            tickets: 0,
        }
    }

    /// As the loop of a connection does.
    fn serve(&mut self) {
        self.session.handle_timeout(self.now);
        self.events(None);
        while self.session.wants_packet() {
            let packet_bytes_max = self.rules.limits.packet_bytes_max;
            let result = match split_frame(&mut self.input, packet_bytes_max) {
                Ok(None) => break,
                Ok(Some(frame)) => self.session.handle_frame(frame, self.now),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                self.session.fail(&error);
            }
            self.events(None);
            self.session.close_if_owed();
            self.check();
        }
        self.transmit();
        self.check();
    }

    fn events(&mut self, mut resumed: Option<Resumable>) {
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Connect(_) => match self.session.may_come_in(&self.who) {
                    Ok(()) => self.session.admit(self.who.clone(), resumed.take(), None, self.now),
                    Err(reason) => self.session.refuse(reason),
                },
                Event::Deliver { token, .. } | Event::Route { token, .. } => self.tokens.extend(token),
                Event::Keep { number, .. } => self.unkept.push(number),
                _ => {}
            }
        }
    }

    fn check(&self) {
        let Limits { receive_max, in_flight_max, subscriptions_per_session, .. } = self.rules.limits;
        assert!(self.session.unanswered() <= usize::from(receive_max), "more wait for an answer than may");
        let holdings = self.session.holdings();
        let rows = 2;
        assert!(holdings.subscriptions <= subscriptions_per_session + rows, "more subscriptions than may be");
        assert!(holdings.in_flight <= usize::from(in_flight_max), "more in flight than may be");
    }

    /// What leaves is a packet, of the client's version, and no larger than it takes.
    fn transmit(&mut self) {
        let (version, len_max) = (self.session.version(), self.session.client_packet_max());
        while let Some(transmit) = self.session.poll_transmit() {
            let mut out = BytesMut::new();
            match transmit {
                Transmit::Packet(packet) => packet.encode(version, &mut out),
                Transmit::Routed { queued, packet_id, dup, alias } => {
                    let filling = Filling { version, packet_id, dup, alias, now: self.now };
                    if !queued.encode(filling, len_max, &mut out) {
                        assert!(alias.is_none_or(|alias| !alias.is_new), "an alias that was not told");
                        self.session.not_sent(packet_id);
                        continue;
                    }
                    assert!(out.len() <= len_max, "larger than the client takes");
                }
            }
            let sent = split_frame(&mut out, usize::MAX).map(|frame| frame.map(|frame| Packet::decode(frame, version)));
            assert!(matches!(sent, Ok(Some(Ok(_)))) && out.is_empty(), "no packet: {sent:?}");
        }
    }

    fn answer(&mut self, which: u8, code: u8) {
        let Some(at) = usize::from(which).checked_rem(self.tokens.len()) else { return };
        let token = self.tokens.remove(at);
        match code {
            0..=200 => self.session.routed(token, ReasonCode::Success),
            201..=225 => self.session.answer(token, Answer::Refused(Refusal::QuotaExceeded)),
            226..=250 => self.session.answer(token, Answer::Accepted),
            _ => self.session.answer(token, Answer::Retry),
        }
        self.session.close_if_owed();
    }

    fn deliver(&mut self, what: u8) {
        if self.session.deliverable().is_none_or(|room| room == 0) {
            return;
        }
        let Some(qos) = QoS::from_bits(what & 0b11) else { return };
        let topic = Text::from(if what & 0b100 == 0 { "a/longer/topic" } else { "another/topic" });
        let properties: Properties = [Property::MessageExpiryInterval(60)].into_iter().collect();
        let payload = Bytes::from_static(b"payload");
        let incoming = Incoming { topic: &topic, payload: &payload, qos, retain: false, properties: &properties };
        let message = Arc::new(Message::new(incoming, self.now));
        let queued = Queued { message, qos, retain: false, identifiers: Box::default(), group: None, kept: None };
        self.session.deliver(queued, self.now);
    }

    fn keep(&mut self, behind: usize) {
        let count = self.unkept.len().saturating_sub(behind);
        self.unkept.drain(..count).for_each(|number| self.session.kept(number));
    }

    fn send(&mut self, row: u8) {
        if self.session.is_ended() || self.tickets > 1_000 {
            return;
        }
        self.tickets += 1;
        let row = if row & 1 == 0 { DownlinkRow::Commands } else { DownlinkRow::Prekeys };
        self.session.send(row, Bytes::from_static(b"sealed"), Ticket(self.tickets));
    }

    /// The connection ends, and the next goes on with its session.
    fn end(&mut self, how: u8) {
        match how {
            0 => self.session.lose(),
            1 => self.session.close(ReasonCode::SessionTakenOver),
            _ => self.session.close(ReasonCode::ServerShuttingDown),
        }
        self.transmit();
        self.tokens.clear();
        self.unkept.clear();
        self.input.clear();
        let next = Session::new(self.rules.clone(), self.now);
        let resumed = std::mem::replace(&mut self.session, next).finish().map(|remains| remains.resumable);
        // The same client is back, and says so in as few words as it can.
        let mut connect = BytesMut::from(&b"\x10\x0D\x00\x04MQTT\x04\x00\x00\x3C\x00\x01c"[..]);
        if let (Some(resumable), Ok(Some(frame))) = (resumed, split_frame(&mut connect, 100)) {
            assert!(self.session.handle_frame(frame, self.now).is_ok(), "a good CONNECT");
            self.events(Some(resumable));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// CONNECT of 5.0: a session that stays, three unacknowledged messages, two aliases.
    const CONNECT: &[u8] =
        b"\x10\x19\x00\x04MQTT\x05\x00\x00\x3C\x0B\x11\x00\x00\x00\x3C\x21\x00\x03\x22\x00\x02\x00\x01c";

    fn step() -> impl Strategy<Value = Vec<u8>> {
        let packets: Vec<&'static [u8]> = vec![
            b"\x34\x08\x00\x01a\x00\x01\x00xy",
            b"\x32\x08\x00\x01a\x00\x02\x00xy",
            b"\x3C\x08\x00\x01a\x00\x01\x00xy",
            b"\x30\x07\x00\x01a\x03\x23\x00\x01",
            b"\x30\x06\x00\x00\x03\x23\x00\x01",
            b"\x62\x02\x00\x01",
            b"\x40\x02\x00\x01",
            b"\x50\x02\x00\x01",
            b"\x50\x02\x00\x02",
            b"\x70\x02\x00\x01",
            b"\x82\x07\x00\x09\x00\x00\x01a\x02",
            b"\xA2\x06\x00\x09\x00\x00\x01a",
            b"\xC0\x00",
            b"\xE0\x00",
        ];
        let sent = prop_oneof![
            9 => proptest::sample::select(packets).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..40),
        ];
        prop_oneof![
            4 => sent.prop_map(|bytes| [&[0, u8::try_from(bytes.len()).unwrap_or(0)][..], &bytes].concat()),
            4 => (1_u8..8, any::<u8>(), any::<u8>()).prop_map(|(step, a, b)| match step {
                2 => vec![step, a, b],
                6 => vec![step, a % 40],
                _ => vec![step, a % 8],
            }),
        ]
    }

    #[test]
    fn what_the_fuzzer_keeps_is_kept_to() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/session");
        let scripts: Vec<_> = std::fs::read_dir(folder).expect("a corpus").collect();
        assert!(scripts.len() >= 14, "{} scripts", scripts.len());
        for script in scripts {
            run(&std::fs::read(script.expect("a file").path()).expect("a script"));
        }
    }

    proptest! {
        #[test]
        fn a_session_keeps_its_bounds_whatever_comes(
            settings in 0_u8..16,
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let connect = [&[0, u8::try_from(CONNECT.len()).expect("short")][..], CONNECT].concat();
            run(&[&[settings][..], &connect, &steps.concat()].concat());
        }

        #[test]
        fn a_session_survives_any_script(script in proptest::collection::vec(any::<u8>(), 0..300)) {
            run(&script);
        }
    }
}
