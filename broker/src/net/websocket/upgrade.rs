//! The opening handshake of WebSocket (RFC 6455 section 4.2), for MQTT alone.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The most bytes of a request's head.
const HEAD_MAX: usize = 8 * 1024;

/// The most headers of a request.
const HEADERS_MAX: usize = 64;

/// What the client's key is answered with (RFC 6455 section 1.3).
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The subprotocol there is [MQTT-6.0.0-3].
const SUBPROTOCOL: &str = "mqtt";

/// Where MQTT is found.
const PATHS: [&str; 2] = ["/mqtt", "/"];

/// Why a request opens no WebSocket.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum UpgradeError {
    /// The stream ended within it, or failed.
    #[error("the stream ended within the request")]
    Ended,
    /// It is no HTTP/1.1.
    #[error("no HTTP/1.1 request")]
    NotHttp,
    /// Its head is larger than is taken.
    #[error("a request of more than {HEAD_MAX} bytes or {HEADERS_MAX} headers")]
    TooLarge,
    /// It is for something else.
    #[error("nothing is served at that path; MQTT is at /mqtt")]
    Path,
    /// It is plain HTTP.
    #[error("this port speaks MQTT over WebSocket, to MQTT clients and not to browsers' address bars")]
    NotWebSocket,
    /// Its version of WebSocket is another one.
    #[error("WebSocket version 13 is spoken here")]
    Version,
    /// Its key is none.
    #[error("a Sec-WebSocket-Key that is not 16 bytes in Base64")]
    Key,
    /// It does not offer MQTT [MQTT-6.0.0-3].
    #[error("the client does not offer the subprotocol mqtt")]
    Subprotocol,
    /// A page of another origin made it.
    #[error("pages of this origin may not connect; broker.ws.origins and broker.wss.origins name those that may")]
    Origin,
}

impl UpgradeError {
    /// The status line and what else must be said.
    const fn status(&self) -> Option<&'static str> {
        Some(match self {
            Self::Ended => return None,
            Self::NotHttp | Self::Key | Self::Subprotocol => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Path => "404 Not Found",
            Self::NotWebSocket | Self::Version => {
                "426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13"
            }
            Self::Origin => "403 Forbidden",
        })
    }
}

/// Answers a request to open a WebSocket. Gives what was read behind it.
pub(super) async fn upgrade<S>(stream: &mut S, origins: &[String]) -> Result<Vec<u8>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    let asked = loop {
        if stream.read_buf(&mut head).await.map_err(|_| UpgradeError::Ended)? == 0 {
            return Err(UpgradeError::Ended);
        }
        match parse(&head, origins) {
            Ok(None) => {}
            Ok(Some(asked)) => break Ok(asked),
            Err(error) => break Err(error),
        }
    };
    let (answer, asked) = match asked {
        Ok((accept, len)) => (
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
            ),
            Ok(len),
        ),
        Err(error) => (refusal(&error), Err(error)),
    };
    let written = async { stream.write_all(answer.as_bytes()).await.and(stream.flush().await) };
    written.await.map_err(|_| UpgradeError::Ended)?;
    match asked {
        Ok(len) => Ok(head.split_off(len.min(head.len()))),
        Err(error) => {
            // A close with unread input would be a reset, and take the answer with it.
            let _ = stream.shutdown().await;
            let mut rest = [0; 512];
            for _ in 0..HEAD_MAX / rest.len() {
                if !matches!(stream.read(&mut rest).await, Ok(1..)) {
                    break;
                }
            }
            Err(error)
        }
    }
}

/// An answer a person can read.
fn refusal(error: &UpgradeError) -> String {
    let Some(status) = error.status() else { return String::new() };
    let text = format!("{error}\n");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{text}",
        text.len()
    )
}

/// Reads a request: `None` where more of it must come, else the answer to its key and its length.
fn parse(head: &[u8], origins: &[String]) -> Result<Option<(String, usize)>, UpgradeError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let len = match request.parse(head) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(UpgradeError::TooLarge),
        Err(_) => return Err(UpgradeError::NotHttp),
    };
    if len > HEAD_MAX {
        return Err(UpgradeError::TooLarge);
    }
    check(&request, origins).map(|accept| Some((accept, len)))
}

