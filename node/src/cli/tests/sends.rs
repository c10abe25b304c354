//! Commands whose answer is lost on its way.

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_websockets::{Message, ServerBuilder, WebSocketStream};

use super::unread::Gone;
use super::*;
use crate::control::{LocalControl, RemoteControl, SendAsked};

/// The id that an error names behind `--id`.
fn named(error: &str) -> CommandId {
    let (_, rest) = error.split_once("--id ").unwrap_or_else(|| panic!("no id: {error}"));
    rest.split([' ', ',']).next().unwrap().parse().unwrap()
}

/// A node behind a socket that takes every command, and ends before it says so.
async fn takes_and_ends(listener: UnixListener, control: Arc<LocalControl>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        let body = loop {
            stream.read_buf(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let len = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= len.unwrap_or(0) {
                break body.to_owned();
            }
        };
        if body.is_empty() {
            let info = serde_json::to_string(&control.info().await.unwrap()).unwrap();
            let len = info.len();
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n{info}").as_bytes())
                .await
                .unwrap();
        } else {
            control.send(serde_json::from_str::<SendAsked>(&body).unwrap()).await.unwrap();
        }
    }
}

/// The natural answer to an error is to do it again; what names the command makes that harmless.
#[tokio::test]
async fn a_command_whose_answer_is_lost_is_named_and_sent_again_under_its_name_is_one() {
    let ground = Ground::new();
    let control = Arc::new(ground.control(None).await);
    control.enroll(enroll_asked("pump-7")).await.unwrap();
    let path = ground.folder.path().join("lossy.sock");
    let node = tokio::spawn(takes_and_ends(UnixListener::bind(&path).unwrap(), control.clone()));

    let lost = refusal(&RemoteControl::new(&path), "send pump-7 open valve").await;
    assert!(lost.contains("whether the command was taken is not known"), "{lost}");
    let id = named(&lost);
    let again = printed(&*control, &format!("send pump-7 open valve --id {id}")).await.unwrap();
    assert!(again.starts_with(&format!("{id}  accepted")), "{again}");
    let open = ground.store.open_commands(&super::id("pump-7")).await.unwrap();
    assert_eq!(open.iter().map(|open| open.id).collect::<Vec<_>>(), [id]);

    // What is refused was not taken, and there is nothing to send again.
    let refused = refusal(&*control, "send pump-8 open valve").await;
    assert!(!refused.contains("--id"), "{refused}");
    node.abort();
}

type Gateway = WebSocketStream<TcpStream>;

async fn heard(client: &mut Gateway) -> Value {
    serde_json::from_str(client.next().await.unwrap().unwrap().as_text().unwrap()).unwrap()
}

async fn said(client: &mut Gateway, frame: Value) {
    client.send(Message::text(frame.to_string())).await.unwrap();
}

/// How a command is given in a frame.
fn shown(id: &Value, state: &str) -> Value {
    json!({
        "command": id, "device": "pump-7", "name": "open", "state": state, "created_at": 1, "expires_at": 2, "cause": "",
        "times": { "accepted": 1 }, "attempts": 0
    })
}

/// Sends to a gateway that lets in, hears the command and then does as it is told. Gives what was typed
/// and what the gateway heard.
async fn sent_to<F: Future<Output = ()> + Send>(
    options: &str,
    out: &mut dyn Write,
    does: impl FnOnce(Gateway, Value) -> F + Send + 'static,
) -> (Result<(), CliError>, Value) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (_, mut client) = ServerBuilder::new().accept(stream).await.unwrap();
        heard(&mut client).await;
        said(&mut client, json!({ "type": "welcome", "version": 1, "devices": "*" })).await;
        let asked = heard(&mut client).await;
        does(client, asked["command"].clone()).await;
        asked
    };
    let line = format!("send pump-7 open valve --node http://{address} --token t {options}");
    tokio::join!(dispatch(parse(&line).unwrap(), rng(), out), gateway)
}

#[tokio::test]
async fn a_command_is_named_where_the_connection_ends_before_its_answer_and_told_apart_from_one_that_was_taken() {
    let (ended, asked) = sent_to("", &mut Vec::new(), async |client, _| drop(client)).await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("whether the command was taken is not known"), "{error}");
    assert_eq!(json!(named(&error).to_string()), asked["command"]);

    let (ended, asked) = sent_to("--wait", &mut Vec::new(), async |mut client, id| {
        said(&mut client, json!({ "type": "command", "id": 1, "command": shown(&id, "accepted") })).await;
    })
    .await;
    let error = ended.unwrap_err().to_string();
    let taken = format!("the command {} was taken", asked["command"].as_str().unwrap());
    assert!(error.contains(&taken) && !error.contains("--id"), "{error}");

    let (ended, _) = sent_to("", &mut Vec::new(), async |mut client, _| {
        said(&mut client, json!({ "type": "error", "id": 1, "code": "forbidden", "message": "no" })).await;
    })
    .await;
    assert_eq!(ended.unwrap_err().to_string(), "no (forbidden)");
    let (ended, _) = sent_to("", &mut Vec::new(), async |mut client, _| {
        said(&mut client, json!({ "type": "error", "id": 1, "code": "unavailable", "message": "not now" })).await;
    })
    .await;
    named(&ended.unwrap_err().to_string());
}

/// Nobody has said that it stands.
#[tokio::test]
async fn a_node_that_says_nothing_is_not_said_to_have_taken_the_command() {
    let (ended, _) = sent_to("--wait --timeout 1", &mut Vec::new(), async |mut client, _| {
        // Until the other side has given up.
        while let Some(Ok(_)) = client.next().await {}
    })
    .await;
    let error = ended.unwrap_err().to_string();
    assert!(error.contains("has not answered within 1 s; whether") && !error.contains("stands"), "{error}");
    named(&error);

    let (ended, asked) = sent_to("--wait --timeout 1", &mut Vec::new(), async |mut client, id| {
        said(&mut client, json!({ "type": "command", "id": 1, "command": shown(&id, "accepted") })).await;
        while let Some(Ok(_)) = client.next().await {}
    })
    .await;
    let stands = format!("the command {} stands until it expires", asked["command"].as_str().unwrap());
    let error = ended.unwrap_err().to_string();
    assert!(error.contains(&stands), "{error}");
}

/// `unhidra send --wait | grep -q accepted`
#[tokio::test]
async fn what_became_of_a_command_is_the_status_of_waiting_for_it_whoever_reads_it() {
    for (state, status) in [("failed", 1), ("done", 0)] {
        let (ended, _) = sent_to("--wait", &mut Gone, async move |mut client, id| {
            for (kind, state) in [("command", "accepted"), ("command_changed", "sent"), ("command_changed", state)] {
                said(&mut client, json!({ "type": kind, "command": shown(&id, state) })).await;
            }
        })
        .await;
        assert_eq!(ended.unwrap_err().exit_code(), status, "{state}");
    }
}
