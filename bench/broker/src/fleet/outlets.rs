//! Readings out, in the clear: how fast a log that is there already goes by each kind of outlet.

use std::error::Error;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Bench;
use super::report::{Report, Row};
use super::stage::Disk;
use crate::{process, wire};

/// Readings in the log, of 64 bytes each.
const ROWS: usize = 400_000;
/// Devices they are of.
const DEVICES: usize = 8;
/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

type Outcome = Result<(), Box<dyn Error>>;

/// What came, from the first row to the last or until the time was over.
struct Came {
    rows: u64,
    seconds: f64,
    node: Duration,
    generator: Duration,
    /// Places of the log between the first row and the last that did not come; none where no row says.
    missing: Option<u64>,
}

/// Counts rows and what they cost.
struct Meter {
    pid: u32,
    length: Duration,
    began: Option<(Instant, Duration, Duration)>,
    rows: u64,
    places: Option<(u64, u64)>,
}

impl Meter {
    fn new(pid: u32, length: Duration) -> Self {
        Self { pid, length, began: None, rows: 0, places: None }
    }

    /// Takes so many rows, the last of them from this place. Says whether that is enough.
    fn take(&mut self, rows: u64, place: Option<u64>) -> bool {
        let now = || (Instant::now(), process::cpu(self.pid), process::cpu(std::process::id()));
        let (began, ..) = *self.began.get_or_insert_with(now);
        self.rows += rows;
        if let Some(place) = place {
            self.places = Some((self.places.map_or(place, |(first, _)| first), place));
        }
        // Looked at seldom: it is a system call for who takes them one by one.
        let is_last = place == Some(ROWS as u64) || self.rows == ROWS as u64;
        is_last || (self.rows % 256 < rows && began.elapsed() >= self.length)
    }

    fn end(self) -> Result<Came, String> {
        let (began, node, generator) = self.began.ok_or("nothing came")?;
        Ok(Came {
            rows: self.rows,
            seconds: began.elapsed().as_secs_f64(),
            node: process::cpu(self.pid).saturating_sub(node),
            generator: process::cpu(std::process::id()).saturating_sub(generator),
            missing: self.places.map(|(first, last)| (last + 1 - first).saturating_sub(self.rows)),
        })
    }
}

/// Whoever takes rows, on a thread; it begins when it is told the node's pid.
struct Taker {
    told: mpsc::Sender<u32>,
    thread: JoinHandle<Result<Came, String>>,
}

impl Taker {
    fn start(length: Duration, take: impl FnOnce(&mut Meter) -> Outcome + Send + 'static) -> Self {
        let (told, pid) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut meter = Meter::new(pid.recv().map_err(|_| "no node")?, length);
            take(&mut meter).map_err(|error| error.to_string())?;
            meter.end()
        });
        Self { told, thread }
    }

    fn came(self, pid: u32) -> Result<Came, Box<dyn Error>> {
        self.told.send(pid)?;
        Ok(self.thread.join().map_err(|_| "the taker's thread ended")??)
    }
}

/// A client that is subscribed at QoS 1.
fn subscribed(address: SocketAddr, filter: &str) -> Result<TcpStream, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&wire::connect("reader"))?;
    stream.write_all(&wire::subscribe(filter, 1))?;
    let mut answers = [0; 9];
    stream.read_exact(&mut answers)?;
    match answers {
        [0x20, 2, _, 0, 0x90, 3, _, _, 1] => Ok(stream),
        other => Err(format!("CONNACK and SUBACK are {other:?}").into()),
    }
}

/// Takes and acknowledges messages.
fn take_messages(mut stream: TcpStream, meter: &mut Meter) -> Outcome {
    let (mut held, mut scratch) = (Vec::new(), vec![0; 256 * 1024]);
    loop {
        let count = stream.read(&mut scratch)?;
        if count == 0 {
            return Err("the broker closed".into());
        }
        held.extend_from_slice(&scratch[..count]);
        let (mut at, mut acks, mut enough) = (0, Vec::new(), false);
        while let Some((first, body, len)) = frame(&held[at..]) {
            if first >> 4 == 3 {
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                acks.extend_from_slice(&wire::puback([body[2 + topic], body[3 + topic]]));
                enough |= meter.take(1, place(&body[4 + topic..]));
            }
            at += len;
        }
        held.drain(..at);
        stream.write_all(&acks)?;
        if enough {
            return Ok(());
        }
    }
}

/// The next whole packet: its first byte, its body, and how long it is.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut len, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte < 0x80 {
            break;
        }
    }
    Some((bytes[0], bytes.get(at..at + len)?, at + len))
}

/// A row's place in the log.
fn place(payload: &[u8]) -> Option<u64> {
    const KEY: &[u8] = b"\"offset\":";
    let at = payload.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// Answers every request with 200, and counts the rows it names.
fn take_requests(listener: &TcpListener, meter: &mut Meter) -> Outcome {
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
    let (mut writer, mut body) = (stream, Vec::new());
    loop {
        let (mut rows, mut len, mut line) = (0, 0, String::new());
        while reader.read_line(&mut line)? > 2 {
            let (name, value) = line.split_once(':').unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => len = value.trim().parse()?,
                "unhidra-delivery" => rows = value.rsplit('+').next().unwrap_or_default().trim().parse()?,
                _ => {}
            }
            line.clear();
        }
        if len == 0 {
            return Err("a request without a body, or the node closed".into());
        }
        body.resize(len, 0);
        reader.read_exact(&mut body)?;
        writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        if meter.take(rows, None) {
            return Ok(());
        }
    }
}

