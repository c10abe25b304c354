//! The network: a door into the node that devices dial, and that can be shut.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::{broadcast, mpsc};
use unhidra_broker::{Accepted, BoxFuture, Entrance, Identity, Listener};

use crate::fuse::{Fuse, Passage};

/// Bytes in flight in each direction.
const PIPE: usize = 16 * 1024;

/// Where devices dial. A node that is down has no door.
#[derive(Clone, Debug)]
pub struct Network {
    door: Arc<Mutex<Option<mpsc::Sender<Accepted>>>>,
    cut: broadcast::Sender<()>,
    /// Where the node dies: at one of its writes to anybody.
    pub fuse: Fuse,
    /// Who finds no way to the door.
    away: Arc<Mutex<BTreeSet<String>>>,
}

/// The node's side: the listener of one life of the node.
pub struct Door {
    arrivals: mpsc::Receiver<Accepted>,
}

/// A connection as the device holds it.
#[derive(Debug)]
pub struct Wire {
    /// The bytes.
    pub stream: DuplexStream,
    /// Says when every connection is cut.
    pub cut: broadcast::Receiver<()>,
}

impl Default for Network {
    fn default() -> Self {
        Self { door: Arc::default(), cut: broadcast::Sender::new(1), fuse: Fuse::default(), away: Arc::default() }
    }
}

impl Network {
    /// A door for a node that begins; the one before it is shut.
    #[must_use]
    pub fn open(&self) -> Door {
        let (door, arrivals) = mpsc::channel(64);
        *self.lock() = Some(door);
        Door { arrivals }
    }

    /// Shuts the door and cuts every connection: the node is gone.
    pub fn shut(&self) {
        *self.lock() = None;
        self.cut_all();
    }

    /// Cuts every connection; the door stays open.
    pub fn cut_all(&self) {
        // Nobody is connected: there is nothing to cut.
        let _ = self.cut.send(());
    }

    /// A device finds no way to the node any more.
    pub fn isolate(&self, peer: &str) {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).insert(peer.to_owned());
        self.cut_all();
    }

    /// It finds one again.
    pub fn rejoin(&self, peer: &str) {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
    }

    /// Dials. `None` where the node is down, or out of reach.
    pub async fn dial(&self, identity: Identity, peer: &str) -> Option<Wire> {
        self.dial_at(identity, peer, Entrance { name: "simulated", anonymous: false, users: false }).await
    }

    /// Dials as a client that proves no name, where such come in.
    pub async fn dial_nameless(&self, peer: &str) -> Option<Wire> {
        let entrance = Entrance { name: "nameless", anonymous: true, users: false };
        self.dial_at(Identity::Anonymous, peer, entrance).await
    }

    async fn dial_at(&self, identity: Identity, peer: &str, entrance: Entrance) -> Option<Wire> {
        if self.away.lock().unwrap_or_else(PoisonError::into_inner).contains(peer) {
            return None;
        }
        let door = self.lock().clone()?;
        let (near, far) = tokio::io::duplex(PIPE);
        let cut = self.cut.subscribe();
        let stream = Box::new(Mortal { stream: far, fuse: self.fuse.clone() });
        door.send(Accepted { stream, identity, peer: peer.into(), entrance: Arc::new(entrance), pass: None })
            .await
            .ok()?;
        Some(Wire { stream: near, cut })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Accepted>>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's end of a connection, which knows when the node is dead.
struct Mortal {
    stream: DuplexStream,
    fuse: Fuse,
}

impl AsyncRead for Mortal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // The dead hear nothing. Nobody wakes them: they are buried.
        if self.fuse.is_blown() { Poll::Pending } else { Pin::new(&mut self.stream).poll_read(context, buffer) }
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.fuse.write() {
            Passage::Shut => Poll::Pending,
            // It leaves, and the node does not live to know.
            Passage::Last => {
                let _ = Pin::new(&mut self.stream).poll_write(context, bytes);
                Poll::Pending
            }
            Passage::Free => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Listener for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        Box::pin(async move {
            match self.arrivals.recv().await {
                Some(accepted) => Ok(accepted),
                // The network has opened another door; this node hears of nobody any more.
                None => std::future::pending().await,
            }
        })
    }
}
