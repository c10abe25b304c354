//! The network: a door into the node that devices dial, and that can be shut.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc};
use unhidra_broker::{Accepted, BoxFuture, Entrance, Identity, Listener};

/// Bytes in flight in each direction.
const PIPE: usize = 16 * 1024;

/// Where devices dial. A node that is down has no door.
#[derive(Clone, Debug)]
pub struct Network {
    door: Arc<Mutex<Option<mpsc::Sender<Accepted>>>>,
    cut: broadcast::Sender<()>,
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
        Self { door: Arc::default(), cut: broadcast::Sender::new(1) }
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

    /// Dials. `None` where the node is down.
    pub async fn dial(&self, identity: Identity, peer: &str) -> Option<Wire> {
        let door = self.lock().clone()?;
        let (near, far) = tokio::io::duplex(PIPE);
        let cut = self.cut.subscribe();
        let entrance = Arc::new(Entrance { name: "simulated", anonymous: false, users: false });
        let stream = Box::new(far);
        door.send(Accepted { stream, identity, peer: peer.into(), entrance, pass: None }).await.ok()?;
        Some(Wire { stream: near, cut })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Sender<Accepted>>> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
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
