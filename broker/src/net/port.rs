//! The listener of a port: from an accepted connection, through the gate and its handshakes, to a
//! stream and whose it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::tcp::Accepting;
use super::tls::{self, TlsOffer};
use crate::config::ListenerConfig;
use crate::doors::{Accepted, BoxFuture, Entrance, Identity, Listener, Stream};
use crate::gate::{Gate, Pass, Refusal};

/// What lies between a port and MQTT.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The listener, and who may come in there.
    pub entrance: Arc<Entrance>,
    /// TLS, if it speaks that. Read anew for every connection, so that whoever swaps it renews the
    /// certificates.
    pub tls: Option<Arc<ArcSwap<TlsOffer>>>,
    /// Its places, one for each connection of all its ports.
    places: Arc<Semaphore>,
}

impl Layers {
    /// Those of the listener that the configuration calls `name`.
    #[must_use]
    pub fn new(name: &'static str, config: &ListenerConfig, tls: Option<Arc<ArcSwap<TlsOffer>>>) -> Self {
        let places = Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS));
        Self { entrance: Arc::new(config.entrance(name)), tls, places: Arc::new(places) }
    }

    /// Whether a stream is ready as it is accepted.
    const fn are_none(&self) -> bool {
        self.tls.is_none()
    }
}

/// A listener on a port. Handshakes run side by side behind it, each in a task of its own, and only
/// as many of them compute at once as [`Turns`] lets.
pub struct PortListener {
    accepting: Accepting,
    door: Arc<Door>,
    handshakes: JoinSet<Option<Accepted>>,
    handshakes_max: usize,
}

struct Door {
    gate: Arc<Gate>,
    layers: Layers,
    turns: Turns,
}

/// How many handshakes compute at once: shared by all listeners, since they share the cores.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Turns {
    /// As many as the gate lets compute on each of `cores`.
    #[must_use]
    pub fn new(gate: &Gate, cores: usize) -> Self {
        let turns = gate.config().handshakes_per_core.saturating_mul(cores).clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(turns)))
    }

    pub(super) fn semaphore(&self) -> Arc<Semaphore> {
        self.0.clone()
    }
}

impl PortListener {
    /// Listens at an address.
    ///
    /// # Errors
    ///
    /// The system's, where the address is in use or not ours.
    pub fn bind(address: SocketAddr, layers: Layers, turns: &Turns, gate: &Arc<Gate>) -> io::Result<Self> {
        Ok(Self {
            accepting: Accepting::bind(address)?,
            handshakes: JoinSet::new(),
            handshakes_max: gate.config().handshakes_max.max(1),
            door: Arc::new(Door { gate: gate.clone(), layers, turns: turns.clone() }),
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
                    let Some(pass) = self.door.pass(peer) else { continue };
                    if self.door.layers.are_none() {
                        return self.door.accepted(Box::new(stream), Identity::Anonymous, peer, pass);
                    }
                    let door = self.door.clone();
                    self.handshakes.spawn(async move { door.shake_hands(stream, peer, pass).await });
                }
            }
        }
    }
}

impl Listener for PortListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async { Ok(self.next().await) })
    }
}

impl Door {
    fn pass(&self, peer: SocketAddr) -> Option<Pass> {
        let refused = |refusal| self.gate.refuse(refusal, &peer, &self.layers.entrance.name);
        let Ok(place) = self.layers.places.clone().try_acquire_owned() else {
            refused(Refusal::ListenerFull);
            return None;
        };
        self.gate.pass(peer.ip(), place).map_err(refused).ok()
    }

    async fn shake_hands(&self, stream: TcpStream, peer: SocketAddr, pass: Pass) -> Option<Accepted> {
        let patience = self.gate.config().handshake_timeout();
        match timeout(patience, self.through_layers(stream)).await {
            Ok(Ok((stream, identity))) => Some(self.accepted(stream, identity, peer, pass)),
            Ok(Err(Failed { refusal, detail })) => {
                self.gate.refuse(refusal, &peer, &detail);
                None
            }
            Err(_) => {
                self.gate.refuse(Refusal::HandshakeTimeout, &peer, &self.layers.entrance.name);
                None
            }
        }
    }

    async fn through_layers(&self, stream: TcpStream) -> Result<(Box<dyn Stream>, Identity), Failed> {
        match &self.layers.tls {
            None => Ok((Box::new(stream), Identity::Anonymous)),
            Some(offer) => {
                let (stream, identity) = tls::accept(&offer.load_full(), stream, self.turns.semaphore()).await?;
                Ok((Box::new(stream), identity))
            }
        }
    }

    fn accepted(&self, stream: Box<dyn Stream>, identity: Identity, peer: SocketAddr, pass: Pass) -> Accepted {
        Accepted { stream, identity, peer: peer.into(), entrance: self.layers.entrance.clone(), pass: Some(pass) }
    }
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) refusal: Refusal,
    pub(super) detail: String,
}

impl Failed {
    pub(super) fn new(refusal: Refusal, detail: &dyn std::fmt::Display) -> Self {
        Self { refusal, detail: detail.to_string() }
    }
}
