//! One thread of the generator: an epoll and the clients it serves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};
use rustls::ClientConfig;
use unhidra_core::time::Timestamp;

use super::speaker::Speaker;
use crate::histogram::Histogram;
use crate::link::{Got, Link, READ_BYTES, READ_BYTES_MAX};

/// Handshakes a thread has under way, unless it is told otherwise.
pub(super) const DIALS_AT_ONCE: usize = 32;
/// How often clocks are looked at.
const TICK: Duration = Duration::from_millis(50);

/// What a worker is told.
pub(super) enum Order {
    /// Connect all, so many at once.
    Dial(usize),
    /// This is the load from now on.
    Load(Load),
    /// Measure from now on.
    Begin,
    /// Say what was measured.
    Collect(Sender<Measured>),
    /// End.
    Stop,
}

/// How much a worker's clients publish.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Load {
    /// Nothing more.
    Rest,
    /// So many are in flight of each client, always.
    Window(usize),
    /// So many a second, of all clients in turn.
    Paced(f64),
}

/// What a worker measured: PUBACKs since it began.
pub(super) struct Measured {
    pub(super) times: Histogram,
    pub(super) max_ns: u64,
}

/// What all workers count together.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// Clients whose first reading is acknowledged.
    pub(super) ready: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) in_flight: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Connections that ended.
    pub(super) lost: AtomicU64,
    /// Readings that were due and found all of a client's window in flight.
    pub(super) skipped: AtomicU64,
}

/// A client and its connection.
pub(super) struct Client {
    pub(super) speaker: Speaker,
    pub(super) tls: Arc<ClientConfig>,
    link: Option<Link>,
    ready: bool,
    dial_at: Option<Instant>,
    /// What is on its way: the reading's id and when it was published.
    in_flight: Vec<(u64, Instant)>,
    /// Publishes; one that does not listens.
    publishes: bool,
}

impl Client {
    pub(super) fn new(speaker: Speaker, tls: Arc<ClientConfig>, publishes: bool) -> Self {
        Self { speaker, tls, link: None, ready: false, dial_at: None, in_flight: Vec::new(), publishes }
    }
}

/// The thread's state.
pub(super) struct Worker {
    clients: Vec<Client>,
    to: SocketAddr,
    poll: Poll,
    counts: Arc<Counts>,
    epoch: Instant,
    load: Load,
    measured: Measured,
    dials_at_once: usize,
    dialling: usize,
    raw: Vec<u8>,
    plain: Vec<u8>,
}

impl Worker {
    pub(super) fn new(
        clients: Vec<Client>,
        to: SocketAddr,
        epoch: Instant,
        counts: Arc<Counts>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            clients,
            to,
            poll: Poll::new()?,
            counts,
            epoch,
            load: Load::Rest,
            measured: Measured { times: Histogram::new(), max_ns: 0 },
            dials_at_once: 0,
            dialling: 0,
            raw: vec![0; READ_BYTES],
            plain: vec![0; READ_BYTES_MAX],
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_ms(self.epoch.elapsed().as_millis() as u64)
    }

