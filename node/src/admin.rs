//! The admin port: is it alive, is it ready, what does it count.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200 while the process runs |
//! | `/readyz` | 200 once every listener is up and the store serves; else 503 and the cause, as JSON. `damaged_devices` where a device is not served for a damaged record: the others are |
//! | `/metrics` | Prometheus's text format |

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use unhidra_store::Health;

use crate::http::{self, Limits};

/// What an operator may set about the admin port. The defaults stand in `node/src/default.toml`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it listens, `127.0.0.1:9600` for instance. Who reaches it reads all metrics.
    pub listen: std::net::SocketAddr,
    /// Connections at once; a further peer waits in the kernel's queue.
    pub connections_max: usize,
    /// How long a peer may take over the head of a request, in s; then it is closed.
    pub header_timeout_s: u64,
}

/// How far the node has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Not every listener is up.
    Starting,
    /// All of it is.
    Serving,
    /// It ends what it has begun, and takes nothing new.
    Draining,
}

/// What the admin port looks at.
#[derive(Clone)]
pub struct Watched {
    /// Every metric of the node, wherever it was registered.
    pub metrics: Vec<Arc<Registry>>,
    /// How the store is ([`unhidra_store::Store::health`]).
    pub store: watch::Receiver<Health>,
    /// How far the node has come.
    pub phase: watch::Receiver<Phase>,
    /// How many devices are not served, for a record of theirs is damaged.
    pub damaged_devices: Gauge,
}

/// How long a connection may last: a scraper comes again, and one that reads nothing keeps nobody out.
const LIFETIME: Duration = Duration::from_secs(60);

/// Serves the admin port until `shutdown` holds true, or its sender is gone.
pub async fn serve(listener: TcpListener, config: &Config, watched: Watched, shutdown: watch::Receiver<bool>) {
    let limits = Limits {
        connections_max: config.connections_max,
        header_timeout: Duration::from_secs(config.header_timeout_s),
        lifetime: Some(LIFETIME),
        grace: Duration::from_secs(1),
    };
    http::serve(listener, router(watched), limits, shutdown).await;
}

/// The routes.
pub fn router(watched: Watched) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(watched)
}

async fn readyz(State(watched): State<Watched>) -> Response {
    match unready(&watched) {
        None => match watched.damaged_devices.get() {
            0 => Json(json!({ "ready": true })).into_response(),
            damaged => Json(json!({ "ready": true, "damaged_devices": damaged })).into_response(),
        },
        Some(cause) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "cause": cause }))).into_response()
        }
    }
}

/// What keeps the node from serving, if anything does.
fn unready(watched: &Watched) -> Option<String> {
    match *watched.phase.borrow() {
        Phase::Starting => return Some("not every listener is up".to_owned()),
        Phase::Draining => return Some("the node is shutting down".to_owned()),
        Phase::Serving => {}
    }
    match &*watched.store.borrow() {
        Health::Ready => None,
        Health::Reopening => Some("the store is reopening after a commit that failed".to_owned()),
        Health::Full(cause) => Some(format!("the store takes no readings: {cause}")),
        Health::Failed(cause) => Some(format!("the store has failed: {cause}")),
    }
}

async fn metrics(State(watched): State<Watched>) -> Response {
    let mut text = String::new();
    let all = watched.metrics.iter().try_for_each(|registry| encode_registry(&mut text, registry));
    match all.and_then(|()| encode_eof(&mut text)) {
        Ok(()) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct Node {
        phase: watch::Sender<Phase>,
        store: watch::Sender<Health>,
        damaged_devices: Gauge,
        shutdown: watch::Sender<bool>,
        address: std::net::SocketAddr,
        served: tokio::task::JoinHandle<()>,
    }

    async fn node(connections_max: usize) -> Node {
        let metrics = ["readings", "commits"].map(|name| {
            let mut registry = Registry::default();
            let counter = Counter::<u64>::default();
            registry.register(name, "Something", counter.clone());
            counter.inc_by(3);
            Arc::new(registry)
        });
        let (phase, phases) = watch::channel(Phase::Serving);
        let (store, healths) = watch::channel(Health::Ready);
        let (shutdown, down) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = Config { listen: address, connections_max, header_timeout_s: 1 };
        let damaged_devices = Gauge::default();
        let watched = Watched {
            metrics: metrics.to_vec(),
            store: healths,
            phase: phases,
            damaged_devices: damaged_devices.clone(),
        };
        let served = tokio::spawn(async move { serve(listener, &config, watched, down).await });
        Node { phase, store, damaged_devices, shutdown, address, served }
    }

    impl Node {
        async fn get(&self, path: &str) -> String {
            let mut peer = TcpStream::connect(self.address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            peer.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            peer.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn alive_ready_and_counting() {
        let node = node(8).await;
        assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(node.get("/readyz").await.contains(r#"{"ready":true}"#));
        let metrics = node.get("/metrics").await;
        assert!(metrics.contains("readings_total 3\n") && metrics.contains("commits_total 3\n"), "{metrics}");
        assert_eq!(metrics.matches("# EOF").count(), 1);
        assert!(node.get("/secrets").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn what_is_not_ready_says_why() {
        let node = node(8).await;
        for (phase, health, cause) in [
            (Phase::Starting, Health::Ready, "not every listener is up"),
            (Phase::Draining, Health::Ready, "the node is shutting down"),
            (Phase::Serving, Health::Reopening, "reopening"),
            (Phase::Serving, Health::Full("store.disk_bytes_max is reached".into()), "disk_bytes_max is reached"),
            (Phase::Serving, Health::Failed("no space left".into()), "no space left"),
        ] {
            node.phase.send_replace(phase);
            node.store.send_replace(health);
            let answer = node.get("/readyz").await;
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(cause), "{answer}");
            assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn a_damaged_device_is_told_and_the_node_is_ready_for_the_others() {
        let node = node(8).await;
        node.damaged_devices.inc();
        let answer = node.get("/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#"{"damaged_devices":1,"ready":true}"#), "{answer}");
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_closed_and_holds_up_nobody_for_long() {
        let node = node(1).await;
        let mut silent = TcpStream::connect(node.address).await.unwrap();
        let mut garbage = TcpStream::connect(node.address).await.unwrap();
        garbage.write_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await.unwrap();
        // One connection at a time: each of these waits until the one before it is closed.
        assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
        let mut answer = String::new();
        garbage.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }

    /// It asks and asks, and reads none of it.
    #[tokio::test]
    async fn a_peer_that_reads_nothing_keeps_nobody_out_for_good() {
        let node = node(1).await;
        let mut deaf = TcpStream::connect(node.address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1000);
        while tokio::time::timeout(Duration::from_millis(500), deaf.write_all(&request)).await.is_ok() {}
        tokio::time::pause();
        // Its minute is over at once: nothing else is due.
        assert!(node.get("/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn an_idle_connection_ends_with_the_node() {
        let node = node(8).await;
        let mut idle = TcpStream::connect(node.address).await.unwrap();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        idle.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        node.shutdown.send_replace(true);
        node.served.await.unwrap();
        idle.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(TcpStream::connect(node.address).await.is_err());
    }
}
