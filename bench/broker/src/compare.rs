//! The broker beside mosquitto and rumqttd.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::cases::{CASES, Case, Load, Settings, Way};
use crate::peers::{DEVICES, Peer, Programs, Stage};
use crate::report::Report;
use crate::{cases, peers, pki, process};

/// Our broker beside mosquitto and rumqttd: 64-byte messages, one broker at a time, in turn.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// A case, or what its name begins with; may be given more than once. Else all of them
    #[arg(long, value_name = "CASE")]
    only: Vec<String>,
    /// A broker; may be given more than once. Else all three
    #[arg(long, value_name = "NAME")]
    peer: Vec<Peer>,
    /// How often each case is run against each broker [5; quick 3]
    #[arg(long)]
    rounds: Option<usize>,
    /// How long a run is measured [1.5; quick 1]
    #[arg(long)]
    seconds: Option<f64>,
    /// Three short rounds
    #[arg(long)]
    quick: bool,
    /// How far a publisher may be ahead, where the case's own bound is not meant
    #[arg(long)]
    window: Option<u32>,
    /// Messages a second of the cases at a fixed rate, over all publishers
    #[arg(long, default_value_t = 10_000.0)]
    rate: f64,
    /// The brokers on the first processor, the generator on the second
    #[arg(long)]
    pin: bool,
    /// Counts system calls with strace: one round, and times that mean nothing
    #[arg(long)]
    syscalls: bool,
    /// Measures a broker that runs already, given as PID@ADDRESS:PORT (plain, or TLS for tls cases)
    #[arg(long, value_name = "PID@ADDRESS:PORT")]
    attach: Option<String>,
    /// A key of our broker's configuration, KEY=VALUE; may be given more than once
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the JSON lines go
    #[arg(long, value_name = "FILE", env = "BROKER_JSON")]
    json: PathBuf,
    /// Lists the cases
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    programs: Programs,
}

impl Compare {
    /// Runs all that is asked for. Gives whether all goals are met.
    pub(crate) fn run(&self, folder: &std::path::Path) -> Result<bool, Box<dyn Error>> {
        if self.list {
            CASES.iter().for_each(|case| println!("{:16} {}", case.name, case.about));
            return Ok(true);
        }
        compare(self, folder)
    }
}

fn compare(args: &Compare, folder: &std::path::Path) -> Result<bool, Box<dyn Error>> {
    let cases = chosen(&args.only)?;
    let peers = if args.peer.is_empty() { Peer::ALL.to_vec() } else { args.peer.clone() };
    let rounds = args.rounds.unwrap_or(if args.syscalls {
        1
    } else if args.quick {
        3
    } else {
        5
    });
    let mut stage = Stage {
        programs: args.programs.clone(),
        folder: folder.to_owned(),
        set: args.set.clone(),
        prefix: Vec::new(),
        pki: pki::Pki::make(folder)?,
    };
    if args.pin {
        stage.prefix = ["taskset", "-c", "0"].map(str::to_owned).to_vec();
        let own = std::process::id().to_string();
        Command::new("taskset").args(["-cp", "1", &own]).output()?;
    }
    let mut settings = Settings {
        time: Duration::from_secs_f64(args.seconds.unwrap_or(if args.quick { 1.0 } else { 1.5 })),
        rate: args.rate,
        window: args.window,
        trace: args.syscalls,
        unnamed: Some(pki::unnamed()?),
        certificates: Vec::new(),
        resuming: Vec::new(),
    };
    if cases.iter().any(|case| case.way == Way::Mutual) {
        stage.enrol()?;
        for device in 0..DEVICES {
            settings.certificates.push(pki::client(&stage.device(device), false)?);
            settings.resuming.push(pki::client(&stage.device(device), true)?);
        }
    }
    let header = json!({
        "machine": process::machine(), "load": process::load(), "rounds": rounds,
        "seconds": settings.time.as_secs_f64(), "rate": args.rate, "pinned": args.pin, "set": args.set,
        "unhidra": version(&stage.programs.unhidra, "--version"), "mosquitto": version(&stage.programs.mosquitto, "-h"), "rumqttd": "0.20.0",
    });
    println!("{header}");
    let mut report = Report::new(&args.json, &header)?;
    println!("| case | broker | a second | p50 ms | p99 ms | CPU us each | generator us each | lost | bytes | calls |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in &cases {
        // Memory hangs on nothing that moves.
        let rounds = if matches!(case.load, Load::Idle(_)) { rounds.min(1) } else { rounds };
        for round in 0..rounds {
            for peer in peers.iter().copied().filter(|peer| case.has(*peer)) {
                let broker = match &args.attach {
                    Some(attach) => attached(attach)?,
                    None => stage.start(peer)?,
                };
                if args.peer.len() == 1 && rounds == 1 {
                    eprintln!("{peer}: pid {}, plain {}, TLS {}", broker.pid, broker.tcp, broker.tls);
                }
                report.take(case, peer, round, cases::run(case, &broker, &settings))?;
            }
        }
        report.print(case);
    }
    println!("load at the end: {}; JSON lines in {}", process::load(), args.json.display());
    Ok(report.judge(&cases))
}

fn chosen(only: &[String]) -> Result<Vec<Case>, String> {
    let mut chosen = Vec::new();
    for case in CASES {
        if only.is_empty() || only.iter().any(|name| case.name == name || begins_uniquely(name, case.name)) {
            chosen.push(case);
        }
    }
    for name in only {
        if !CASES.iter().any(|case| case.name.starts_with(name)) {
            return Err(format!("no case {name}; --list shows all"));
        }
    }
    Ok(chosen)
}

/// A name that is no case's whole name stands for all that begin so.
fn begins_uniquely(name: &str, case: &str) -> bool {
    case.starts_with(name) && !CASES.iter().any(|case| case.name == name)
}

fn attached(text: &str) -> Result<peers::Running, Box<dyn Error>> {
    let (pid, address) = text.split_once('@').ok_or("--attach takes PID@ADDRESS:PORT")?;
    let address: SocketAddr = address.parse()?;
    Ok(peers::attached(pid.parse()?, address))
}

/// The first line a program says of itself.
fn version(program: &std::path::Path, flag: &str) -> String {
    let said = Command::new(program).arg(flag).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or("none").to_owned()
}
