//! A client of the gateway's WebSocket (gateway/PROTOCOL.md): over the control socket of a running
//! node, or over TCP to one elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Message, WebSocketStream};

use super::CliError;
use crate::control::{CommandRecord, RowRecord, connect};

/// How long the other side may take to let us in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a gateway is to be found elsewhere.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeUrl {
    authority: String,
}

impl std::str::FromStr for NodeUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |cause: &str| Err(format!("{cause}; a node is named as in http://127.0.0.1:8080"));
        let Ok(uri) = text.parse::<Uri>() else { return wrong("this is no URL") };
        match uri.scheme_str() {
            None | Some("http" | "ws") => {}
            Some("https" | "wss") => return wrong("the gateway does not speak TLS yet"),
            Some(_) => return wrong("its scheme is not http or ws"),
        }
        match uri.authority() {
            Some(_) if !matches!(uri.path(), "" | "/") || uri.query().is_some() => {
                wrong("it goes on after host and port")
            }
            Some(authority) if authority.as_str().contains('@') => wrong("it holds a user"),
            Some(authority) => {
                let port = authority.port_u16().unwrap_or(80);
                Ok(Self { authority: format!("{}:{port}", authority.host()) })
            }
            None => wrong("it names no host"),
        }
    }
}

impl From<SocketAddr> for NodeUrl {
    fn from(address: SocketAddr) -> Self {
        Self { authority: address.to_string() }
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What the gateway says, as far as the command line listens.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Frame {
    Welcome {},
    Subscribed {
        cursor: String,
    },
    Readings {
        cursor: String,
        #[serde(default)]
        gaps: Vec<GapRecord>,
        readings: Vec<RowRecord>,
    },
    Command {
        command: CommandRecord,
    },
    CommandChanged {
        command: CommandRecord,
    },
    Commands {
        commands: Vec<CommandRecord>,
    },
    Ping {},
    Error {
        code: String,
        message: String,
    },
    Closing {
        reason: String,
    },
    #[serde(other)]
    Other,
}

/// Readings that are no longer kept, up to a place (gateway/PROTOCOL.md section 3).
#[derive(Debug, Deserialize, serde::Serialize)]
pub(super) struct GapRecord {
    pub(super) device: String,
    pub(super) partition: u16,
    pub(super) offset: u64,
}

/// A connection that has been let in.
pub(super) struct Client {
    socket: WebSocketStream<Box<dyn Io>>,
}

impl Client {
    /// Connects to the node behind a control socket.
    pub(super) async fn over_socket(path: &Path, token: &str) -> Result<Self, CliError> {
        let stream = connect(path).await.map_err(|source| CliError::File { path: path.to_owned(), source })?;
        Self::enter(Box::new(stream), "localhost", token).await
    }

    /// Connects to a node elsewhere.
    pub(super) async fn over_tcp(node: &NodeUrl, token: &str) -> Result<Self, CliError> {
        let unreachable = |cause: &dyn fmt::Display| CliError::Failed(format!("cannot reach {node}: {cause}"));
        let dialled = tokio::time::timeout(PATIENCE, TcpStream::connect(&node.authority)).await;
        let stream = dialled.map_err(|late| unreachable(&late))?.map_err(|error| unreachable(&error))?;
        Self::enter(Box::new(stream), &node.authority, token).await
    }

    async fn enter(stream: Box<dyn Io>, authority: &str, token: &str) -> Result<Self, CliError> {
        let entered = tokio::time::timeout(PATIENCE, async {
            let builder = ClientBuilder::new()
                .uri(&format!("ws://{authority}/v1/ws"))
                .map_err(|error| CliError::Usage(format!("{authority}: {error}")))?;
            let (socket, _) = builder.connect_on(stream).await.map_err(broken)?;
            let mut client = Self { socket };
            client.say(&json!({ "type": "authenticate", "version": 1, "token": token })).await?;
            match client.next().await? {
                Frame::Welcome {} => Ok(client),
                other => Err(unexpected(&other)),
            }
        });
        let late = |_| CliError::Failed("the gateway did not answer in time".to_owned());
        entered.await.map_err(late)?
    }

    /// Sends one request.
    pub(super) async fn say(&mut self, request: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string(request).map_err(|error| CliError::Usage(error.to_string()))?;
        self.socket.send(Message::text(text)).await.map_err(broken)
    }

    /// The next frame that is not about the connection itself.
    pub(super) async fn next(&mut self) -> Result<Frame, CliError> {
        loop {
            let message = match self.socket.next().await {
                Some(message) => message.map_err(broken)?,
                None => return Err(CliError::Failed("the gateway closed the connection".to_owned())),
            };
            if let Some((code, reason)) = message.as_close() {
                let code = u16::from(code);
                return Err(CliError::Failed(format!("the gateway closed the connection: {reason} ({code})")));
            }
            let Some(text) = message.as_text() else { continue };
            match serde_json::from_str(text).map_err(broken)? {
                Frame::Ping {} => self.say(&json!({ "type": "pong" })).await?,
                Frame::Error { code, message } => return Err(CliError::Refused { code, message }),
                Frame::Closing { reason } => {
                    return Err(CliError::Failed(format!("the gateway closes the connection: {reason}")));
                }
                Frame::Other => {}
                frame => return Ok(frame),
            }
        }
    }
}

/// What is said of a frame that has no place where it came.
pub(super) fn unexpected(frame: &Frame) -> CliError {
    let kind = format!("{frame:?}");
    let kind = kind.split([' ', '{']).next().unwrap_or_default();
    CliError::Failed(format!("the gateway answered with {kind}: it is of another version than this command"))
}

fn broken(error: impl fmt::Display) -> CliError {
    CliError::Failed(format!("the conversation with the gateway broke: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_named_by_host_and_port() {
        for (text, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("ws://edge.local:9000/", "http://edge.local:9000"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://edge.local", "http://edge.local:80"),
        ] {
            assert_eq!(text.parse::<NodeUrl>().map(|url| url.to_string()), Ok(shown.to_owned()));
        }
        for (text, cause) in [
            ("", "no URL"),
            ("/v1/ws", "names no host"),
            ("https://edge.local", "TLS"),
            ("mqtt://edge.local", "scheme"),
            ("http://edge.local/v1/ws", "goes on after"),
            ("http://me@edge.local", "a user"),
        ] {
            let refused = text.parse::<NodeUrl>();
            assert!(refused.as_ref().is_err_and(|e| e.contains(cause)), "{text}: {refused:?}");
        }
    }

    #[test]
    fn frames_of_the_gateway_are_read_and_unknown_ones_passed_over() {
        let read = |text: &str| serde_json::from_str::<Frame>(text).unwrap();
        let readings = r#"{"type":"readings","device":"*","cursor":"abc","readings":[
            {"device":"pump-7","partition":0,"offset":2,"prev":1,"kind":"reading","name":"temperature",
             "received_at":2000,"reading_id":"18446744073709551615","text":"21.5"},
            {"device":"pump-7","partition":0,"offset":3,"prev":2,"kind":"ignored","received_at":2000}]}"#;
        let Frame::Readings { cursor, readings, .. } = read(readings) else { panic!("readings") };
        assert_eq!((cursor.as_str(), readings.len()), ("abc", 2));
        assert_eq!(readings[0].reading_id, Some(u64::MAX));
        assert_eq!(readings[0].body.as_ref().unwrap().as_bytes(), b"21.5");
        assert!(readings[1].body.is_none());
        assert!(matches!(read(r#"{"type":"welcome","version":1,"devices":"*"}"#), Frame::Welcome {}));
        assert!(matches!(read(r#"{"type":"something_new","x":1}"#), Frame::Other));
    }
}
