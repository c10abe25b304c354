//! TLS connections that come, say CONNECT, hear CONNACK and go.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

use crate::cases::{Outcome, Settings, Way, client};
use crate::engine::Role;
use crate::link::{Got, Link, READ_BYTES, READ_BYTES_MAX};
use crate::peers::Running;
use crate::{process, wire};

/// How many are under way at once.
const AT_ONCE: usize = 32;

struct Storm<'s> {
    poll: Poll,
    links: Vec<Option<Link>>,
    broker: &'s Running,
    settings: &'s Settings,
    resumed: bool,
    dialled: usize,
    done: u64,
    shortened: u64,
    failed: u64,
    problem: Option<String>,
    scratch: Vec<u8>,
    raw: Vec<u8>,
}

pub(crate) fn run(resumed: bool, broker: &Running, settings: &Settings) -> Result<Outcome, String> {
    let mut storm = Storm {
        poll: Poll::new().map_err(|error| error.to_string())?,
        links: (0..AT_ONCE).map(|_| None).collect(),
        broker,
        settings,
        resumed,
        dialled: 0,
        done: 0,
        shortened: 0,
        failed: 0,
        problem: None,
        scratch: vec![0; READ_BYTES_MAX],
        raw: vec![0; READ_BYTES],
    };
    storm.blow(Duration::from_millis(500)).map_err(|error| error.to_string())?;
    let (before, shortened, failed) = (storm.done, storm.shortened, storm.failed);
    let (own, its) = (process::cpu(std::process::id()), process::cpu(broker.pid));
    let began = Instant::now();
    storm.blow(settings.time).map_err(|error| error.to_string())?;
    let elapsed = began.elapsed();
    let (own, its) = (process::cpu(std::process::id()) - own, process::cpu(broker.pid) - its);
    let (done, shortened) = (storm.done - before, storm.shortened - shortened);
    let each = |spent: Duration| (done > 0).then(|| spent.as_secs_f64() * 1e6 / done as f64);
    // A ticket is good once, and now and then a client has none left.
    let as_meant = if resumed { shortened * 100 >= done * 95 } else { shortened == 0 };
    let error = if storm.failed > failed {
        Some(format!("{} failed: {}", storm.failed - failed, storm.problem.unwrap_or_default()))
    } else if !as_meant {
        Some(format!("{shortened} of {done} were resumed"))
    } else {
        None
    };
    Ok(Outcome {
        rate: Some(done as f64 / elapsed.as_secs_f64()),
        cpu_us: each(its),
        generator_us: each(own),
        error,
        ..Outcome::default()
    })
}

impl Storm<'_> {
    fn blow(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        let mut events = Events::with_capacity(AT_ONCE);
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            for slot in 0..AT_ONCE {
                if self.links[slot].is_none() {
                    self.dial(slot)?;
                }
            }
            self.poll.poll(&mut events, Some((until - now).min(Duration::from_millis(50))))?;
            for event in &events {
                let slot = event.token().0;
                if let Err(error) = self.serve(slot, event.is_writable()) {
                    self.problem.get_or_insert(error.to_string());
                    self.failed += 1;
                    self.links[slot] = None;
                }
            }
        }
    }

    fn dial(&mut self, slot: usize) -> io::Result<()> {
        let mut spec = client(self.dialled, Way::Mutual, self.settings, Role::Idle);
        if self.resumed {
            spec.tls = self.settings.resuming.get(self.dialled % self.settings.resuming.len().max(1)).cloned();
        }
        let mut link = Link::dial(spec.from, self.broker.mutual, spec.tls.as_ref())?;
        link.register(self.poll.registry(), Token(slot))?;
        link.out = wire::connect(&format!("storm-{}", self.dialled));
        self.links[slot] = Some(link);
        self.dialled += 1;
        Ok(())
    }

    fn serve(&mut self, slot: usize, writable: bool) -> io::Result<()> {
        let Some(link) = &mut self.links[slot] else { return Ok(()) };
        if writable {
            link.set_writable();
        }
        link.flush()?;
        let mut answered = false;
        loop {
            match link.read(&mut self.scratch, &mut self.raw)? {
                // Nothing but the CONNACK is sent, and tickets.
                Got::Bytes(count) => answered |= count > 0,
                Got::Nothing => break,
                Got::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        if answered {
            self.done += 1;
            self.shortened += u64::from(link.resumed());
            link.reset();
            self.links[slot] = None;
        }
        Ok(())
    }
}
