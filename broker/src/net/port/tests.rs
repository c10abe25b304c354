//! Who is to blame for a handshake that was not done in time.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use unhidra_core::time::{Clock, UnixTime};

use super::*;
use crate::config::GateConfig;

/// A clock that stands until it is moved, and says how often it was looked at.
struct Hands {
    ms: AtomicU64,
    looks: watch::Sender<u64>,
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        self.looks.send_modify(|looks| *looks += 1);
        Timestamp::from_ms(self.ms.load(Ordering::SeqCst))
    }
    fn unix_now(&self) -> UnixTime {
        UnixTime::EPOCH
    }
}

fn gate(clock: Arc<Hands>) -> Arc<Gate> {
    let config = GateConfig {
        connections_per_address: 0,
        connects_per_address_s: 0,
        handshake_failures_per_address_s: 1,
        connects_s: 0,
        addresses_max: 10,
        antechamber_max: 1,
        lag_max_ms: 0,
        memory_max_bytes: 0,
        handshakes_per_core: 1,
        handshakes_max: 10,
        handshake_timeout_s: 1,
    };
    Gate::new(config, clock)
}

/// Somebody says `said` and no more, while the one thread for handshakes is busy for `ms` by the clock.
/// Once his time is over: whether his address may come again.
async fn comes_again(said: &[u8], ms: u64) -> Result<(), Refusal> {
    let clock = Arc::new(Hands { ms: AtomicU64::new(0), looks: watch::Sender::new(0) });
    let gate = gate(clock.clone());
    let text = "listen = 'off'\nanonymous = true\nusers = false\nproxy_from = []\norigins = []\nconnections_max = 1";
    let config: ListenerConfig = toml::from_str(text).expect("a listener");
    let layers = Layers::new("ws", &config, None).with_websocket(&config);
    let places = layers.places.clone();
    let threads = HandshakeThreads::start(&gate, 1).expect("a thread");
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut listener = PortListener::bind(anywhere, layers, &threads, &gate).expect("a free port");
    let address = listener.local_addr().expect("an address");

    let (mut busy, (free, freed)) = (JoinSet::new(), std::sync::mpsc::channel::<()>());
    let (begun, has_begun) = std::sync::mpsc::channel();
    threads.spawn(&mut busy, async move {
        begun.send(()).expect("it is awaited");
        _ = freed.recv();
    });
    has_begun.recv().expect("it begins");
    let mut looks = clock.looks.subscribe();
    let before = *looks.borrow();
    let accepting = tokio::spawn(async move { listener.accept().await });
    let mut stream = TcpStream::connect(address).await.expect("the kernel accepts");
    stream.write_all(said).await.expect("it is taken");
    // Once at the gate, and once more when it waits for the thread.
    looks.wait_for(|looks| *looks >= before + 2).await.expect("the clock is there");
    clock.ms.store(ms, Ordering::SeqCst);
    free.send(()).expect("it waits");

    // What became of it is counted before its place is free.
    let place = places.acquire_owned().await.expect("a place");
    accepting.abort();
    gate.pass(address.ip(), place).map(drop)
}

#[tokio::test]
async fn whose_time_is_over_is_counted_unless_the_node_was_the_slow_one() {
    let begun = b"GET / HTTP/1.1\r\n";
    assert_eq!(comes_again(begun, 0).await, Err(Refusal::AddressFailures), "he stopped halfway");
    assert_eq!(comes_again(begun, 99).await, Err(Refusal::AddressFailures), "that was not why");
    assert_eq!(comes_again(begun, 100).await, Ok(()), "a tenth of his time he waited for the node");
    assert_eq!(comes_again(b"", 100).await, Err(Refusal::AddressFailures), "he has said nothing at all");
}
