//! MQTT over TLS: handshakes side by side, and from the peer's certificate to its identity.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::certificate::{self, CertificateError};
use super::tcp::Accepting;
use crate::config::TlsConfig;
use crate::doors::{Accepted, BoxFuture, Identity, Listener};

/// MQTT over TLS. Its peers are [`Identity::Device`]s; without a certificate nobody comes in.
pub struct TlsListener {
    accepting: Accepting,
    /// Read anew for every connection, so that whoever swaps it renews the certificates.
    tls: Arc<ArcSwap<ServerConfig>>,
    handshakes: JoinSet<Option<Accepted>>,
    handshakes_max: usize,
    turns: Arc<Semaphore>,
    patience: Duration,
}

impl TlsListener {
    /// Listens at an address. `cores` is how many there are to compute handshakes on.
    ///
    /// # Errors
    ///
    /// The system's, where the address is in use or not ours.
    pub async fn bind(
        address: SocketAddr,
        tls: Arc<ArcSwap<ServerConfig>>,
        config: &TlsConfig,
        cores: usize,
    ) -> io::Result<Self> {
        let turns = config.handshakes_per_core.saturating_mul(cores).clamp(1, Semaphore::MAX_PERMITS);
        Ok(Self {
            accepting: Accepting::bind(address).await?,
            tls,
            handshakes: JoinSet::new(),
            handshakes_max: config.handshakes_max.max(1),
            turns: Arc::new(Semaphore::new(turns)),
            patience: Duration::from_secs(config.handshake_timeout_s),
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
                    let acceptor = TlsAcceptor::from(self.tls.load_full());
                    let (turns, patience) = (self.turns.clone(), self.patience);
                    self.handshakes.spawn(async move {
                        match timeout(patience, in_turn(acceptor.accept(stream), turns)).await {
                            Ok(Ok(stream)) => admit(stream, peer),
                            Ok(Err(error)) => {
                                debug!(%peer, %error, "TLS handshake failed");
                                None
                            }
                            Err(_) => {
                                debug!(%peer, ?patience, "TLS handshake took too long");
                                None
                            }
                        }
                    });
                }
            }
        }
    }
}

impl Listener for TlsListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async { Ok(self.next().await) })
    }
}

fn admit(stream: TlsStream<TcpStream>, peer: SocketAddr) -> Option<Accepted> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let read = certificates.first().ok_or(CertificateError::Missing).and_then(certificate::read);
    match read {
        Ok(certificate) => {
            let identity = Identity::Device(certificate);
            Some(Accepted { stream: Box::new(stream), identity, peer: peer.to_string() })
        }
        Err(error) => {
            warn!(%peer, %error, "peer refused");
            None
        }
    }
}

/// Runs a handshake, of which only as many compute at once as there are turns.
///
/// A turn is held while it computes and not while it waits for its peer, so that a storm of
/// handshakes queues here instead of starving everybody's tasks, and silent peers starve nobody.
async fn in_turn<F: Future>(handshake: F, turns: Arc<Semaphore>) -> F::Output {
    let mut handshake = pin!(handshake);
    let mut turn = Box::pin(turns.clone().acquire_owned());
    poll_fn(move |cx| {
        // The semaphore is never closed; if it were, everybody would have a turn.
        let Poll::Ready(held) = turn.as_mut().poll(cx) else { return Poll::Pending };
        let poll = handshake.as_mut().poll(cx);
        drop(held);
        turn = Box::pin(turns.clone().acquire_owned());
        poll
    })
    .await
}
