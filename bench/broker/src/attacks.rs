//! What attackers do, each from the ten addresses 127.0.0.2 to 127.0.0.11.
//!
//! An attack runs as a process of its own, at the lowest priority, so that what it computes does
//! not count as harm done by the broker.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::puppet::Puppet;
use crate::wire;

/// An attack by its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Name {
    /// TLS that begins and never goes on: 500 connections held, half of them with a piece of a
    /// ClientHello.
    HalfOpenTls,
    /// 20 subscribers of all that honest clients publish, who stop reading.
    SlowReaders,
    /// 20 subscribers of the same at QoS 1, who read and never answer.
    NoPuback,
    /// Connections that say nothing and end.
    TcpFlood,
    /// Connections that say CONNECT and end.
    ConnectFlood,
    /// TLS connections that send a whole ClientHello and end.
    HelloFlood,
    /// 20 clients that subscribe to thousands of filters like `+/+/+/#`.
    SubscriptionBomb,
    /// Retained messages of 1 KB, each to a topic of its own.
    RetainedFlood,
    /// CONNECT with a client identifier of 60 KB.
    HugeClientIds,
    /// 5.0 clients that set thousands of topic aliases, each for a topic of 1 000 bytes.
    TopicAliases,
    /// 4 KB of noise.
    Garbage,
    /// Packets of 256 MB announced, and of just as much as is taken, of which the end never comes.
    HugePackets,
}

impl Name {
    pub(crate) const ALL: [Self; 12] = [
        Self::HalfOpenTls,
        Self::SlowReaders,
        Self::NoPuback,
        Self::TcpFlood,
        Self::ConnectFlood,
        Self::HelloFlood,
        Self::SubscriptionBomb,
        Self::RetainedFlood,
        Self::HugeClientIds,
        Self::TopicAliases,
        Self::Garbage,
        Self::HugePackets,
    ];

    pub(crate) fn text(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// One attack.
#[derive(Debug, clap::Args)]
pub(crate) struct Attack {
    name: Name,
    /// The plain listener
    #[arg(long)]
    tcp: SocketAddr,
    /// The one with TLS
    #[arg(long)]
    tls: SocketAddr,
    /// Connections, or packets, a second
    #[arg(long)]
    rate: f64,
    #[arg(long)]
    seconds: f64,
}

/// How many connections a flood leaves open before the oldest ends.
const FLOOD_OPEN: usize = 100;

/// Attackers that stay.
const CREW: usize = 20;

impl Attack {
    /// Attacks, and says in the end what it came to.
    pub(crate) fn run(&self) -> Result<(), Box<dyn Error>> {
        let mut crew = Crew { attack: self, puppets: VecDeque::new(), dialled: 0, refused: 0, ended: 0, said: 0 };
        let began = Instant::now();
        let mut done = 0_u64;
        while began.elapsed().as_secs_f64() < self.seconds {
            let due = (began.elapsed().as_secs_f64() * self.rate) as u64;
            // Not more at once than the rate has in a tenth of a second: what is missed is missed.
            for number in done..due.min(done + (self.rate / 10.0) as u64 + 1) {
                crew.act(number);
            }
            done = due;
            crew.move_on();
            std::thread::sleep(Duration::from_millis(1));
        }
        println!("{} connections, {} refused, {} ended, {} packets", crew.dialled, crew.refused, crew.ended, crew.said);
        Ok(())
    }
}

struct Crew<'a> {
    attack: &'a Attack,
    puppets: VecDeque<Puppet>,
    dialled: u64,
    refused: u64,
    ended: u64,
    said: u64,
}

impl Crew<'_> {
    fn act(&mut self, number: u64) {
        let tcp = self.attack.tcp;
        let id = format!("attacker-{number}");
        match self.attack.name {
            Name::HalfOpenTls => {
                if self.puppets.len() < 500 {
                    let hello = client_hello();
                    let said = if number.is_multiple_of(2) { Vec::new() } else { hello[..50].to_vec() };
                    self.dial(self.attack.tls, true, said);
                }
            }
            Name::SlowReaders | Name::NoPuback => {
                let reads = self.attack.name == Name::NoPuback;
                if self.puppets.len() < CREW {
                    let said = [wire::connect(&id), wire::subscribe("bench/#", 1)].concat();
                    self.dial(tcp, reads, said);
                }
            }
            Name::TcpFlood => self.flood(tcp, Vec::new()),
            Name::ConnectFlood => self.flood(tcp, wire::connect(&id)),
            Name::HelloFlood => self.flood(self.attack.tls, client_hello()),
            Name::SubscriptionBomb => {
                let filter = match number % 3 {
                    0 => "+/+/+/#".to_owned(),
                    1 => format!("+/+/{number}/#"),
                    _ => format!("+/{number}/+/+/+/+/+/+/+/+/#"),
                };
                self.by_crew(number, wire::connect(&id), &wire::subscribe(&filter, 1));
            }
            Name::RetainedFlood => {
                // Five for one, so that the bound is met before half the time is over.
                for part in 0..5 {
                    self.by_crew(number, wire::connect(&id), &retained(&format!("flood/{number}/{part}"), 1024));
                }
            }
            Name::HugeClientIds => self.flood(tcp, wire::connect(&format!("{id}{}", "x".repeat(60_000)))),
            Name::TopicAliases => {
                let topic = format!("flood/{number}/{}", "x".repeat(980));
                self.by_crew(number, connect_5(&id), &aliased(&topic, (number % 65_535 + 1) as u16));
            }
            Name::Garbage => self.flood(tcp, noise(number)),
            Name::HugePackets => {
                if self.puppets.len() < 200 {
                    let mut said = wire::connect(&id);
                    if number.is_multiple_of(2) {
                        // 268 435 455 bytes, the most there can be.
                        said.extend_from_slice(&[0x30, 0xff, 0xff, 0xff, 0x7f]);
                        said.resize(said.len() + 64 * 1024, b'x');
                    } else {
                        // 262 140 bytes with the header, of which 200 000 come.
                        said.extend_from_slice(&[0x30, 0xf8, 0xff, 0x0f, 0, 5]);
                        said.extend_from_slice(b"flood");
                        said.resize(said.len() + 200_000, b'x');
                    }
                    self.dial(tcp, true, said);
                }
            }
        }
    }

