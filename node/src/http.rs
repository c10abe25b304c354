//! The loop under the node's own HTTP doors: the control socket and the admin port.
//!
//! A connection costs one permit, and where none is left the next peer waits in the kernel's
//! queue. A peer that does not finish its request's head in time is closed, and so is one that
//! says nothing more.

use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How much a door lets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// How long the head of a request may take, the first one and each after it.
    pub(crate) header_timeout: Duration,
    /// How long a connection may last, whatever its peer does; `None`: as long as there is something to say.
    pub(crate) lifetime: Option<Duration>,
    /// How long requests under way may take to end once the door closes, or the connection's time is over.
    pub(crate) grace: Duration,
}

/// Serves `router` on `listener` until `shutdown` says so, or whoever holds it is gone; then the
/// requests under way have the grace to end.
///
/// Each request carries the peer's address, as an extension.
pub(crate) async fn serve<L: Listener<Addr: Clone + Sync>>(
    mut listener: L,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    let permits = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            () = told(&mut shutdown) => break,
            permit = permits.clone().acquire_owned() => permit,
            Some(_) = connections.join_next() => continue,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let (io, router) = tokio::select! {
            () = told(&mut shutdown) => break,
            (io, peer) = listener.accept() => (io, router.clone().layer(Extension(peer))),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(64 * 1024)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
            .with_upgrades();
        let mut down = shutdown.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let lifetime = async {
                match limits.lifetime {
                    Some(lifetime) => tokio::time::sleep(lifetime).await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = told(&mut down) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
                () = lifetime => {
                    connection.as_mut().graceful_shutdown();
                    // A peer that takes nothing of its answer keeps no other out.
                    tokio::time::timeout(limits.grace, connection).await.unwrap_or(Ok(()))
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "an HTTP connection ended badly");
            }
            drop(permit);
        });
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    // What is not done by then is cut off when the set is dropped.
    let _ = tokio::time::timeout(limits.grace, all_ended).await;
}

/// Completes when the door is to close.
async fn told(shutdown: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell us.
    let _ = shutdown.wait_for(|down| *down).await;
}
