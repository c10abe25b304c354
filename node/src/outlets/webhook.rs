//! Rows by HTTP: a signed POST for each run of them, one at a time, over one connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::timeout;
use unhidra_core::ids::Epoch;
use unhidra_core::time::Clock;

use super::config::{Config, Format};
use super::courier::Rest;
use super::fault::{Cause, Meaning, Sent, retry_after};
use super::record::{RowId, put_json};
use super::runner::Item;
use super::signature::Signer;
use crate::dial::Dialer;

/// The most that is read of an answer. Nothing in it is used; a longer one costs its connection.
const ANSWER_MAX: usize = 64 * 1024;

/// An HTTP server that takes rows.
pub(crate) struct Webhook {
    dialer: Dialer,
    host: String,
    path: String,
    signer: Signer,
    lines: bool,
    epoch: Epoch,
    patience: Duration,
    retry_after_max: Duration,
    clock: Arc<dyn Clock + Send + Sync>,
    connection: Option<Connection>,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.host).finish_non_exhaustive()
    }
}

/// A connection, and who carries its bytes; both end together.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _carrier: JoinSet<()>,
}

/// What went wrong before there was an answer.
enum Lost {
    /// No connection came about.
    Dial(std::io::Error),
    /// It broke, once it was there.
    Broken(hyper::Error),
}

impl Webhook {
    pub(crate) fn new(
        config: &Config,
        dialer: Dialer,
        (host, path): (String, String),
        signer: Signer,
        epoch: Epoch,
        clock: Arc<dyn Clock + Send + Sync>,
    ) -> Self {
        Self {
            dialer,
            host,
            path,
            signer,
            lines: config.format == Format::Lines,
            epoch,
            patience: Duration::from_secs(config.timeout_s),
            retry_after_max: Duration::from_secs(config.retry_after_max_s),
            clock,
            connection: None,
        }
    }

    /// Sends a run of rows.
    pub(crate) async fn send(&mut self, rows: &[&Item]) -> Sent {
        let body = self.body(rows);
        // The run's first row and length: the same for a run that is sent again.
        let first = rows.first().map(|item| RowId::of(self.epoch, &item.row).to_string()).unwrap_or_default();
        let delivery = format!("{first}+{}", rows.len());
        let sent = match timeout(self.patience, self.exchange(&delivery, &body)).await {
            Ok(Ok(response)) => self.meaning(response, rows.len()).await,
            Ok(Err(Lost::Dial(error))) => Sent::failed(0, Cause::Connect, format!("no connection: {error}")),
            Ok(Err(Lost::Broken(error))) => Sent::broke(0, Cause::Broken, format!("no answer: {error}")),
            Err(_) => Sent::failed(0, Cause::Timeout, format!("no answer within {} s", self.patience.as_secs())),
        };
        if sent.fault.as_ref().is_some_and(|fault| matches!(fault.cause, Cause::Timeout | Cause::Broken)) {
            self.connection = None;
        }
        sent
    }

    fn body(&self, rows: &[&Item]) -> Bytes {
        let mut body = Vec::new();
        let (begin, between, end) = if self.lines { (&b""[..], b'\n', b'\n') } else { (&b"["[..], b',', b']') };
        body.extend_from_slice(begin);
        for (at, item) in rows.iter().enumerate() {
            if at > 0 {
                body.push(between);
            }
            put_json(self.epoch, &item.row, item.device.as_deref(), &mut body);
        }
        body.push(end);
        body.into()
    }

    /// One request and the head of its answer. A connection that stood since the last request may have
    /// been closed meanwhile, so that a break on it is tried once more on a new one.
    async fn exchange(&mut self, delivery: &str, body: &Bytes) -> Result<Response<hyper::body::Incoming>, Lost> {
        if let Some(mut connection) = self.connection.take()
            && connection.sender.ready().await.is_ok()
            && let Ok(response) = connection.sender.send_request(self.request(delivery, body)).await
        {
            self.connection = Some(connection);
            return Ok(response);
        }
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(self.request(delivery, body)).await.map_err(Lost::Broken)?;
        self.connection = Some(connection);
        Ok(response)
    }

    async fn connect(&self) -> Result<Connection, Lost> {
        let stream = self.dialer.dial().await.map_err(Lost::Dial)?;
        let (sender, carried) = http1::handshake(TokioIo::new(stream)).await.map_err(Lost::Broken)?;
        let mut carrier = JoinSet::new();
        carrier.spawn(async move {
            // Whoever waits for an answer hears why there is none.
            let _ = carried.await;
        });
        Ok(Connection { sender, _carrier: carrier })
    }

    fn request(&self, delivery: &str, body: &Bytes) -> Request<Full<Bytes>> {
        let media = if self.lines { "application/x-ndjson" } else { "application/json" };
        let mut request = Request::new(Full::new(body.clone()));
        *request.method_mut() = hyper::Method::POST;
        // Each was read as what it is when the configuration was: what does not parse is left out, and
        // the other side refuses it.
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        let signature = self.signer.sign(self.clock.unix_now(), body);
        let headers = [
            (HOST.as_str(), self.host.as_str()),
            (CONTENT_TYPE.as_str(), media),
            (USER_AGENT.as_str(), concat!("unhidra/", env!("CARGO_PKG_VERSION"))),
            ("unhidra-delivery", delivery),
            ("unhidra-signature", &signature),
        ];
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (hyper::header::HeaderName::try_from(name), value.parse()) {
                request.headers_mut().insert(name, value);
            }
        }
        request
    }

    async fn meaning(&mut self, response: Response<hyper::body::Incoming>, rows: usize) -> Sent {
        let status = response.status();
        let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|value| retry_after(value, self.clock.unix_now(), self.retry_after_max));
        // Read to its end, the connection can carry the next request.
        let read = Limited::new(response.into_body(), ANSWER_MAX).collect();
        if !matches!(timeout(self.patience, read).await, Ok(Ok(_))) {
            self.connection = None;
        }
        let text = format!("it answered {status}");
        match Meaning::of(status.as_u16()) {
            Meaning::Taken => Sent::all(rows),
            Meaning::Refused => Sent::refused(0, Rest::Refused, text),
            // Who names no time does not say that it is itself that fails.
            Meaning::Failed(cause @ Cause::Unavailable) if asked.is_none() => Sent::broke(0, cause, text),
            Meaning::Failed(cause) => {
                let mut sent = Sent::failed(0, cause, text);
                sent.answer.rest = Rest::Failed { retry_after: asked };
                sent
            }
        }
    }
}

#[cfg(test)]
mod tests;
