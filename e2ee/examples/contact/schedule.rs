//! What happens between the two, drawn from a seed, and what must come of it.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use unhidra_core::ids::CommandId;
use unhidra_core::time::UnixTime;
use unhidra_e2ee::envelope::{Envelope, head_len};
use unhidra_e2ee::error::SealError;
use unhidra_e2ee::plaintext::{Kind, Plaintext};
use unhidra_e2ee::suite::Suite;

use crate::device::Device;
use crate::node::{self, Node, Refusal};

const ID: &str = "pump-7";
const NOON: UnixTime = UnixTime::from_s(1_900_000_000);
/// More than these are not on their way at once: no key is let go, and no jump is too far.
const FLYING_MAX: usize = 6;

#[derive(Clone)]
struct Flying {
    /// Which of the device's sessions it was sealed in.
    session: usize,
    number: u64,
    sealed: Vec<u8>,
}

#[derive(Default)]
struct Way {
    flying: Vec<Flying>,
    opened: Vec<Flying>,
    refused: usize,
}

#[derive(Default)]
pub(crate) struct Played {
    up: Way,
    down: Way,
    sessions: usize,
    reboots: usize,
    resets: usize,
    late_resets: usize,
    restarts: usize,
    bad_bundles: usize,
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "up {} opened, {} refused; down {} opened, {} refused; {} sessions, {} reboots, {} resets obeyed, \
             {} not, {} begun of its own accord, {} bundles refused",
            self.up.opened.len(),
            self.up.refused,
            self.down.opened.len(),
            self.down.refused,
            self.sessions,
            self.reboots,
            self.resets,
            self.late_resets,
            self.restarts,
            self.bad_bundles
        )
    }
}

/// Plays a schedule of `events` events.
///
/// # Errors
///
/// Where the first difference is, and which.
pub(crate) fn play(suite: Suite, seed: u64, events: u64, command: &[String]) -> Result<Played, String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut device = Device::start(command)?;
    let identity = node::identity(&mut rng);
    let enrolled = device.enroll(ID, suite, identity.public().as_bytes())?;
    let node = Node::new(ID, suite, identity, &enrolled, &mut rng)?;
    let mut schedule =
        Schedule { suite, device, node, rng, now: NOON, node_session: 0, said: 0, played: Played::default() };
    schedule.begins()?;
    for event in 0..events {
        schedule.event().map_err(|difference| format!("event {event}: {difference}"))?;
    }
    schedule.ends_quiet()?;
    schedule.played.is_worth_something(events)?;
    Ok(schedule.played)
}

struct Schedule {
    suite: Suite,
    device: Device,
    node: Node,
    rng: StdRng,
    now: UnixTime,
    /// Which of the device's sessions the node's present one is; 0 where it has none.
    node_session: usize,
    said: u64,
    played: Played,
}

impl Schedule {
    /// The device begins a session, after it has refused what is no bundle for it.
    fn begins(&mut self) -> Result<(), String> {
        let stale = self.device.asks_for_bundle()?;
        let stale = self.node.bundle(&stale, self.now)?;
        let request = self.device.asks_for_bundle()?;
        let bundle = self.node.bundle(&request, self.now)?;
        let mut damaged = bundle.clone();
        flip(&mut self.rng, &mut damaged);
        let before = self.device.state.clone();
        for bad in [stale, damaged, bundle[..bundle.len() - 1].to_vec()] {
            if self.device.takes_bundle(&bad, self.now)?.is_ok() || self.device.state != before {
                return Err("the device took what is no bundle for it".into());
            }
            self.played.bad_bundles += 1;
        }
        self.device.takes_bundle(&bundle, self.now)?.map_err(|error| format!("the bundle: {error}"))?;
        self.played.sessions += 1;
        Ok(())
    }

    fn event(&mut self) -> Result<(), String> {
        if self.rng.random_ratio(1, 6) {
            self.now = self.now.saturating_add(Duration::from_secs(self.rng.random_range(1..300)));
        }
        match self.rng.random_range(0..100) {
            0..20 => self.device_says(),
            20..35 => self.node_says(),
            35..60 => {
                let again = self.rng.random_ratio(1, 6);
                self.arrives_up(again)
            }
            60..80 => {
                let again = self.rng.random_ratio(1, 6);
                self.arrives_down(again)
            }
            80..86 => {
                let up = self.rng.random();
                let way = if up { &mut self.played.up } else { &mut self.played.down };
                if let Some(at) = pick(&mut self.rng, way.flying.len()) {
                    way.flying.remove(at);
                }
                Ok(())
            }
            86..90 => self.damages_up(),
            90..94 => self.damages_down(),
            94..96 => {
                self.played.reboots += 1;
                self.device.reboots()
            }
            96..98 => self.node.restarts(),
            98 => {
                self.node.forgets();
                self.node_session = 0;
                Ok(())
            }
            _ => self.begins(),
        }
    }

