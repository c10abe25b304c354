//! The generator: one thread, one epoll, however many clients.
//!
//! A **flow** is a publisher and those who receive what it publishes. A publisher may be at most
//! a window ahead of the slowest of them, and at QoS 1 of its PUBACKs: so every broker is measured
//! by what it carries, and none by what it drops or how much it holds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rustls::ClientConfig;

use crate::histogram::Histogram;
use crate::link::{Got, Link, READ_BYTES, READ_BYTES_MAX};
use crate::wire::{self, Frame, Template};

/// How many connections may be under way at once while clients connect.
const DIALLING_MAX: usize = 64;

/// How long nothing may move before a run counts as stuck.
const STUCK: Duration = Duration::from_secs(4);

/// A client as it is to be.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) id: String,
    pub(crate) from: IpAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) role: Role,
}

/// What a client does.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// Nothing.
    Idle,
    /// Publishes a flow.
    Publish { flow: u32 },
    /// Receives a run of flows through one filter.
    Receive { filter: String, qos: u8, first: u32, count: u32 },
}

#[derive(Debug)]
struct Client {
    link: Option<Link>,
    spec: Spec,
    phase: Phase,
    /// The beginning of a frame.
    input: Vec<u8>,
    /// The number each of its flows must bring next.
    expected: Vec<u32>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Waiting,
    Connecting,
    Subscribing,
    Ready,
    Lost,
}

/// A publisher and its receivers.
#[derive(Debug)]
struct Flow {
    publisher: usize,
    receivers: u16,
    qos: u8,
    template: Template,
    sent: u32,
    /// Messages that every receiver has.
    completed: u32,
    acknowledged: u32,
    /// For each message of the window how many have it.
    ring: Vec<u16>,
    dirty: bool,
}

impl Flow {
    fn room(&self, window: u32) -> u32 {
        let behind = self.sent - self.completed;
        let unacknowledged = if self.qos > 0 { self.sent - self.acknowledged } else { 0 };
        window.saturating_sub(behind.max(unacknowledged))
    }

