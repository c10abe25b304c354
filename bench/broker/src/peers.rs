//! The brokers, each as a process of its own on free ports of loopback.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::pki::Pki;

/// How long a broker may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Peer {
    /// Ours: the product's binary.
    Unhidra,
    /// Debian's.
    Mosquitto,
    /// rumqttd 0.20, plain only.
    Rumqttd,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Unhidra, Self::Mosquitto, Self::Rumqttd];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unhidra => "unhidra",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the programs are.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Programs {
    /// Our binary
    #[arg(long, env = "BENCH_UNHIDRA", hide = true)]
    pub(crate) unhidra: PathBuf,
    /// The peer's
    #[arg(long, env = "BENCH_RUMQTTD", hide = true)]
    pub(crate) rumqttd: PathBuf,
    /// Debian's, which may not be in the path of a user
    #[arg(long, env = "BENCH_MOSQUITTO", default_value = "/usr/sbin/mosquitto", hide = true)]
    pub(crate) mosquitto: PathBuf,
}

/// The programs, and what they share.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) programs: Programs,
    pub(crate) folder: PathBuf,
    /// More keys for ours, each `KEY=VALUE`.
    pub(crate) set: Vec<String>,
    /// Put before each broker's command, as in `taskset -c 0`.
    pub(crate) prefix: Vec<String>,
    pub(crate) pki: Pki,
}

/// Devices, hence certificates, that clients share over TLS.
pub(crate) const DEVICES: usize = 20;

/// A broker that listens; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
    pub(crate) pid: u32,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    /// TLS that asks for the client's certificate.
    pub(crate) mutual: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Stage {
    /// Enrols the devices whose certificates all clients show, with our own authority.
    pub(crate) fn enrol(&self) -> Result<(), Box<dyn Error>> {
        for device in 0..DEVICES {
            let out = Command::new(&self.programs.unhidra)
                .args(["enroll", &format!("bench-{device}"), "--out"])
                .arg(self.device(device))
                .args(["--data".as_ref(), self.data().as_os_str()])
                .args(self.pki_keys())
                .output()?;
            if !out.status.success() {
                return Err(format!("unhidra enroll: {}", String::from_utf8_lossy(&out.stderr)).into());
            }
        }
        Ok(())
    }

    /// The folder of a device's certificate.
    pub(crate) fn device(&self, number: usize) -> PathBuf {
        self.folder.join(format!("device-{}", number % DEVICES))
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn pki_keys(&self) -> Vec<String> {
        let key = |key: &str, path: &Path| ["--set".to_owned(), format!("pki.{key}={}", path.display())];
        let pki = &self.pki;
        [key("ca", &pki.ca), key("ca_key", &pki.ca_key), key("certificate", &pki.certificate), key("key", &pki.key)]
            .concat()
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts one and waits until it listens.
    pub(crate) fn start(&self, peer: Peer) -> Result<Running, Box<dyn Error>> {
        match peer {
            Peer::Unhidra => self.start_unhidra(),
            Peer::Mosquitto => self.start_mosquitto(),
            Peer::Rumqttd => {
                let tcp = free_address()?;
                let log = File::create(self.folder.join("rumqttd.log"))?;
                let child = self.command(&self.programs.rumqttd).arg(tcp.to_string()).stderr(log).spawn()?;
                listening(child, tcp, tcp, tcp)
            }
        }
    }

    fn start_unhidra(&self) -> Result<Running, Box<dyn Error>> {
        let mut command = self.command(&self.programs.unhidra);
        command.args(["run", "--json", "--data"]).arg(self.data()).args(self.pki_keys());
        for key in UNHIDRA.iter().copied().chain(self.set.iter().map(String::as_str)) {
            command.args(["--set", key]);
        }
        let log = File::create(self.folder.join("unhidra.log"))?;
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut running =
            Running { pid: child.id(), child: Some(child), tcp: nowhere(), tls: nowhere(), mutual: nowhere() };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let log = || fs::read_to_string(self.folder.join("unhidra.log")).unwrap_or_default();
        let ready: Value = serde_json::from_str(&line).map_err(|_| format!("unhidra did not start: {}", log()))?;
        let address = |key: &str| ready[key].as_str().ok_or("no address")?.parse().map_err(|_| "no address");
        running.tcp = address("mqtt_plain")?;
        running.tls = address("mqtt")?;
        running.mutual = running.tls;
        Ok(running)
    }

    fn start_mosquitto(&self) -> Result<Running, Box<dyn Error>> {
        let (tcp, tls, mutual) = (free_address()?, free_address()?, free_address()?);
        let file = self.folder.join("mosquitto.conf");
        let pki = &self.pki;
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let chain = format!(
            "cafile {}\ncertfile {}\nkeyfile {}\ntls_version tlsv1.3\n",
            pki.ca.display(),
            pki.certificate.display(),
            pki.key.display(),
        );
        fs::write(
            &file,
            format!(
                "user {user}\npersistence false\nlog_type none\nallow_anonymous true\nset_tcp_nodelay true\n\
                 max_inflight_messages 100\nmax_queued_messages 1000000\n\
                 listener {} 127.0.0.1\n\
                 listener {} 127.0.0.1\n{chain}\
                 listener {} 127.0.0.1\n{chain}require_certificate true\n",
                tcp.port(),
                tls.port(),
                mutual.port(),
            ),
        )?;
        let log = File::create(self.folder.join("mosquitto.log"))?;
        let child = self.command(&self.programs.mosquitto).arg("-c").arg(&file).stderr(log).spawn()?;
        listening(child, tcp, tls, mutual)
    }
}

/// Ours: plain and TLS, for anybody, with a certificate or without. What else there is stays as it
/// comes.
const UNHIDRA: [&str; 10] = [
    "broker.tls.listen=127.0.0.1:0",
    "broker.tls.client_certificate=optional",
    "broker.tls.anonymous=true",
    "broker.tcp.listen=127.0.0.1:0",
    "broker.tcp.anonymous=true",
    // Few certificates for many connections.
    "broker.limits.connections_per_device=20000",
    // One address for all of them.
    "broker.gate.connects_per_address_s=0",
    "gateway.listen=127.0.0.1:0",
    "admin.listen=127.0.0.1:0",
    "log.level=warn",
];

fn nowhere() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)
}

/// An address nobody listens at.
fn free_address() -> Result<SocketAddr, Box<dyn Error>> {
    Ok(TcpListener::bind(nowhere())?.local_addr()?)
}

fn listening(child: Child, tcp: SocketAddr, tls: SocketAddr, mutual: SocketAddr) -> Result<Running, Box<dyn Error>> {
    let mut running = Running { pid: child.id(), child: Some(child), tcp, tls, mutual };
    let until = Instant::now() + PATIENCE;
    for address in [tcp, tls, mutual] {
        while TcpStream::connect(address).is_err() {
            let ended = running.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if ended.is_some() || Instant::now() > until {
                return Err(format!("nobody listens at {address}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(running)
}

/// A broker that somebody else runs.
pub(crate) fn attached(pid: u32, address: SocketAddr) -> Running {
    Running { child: None, pid, tcp: address, tls: address, mutual: address }
}