fn check(request: &httparse::Request<'_, '_>, origins: &[String]) -> Result<String, UpgradeError> {
    let value = |name: &str| {
        let mut values = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        values.next().and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
    };
    let has = |name: &str, token: &str| {
        let mut values = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        values.any(|header| {
            let value = std::str::from_utf8(header.value).unwrap_or_default();
            value.split(',').any(|found| found.trim().eq_ignore_ascii_case(token))
        })
    };
    if request.version != Some(1) {
        return Err(UpgradeError::NotHttp);
    }
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    if !PATHS.contains(&path) {
        return Err(UpgradeError::Path);
    }
    let upgrades = has("upgrade", "websocket") && has("connection", "upgrade");
    if request.method != Some("GET") || !upgrades {
        return Err(UpgradeError::NotWebSocket);
    }
    if value("sec-websocket-version") != Some("13") {
        return Err(UpgradeError::Version);
    }
    let key = value("sec-websocket-key").ok_or(UpgradeError::Key)?;
    if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(UpgradeError::Key);
    }
    // Browsers name the page's origin; nothing else does.
    if let Some(origin) = value("origin")
        && !origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    {
        return Err(UpgradeError::Origin);
    }
    if !has("sec-websocket-protocol", SUBPROTOCOL) {
        return Err(UpgradeError::Subprotocol);
    }
    Ok(STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{KEY_SUFFIX}").as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request of RFC 6455 section 1.2, for MQTT.
    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: node.example\r\nUpgrade: websocket\r\nConnection: keep-alive, \
                           Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat, \
                           mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn asked(request: &str, origins: &[&str]) -> Result<Option<(String, usize)>, UpgradeError> {
        let origins: Vec<String> = origins.iter().map(ToString::to_string).collect();
        parse(request.as_bytes(), &origins)
    }

    #[test]
    fn the_key_is_answered_as_the_rfc_says() {
        let (accept, len) = asked(REQUEST, &[]).expect("good").expect("whole");
        assert_eq!((accept.as_str(), len), ("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", REQUEST.len()));
        for path in ["/", "/?x=1", "/mqtt?token"] {
            assert!(asked(&REQUEST.replace("/mqtt", path), &[]).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_request_that_is_not_whole_is_waited_for_up_to_a_bound() {
        for len in 0..REQUEST.len() {
            assert_eq!(asked(&REQUEST[..len], &[]), Ok(None), "{len}");
        }
        let long = format!("GET /mqtt HTTP/1.1\r\nX: {}", "x".repeat(HEAD_MAX));
        assert_eq!(asked(&long, &[]), Err(UpgradeError::TooLarge));
        let many = REQUEST.replace("\r\n\r\n", &format!("{}\r\n\r\n", "\r\nX: y".repeat(HEADERS_MAX)));
        assert_eq!(asked(&many, &[]), Err(UpgradeError::TooLarge));
    }

    #[test]
    fn what_is_no_websocket_for_mqtt_is_told_why() {
        for (from, to, error) in [
            ("/mqtt", "/other", UpgradeError::Path),
            ("GET", "POST", UpgradeError::NotWebSocket),
            ("Upgrade: websocket", "Upgrade: h2c", UpgradeError::NotWebSocket),
            ("Upgrade\r\nSec", "close\r\nSec", UpgradeError::NotWebSocket),
            ("Version: 13", "Version: 8", UpgradeError::Version),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl", UpgradeError::Key),
            ("dGhlIHNhbXBsZSBub25jZQ==", "?", UpgradeError::Key),
            ("chat, mqtt", "mqttv3.1", UpgradeError::Subprotocol),
            ("HTTP/1.1", "HTTP/1.0", UpgradeError::NotHttp),
            ("GET /mqtt", "\x10\x0c\0\x04MQTT", UpgradeError::NotHttp),
        ] {
            let refused = asked(&REQUEST.replacen(from, to, 1), &[]);
            assert_eq!(refused, Err(error.clone()), "{from} -> {to}");
            let answer = refusal(&error);
            assert!(answer.starts_with("HTTP/1.1 4") && answer.ends_with(&format!("\r\n\r\n{error}\n")), "{answer}");
        }
    }

    #[test]
    fn pages_come_in_from_the_origins_on_the_list_alone() {
        let request = REQUEST.replace("Host:", "Origin: https://dash.example\r\nHost:");
        assert_eq!(asked(&request, &[]), Err(UpgradeError::Origin));
        assert_eq!(asked(&request, &["https://other.example"]), Err(UpgradeError::Origin));
        assert!(asked(&request, &["https://other.example", "https://dash.example"]).is_ok());
        assert!(asked(&request, &["*"]).is_ok());
    }
}
