//! As much of MQTT 3.1.1 as a generator needs: packets made by hand, frames found cheaply.

/// How long the payload of every measured message is.
pub(crate) const PAYLOAD_LEN: usize = 64;

/// Fixed header of a PUBACK.
const PUBACK: u8 = 0x40;

/// CONNECT with a clean session and the longest Keep Alive, so that nothing but the load is on the
/// wire: rumqttd refuses none at all.
pub(crate) fn connect(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, 0x02, 0xff, 0xff];
    push_text(&mut body, client_id);
    packet(0x10, &body)
}

/// SUBSCRIBE to one filter.
pub(crate) fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    push_text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// PUBACK.
pub(crate) fn puback(packet_id: [u8; 2]) -> [u8; 4] {
    [PUBACK, 2, packet_id[0], packet_id[1]]
}

/// A control packet: first byte, length, body.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        packet.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// A text behind its length.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A PUBLISH of 64 bytes, made once and filled in for each message.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    qos: u8,
}

impl Template {
    pub(crate) fn new(topic: &str, qos: u8, flow: u32) -> Self {
        let mut body = Vec::new();
        push_text(&mut body, topic);
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        let at = body.len();
        body.resize(at + PAYLOAD_LEN, b'.');
        body[at..at + 4].copy_from_slice(&flow.to_le_bytes());
        Self { bytes: packet(0x30 | qos << 1, &body), qos }
    }

    /// Appends the message `number`, sent at `stamp` (nanoseconds).
    pub(crate) fn append(&mut self, number: u32, stamp: u64, out: &mut Vec<u8>) {
        let payload = self.bytes.len() - PAYLOAD_LEN;
        if self.qos > 0 {
            // Identifiers 1 to 65 535 in turn.
            let packet_id = (number % 65_535 + 1) as u16;
            self.bytes[payload - 2..payload].copy_from_slice(&packet_id.to_be_bytes());
        }
        self.bytes[payload + 4..payload + 8].copy_from_slice(&number.to_le_bytes());
        self.bytes[payload + 8..payload + 16].copy_from_slice(&stamp.to_le_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

/// What a broker sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Frame {
    /// CONNACK with its return code.
    Connack(u8),
    /// SUBACK with the first code.
    Suback(u8),
    /// PUBACK.
    Puback,
    /// A message of a flow. `packet_id` is there at QoS 1.
    Message { flow: u32, number: u32, stamp: u64, packet_id: Option<[u8; 2]> },
    /// Anything else.
    Other(u8),
}

/// The next frame and how long it is; `None` where it is not whole yet.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn split(bytes: &[u8]) -> Result<Option<(Frame, usize)>, String> {
    let (mut len, mut at) = (0_usize, 1);
    loop {
        let Some(&byte) = bytes.get(at) else { return Ok(None) };
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte < 0x80 {
            break;
        }
        if at > 4 {
            return Err("a length of more than four bytes".into());
        }
    }
    let end = at + len;
    let Some(body) = bytes.get(at..end) else { return Ok(None) };
    let frame = match bytes[0] >> 4 {
        2 => Frame::Connack(*body.get(1).ok_or("a short CONNACK")?),
        3 => message(bytes[0], body)?,
        4 => Frame::Puback,
        9 => Frame::Suback(*body.get(2).ok_or("a short SUBACK")?),
        _ => Frame::Other(bytes[0]),
    };
    Ok(Some((frame, end)))
}

fn message(first: u8, body: &[u8]) -> Result<Frame, String> {
    let short = "a short PUBLISH";
    let topic_len = usize::from(u16::from_be_bytes([*body.first().ok_or(short)?, *body.get(1).ok_or(short)?]));
    let mut at = 2 + topic_len;
    let packet_id = if first & 0x06 == 0 {
        None
    } else {
        let id = body.get(at..at + 2).ok_or(short)?;
        at += 2;
        Some([id[0], id[1]])
    };
    let payload = body.get(at..).ok_or(short)?;
    if payload.len() != PAYLOAD_LEN {
        return Err(format!("a payload of {} bytes, not {PAYLOAD_LEN}", payload.len()));
    }
    let four = |at: usize| u32::from_le_bytes([payload[at], payload[at + 1], payload[at + 2], payload[at + 3]]);
    let stamp = u64::from(four(8)) | u64::from(four(12)) << 32;
    Ok(Frame::Message { flow: four(0), number: four(4), stamp, packet_id })
}
