//! What is measured.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::engine::{Engine, Role, Spec};
use crate::peers::{Peer, Running};
use crate::{connects, memory, process};

/// Before a rate is measured: buffers grow, threads wake.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long all clients of a case may take to come in.
const CONNECT: Duration = Duration::from_secs(30);

/// A case by its name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) way: Way,
    pub(crate) load: Load,
}

/// How clients come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// TCP.
    Plain,
    /// TLS 1.3, the broker's certificate alone.
    Tls,
    /// TLS 1.3 with a certificate on both sides.
    Mutual,
}

/// What the generator does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Publishers, each to topics of its own.
    Messages(Messages),
    /// So many connections that do nothing.
    Idle(usize),
    /// Connections that come and go, shortened or not.
    Connects { resumed: bool },
}

/// Publishers, subscribers and how fast.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Messages {
    shape: Shape,
    qos: u8,
    window: u32,
    pub(crate) paced: bool,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// So many publishers, one subscriber.
    FanIn(u32),
    /// One publisher, so many subscribers.
    FanOut(u16),
    /// So many of each, each publisher with a subscriber of its own.
    Pairs(u32),
}

const fn messages(shape: Shape, qos: u8, window: u32, paced: bool) -> Load {
    Load::Messages(Messages { shape, qos, window, paced })
}

const fn case(name: &'static str, about: &'static str, way: Way, load: Load) -> Case {
    Case { name, about, way, load }
}

/// All of them, in the order of the table.
pub(crate) const CASES: [Case; 16] = {
    use Shape::{FanIn, FanOut, Pairs};
    use Way::{Mutual, Plain, Tls};
    let fan_in_0 = messages(FanIn(50), 0, 100, false);
    let fan_in_1 = messages(FanIn(50), 1, 20, false);
    let fan_100 = messages(FanOut(100), 0, 500, false);
    let fan_1000 = messages(FanOut(1_000), 0, 500, false);
    let pairs = messages(Pairs(500), 1, 10, false);
    let paced = messages(Pairs(500), 1, 10, true);
    [
        case("fanin-q0", "50 publishers to 1 subscriber, QoS 0", Plain, fan_in_0),
        case("fanin-q1", "50 publishers to 1 subscriber, QoS 1", Plain, fan_in_1),
        case("fanout-100", "1 publisher to 100 subscribers, QoS 0", Plain, fan_100),
        case("fanout-1000", "1 publisher to 1 000 subscribers, QoS 0", Plain, fan_1000),
        case("pairs", "500 publishers to 500 subscribers, pairs, QoS 1", Plain, pairs),
        case("pairs-paced", "the same at a fixed rate", Plain, paced),
        case("tls-fanin-q0", "50 to 1, QoS 0, TLS 1.3", Tls, fan_in_0),
        case("tls-fanin-q1", "50 to 1, QoS 1, TLS 1.3", Tls, fan_in_1),
        case("tls-fanout-100", "1 to 100, QoS 0, TLS 1.3", Tls, fan_100),
        case("tls-fanout-1000", "1 to 1 000, QoS 0, TLS 1.3", Tls, fan_1000),
        case("tls-pairs", "500 pairs, QoS 1, TLS 1.3", Tls, pairs),
        case("tls-pairs-paced", "the same at a fixed rate", Tls, paced),
        case("idle-tcp", "memory of an idle connection", Plain, Load::Idle(5_000)),
        case("idle-tls", "the same, TLS with client certificate", Mutual, Load::Idle(2_000)),
        case("connect-full", "TLS connects, full handshake", Mutual, Load::Connects { resumed: false }),
        case("connect-resumed", "TLS connects, resumed", Mutual, Load::Connects { resumed: true }),
    ]
};

impl Case {
    /// Whether a peer takes part.
    pub(crate) fn has(&self, peer: Peer) -> bool {
        self.way == Way::Plain || peer != Peer::Rumqttd
    }
}

/// How a run is to be.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    pub(crate) rate: f64,
    pub(crate) window: Option<u32>,
    /// Whether system calls are counted, which slows the broker.
    pub(crate) trace: bool,
    /// How clients dial that show no certificate.
    pub(crate) unnamed: Option<Arc<ClientConfig>>,
    /// Whose certificates clients show, in turn; without tickets and with.
    pub(crate) certificates: Vec<Arc<ClientConfig>>,
    pub(crate) resuming: Vec<Arc<ClientConfig>>,
}