    fn dial(&mut self, to: SocketAddr, reads: bool, said: Vec<u8>) {
        self.dialled += 1;
        match Puppet::dial(self.dialled, to, reads, said) {
            Ok(puppet) => self.puppets.push_back(puppet),
            Err(_) => self.refused += 1,
        }
    }

    /// One more connection; the oldest of many ends.
    fn flood(&mut self, to: SocketAddr, said: Vec<u8>) {
        self.dial(to, true, said);
        if self.puppets.len() > FLOOD_OPEN
            && let Some(oldest) = self.puppets.pop_front()
        {
            oldest.slam();
        }
    }

    /// One packet by one of those that stay, who come back when they are sent away.
    fn by_crew(&mut self, number: u64, connect: Vec<u8>, packet: &[u8]) {
        if self.puppets.len() < CREW {
            self.dial(self.attack.tcp, true, connect);
        }
        let len = self.puppets.len().max(1);
        if let Some(puppet) = self.puppets.get_mut(number as usize % len) {
            puppet.say(packet);
            self.said += 1;
        }
    }

    fn move_on(&mut self) {
        let before = self.puppets.len();
        self.puppets.retain_mut(|puppet| puppet.move_on().is_ok());
        self.ended += (before - self.puppets.len()) as u64;
    }
}

/// A whole ClientHello, as rustls makes it.
fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    if let Ok(config) = crate::pki::unnamed()
        && let Ok(name) = rustls::pki_types::ServerName::try_from("localhost")
        && let Ok(mut client) = rustls::ClientConnection::new(config, name)
    {
        // Into memory: this does not fail.
        let _ = client.write_tls(&mut hello);
    }
    hello
}

/// CONNECT of 5.0 with a clean start.
fn connect_5(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 0x02, 0, 0, 0];
    wire::push_text(&mut body, client_id);
    wire::packet(0x10, &body)
}

/// PUBLISH of 5.0 at QoS 0 that sets a topic alias.
fn aliased(topic: &str, alias: u16) -> Vec<u8> {
    let mut body = Vec::new();
    wire::push_text(&mut body, topic);
    body.extend_from_slice(&[3, 0x23]);
    body.extend_from_slice(&alias.to_be_bytes());
    body.push(b'x');
    wire::packet(0x30, &body)
}

/// PUBLISH at QoS 0 with RETAIN.
fn retained(topic: &str, len: usize) -> Vec<u8> {
    let mut body = Vec::new();
    wire::push_text(&mut body, topic);
    body.resize(body.len() + len, b'x');
    wire::packet(0x31, &body)
}

/// 4 096 bytes of a xorshift generator.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..512).flat_map(|_| next()).collect()
}
