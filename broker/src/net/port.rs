//! The listener of a port: from an accepted connection, through the gate and its handshakes, to a
//! stream and whose it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use unhidra_core::time::Timestamp;

use super::handshakes::HandshakeThreads;
use super::proxy::{self, Source};
use super::tcp::Accepting;
use super::tls::{self, TlsOffer};
use super::websocket;
use crate::config::{ListenerConfig, Network};
use crate::doors::{Accepted, BoxFuture, Entrance, Identity, Listener, Stream};
use crate::gate::{Gate, Pass, Refusal};

/// How long a refused peer may take to read why.
const SEEN_OFF_FOR: Duration = Duration::from_secs(1);
/// How many bytes of it are read meanwhile: more than anybody has said who waits for an answer.
const SEEN_OFF_BYTES: u64 = 64 * 1024;
/// How many are given that time at once, by one port: few of the handshakes it may have under way.
const SEEN_OFF_MAX: usize = 32;

/// What lies between a port and MQTT, from the outside in: a load balancer, TLS, WebSocket.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The listener, and who may come in there.
    pub entrance: Arc<Entrance>,
    /// Who may stand before it and must say who comes. Nobody: no PROXY header is read.
    proxy_from: Arc<[Network]>,
    /// TLS, if it speaks that. Read anew for every connection, so that whoever swaps it renews the
    /// certificates.
    tls: Option<Arc<ArcSwap<TlsOffer>>>,
    /// The origins whose pages may connect, if it speaks WebSocket.
    websocket: Option<Arc<[String]>>,
    /// Its places, one for each connection of all its ports.
    places: Arc<Semaphore>,
}

impl Layers {
    /// Those of the listener that the configuration calls `name`.
    #[must_use]
    pub fn new(name: &'static str, config: &ListenerConfig, tls: Option<Arc<ArcSwap<TlsOffer>>>) -> Self {
        let places = Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS));
        Self {
            entrance: Arc::new(config.entrance(name)),
            proxy_from: config.proxy_from.as_slice().into(),
            tls,
            websocket: None,
            places: Arc::new(places),
        }
    }

    /// The same, and WebSocket.
    #[must_use]
    pub fn with_websocket(self, config: &ListenerConfig) -> Self {
        Self { websocket: Some(config.origins.as_slice().into()), ..self }
    }

    /// Whether a stream is ready as it is accepted.
    fn are_none(&self) -> bool {
        self.proxy_from.is_empty() && self.tls.is_none() && self.websocket.is_none()
    }
}

/// A listener on a port. Handshakes run side by side behind it, each in a task of its own, on
/// [`HandshakeThreads`].
pub struct PortListener {
    accepting: Accepting,
    door: Arc<Door>,
    handshakes: JoinSet<Option<Accepted>>,
    threads: HandshakeThreads,
    handshakes_max: usize,
}

struct Door {
    gate: Arc<Gate>,
    layers: Layers,
    /// A place for each peer that is seen off.
    seen_off: Semaphore,
}

impl PortListener {
    /// Listens at an address.
    ///
    /// # Errors
    ///
    /// The system's, where the address is in use or not ours.
    pub fn bind(address: SocketAddr, layers: Layers, threads: &HandshakeThreads, gate: &Arc<Gate>) -> io::Result<Self> {
        Ok(Self {
            accepting: Accepting::bind(address)?,
            handshakes: JoinSet::new(),
            threads: threads.clone(),
            handshakes_max: gate.config().handshakes_max.max(1),
            door: Arc::new(Door { gate: gate.clone(), layers, seen_off: Semaphore::new(SEEN_OFF_MAX) }),
        })
    }

    /// Where it listens, with the port the system chose.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accepting.local_addr()
    }

    async fn next(&mut self) -> Accepted {
        loop {
            let may_accept = self.handshakes.len() < self.handshakes_max;
            tokio::select! {
                biased;
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(accepted)) = done {
                        return accepted;
                    }
                }
                (stream, peer) = self.accepting.accept(), if may_accept => {
                    let Some(place) = self.door.place(peer) else { continue };
                    if self.door.layers.are_none() {
                        match self.door.pass(peer, place) {
                            Some(pass) => return self.door.accepted(Box::new(stream), Identity::Anonymous, peer, pass),
                            None => continue,
                        }
                    }
                    // Behind a load balancer all have its address: who comes is known from the header.
                    let way = if self.door.layers.proxy_from.is_empty() {
                        let Some(pass) = self.door.pass(peer, place) else { continue };
                        Way::Direct(pass)
                    } else {
                        Way::Proxied(place)
                    };
                    let door = self.door.clone();
                    let accepted_at = door.gate.now();
                    let handshake = async move { door.shake_hands(stream, peer, way, accepted_at).await };
                    self.threads.spawn(&mut self.handshakes, handshake);
                }
            }
        }
    }
}

/// How far a connection has come before its handshakes.
enum Way {
    /// Through the gate.
    Direct(Pass),
    /// To its listener: the gate must know first who it is.
    Proxied(OwnedSemaphorePermit),
}

impl Listener for PortListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async { Ok(self.next().await) })
    }
}

impl Door {
    fn refuse(&self, refusal: Refusal, peer: SocketAddr) {
        self.gate.refuse(refusal, &peer, &self.layers.entrance.name);
    }

