//! Streams in, HTTP out.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Shared;
use crate::error::Close;

/// Bytes of a request's head.
const HEAD_MAX: usize = 16 * 1024;
/// After an accept that failed: descriptors may have run out, and need a moment to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// To whom there is no room for, and to all once the node is about to stop.
const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

pub(crate) async fn listen(
    shared: &Arc<Shared>,
    router: &Router,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = streams.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((tcp, _)) => {
                    // A frame is a whole message: waiting for more to fill a segment only delays it.
                    if let Err(error) = tcp.set_nodelay(true) {
                        tracing::debug!(%error, "a connection ended before it began");
                        continue;
                    }
                    streams.spawn(stream(shared.clone(), router.clone(), tcp));
                }
                Err(error) => {
                    tracing::warn!(%error, "the gateway cannot accept");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    shared.draining.send_replace(true);
    while streams.join_next().await.is_some() {}
}

pub(crate) async fn stream<S>(shared: Arc<Shared>, router: Router, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let permit = shared.connections.clone().try_acquire_owned();
    let refused = match (&permit, *shared.draining.borrow()) {
        (_, true) => Some("draining"),
        (Err(_), false) => Some("connections_full"),
        (Ok(_), false) => None,
    };
    if let Some(reason) = refused {
        shared.metrics.refuse(reason);
        let refuse = async {
            stream.write_all(UNAVAILABLE).await?;
            stream.shutdown().await
        };
        // Whether a peer that is turned away hears why is its own affair.
        let _ = timeout(shared.config.request_timeout(), refuse).await;
        return;
    }
    shared.metrics.connections.inc();
    let _counted = Counted(&shared);
    let mut draining = shared.draining.subscribe();
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(shared.config.request_timeout())
            .max_header_size(HEAD_MAX)
            .max_buf_size(4 * HEAD_MAX)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
            .with_upgrades()
    );
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = draining.wait_for(|draining| *draining) => None,
        () = sleep(shared.config.http_lifetime()) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(shared.config.request_timeout(), connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}

struct Counted<'a>(&'a Shared);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

pub(crate) async fn drain(shared: &Shared) {
    shared.draining.send_replace(true);
    shared.hub.close_all(Close::Draining);
    let all_gone = async {
        loop {
            let gone = shared.gone.notified();
            if shared.hub.clients() == 0 {
                return;
            }
            gone.await;
        }
    };
    if timeout(shared.config.drain_timeout(), all_gone).await.is_err() {
        tracing::warn!(clients = shared.hub.clients(), "clients are still connected after draining");
    }
}