    /// Serves until it is told to stop.
    pub(super) fn run(mut self, orders: &Receiver<Order>) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let (mut tick, mut due, mut turn) = (Instant::now(), Instant::now(), 0);
        loop {
            while let Ok(order) = orders.try_recv() {
                match order {
                    Order::Dial(at_once) => {
                        self.dials_at_once = at_once;
                        let now = Instant::now();
                        for client in &mut self.clients {
                            client.dial_at = Some(now);
                        }
                        self.dial()?;
                    }
                    Order::Load(load) => {
                        self.load = load;
                        due = Instant::now();
                        for at in 0..self.clients.len() {
                            self.top_up(at);
                            self.flush(at)?;
                        }
                    }
                    Order::Begin => self.measured = Measured { times: Histogram::new(), max_ns: 0 },
                    Order::Collect(to) => {
                        let none = Measured { times: Histogram::new(), max_ns: 0 };
                        let _ = to.send(std::mem::replace(&mut self.measured, none));
                    }
                    Order::Stop => return Ok(()),
                }
            }
            let pause = match self.load {
                Load::Paced(_) => due.saturating_duration_since(Instant::now()).min(Duration::from_millis(5)),
                _ => Duration::from_millis(5),
            };
            if let Err(error) = self.poll.poll(&mut events, Some(pause))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                return Err(error.to_string());
            }
            for event in &events {
                let at = event.token().0;
                if let Some(link) = &mut self.clients[at].link
                    && event.is_writable()
                {
                    link.set_writable();
                }
                self.serve(at)?;
            }
            if let Load::Paced(rate) = self.load {
                while due <= Instant::now() {
                    due += Duration::from_secs_f64(1.0 / rate);
                    turn = (turn + 1) % self.clients.len();
                    if !self.publish(turn) {
                        self.counts.skipped.fetch_add(1, Ordering::Relaxed);
                    }
                    self.flush(turn)?;
                }
            }
            if tick.elapsed() >= TICK {
                tick = Instant::now();
                self.tick()?;
            }
        }
    }

    fn tick(&mut self) -> Result<(), String> {
        let now = self.now();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            if client.link.is_some() {
                client.speaker.timeout(now);
                self.flush(at)?;
            }
        }
        self.dial()
    }

    /// Begins as many connections as may be under way.
    fn dial(&mut self) -> Result<(), String> {
        let instant = Instant::now();
        for at in 0..self.clients.len() {
            if self.dialling >= self.dials_at_once {
                break;
            }
            if self.clients[at].dial_at.is_none_or(|dial_at| dial_at > instant) {
                continue;
            }
            let client = &mut self.clients[at];
            client.dial_at = None;
            // A first reading before the connection, so that a session begins with it.
            if client.publishes && client.in_flight.is_empty() {
                self.publish(at);
            }
            let now = self.now();
            let client = &mut self.clients[at];
            let from = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let mut link = Link::dial(from, self.to, Some(&client.tls)).map_err(|error| error.to_string())?;
            link.register(self.poll.registry(), Token(at)).map_err(|error| error.to_string())?;
            client.link = Some(link);
            client.speaker.connected(now);
            self.dialling += 1;
        }
        Ok(())
    }

    /// Reads all there is, and answers it.
    fn serve(&mut self, at: usize) -> Result<(), String> {
        loop {
            let now = self.now();
            let client = &mut self.clients[at];
            let Some(link) = &mut client.link else { return Ok(()) };
            match link.read(&mut self.plain, &mut self.raw) {
                Ok(Got::Bytes(0)) => {}
                Ok(Got::Bytes(count)) => {
                    let (in_flight, measured, counts) = (&mut client.in_flight, &mut self.measured, &self.counts);
                    let mut heard = false;
                    let handled = client.speaker.handle(&self.plain[..count], now, |id, taken| {
                        heard = true;
                        let Some(place) = in_flight.iter().position(|(of, _)| *of == id) else { return };
                        let (_, published) = in_flight.swap_remove(place);
                        counts.in_flight.fetch_sub(1, Ordering::Relaxed);
                        if taken {
                            let ns = published.elapsed().as_nanos() as u64;
                            measured.times.record(ns);
                            measured.max_ns = measured.max_ns.max(ns);
                            counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                        } else {
                            counts.refused.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                    handled?;
                    if heard && !client.ready {
                        client.ready = true;
                        self.dialling -= 1;
                        self.counts.ready.fetch_add(1, Ordering::Relaxed);
                        self.dial()?;
                    }
                    self.top_up(at);
                }
                Ok(Got::Nothing) => return self.flush(at),
                Ok(Got::End) | Err(_) => {
                    self.lose(at);
                    return Ok(());
                }
            }
        }
    }

    /// A connection ended: the client dials again soon.
    fn lose(&mut self, at: usize) {
        let now = self.now();
        let client = &mut self.clients[at];
        client.link = None;
        client.speaker.disconnected(now);
        client.dial_at = Some(Instant::now() + Duration::from_millis(200));
        if client.ready {
            client.ready = false;
            self.counts.ready.fetch_sub(1, Ordering::Relaxed);
        } else {
            self.dialling -= 1;
        }
        self.counts.lost.fetch_add(1, Ordering::Relaxed);
    }

    fn top_up(&mut self, at: usize) {
        if let Load::Window(window) = self.load {
            while self.clients[at].publishes && self.clients[at].in_flight.len() < window && self.publish(at) {}
        }
    }

    fn publish(&mut self, at: usize) -> bool {
        let now = self.now();
        let client = &mut self.clients[at];
        let published = Instant::now();
        let Some(id) = client.speaker.publish(now) else { return false };
        client.in_flight.push((id, published));
        self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn flush(&mut self, at: usize) -> Result<(), String> {
        let now = self.now();
        let client = &mut self.clients[at];
        let Some(link) = &mut client.link else { return Ok(()) };
        let over = client.speaker.transmit(&mut link.out, now)?;
        let failed = link.is_behind() && link.flush().is_err();
        if over || failed {
            self.lose(at);
        }
        Ok(())
    }
}
