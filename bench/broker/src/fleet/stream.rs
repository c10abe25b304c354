//! A client of the gateway that reads one device's readings from the beginning, and counts them.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use super::control;
use super::stage::Running;

/// Reads all of a device's readings. Gives how many.
pub(super) fn replay(node: &Running, device: &str) -> Result<usize, Box<dyn Error>> {
    let asked = json!({ "may_command": false, "lifetime_s": 600, "once": false });
    let minted = control::post(&node.socket(), "/control/v1/tokens", &asked)?;
    let token = minted["token"].as_str().ok_or("no token")?;
    let address = node.gateway.strip_prefix("http://").ok_or("the gateway's address")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "GET /v1/ws HTTP/1.1\r\nhost: {address}\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )?;
    let mut reader = BufReader::with_capacity(256 * 1024, stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        if line.starts_with("HTTP/") && !line.contains(" 101 ") {
            return Err(format!("the gateway says {}", line.trim()).into());
        }
        line.clear();
    }
    send(&mut stream, &json!({ "type": "authenticate", "version": 1, "token": token }).to_string())?;
    send(&mut stream, &json!({ "type": "subscribe", "id": 1, "device": device, "since": "beginning" }).to_string())?;
    let (mut found, mut frame) = (0, Vec::new());
    loop {
        let opcode = receive(&mut reader, &mut frame)?;
        let text = std::str::from_utf8(&frame)?;
        match opcode {
            1 if text.contains(r#""type":"readings""#) => found += text.matches(r#""prev":"#).count(),
            1 if text.contains(r#""type":"caught_up""#) => return Ok(found),
            1 if text.contains(r#""type":"error""#) => return Err(text.into()),
            8 => return Err(format!("closed: {}", String::from_utf8_lossy(frame.get(2..).unwrap_or_default())).into()),
            _ => {}
        }
    }
}

/// One text, masked with zeros.
fn send(stream: &mut TcpStream, text: &str) -> std::io::Result<()> {
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
    if text.len() < 126 {
        frame = vec![0x81, 0x80 | text.len() as u8];
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    stream.write_all(&frame)
}

/// One frame; gives its opcode.
fn receive(reader: &mut impl Read, frame: &mut Vec<u8>) -> std::io::Result<u8> {
    let mut head = [0; 2];
    reader.read_exact(&mut head)?;
    let len = match head[1] & 0x7f {
        126 => {
            let mut len = [0; 2];
            reader.read_exact(&mut len)?;
            u64::from(u16::from_be_bytes(len))
        }
        127 => {
            let mut len = [0; 8];
            reader.read_exact(&mut len)?;
            u64::from_be_bytes(len)
        }
        len => u64::from(len),
    };
    frame.resize(len as usize, 0);
    reader.read_exact(frame)?;
    Ok(head[0] & 0x0f)
}
