use std::os::unix::fs::PermissionsExt as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::config::tests::config;
use super::super::courier::Answer;
use super::super::dialer;
use super::super::testing::row;
use super::*;
use crate::testing::Ground;

/// Answers each request with this, and ends the connection.
async fn serve(listener: TcpListener, answer: &'static str) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (mut read, mut head) = (Vec::new(), 0);
        while head == 0 || read.len() == head {
            if stream.read_buf(&mut read).await.unwrap() == 0 {
                break;
            }
            head = read.windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn webhook(ground: &Ground, port: u16) -> Webhook {
    let secret = ground.folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let config = config(&format!("kind = 'webhook'\nurl = 'http://127.0.0.1:{port}/'\ntimeout_s = 5"));
    let address = config.server().unwrap();
    let place = ("127.0.0.1".to_owned(), address.path.clone());
    let signer = Signer::load(&secret).unwrap();
    Webhook::new(&config, dialer(&config, &address).unwrap(), place, signer, Epoch::new(1), ground.clock.clone())
}

/// Rows are blamed for what comes of them, and not for a way that fails or for who asks for time.
#[tokio::test]
async fn a_failure_over_rows_is_told_from_one_of_the_way() {
    let ground = Ground::new();
    let item = Item { row: row("a", 1, "temperature"), device: None };
    let asked = |s| Rest::Failed { retry_after: Some(Duration::from_secs(s)) };
    for (answer, taken, rest) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 1, Rest::None),
        ("HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", 0, Rest::Refused),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 0, Rest::Broke),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 0, Rest::Broke),
        ("HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 0, asked(7)),
        ("HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", 0, Rest::Failed { retry_after: None }),
        ("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", 0, Rest::Failed { retry_after: None }),
        // It ends the connection over them.
        ("", 0, Rest::Broke),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut webhook = webhook(&ground, listener.local_addr().unwrap().port());
        let server = tokio::spawn(serve(listener, answer));
        assert_eq!(webhook.send(&[&item]).await.answer, Answer { taken, rest }, "{answer:?}");
        server.abort();
        // Its listener has gone with it.
        assert!(server.await.unwrap_err().is_cancelled());
        let way = Answer { taken: 0, rest: Rest::Failed { retry_after: None } };
        webhook.connection = None;
        assert_eq!(webhook.send(&[&item]).await.answer, way, "nobody is there");
    }
}