    fn device_says(&mut self) -> Result<(), String> {
        if self.played.up.flying.len() >= FLYING_MAX {
            return Ok(());
        }
        self.said += 1;
        let body = hex::encode(vec![7; self.rng.random_range(0..100)]);
        let fields = json!({"0": 0, "1": "temperature", "3": {"hex": body}, "10": self.said});
        let sealed = self.device.says(&fields, self.now)?;
        self.played.up.flying.push(Flying { session: self.played.sessions, number: self.said, sealed });
        Ok(())
    }

    fn node_says(&mut self) -> Result<(), String> {
        if self.played.down.flying.len() >= FLYING_MAX || !self.node.has_session() {
            return Ok(());
        }
        self.said += 1;
        let mut id = [0; 16];
        id[8..].copy_from_slice(&self.said.to_be_bytes());
        let body = vec![9; self.rng.random_range(0..100)];
        let command = Plaintext {
            name: Some("reboot"),
            body: Some(&body),
            command_id: Some(CommandId::new(id)),
            expires_at: Some(self.now.saturating_add(Duration::from_secs(60))),
            ..Plaintext::new(Kind::Command)
        };
        let mut text = vec![0; command.padded_len()];
        command.encode_padded(&mut text).map_err(|e| e.to_string())?;
        match self.node.seals(&text) {
            Ok(sealed) => {
                self.played.down.flying.push(Flying { session: self.node_session, number: self.said, sealed });
                Ok(())
            }
            // 64 without an answer.
            Err(SealError::Unanswered { .. }) => Ok(()),
            Err(error) => Err(format!("sealing: {error}")),
        }
    }