fn row(report: &mut Report, case: &str, came: &Came, notes: String) -> std::io::Result<()> {
    let each = |time: Duration| Some(time.as_secs_f64() * 1e6 / came.rows.max(1) as f64);
    let missing = came.missing.map_or_else(String::new, |missing| format!("; {missing} missing between them"));
    let (rate, node_us, generator_us) = (Some(came.rows as f64 / came.seconds), each(came.node), each(came.generator));
    let notes = format!("{} rows{missing}; {notes}", came.rows);
    report.row(&Row { case: case.into(), disk: "bare", rate, node_us, generator_us, notes, ..Row::default() })
}

/// A folder whose log is full, and the options of an outlet named `out`.
fn prepared(bench: &Bench, name: &str, keys: &[String]) -> Result<(std::path::PathBuf, Vec<String>), Box<dyn Error>> {
    let folder = bench.stage.copy(name)?;
    super::standing::fill(&folder, |filler| {
        filler.devices(DEVICES)?;
        filler.readings(DEVICES, ROWS, 64)
    })?;
    let mut set = vec!["outlets.out.from=oldest".to_owned()];
    set.extend_from_slice(keys);
    Ok((folder, set))
}

/// Every kind of outlet, each on a log of its own that it has all before it.
pub(super) fn outlets(bench: &Bench, report: &mut Report) -> Outcome {
    local(bench, report)?;
    mqtt(bench, report, "mosquitto as Debian has it", "")?;
    let lines = "max_inflight_messages 1000\nset_tcp_nodelay true\n";
    mqtt(bench, report, "mosquitto, 1 000 in flight and without Nagle's delay", lines)?;
    webhook(bench, report)
}

/// To a client of the node's own broker, which comes while rows go by.
fn local(bench: &Bench, report: &mut Report) -> Outcome {
    let rules = bench.stage.folder.join("acl.toml");
    fs::write(&rules, "[[rule]]\nallow = \"subscribe\"\nclient_id = \"reader\"\ntopics = [\"{p}/readings/#\"]\n")?;
    let keys = [
        "outlets.out.kind=local".to_owned(),
        format!("acl.file={}", rules.display()),
        "broker.tcp.listen=127.0.0.1:0".to_owned(),
        "broker.tcp.anonymous=true".to_owned(),
    ];
    let (folder, set) = prepared(bench, "outlet-local", &keys)?;
    let node = bench.stage.start_with(&folder, Disk::Bare, &set)?;
    bench.say("outlets, local", &node);
    let reader = subscribed(node.mqtt_plain.ok_or("no plain listener")?, "unhidra/readings/#")?;
    let taker = Taker::start(bench.length, |meter| take_messages(reader, meter));
    let came = taker.came(node.pid)?;
    row(report, "outlet, local", &came, "one client of the node's broker, QoS 1; those before went to nobody".into())?;
    if came.missing == Some(0) { Ok(()) } else { Err("a client that keeps up missed rows".into()) }
}

/// To a real mosquitto, and on to a client of it.
fn mqtt(bench: &Bench, report: &mut Report, what: &str, lines: &str) -> Outcome {
    let peer = bench.stage.start_mosquitto_plain(lines)?;
    let reader = subscribed(peer.mqtt, "readings/#")?;
    let taker = Taker::start(bench.length, |meter| take_messages(reader, meter));
    let keys = ["outlets.out.kind=mqtt".to_owned(), format!("outlets.out.url=mqtt://{}", peer.mqtt)];
    let (folder, set) = prepared(bench, "outlet-mqtt", &keys)?;
    let node = bench.stage.start_with(&folder, Disk::Bare, &set)?;
    bench.say("outlets, mqtt", &node);
    let came = taker.came(node.pid)?;
    Ok(row(report, "outlet, mqtt", &came, format!("{what}, over TCP, and on to one client of it, QoS 1"))?)
}

/// To a server that counts.
fn webhook(bench: &Bench, report: &mut Report) -> Outcome {
    let secret = bench.stage.folder.join("webhook.secret");
    fs::write(&secret, "a secret of more than sixteen bytes\n")?;
    fs::set_permissions(&secret, Permissions::from_mode(0o600))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let keys = [
        "outlets.out.kind=webhook".to_owned(),
        format!("outlets.out.url=http://{}/in", listener.local_addr()?),
        format!("outlets.out.secret_file={}", secret.display()),
    ];
    let taker = Taker::start(bench.length, move |meter| take_requests(&listener, meter));
    let (folder, set) = prepared(bench, "outlet-webhook", &keys)?;
    let node = bench.stage.start_with(&folder, Disk::Bare, &set)?;
    bench.say("outlets, webhook", &node);
    let came = taker.came(node.pid)?;
    Ok(row(report, "outlet, webhook", &came, "signed, 256 rows a request, a server that only counts".into())?)
}
