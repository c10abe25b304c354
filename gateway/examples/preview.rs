//! The console on made-up devices, to look at: `cargo run -p unhidra-gateway --example preview`.
//!
//! Prints its address with a token. Devices come, go and measure; commands are answered after a
//! while.

#[path = "../tests/it/store.rs"]
mod store;

use std::collections::BTreeMap;
use std::error::Error;
use std::f64::consts::TAU;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};
use unhidra_core::command::{By, Command, Ended, Ending, Life};
use unhidra_core::ids::{CommandId, DeviceId};
use unhidra_core::message::{ReceiptStatus, Uplink, UplinkKind};
use unhidra_core::setting::Setting;
use unhidra_core::time::{Clock, Timestamp, UnixTime};
use unhidra_gateway::{
    Cancel, CommandRefused, Commands, Config, Doors, Gateway, NewCommand, NewSetting, TokenName, Tokens, Use, Visible,
};
use unhidra_store::BoxFuture;

use crate::store::MemoryStore;

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::ZERO.saturating_add(self.0.elapsed())
    }
    #[allow(clippy::disallowed_methods, reason = "a shell")]
    fn unix_now(&self) -> UnixTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixTime::EPOCH.saturating_add(since)
    }
}

/// Takes every command and hands it to the task that plays the device.
struct Played {
    clock: Arc<SystemClock>,
    played: mpsc::Sender<Command>,
}

impl Commands for Played {
    fn send(&self, new: NewCommand) -> BoxFuture<'_, Result<Command, CommandRefused>> {
        Box::pin(async move {
            let now = self.clock.unix_now();
            let mut id = [0; 16];
            random(&mut id);
            let command = Command {
                id: new.id.unwrap_or(CommandId::new(id)),
                device: new.device,
                name: new.name.into_inner(),
                body: new.body,
                created_at: now,
                expires_at: now.saturating_add(new.expires_after),
                asked_by: Some(new.asked_by),
                life: Life::default(),
            };
            self.played.send(command.clone()).await.map_err(|_| CommandRefused::Unavailable)?;
            Ok(command)
        })
    }

    fn cancel(&self, _: Cancel) -> BoxFuture<'_, Result<Command, CommandRefused>> {
        Box::pin(async { Err(CommandRefused::NoSuchCommand) })
    }

    fn set(&self, _: NewSetting) -> BoxFuture<'_, Result<Setting, CommandRefused>> {
        Box::pin(async { Err(CommandRefused::Unavailable) })
    }
}

fn random(bytes: &mut [u8]) {
    // An operating system without randomness cannot show a page either.
    aws_lc_rs::rand::fill(bytes).unwrap_or_else(|_| panic!("no randomness"));
}

const CONFIG: &str = r#"{
    "listen": "127.0.0.1:0", "hosts": [], "origins": [], "connections_max": 100, "clients_max": 50,
    "subscriptions_max": 32, "frame_len_max": 65536, "authenticate_s": 5, "ping_s": 25, "pong_s": 10,
    "write_s": 20, "request_s": 10, "http_connection_s": 120, "outbox_frames": 1024,
    "outbox_bytes": 1048576, "intake_readings": 65536, "intake_bytes": 16777216, "presence_max": 1000,
    "command_expires_s": 600, "command_expires_max_s": 86400, "session_s": 3600, "tokens_max": 64,
    "drain_s": 5
}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    #[allow(clippy::disallowed_methods, reason = "a shell")]
    let clock = Arc::new(SystemClock(Instant::now()));
    let store = MemoryStore::new(2, 1);
    let config: Config = serde_json::from_str(CONFIG)?;
    let entropy: unhidra_gateway::Entropy = Box::new(|bytes| random(bytes));
    let tokens = Arc::new(Tokens::new(64, Duration::from_secs(3600), clock.clone(), entropy));
    let (played, commands) = mpsc::channel(16);
    let doors = Doors {
        store: store.clone(),
        authority: tokens.clone(),
        commands: Arc::new(Played { clock: clock.clone(), played }),
        clock: clock.clone(),
        cursor_key: [7; 32],
    };
    let port = std::env::args().nth(1).unwrap_or_else(|| "0".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let gateway = Gateway::new(config, doors, &mut Registry::default());
    println!(
        "http://{}/#token={}",
        listener.local_addr()?,
        tokens.mint(TokenName::default(), Visible::All, true, Duration::from_secs(600), Use::Once)
    );
    tokio::spawn(play_commands(gateway.clone(), store.clone(), clock.clone(), commands));
    tokio::spawn(measure(gateway.clone(), store, clock));
    gateway.serve(listener, std::future::pending()).await;
    Ok(())
}

struct Sensor {
    id: DeviceId,
    n: u64,
    base: f64,
    online: bool,
}