    fn arrives_up(&mut self, again: bool) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.played.up.flying.len()) else { return Ok(()) };
        let arriving = if again { self.played.up.flying[at].clone() } else { self.played.up.flying.remove(at) };
        self.node_hears(arriving)
    }

    fn node_hears(&mut self, arriving: Flying) -> Result<(), String> {
        let before = self.node.state();
        let opened_before = self.played.up.opened.iter().any(|old| old.number == arriving.number);
        match self.node.opens(&arriving.sealed, self.now, &mut self.rng) {
            Ok(text) => {
                let reading = Plaintext::decode(&text).map_err(|e| e.to_string())?;
                if opened_before || reading.kind != Kind::Reading || reading.reading_id != Some(arriving.number) {
                    return Err(format!("{} opened twice, or as another", arriving.number));
                }
                if arriving.sealed.first() == Some(&2) {
                    self.node_session = arriving.session;
                }
                self.played.up.opened.push(arriving);
                Ok(())
            }
            Err(refusal) => {
                if self.node.state() != before {
                    return Err(format!("the node refused {}, and changed: {refusal:?}", arriving.number));
                }
                if !opened_before && arriving.session == self.node_session {
                    return Err(format!("the node did not open {}: {refusal:?}", arriving.number));
                }
                self.played.up.refused += 1;
                self.answers(&refusal, &arriving.sealed)
            }
        }
    }

    /// The ResetRequest that a refusal asks for. Obeyed, it begins a session.
    fn answers(&mut self, refusal: &Refusal, sealed: &[u8]) -> Result<(), String> {
        let Some(reason) = refusal.reset_due() else { return Ok(()) };
        let ratchet_key = match Envelope::parse(sealed) {
            Ok(Envelope::Message(message)) => *message.ratchet_key(),
            Ok(Envelope::HandshakeInit(init)) => *init.message().ratchet_key(),
            _ => return Ok(()),
        };
        let request = self.node.reset(reason, &ratchet_key);
        let mut forged = request.clone();
        flip(&mut self.rng, &mut forged);
        if self.device.obeys(&forged)? {
            return Err("the device obeyed a forged ResetRequest".into());
        }
        if self.device.obeys(&self.node.reset(reason, &[9; 32]))? {
            return Err("the device obeyed a ResetRequest that names another key".into());
        }
        if self.device.obeys(&request)? {
            self.played.resets += 1;
            return self.begins();
        }
        self.played.late_resets += 1;
        Ok(())
    }

    fn arrives_down(&mut self, again: bool) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.played.down.flying.len()) else { return Ok(()) };
        let arriving = if again { self.played.down.flying[at].clone() } else { self.played.down.flying.remove(at) };
        self.device_hears(arriving)
    }

    fn device_hears(&mut self, arriving: Flying) -> Result<(), String> {
        let before = self.device.state.clone();
        let opened_before = self.played.down.opened.iter().any(|old| old.number == arriving.number);
        match self.device.hears(&arriving.sealed, self.now)? {
            Ok(answer) => {
                let id = json!({"hex": format!("{:032x}", arriving.number)});
                let fields = answer.get("fields").cloned().unwrap_or(Value::Null);
                let name = Some(&Value::String("reboot".into()));
                if opened_before || fields.get("4") != Some(&id) || fields.get("1") != name {
                    return Err(format!("{} opened twice, or as another: {fields}", arriving.number));
                }
                self.played.down.opened.push(arriving);
                Ok(())
            }
            Err(error) => {
                if self.device.state != before {
                    return Err(format!("the device refused {}, and changed: {error}", arriving.number));
                }
                // The present session and the one before it.
                if !opened_before && arriving.session == self.played.sessions {
                    return Err(format!("the device did not open {}: {error}", arriving.number));
                }
                self.played.down.refused += 1;
                self.restarts()
            }
        }
    }

    /// The device begins a session of its own accord, where its last answer said so.
    fn restarts(&mut self) -> Result<(), String> {
        if !self.device.restart {
            return Ok(());
        }
        self.played.restarts += 1;
        self.begins()
    }

    fn damages_up(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.played.up.flying.len()) else { return Ok(()) };
        let Flying { session, sealed, .. } = &self.played.up.flying[at];
        // Of a head that repeats the present session's, counter and EK alone are looked at.
        let repeated = sealed.first() == Some(&2) && *session == self.node_session;
        let (mut damaged, from) = (sealed.clone(), if repeated { head_len(self.suite) } else { 0 });
        flip(&mut self.rng, &mut damaged[from..]);
        let before = self.node.state();
        match self.node.opens(&damaged, self.now, &mut self.rng) {
            Ok(_) => Err("the node opened what is no message".into()),
            Err(_) if self.node.state() != before => Err("a damaged message changed the node".into()),
            Err(_) => {
                self.played.up.refused += 1;
                Ok(())
            }
        }
    }

    fn damages_down(&mut self) -> Result<(), String> {
        let Some(at) = pick(&mut self.rng, self.played.down.flying.len()) else { return Ok(()) };
        let mut damaged = self.played.down.flying[at].sealed.clone();
        flip(&mut self.rng, &mut damaged);
        let before = self.device.state.clone();
        match self.device.hears(&damaged, self.now)? {
            Ok(_) => Err("the device opened what is no message".into()),
            Err(_) if self.device.state != before => Err("a damaged message changed the device".into()),
            Err(_) => {
                self.played.down.refused += 1;
                self.restarts()
            }
        }
    }

    /// Everything on its way is lost; what is said now is heard, after a reset if one is due.
    fn ends_quiet(&mut self) -> Result<(), String> {
        self.played.up.flying.clear();
        self.played.down.flying.clear();
        let mut heard = 0;
        for _ in 0..6 {
            self.now = self.now.saturating_add(Duration::from_secs(300));
            let before = self.played.up.opened.len();
            self.device_says()?;
            self.arrives_up(false)?;
            if self.played.up.opened.len() == before {
                // The reset that answered it has begun a session: the next one opens.
                continue;
            }
            let before = self.played.down.opened.len();
            self.node_says()?;
            self.arrives_down(false)?;
            if self.played.down.opened.len() == before {
                return Err("quiet, and the device did not hear the node".into());
            }
            heard += 1;
        }
        if heard < 5 { Err(format!("quiet, and heard {heard} of 6")) } else { Ok(()) }
    }
}

impl Played {
    /// A schedule in which nothing happened proves nothing.
    fn is_worth_something(&self, events: u64) -> Result<(), String> {
        let counts = [
            self.up.opened.len() / 20,
            self.up.refused,
            self.down.opened.len() / 10,
            self.down.refused,
            self.sessions / 2,
            self.reboots,
            self.bad_bundles,
        ];
        if events >= 200 && counts.contains(&0) { Err(format!("too little happened: {counts:?}")) } else { Ok(()) }
    }
}

fn pick(rng: &mut StdRng, len: usize) -> Option<usize> {
    (len > 0).then(|| rng.random_range(0..len))
}

fn flip(rng: &mut StdRng, bytes: &mut [u8]) {
    let Some(at) = pick(rng, bytes.len()) else { return };
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << rng.random_range(0..8);
    }
}
