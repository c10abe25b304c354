//! The node's control socket: as much of HTTP as a question needs.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

/// Asks, and gives the answer.
pub(super) fn post(socket: &Path, path: &str, asked: &Value) -> Result<Value, Box<dyn Error>> {
    let mut stream = UnixStream::connect(socket)?;
    let body = asked.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let (mut status, mut line) = (String::new(), String::new());
    reader.read_line(&mut status)?;
    let mut len = None;
    while reader.read_line(&mut line)? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            len = value.trim().parse::<usize>().ok();
        }
        line.clear();
    }
    let mut answer = vec![0; len.ok_or_else(|| format!("no length in the answer to {path}: {status}"))?];
    reader.read_exact(&mut answer)?;
    if !status.starts_with("HTTP/1.1 2") {
        return Err(format!("{path}: {} {}", status.trim(), String::from_utf8_lossy(&answer)).into());
    }
    Ok(serde_json::from_slice(&answer)?)
}