    fn place(&self, peer: SocketAddr) -> Option<OwnedSemaphorePermit> {
        let place = self.layers.places.clone().try_acquire_owned();
        place.map_err(|_| self.refuse(Refusal::ListenerFull, peer)).ok()
    }

    fn pass(&self, peer: SocketAddr, place: OwnedSemaphorePermit) -> Option<Pass> {
        self.gate.pass(peer.ip(), place).map_err(|refusal| self.refuse(refusal, peer)).ok()
    }

    async fn shake_hands(
        &self,
        mut stream: TcpStream,
        mut peer: SocketAddr,
        way: Way,
        accepted_at: Timestamp,
    ) -> Option<Accepted> {
        let begun_at = self.gate.now();
        let until = begun_at.saturating_add(self.gate.config().handshake_timeout());
        let (mut passed, mut has_spoken) = (None, false);
        // Its memory lasts as long as the handshakes, and the connection is a task of its own.
        let handshakes = async {
            passed = Some(match way {
                Way::Direct(pass) => pass,
                Way::Proxied(place) => {
                    if let Source::At(source) = self.source(&mut stream, peer).await? {
                        peer = source;
                    }
                    self.gate.pass(peer.ip(), place).map_err(|refusal| Failed::new(refusal, &""))?
                }
            });
            has_spoken = stream.peek(&mut [0]).await.is_ok_and(|len| len > 0);
            self.through_layers(stream).await
        };
        match timeout(self.gate.config().handshake_timeout(), handshakes).await {
            Ok(Ok((stream, identity))) => Some(self.accepted(stream, identity, peer, passed?)),
            Ok(Err(Failed { refusal, detail, told })) => {
                self.gate.refuse(refusal, &peer, &format_args!("{} {detail}", self.layers.entrance.name));
                // It has failed by now, whatever its peer still reads.
                drop(passed);
                if let Some(stream) = told {
                    self.see_off(stream).await;
                }
                None
            }
            Err(_) => {
                // What it waited for a thread of ours, before the first step and after the last. Whoever
                // has said nothing at all has nobody else to blame.
                let late = self.gate.now().saturating_since(until);
                let waited = begun_at.saturating_since(accepted_at).saturating_add(late);
                if has_spoken && self.gate.was_slow(waited) {
                    passed.into_iter().for_each(Pass::hindered);
                }
                self.refuse(Refusal::HandshakeTimeout, peer);
                None
            }
        }
    }

    /// Gives a peer the time to read why it was refused: a close with unread input would be a reset, and take
    /// the alert with it. Of many at once, some are seen off, and the others closed.
    async fn see_off(&self, mut stream: TcpStream) {
        let Ok(_place) = self.seen_off.try_acquire() else { return };
        let read_out = async {
            stream.shutdown().await?;
            tokio::io::copy(&mut stream.take(SEEN_OFF_BYTES), &mut tokio::io::sink()).await
        };
        // However it ends, it ends here.
        let _ = timeout(SEEN_OFF_FOR, read_out).await;
    }

    /// Who comes, as the load balancer says.
    async fn source(&self, stream: &mut TcpStream, proxy: SocketAddr) -> Result<Source, Failed> {
        if !self.layers.proxy_from.iter().any(|network| network.holds(proxy.ip())) {
            return Err(Failed::new(Refusal::Proxy, &"it is not in proxy_from"));
        }
        proxy::read(stream).await.map_err(|error| Failed::new(Refusal::Proxy, &error))
    }

    async fn through_layers(&self, stream: TcpStream) -> Result<(Box<dyn Stream>, Identity), Failed> {
        match (&self.layers.tls, &self.layers.websocket) {
            (None, None) => Ok((Box::new(stream), Identity::Anonymous)),
            (None, Some(origins)) => Ok((Box::new(websocket::accept(stream, origins).await?), Identity::Anonymous)),
            (Some(offer), None) => {
                let (stream, identity) = self.tls(offer, stream).await?;
                Ok((Box::new(stream), identity))
            }
            (Some(offer), Some(origins)) => {
                let (stream, identity) = self.tls(offer, stream).await?;
                Ok((Box::new(websocket::accept(stream, origins).await?), identity))
            }
        }
    }

    async fn tls(
        &self,
        offer: &ArcSwap<TlsOffer>,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Identity), Failed> {
        let offer = offer.load_full();
        tls::accept(&offer, stream).await
    }

    fn accepted(&self, stream: Box<dyn Stream>, identity: Identity, peer: SocketAddr, pass: Pass) -> Accepted {
        let pass = match &identity {
            // It is told so at CONNECT, and has cost a handshake for nothing.
            Identity::Device(certificate) if self.gate.is_revoked(&certificate.serials) => pass,
            Identity::Device(_) | Identity::Anonymous => pass.shaken(),
        };
        Accepted { stream, identity, peer: peer.into(), entrance: self.layers.entrance.clone(), pass: Some(pass) }
    }
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    pub(super) detail: String,
    /// The stream, where its peer has been sent the reason and may not have read it yet.
    told: Option<TcpStream>,
}

impl Failed {
    pub(super) fn new(refusal: Refusal, detail: &dyn std::fmt::Display) -> Self {
        Self { refusal, detail: detail.to_string(), told: None }
    }

    /// The same, and its peer is to read why.
    pub(super) fn told(self, stream: TcpStream) -> Self {
        Self { told: Some(stream), ..self }
    }
}

#[cfg(test)]
mod tests;
