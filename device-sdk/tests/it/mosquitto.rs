//! The client against a server that others wrote: Mosquitto, where it is installed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use unhidra_core::ids::DeviceId;
use unhidra_core::time::Timestamp;
use unhidra_device_sdk::client::{Client, ClientOptions, Incoming, Publication, Qos, ReasonCode};

type Small = Client<256, 4>;

/// Time stands still: nothing here waits for it.
const NOW: Timestamp = Timestamp::ZERO;

struct Mosquitto {
    process: Child,
    port: u16,
}

impl Mosquitto {
    /// Starts one on a free port, and waits until it says that it runs.
    fn start() -> Option<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let started = ["mosquitto", "/usr/sbin/mosquitto"].into_iter().find_map(|program| {
            let mut command = Command::new(program);
            command.args(["-v", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::piped());
            command.spawn().ok()
        });
        let mut process = started?;
        let log = BufReader::new(process.stderr.take().expect("it is piped"));
        let (running, runs) = std::sync::mpsc::channel();
        // The log is read to its end, or Mosquitto would wait for its reader.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if line.ends_with(" running") {
                    let _ = running.send(());
                }
            }
        });
        runs.recv().expect("Mosquitto says that it runs");
        Some(Self { process, port })
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("Mosquitto listens");
        // A deadline for a test that would hang, never a wait.
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket has timeouts");
        stream
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a server has said.
#[derive(Debug, Eq, PartialEq)]
enum Heard {
    Connected { session_present: bool },
    Subscribed,
    Message(Vec<u8>),
    Acknowledged(Publication),
}

fn send(client: &mut Small, stream: &mut TcpStream) {
    while let Some(bytes) = client.poll_transmit(NOW) {
        stream.write_all(bytes).expect("the connection holds");
        let len = bytes.len();
        client.transmitted(len, NOW);
    }
}

/// Reads until `count` things were heard. Messages are acknowledged where `acknowledge` says so.
fn hear(client: &mut Small, stream: &mut TcpStream, count: usize, acknowledge: bool) -> Vec<Heard> {
    let mut heard = Vec::new();
    while heard.len() < count {
        send(client, stream);
        let mut buffer = [0; 512];
        let len = stream.read(&mut buffer).expect("the connection holds");
        assert!(len > 0, "Mosquitto has closed the connection");
        let mut bytes = &buffer[..len];
        while let Some(incoming) = client.handle_bytes(&mut bytes, NOW).expect("Mosquitto speaks MQTT") {
            let delivery = match incoming {
                Incoming::Connected { session_present } => {
                    heard.push(Heard::Connected { session_present });
                    None
                }
                Incoming::Subscribed => {
                    heard.push(Heard::Subscribed);
                    None
                }
                Incoming::Acknowledged { publication, reason } => {
                    assert!(!reason.is_failure(), "{reason}");
                    heard.push(Heard::Acknowledged(publication));
                    None
                }
                Incoming::Message { topic, payload, delivery } => {
                    assert_eq!(topic, "sdk/test");
                    heard.push(Heard::Message(payload.to_vec()));
                    delivery
                }
            };
            if let Some(delivery) = delivery.filter(|_| acknowledge) {
                client.acknowledge(delivery, ReasonCode::SUCCESS);
            }
        }
    }
    send(client, stream);
    heard
}

#[test]
fn mosquitto_takes_what_the_client_sends_and_resumes_its_session() {
    let Some(mosquitto) = Mosquitto::start() else {
        println!("skipped: Mosquitto is not installed");
        return;
    };
    let mut client = Small::new(ClientOptions {
        client_id: DeviceId::parse("sdk-test").expect("a device id"),
        clean_start: false,
        session_expiry_s: 600,
        keep_alive_s: 60,
        response_timeout: Duration::from_secs(10),
    });
    let mut stream = mosquitto.dial();
    client.open(NOW);
    assert_eq!(hear(&mut client, &mut stream, 1, true), [Heard::Connected { session_present: false }]);
    client.subscribe(&["sdk/test"], NOW).expect("online");
    assert_eq!(hear(&mut client, &mut stream, 1, true), [Heard::Subscribed]);

    // There and back, but the message that comes back is not acknowledged.
    let first = client.publish("sdk/test", Qos::AtLeastOnce, b"first").expect("there is room");
    let heard = hear(&mut client, &mut stream, 2, false);
    assert!(heard.contains(&Heard::Acknowledged(first)) && heard.contains(&Heard::Message(b"first".to_vec())));
    // A second one leaves, and the connection breaks before its PUBACK is read.
    let second = client.publish("sdk/test", Qos::AtLeastOnce, b"second").expect("there is room");
    send(&mut client, &mut stream);
    drop(stream);
    client.closed();

    // Mosquitto kept the session: the first message comes again, the second leaves again.
    let mut stream = mosquitto.dial();
    client.open(NOW);
    let mut heard = hear(&mut client, &mut stream, 1, true);
    assert_eq!(heard.first(), Some(&Heard::Connected { session_present: true }));
    // How often is its own affair: QoS 1 is at least once.
    let mut missing =
        vec![Heard::Acknowledged(second), Heard::Message(b"first".to_vec()), Heard::Message(b"second".to_vec())];
    loop {
        missing.retain(|missing| !heard.contains(missing));
        if missing.is_empty() {
            break;
        }
        heard = hear(&mut client, &mut stream, 1, true);
    }
    client.disconnect(ReasonCode::SUCCESS);
    send(&mut client, &mut stream);
    assert!(client.is_finished());
}
