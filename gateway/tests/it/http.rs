//! Plain HTTP: the page, the session, and what is turned away.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use unhidra_gateway::{TokenName, Use, Visible};

use crate::store::MemoryStore;
use crate::world::{World, config};

pub(crate) fn upgrade(host: &str, more: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

fn post(body: &str, more: &str) -> String {
    let len = body.len();
    format!(
        "POST /v1/session HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n{more}\r\n{body}"
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

fn body(answer: &str) -> Value {
    answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str(body).ok()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn the_console_and_all_it_names_comes_from_the_binary() {
    let world = World::new();
    let page = world.http(&get("/", "localhost")).await;
    assert_eq!(status(&page), "200");
    assert!(page.contains("content-type: text/html; charset=utf-8") && page.contains("frame-ancestors 'none'"));
    assert!(page.contains("x-content-type-options: nosniff") && page.contains("referrer-policy: no-referrer"));
    let mut wanted: Vec<String> = Vec::new();
    let names = |text: &str, wanted: &mut Vec<String>| {
        for quoted in text.split('"').skip(1).step_by(2) {
            assert!(
                !quoted.starts_with("http:") && !quoted.starts_with("https:") && !quoted.starts_with("//"),
                "{quoted}"
            );
            match quoted.strip_prefix("./") {
                Some(module) => wanted.push(format!("/console/{module}")),
                None if quoted.starts_with("/console/") => wanted.push(quoted.to_owned()),
                None => {}
            }
        }
    };
    names(page.split_once("\r\n\r\n").unwrap().1, &mut wanted);
    let mut at = 0;
    while at < wanted.len() {
        let answer = world.http(&get(&wanted[at], "localhost")).await;
        assert_eq!(status(&answer), "200", "{}", wanted[at]);
        if wanted[at].ends_with(".js") {
            for line in answer.lines().filter(|line| line.starts_with("import ")) {
                names(line, &mut wanted);
            }
        }
        at += 1;
    }
    assert!(wanted.len() >= 6, "{wanted:?}");
    let tag = page.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIf-None-Match: {tag}\r\n\r\n");
    assert_eq!(status(&world.http(&again).await), "304");
}

#[tokio::test(start_paused = true)]
async fn a_one_time_token_gives_a_session_once() {
    let world = World::new();
    let once = world.tokens.mint(TokenName::default(), Visible::All, true, Duration::from_secs(60), Use::Once);
    let request = post(&format!(r#"{{"token":"{once}"}}"#), "Origin: http://localhost\r\n");
    let answer = world.http(&request).await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(answer.contains("cache-control: no-store"));
    let session = body(&answer)["token"].as_str().unwrap().to_owned();
    let mut client = world.connect().await;
    client.authenticate(&session).await;
    let answer = world.http(&request).await;
    assert_eq!((status(&answer), &body(&answer)["code"]), ("401", &Value::from("token_refused")));
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_is_answered_in_json() {
    let world = World::new();
    let large = "x".repeat(5000);
    for (request, code, word) in [
        (get("/nothing", "localhost"), "404", "not_found"),
        (get("/v1/session", "localhost"), "405", "method_not_allowed"),
        (get("/v1/ws", "localhost"), "426", "not_websocket"),
        ("DELETE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".to_owned(), "405", "method_not_allowed"),
        (post("garbage", ""), "400", "bad_request"),
        (post(r#"{"token":"a","more":1}"#, ""), "400", "bad_request"),
        (post(&large, ""), "413", "too_large"),
        (post(r#"{"token":"a"}"#, "Origin: http://evil.example\r\n"), "403", "foreign_origin"),
        (get("/", "evil.example"), "421", "foreign_host"),
        (get("/", "localhost.evil.example:8080"), "421", "foreign_host"),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), "400", "no_host"),
        (upgrade("evil.example", "Connection: close\r\n"), "421", "foreign_host"),
        (upgrade("localhost", "Origin: http://evil.example\r\nConnection: close\r\n"), "403", "foreign_origin"),
        (upgrade("localhost", "Origin: null\r\nConnection: close\r\n"), "403", "foreign_origin"),
        (upgrade("localhost:8080", "Origin: http://localhost\r\nConnection: close\r\n"), "403", "foreign_origin"),
    ] {
        let answer = world.http(&request).await;
        assert_eq!((status(&answer), &body(&answer)["code"]), (code, &Value::from(word)), "{request}\n{answer}");
        assert!(answer.contains("x-content-type-options: nosniff"));
    }
}

#[tokio::test(start_paused = true)]
async fn own_pages_and_configured_origins_may_connect() {
    let world = World::new();
    for (host, origin) in [
        ("localhost:8080", "Origin: http://localhost:8080\r\n"),
        ("127.0.0.1:8080", "Origin: http://127.0.0.1:8080\r\n"),
        ("gate.example", "Origin: https://gate.example\r\n"),
        ("localhost", "Origin: https://dash.example\r\n"),
        ("localhost", ""),
    ] {
        let mut stream = world.dial();
        stream.write_all(upgrade(host, origin).as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101", "{host} {origin}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_and_silence_end_and_hurt_nobody() {
    let world = World::new();
    let mut client = world.enter().await;
    let answer = world.http("\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(answer.is_empty() || status(&answer) == "400", "{answer}");
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(status(&world.http(&long).await), "431");
    // Half a head, and half a body: each has its time.
    assert_eq!(world.http("GET / HTTP/1.1\r\nHost: loc").await, "");
    let answer = world.http("POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{").await;
    assert_eq!(status(&answer), "408", "{answer}");
    client.hear_type("ping").await;
}

#[tokio::test(start_paused = true)]
async fn more_connections_than_allowed_are_told_to_come_later() {
    let mut config = config();
    config.connections_max = 1;
    let world = World::with(config, MemoryStore::new(1, 1));
    let _idle = world.dial();
    // The idle stream is served once its task has run.
    tokio::task::yield_now().await;
    let answer = world.http(&get("/", "localhost")).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Retry-After: 5"), "{answer}");
}