    fn received(&mut self, number: u32) {
        let mask = self.ring.len() - 1;
        self.ring[number as usize & mask] += 1;
        while self.completed < self.sent && self.ring[self.completed as usize & mask] == self.receivers {
            self.ring[self.completed as usize & mask] = 0;
            self.completed += 1;
        }
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
}

/// The generator.
pub(crate) struct Engine {
    poll: Poll,
    events: Events,
    to: SocketAddr,
    clients: Vec<Client>,
    flows: Vec<Flow>,
    window: u32,
    pub(crate) counts: Counts,
    pub(crate) latency: Histogram,
    /// Whether latencies are counted now.
    pub(crate) measuring: bool,
    publishing: bool,
    ready: usize,
    under_way: usize,
    problems: Vec<String>,
    dirty: Vec<u32>,
    scratch: Vec<u8>,
    raw: Vec<u8>,
    began: Instant,
}

impl Engine {
    pub(crate) fn new(to: SocketAddr, window: u32) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            to,
            clients: Vec::new(),
            flows: Vec::new(),
            window,
            counts: Counts::default(),
            latency: Histogram::new(),
            measuring: false,
            publishing: false,
            ready: 0,
            under_way: 0,
            problems: Vec::new(),
            dirty: Vec::new(),
            scratch: vec![0; READ_BYTES_MAX],
            raw: vec![0; READ_BYTES],
            began: Instant::now(),
        })
    }

    /// Adds a client, not connected yet.
    pub(crate) fn add(&mut self, spec: Spec) {
        let expected = match spec.role {
            Role::Receive { count, .. } => vec![0; count as usize],
            Role::Idle | Role::Publish { .. } => Vec::new(),
        };
        self.clients.push(Client { link: None, spec, phase: Phase::Waiting, input: Vec::new(), expected });
    }

    /// Adds the next flow, published by the client that is added next.
    pub(crate) fn add_flow(&mut self, topic: &str, qos: u8, receivers: u16) -> u32 {
        let number = self.flows.len() as u32;
        self.flows.push(Flow {
            publisher: self.clients.len(),
            receivers,
            qos,
            template: Template::new(topic, qos, number),
            sent: 0,
            completed: 0,
            acknowledged: 0,
            ring: vec![0; (self.window as usize + 1).next_power_of_two()],
            dirty: false,
        });
        number
    }

    pub(crate) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Connects every client that is not yet, and subscribes. Returns when all are.
    ///
    /// # Errors
    ///
    /// What went wrong first, where not all come in within `patience`.
    pub(crate) fn connect(&mut self, patience: Duration) -> Result<(), String> {
        let until = Instant::now() + patience;
        let mut next = 0;
        while self.ready < self.clients.len() {
            while self.under_way < DIALLING_MAX && next < self.clients.len() {
                if self.clients[next].phase == Phase::Waiting {
                    self.dial(next).map_err(|error| format!("dialling: {error}"))?;
                }
                next += 1;
            }
            self.turn(Some(Duration::from_millis(100))).map_err(|error| error.to_string())?;
            if let Some(problem) = self.problems.first() {
                return Err(format!("{problem} ({} of {} were connected)", self.ready, self.clients.len()));
            }
            if Instant::now() > until {
                return Err(format!("{} of {} clients were connected in {patience:?}", self.ready, self.clients.len()));
            }
        }
        Ok(())
    }

    fn dial(&mut self, index: usize) -> io::Result<()> {
        let client = &mut self.clients[index];
        let mut link = Link::dial(client.spec.from, self.to, client.spec.tls.as_ref())?;
        link.register(self.poll.registry(), Token(index))?;
        link.out = wire::connect(&client.spec.id);
        client.link = Some(link);
        client.phase = Phase::Connecting;
        self.under_way += 1;
        Ok(())
    }

    /// Publishes as fast as windows allow, for so long. Nothing is awaited at the end.
    ///
    /// # Errors
    ///
    /// That nothing moves any more, or a connection was lost.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(), String> {
        let until = Instant::now() + time;
        self.publishing = true;
        for flow in 0..self.flows.len() as u32 {
            self.mark(flow);
        }
        self.pump();
        let (mut moved, mut last) = (Instant::now(), self.counts.received);
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            self.turn(Some((until - now).min(Duration::from_millis(100)))).map_err(|error| error.to_string())?;
            self.check(&mut moved, &mut last)?;
        }
    }

    /// Publishes at a rate, one flow after another, for so long.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub(crate) fn run_at(&mut self, rate: f64, time: Duration) -> Result<(), String> {
        self.publishing = false;
        let began = Instant::now();
        let (mut due_next, mut moved, mut last) = (0_u64, began, self.counts.received);
        loop {
            let elapsed = began.elapsed();
            if elapsed >= time {
                return Ok(());
            }
            let due = (elapsed.as_secs_f64() * rate) as u64;
            while due_next < due {
                let flow = (due_next % self.flows.len() as u64) as u32;
                // A flow whose window is full waits for its turn to come round.
                self.publish(flow, 1);
                due_next += 1;
            }
            self.flush_dirty();
            self.turn(Some(Duration::from_millis(1))).map_err(|error| error.to_string())?;
            self.check(&mut moved, &mut last)?;
        }
    }

    fn check(&self, moved: &mut Instant, last: &mut u64) -> Result<(), String> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.clone());
        }
        if self.counts.received != *last {
            *last = self.counts.received;
            *moved = Instant::now();
        } else if moved.elapsed() > STUCK {
            return Err(format!("nothing arrived for {STUCK:?}; {} messages are on their way", self.missing()));
        }
        Ok(())
    }

    /// Publishes no more and waits for what is on its way; what does not come is lost.
    pub(crate) fn settle(&mut self) {
        self.publishing = false;
        let (mut moved, mut last) = (Instant::now(), self.counts.received);
        while self.missing() > 0 {
            if self.turn(Some(Duration::from_millis(100))).is_err() || self.check(&mut moved, &mut last).is_err() {
                break;
            }
        }
        self.counts.lost += self.missing();
    }

    /// Copies that were sent and have not arrived.
    fn missing(&self) -> u64 {
        let copies: u64 = self.flows.iter().map(|flow| u64::from(flow.sent) * u64::from(flow.receivers)).sum();
        copies.saturating_sub(self.counts.received + self.counts.lost)
    }

    /// How many clients have lost their connection.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// Waits for something to happen, and handles all of it.
    pub(crate) fn turn(&mut self, patience: Option<Duration>) -> io::Result<()> {
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, patience) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => other?,
        }
        for event in &events {
            let index = event.token().0;
            if event.is_writable()
                && let Some(link) = &mut self.clients[index].link
            {
                link.set_writable();
                if link.is_behind()
                    && let Err(error) = link.flush()
                {
                    self.lose(index, &error.to_string());
                }
            }
            if event.is_readable() {
                self.receive(index);
            }
        }
        self.events = events;
        self.pump();
        Ok(())
    }

    fn lose(&mut self, index: usize, why: &str) {
        let client = &mut self.clients[index];
        match client.phase {
            Phase::Ready => self.ready -= 1,
            Phase::Connecting | Phase::Subscribing => self.under_way -= 1,
            Phase::Waiting | Phase::Lost => return,
        }
        self.problems.push(format!("{} ({:?}): {why}", client.spec.id, client.phase));
        client.phase = Phase::Lost;
        client.link = None;
    }

    fn receive(&mut self, index: usize) {
        let (mut scratch, mut raw) = (std::mem::take(&mut self.scratch), std::mem::take(&mut self.raw));
        while let Some(link) = &mut self.clients[index].link {
            match link.read(&mut scratch, &mut raw) {
                Ok(Got::Bytes(count)) => {
                    if let Err(why) = self.take(index, &scratch[..count]) {
                        self.lose(index, &why);
                    }
                }
                Ok(Got::Nothing) => break,
                Ok(Got::End) => self.lose(index, "the broker closed it"),
                Err(error) => self.lose(index, &error.to_string()),
            }
        }
        (self.scratch, self.raw) = (scratch, raw);
        if let Some(link) = &mut self.clients[index].link
            && link.is_behind()
            && let Err(error) = link.flush()
        {
            self.lose(index, &error.to_string());
        }
    }

    /// Handles bytes of a client, and keeps what is no whole frame yet.
    fn take(&mut self, index: usize, bytes: &[u8]) -> Result<(), String> {
        let now = self.now_ns();
        let mut input = std::mem::take(&mut self.clients[index].input);
        if input.is_empty() {
            let used = self.take_frames(index, bytes, now)?;
            input.extend_from_slice(&bytes[used..]);
        } else {
            input.extend_from_slice(bytes);
            let used = self.take_frames(index, &input, now)?;
            input.drain(..used);
        }
        self.clients[index].input = input;
        Ok(())
    }

    fn take_frames(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<usize, String> {
        let mut used = 0;
        while used < bytes.len() {
            let Some((frame, len)) = wire::split(&bytes[used..])? else { break };
            used += len;
            match frame {
                Frame::Message { flow, number, stamp, packet_id } => {
                    if let Some(id) = packet_id
                        && let Some(link) = &mut self.clients[index].link
                    {
                        link.out.extend_from_slice(&wire::puback(id));
                    }
                    self.message(index, flow, number)?;
                    if self.measuring {
                        self.latency.record(now.saturating_sub(stamp));
                    }
                }
                Frame::Puback => {
                    if let Role::Publish { flow } = self.clients[index].spec.role {
                        self.flows[flow as usize].acknowledged += 1;
                        self.mark(flow);
                    }
                }
                Frame::Connack(0) => self.connected(index),
                Frame::Suback(code) if code <= 1 => self.is_ready(index),
                other => return Err(format!("the broker sent {other:?}")),
            }
        }
        Ok(used)
    }

    fn message(&mut self, index: usize, flow: u32, number: u32) -> Result<(), String> {
        let Role::Receive { first, count, .. } = self.clients[index].spec.role else {
            return Err("a message for a client that receives none".into());
        };
        if flow < first || flow - first >= count {
            return Err(format!("a message of flow {flow} for a client that receives others"));
        }
        let expected = &mut self.clients[index].expected[(flow - first) as usize];
        let state = &mut self.flows[flow as usize];
        if number < *expected {
            self.counts.repeated += 1;
            return Ok(());
        }
        // What was passed over will not come any more: there is one way, and it keeps the order.
        while *expected < number {
            state.received(*expected);
            *expected += 1;
            self.counts.lost += 1;
        }
        state.received(number);
        *expected += 1;
        self.counts.received += 1;
        self.mark(flow);
        Ok(())
    }

    fn connected(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Role::Receive { filter, qos, .. } = &client.spec.role
            && let Some(link) = &mut client.link
        {
            link.out.extend_from_slice(&wire::subscribe(filter, *qos));
            client.phase = Phase::Subscribing;
        } else {
            self.is_ready(index);
        }
    }

    fn is_ready(&mut self, index: usize) {
        self.clients[index].phase = Phase::Ready;
        self.ready += 1;
        self.under_way -= 1;
    }

    fn mark(&mut self, flow: u32) {
        let state = &mut self.flows[flow as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty.push(flow);
        }
    }

    /// Publishes what the windows of the flows in which something moved allow.
    fn pump(&mut self) {
        if !self.publishing {
            for flow in std::mem::take(&mut self.dirty) {
                self.flows[flow as usize].dirty = false;
            }
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        for flow in &dirty {
            self.flows[*flow as usize].dirty = false;
            self.publish(*flow, u32::MAX);
        }
        self.flush(&dirty);
        dirty.clear();
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn flush_dirty(&mut self) {
        let dirty: Vec<u32> = (0..self.flows.len() as u32).collect();
        self.flush(&dirty);
    }

    fn flush(&mut self, flows: &[u32]) {
        for flow in flows {
            let index = self.flows[*flow as usize].publisher;
            if let Some(link) = &mut self.clients[index].link
                && !link.out.is_empty()
                && let Err(error) = link.flush()
            {
                self.lose(index, &error.to_string());
            }
        }
    }

    /// Puts messages of a flow behind what its publisher already has to write.
    fn publish(&mut self, flow: u32, most: u32) {
        let now = self.now_ns();
        let state = &mut self.flows[flow as usize];
        let Some(link) = &mut self.clients[state.publisher].link else { return };
        for _ in 0..state.room(self.window).min(most) {
            state.template.append(state.sent, now, &mut link.out);
            state.sent += 1;
        }
    }
}