async fn measure(gateway: Arc<Gateway>, store: Arc<MemoryStore>, clock: Arc<SystemClock>) {
    let names = [
        ("cold-store-1", "site=north", 4.2),
        ("cold-store-2", "site=north", 5.1),
        ("greenhouse-a", "site=garden", 26.4),
        ("boiler", "", 62.0),
        ("raw-sensor", "experimental", 12.0),
        ("pump-7", "site=south", 31.5),
    ];
    let mut sensors = Vec::new();
    for (name, tag, base) in names {
        let Ok(id) = DeviceId::parse(name) else { continue };
        store.put_device(id, &[tag]);
        let online = name != "pump-7";
        if online {
            gateway.presence(id, true, clock.unix_now());
        }
        sensors.push(Sensor { id, n: 0, base, online });
    }
    if let Ok(never) = DeviceId::parse("spare-unit") {
        store.put_device(never, &[]);
    }
    // A past, so that the chart has something to show at once.
    let start = clock.unix_now().as_ms();
    for back in (1..=300).rev() {
        for sensor in &mut sensors {
            store.append(sensor.sample(UnixTime::from_ms(start - back * 1000)));
        }
    }
    let mut tick = interval(Duration::from_secs(1));
    let mut ticks: u64 = 0;
    loop {
        tick.tick().await;
        ticks += 1;
        let now = clock.unix_now();
        for sensor in &mut sensors {
            if sensor.id.as_str() == "boiler" && ticks.is_multiple_of(20) {
                sensor.online = !sensor.online;
                gateway.presence(sensor.id, sensor.online, now);
            }
            if sensor.online {
                let rows = store.append(sensor.sample(now));
                gateway.committed(rows);
            }
        }
    }
}

impl Sensor {
    fn sample(&mut self, at: UnixTime) -> Vec<Uplink> {
        self.n += 1;
        let mut noise = [0; 2];
        random(&mut noise);
        let [a, b] = noise.map(|byte| f64::from(byte) / 255.0 - 0.5);
        let phase = at.as_ms() as f64 / 1000.0 / 90.0 * TAU;
        let temperature = self.base + phase.sin() * 0.8 + (phase * 3.1).cos() * 0.25 + a * 0.3;
        let humidity = 48.0 + (phase * 0.7 + self.base).cos() * 6.0 + b;
        let uplink = |name: &str, body: Vec<u8>| Uplink {
            device: self.id,
            kind: UplinkKind::Reading,
            name: Arc::from(name),
            device_time: Some(at),
            received_at: at,
            reading_id: Some(self.n),
            body: Bytes::from(body),
        };
        let value = |v: f64, unit: &str| format!(r#"{{"n":{},"v":{v:.2},"unit":"{unit}"}}"#, self.n).into_bytes();
        if self.id.as_str() == "raw-sensor" {
            let body = if self.n.is_multiple_of(2) {
                vec![0xff, noise[0], noise[1], 0x10]
            } else {
                b"ok <b>text</b>".to_vec()
            };
            return vec![uplink("frame", body)];
        }
        let mut rows = vec![uplink("temperature", value(temperature, "°C"))];
        if self.n.is_multiple_of(2) {
            rows.push(uplink("humidity", value(humidity, "%")));
        }
        rows
    }
}

async fn play_commands(
    gateway: Arc<Gateway>,
    store: Arc<MemoryStore>,
    clock: Arc<SystemClock>,
    mut commands: mpsc::Receiver<Command>,
) {
    let fates: BTreeMap<&str, ReceiptStatus> =
        [("fail", ReceiptStatus::Failed), ("unknown", ReceiptStatus::Unknown)].into();
    while let Some(mut command) = commands.recv().await {
        store.put_command(&command);
        if command.device.as_str() == "spare-unit" {
            continue;
        }
        let status = fates.get(&*command.name).copied().unwrap_or(ReceiptStatus::Done);
        let how = if status == ReceiptStatus::Done { Ending::Done } else { Ending::Failed };
        let steps: [fn(&mut Command, UnixTime, Ending) -> bool; 3] = [
            |command, now, _| command.sent(now),
            |command, now, _| command.delivered(now),
            |command, now, how| command.end(Ended::new(how, By::Device, "", now)),
        ];
        for step in steps {
            sleep(Duration::from_millis(600)).await;
            step(&mut command, clock.unix_now(), how);
            store.put_command(&command);
            gateway.command_changed(&command);
        }
        let now = clock.unix_now();
        let receipt = Uplink {
            device: command.device,
            kind: UplinkKind::Receipt { command: command.id, status },
            name: command.name.clone(),
            device_time: Some(now),
            received_at: now,
            reading_id: None,
            body: Bytes::new(),
        };
        gateway.committed(store.append(vec![receipt]));
    }
}
