//! A webhook's receiver by hand: it checks every signature, and misbehaves as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use unhidra_tests::process::soon;

/// The secret its sender has too.
pub(super) const SECRET: &str = "a secret of the test's own";

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// This status, with further headers.
    Status(u16, &'static str),
    /// Nothing, and the connection stays.
    Hang,
    /// Nothing, and it is closed.
    Close,
}

/// Says what becomes of the request of this number, from 1, with these rows.
pub(super) type Script = Box<dyn Fn(usize, &[Value]) -> Answer + Send + Sync>;

/// A receiver. Dropped, it is gone.
pub(super) struct Hook {
    pub(super) address: SocketAddr,
    /// The rows of each request that was answered with 2xx.
    taken: watch::Receiver<Vec<Vec<Value>>>,
    requests: Arc<Mutex<usize>>,
    accepts: JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl Hook {
    /// One that speaks plain HTTP.
    pub(super) async fn start(address: SocketAddr, script: Script) -> Self {
        Self::start_with(address, script, None).await
    }

    /// One that speaks TLS, where it is given what it shows.
    pub(super) async fn start_with(address: SocketAddr, script: Script, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (take, taken) = watch::channel(Vec::new());
        let (script, take, requests) = (Arc::new(script), Arc::new(take), Arc::new(Mutex::new(0)));
        let counted = requests.clone();
        let accepts = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (script, take, counted, tls) = (script.clone(), take.clone(), counted.clone(), tls.clone());
                serving.spawn(async move {
                    match tls {
                        // A handshake that fails is for the other side to tell.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, script, take, counted).await;
                            }
                        }
                        None => serve(stream, script, take, counted).await,
                    }
                });
            }
        });
        Self { address, taken, requests, accepts }
    }

    /// The rows that were taken, repeats and all, once those with these ids are among them.
    pub(super) async fn has(&self, ids: &[String]) -> Vec<Value> {
        let mut taken = self.taken.clone();
        let all = |taken: &Vec<Vec<Value>>| {
            let there: Vec<&str> = taken.iter().flatten().filter_map(|row| row["id"].as_str()).collect();
            ids.iter().all(|id| there.contains(&id.as_str()))
        };
        let found = soon(format!("{} rows at the webhook", ids.len()), taken.wait_for(all)).await;
        found.expect("it serves").iter().flatten().cloned().collect()
    }

    /// Goes away, and gives the rows it took.
    pub(super) async fn stop(mut self) -> Vec<Value> {
        self.accepts.abort();
        // Ended by now, with every connection it had.
        let _ = (&mut self.accepts).await;
        self.taken.borrow().iter().flatten().cloned().collect()
    }

    /// How many rows were taken so far, waited for.
    pub(super) async fn rows(&self, count: usize) {
        let mut taken = self.taken.clone();
        let enough = |taken: &Vec<Vec<Value>>| taken.iter().flatten().count() >= count;
        let _ = soon(format!("{count} rows at the webhook"), taken.wait_for(enough)).await.expect("it serves");
    }

    pub(super) fn requests(&self) -> usize {
        *self.requests.lock().expect("nobody has panicked")
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Arc<Script>,
    take: Arc<watch::Sender<Vec<Vec<Value>>>>,
    requests: Arc<Mutex<usize>>,
) {
    let mut read = Vec::new();
    while let Some((head, body)) = request(&mut stream, &mut read).await {
        verify(&head, &body);
        let rows: Vec<Value> = serde_json::from_slice(&body).expect("an array of rows");
        let delivery = header(&head, "unhidra-delivery").expect("a delivery has an id");
        assert_eq!(delivery, format!("{}+{}", rows[0]["id"].as_str().expect("an id"), rows.len()));
        let number = {
            let mut requests = requests.lock().expect("nobody has panicked");
            *requests += 1;
            *requests
        };
        match script(number, &rows) {
            Answer::Status(status, headers) => {
                if (200..300).contains(&status) {
                    take.send_modify(|taken| taken.push(rows));
                }
                let answer = format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 2\r\n\r\nok");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::Hang => std::future::pending().await,
            Answer::Close => return,
        }
    }
}

/// One request: its head in small letters where letters do not matter, and its body.
async fn request(stream: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).expect("a head is ASCII");
    let len: usize = header(&head, "content-length").expect("a length").parse().expect("a number");
    while read.len() < end + 4 + len {
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
    let rest = read.split_off(end + 4 + len);
    let body = std::mem::replace(read, rest).split_off(end + 4);
    Some((head, body))
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn verify(head: &str, body: &[u8]) {
    let signature = header(head, "unhidra-signature").expect("it is signed");
    let (at, digest) = signature.split_once(",v1=").expect("t=...,v1=...");
    let at = at.strip_prefix("t=").expect("t=");
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    [at.as_bytes(), b".", body].into_iter().for_each(|part| mac.update(part));
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, expected, "the signature is over the time and the body");
}
