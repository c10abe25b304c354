//! Honest clients while others attack: what they lose, how long they wait, what it costs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde_json::json;

use crate::attacks::Name;
use crate::cases::{Settings, Way, client};
use crate::engine::{Engine, Role};
use crate::histogram::Histogram;
use crate::peers::{Peer, Programs, Running, Stage};
use crate::{pki, process};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);

/// 100 honest clients, 50 pairs at QoS 1, from other addresses than the attackers. Each attack has a
/// broker of its own, as it comes, and must leave the honest ones their messages and their pace, take
/// at most a fifth of a processor, and reach an end of the memory it takes
#[derive(Debug, clap::Args)]
pub(crate) struct Hostile {
    /// An attack; may be given more than once. Else all
    #[arg(long, value_name = "ATTACK")]
    only: Vec<Name>,
    /// Seconds at rest
    #[arg(long, default_value_t = 4.0)]
    rest: f64,
    /// Seconds under attack
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Messages a second of the honest, together
    #[arg(long, default_value_t = 2_000.0)]
    honest: f64,
    /// Connections or packets a second of the attackers, together
    #[arg(long, default_value_t = 1_000.0)]
    attack: f64,
    /// A key of the broker's configuration, KEY=VALUE; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the JSON lines go
    #[arg(long, value_name = "FILE", env = "HOSTILE_JSON")]
    json: PathBuf,
    #[command(flatten)]
    programs: Programs,
}

/// A part of a run.
struct Span {
    p99_ms: f64,
    /// Share of one processor the broker took.
    cpu: f64,
    /// Resident bytes, looked at again and again.
    memory: Vec<u64>,
    error: Option<String>,
}

/// One attack.
struct Outcome {
    rest: Span,
    attack: Span,
    lost: u64,
    said: String,
}

impl Hostile {
    /// Runs all that is asked for. Gives whether every goal is met.
    pub(crate) fn run(&self, folder: &Path) -> Result<bool, Box<dyn Error>> {
        let stage = Stage {
            programs: self.programs.clone(),
            folder: folder.to_owned(),
            set: self.set.clone(),
            prefix: Vec::new(),
            pki: pki::Pki::make(folder)?,
        };
        let attacks = if self.only.is_empty() { Name::ALL.to_vec() } else { self.only.clone() };
        println!(
            "{}, load {}; honest {}/s, attackers {}/s",
            process::machine(),
            process::load(),
            self.honest,
            self.attack
        );
        println!(
            "| attack | p99 ms at rest | under attack | lost | CPU at rest | under attack | attack's | memory MB, half | end | grows | met |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |");
        let mut lines = std::fs::File::create(&self.json)?;
        let mut all = true;
        for attack in attacks {
            let broker = stage.start(Peer::Unhidra)?;
            let outcome = self.run_one(attack, &broker)?;
            all &= outcome.print(attack, &mut lines)?;
        }
        println!("load at the end: {}", process::load());
        Ok(all)
    }

    fn run_one(&self, attack: Name, broker: &Running) -> Result<Outcome, Box<dyn Error>> {
        let mut engine = Engine::new(broker.tcp, 64)?;
        let settings = Settings {
            time: Duration::ZERO,
            rate: self.honest,
            window: None,
            trace: false,
            unnamed: None,
            certificates: Vec::new(),
            resuming: Vec::new(),
        };
        for pair in 0..50 {
            let topic = format!("bench/{pair:05}");
            let flow = engine.add_flow(&topic, 1, 1);
            engine.add(client(2 * pair, Way::Plain, &settings, Role::Publish { flow }));
            let receive = Role::Receive { filter: topic, qos: 1, first: flow, count: 1 };
            engine.add(client(2 * pair + 1, Way::Plain, &settings, receive));
        }
        engine.connect(Duration::from_secs(10))?;
        engine.run_at(self.honest, WARM_UP)?;
        let rest = self.span(&mut engine, broker, Duration::from_secs_f64(self.rest));
        let attackers = self.attackers(attack, broker)?;
        let span = self.span(&mut engine, broker, Duration::from_secs_f64(self.seconds));
        engine.settle();
        let said = attackers.wait_with_output()?;
        let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        Ok(Outcome { rest, attack: span, lost: engine.counts.lost, said })
    }

    fn attackers(&self, attack: Name, broker: &Running) -> Result<Child, Box<dyn Error>> {
        Ok(Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .args(["attack", &attack.text(), "--tcp", &broker.tcp.to_string(), "--tls", &broker.tls.to_string()])
            .args(["--rate", &self.attack.to_string(), "--seconds", &self.seconds.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?)
    }

    fn span(&self, engine: &mut Engine, broker: &Running, time: Duration) -> Span {
        engine.latency = Histogram::new();
        engine.measuring = true;
        let (began, before) = (Instant::now(), process::cpu(broker.pid));
        let mut memory = Vec::new();
        let mut error = None;
        while began.elapsed() < time && error.is_none() {
            error = engine.run_at(self.honest, LOOK.min(time.saturating_sub(began.elapsed()))).err();
            memory.push(process::resident_bytes(broker.pid));
        }
        engine.measuring = false;
        let cpu = (process::cpu(broker.pid) - before).as_secs_f64() / began.elapsed().as_secs_f64();
        Span { p99_ms: engine.latency.quantile_ms(0.99).unwrap_or(f64::INFINITY), cpu, memory, error }
    }
}

impl Outcome {
    /// Prints a row. Gives whether all goals are met.
    fn print(&self, attack: Name, lines: &mut std::fs::File) -> Result<bool, Box<dyn Error>> {
        let (rest, span) = (&self.rest, &self.attack);
        let half = span.memory.get(span.memory.len() / 2).copied().unwrap_or(0);
        let end = span.memory.iter().skip(span.memory.len() / 2).copied().max().unwrap_or(0);
        let grows = end as f64 / half.max(1) as f64 - 1.0;
        let bound = (3.0 * rest.p99_ms).max(rest.p99_ms + 20.0);
        let cost = span.cpu - rest.cpu;
        let error = span.error.as_ref().or(rest.error.as_ref());
        let broken = [
            (self.lost > 0 || error.is_some(), "loss"),
            (span.p99_ms > bound, "p99"),
            (cost > 0.20, "CPU"),
            (grows > 0.02, "memory"),
        ];
        let missed: Vec<&str> = broken.iter().filter(|(broken, _)| *broken).map(|(_, what)| *what).collect();
        let verdict = if missed.is_empty() { "yes".to_owned() } else { missed.join(", ") };
        let name = attack.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        println!(
            "| {name} | {:.1} | {:.1} | {} | {:.0} % | {:.0} % | {:.0} % | {:.1} | {:.1} | {:.1} % | {verdict} |",
            rest.p99_ms,
            span.p99_ms,
            self.lost,
            rest.cpu * 100.0,
            span.cpu * 100.0,
            cost * 100.0,
            half as f64 / 1e6,
            end as f64 / 1e6,
            grows * 100.0,
        );
        eprintln!("  {name}: {}", self.said);
        if let Some(error) = error {
            println!("| | {error} | | | | | | | | | |");
        }
        let line = json!({
            "attack": name, "p99_rest_ms": rest.p99_ms, "p99_attack_ms": span.p99_ms, "lost": self.lost,
            "cpu_rest": rest.cpu, "cpu_attack": span.cpu, "memory": span.memory, "grows": grows, "missed": missed,
            "attackers": self.said, "error": error,
        });
        std::io::Write::write_all(lines, format!("{line}\n").as_bytes())?;
        Ok(missed.is_empty())
    }
}