/// What a run brought. What does not apply is `None`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Messages received, or connections made, a second.
    pub(crate) rate: Option<f64>,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    /// Microseconds of processor for each message received, or connection made.
    pub(crate) cpu_us: Option<f64>,
    pub(crate) generator_us: Option<f64>,
    /// System calls for each message received.
    pub(crate) syscalls: Option<f64>,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
    /// Bytes of user space for each connection.
    pub(crate) bytes: Option<f64>,
    pub(crate) error: Option<String>,
}

/// Measures a case against a broker that runs.
pub(crate) fn run(case: &Case, broker: &Running, settings: &Settings) -> Outcome {
    let done = match case.load {
        Load::Messages(messages) => run_messages(case, messages, broker, settings),
        Load::Idle(count) => memory::run(case.way, count, broker, settings),
        Load::Connects { resumed } => connects::run(resumed, broker, settings),
    };
    done.unwrap_or_else(|error| Outcome { error: Some(error), ..Outcome::default() })
}

/// Where a case's clients go.
pub(crate) fn address(way: Way, broker: &Running) -> SocketAddr {
    match way {
        Way::Plain => broker.tcp,
        Way::Tls => broker.tls,
        Way::Mutual => broker.mutual,
    }
}

/// A client: from loopback, with the certificates in turn.
pub(crate) fn client(number: usize, way: Way, settings: &Settings, role: Role) -> Spec {
    let tls = match way {
        Way::Plain => None,
        Way::Tls => settings.unnamed.clone(),
        Way::Mutual => settings.certificates.get(number % settings.certificates.len().max(1)).cloned(),
    };
    // Addresses in turn: one has only so many ports.
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, (number % 100) as u8 + 1));
    Spec { id: format!("bench-{number}"), from, tls, role }
}

fn populate(engine: &mut Engine, case: &Case, messages: Messages, settings: &Settings) {
    let (qos, way) = (messages.qos, case.way);
    let mut number = 0;
    let mut add = |engine: &mut Engine, role| {
        engine.add(client(number, way, settings, role));
        number += 1;
    };
    match messages.shape {
        Shape::FanIn(publishers) => {
            for _ in 0..publishers {
                let flow = engine.add_flow(&format!("bench/{:05}", engine.flows()), qos, 1);
                add(engine, Role::Publish { flow });
            }
            add(engine, Role::Receive { filter: "bench/#".into(), qos, first: 0, count: publishers });
        }
        Shape::FanOut(receivers) => {
            let flow = engine.add_flow("bench/00000", qos, receivers);
            add(engine, Role::Publish { flow });
            for _ in 0..receivers {
                add(engine, Role::Receive { filter: "bench/#".into(), qos, first: 0, count: 1 });
            }
        }
        Shape::Pairs(pairs) => {
            for first in 0..pairs {
                let topic = format!("bench/{first:05}");
                let flow = engine.add_flow(&topic, qos, 1);
                add(engine, Role::Publish { flow });
                add(engine, Role::Receive { filter: topic, qos, first, count: 1 });
            }
        }
    }
}

fn run_messages(case: &Case, messages: Messages, broker: &Running, settings: &Settings) -> Result<Outcome, String> {
    let window = settings.window.unwrap_or(messages.window);
    let mut engine = Engine::new(address(case.way, broker), window).map_err(|error| error.to_string())?;
    populate(&mut engine, case, messages, settings);
    engine.connect(CONNECT)?;
    let go = |engine: &mut Engine, time| {
        if messages.paced { engine.run_at(settings.rate, time) } else { engine.run(time) }
    };
    let ran = go(&mut engine, WARM_UP);
    let tracer = if settings.trace { process::Tracer::attach(broker.pid).ok() } else { None };
    let (own, its) = (process::cpu(std::process::id()), process::cpu(broker.pid));
    let (began, before) = (Instant::now(), engine.counts.received);
    engine.measuring = true;
    let ran = ran.and_then(|()| go(&mut engine, settings.time));
    engine.measuring = false;
    let (elapsed, received) = (began.elapsed(), engine.counts.received - before);
    let (own, its) = (process::cpu(std::process::id()) - own, process::cpu(broker.pid) - its);
    let calls = tracer.and_then(process::Tracer::finish);
    engine.settle();
    let each = |spent: Duration| (received > 0).then(|| spent.as_secs_f64() * 1e6 / received as f64);
    Ok(Outcome {
        rate: Some(received as f64 / elapsed.as_secs_f64()),
        p50_ms: engine.latency.quantile_ms(0.5),
        p99_ms: engine.latency.quantile_ms(0.99),
        cpu_us: each(its),
        generator_us: each(own),
        syscalls: calls.filter(|_| received > 0).map(|calls| calls as f64 / received as f64),
        lost: engine.counts.lost,
        repeated: engine.counts.repeated,
        bytes: None,
        error: ran.err(),
    })
}
