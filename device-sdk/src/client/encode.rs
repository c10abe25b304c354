//! Control packets a client sends, into a buffer.

use super::reason::ReasonCode;
use super::wire::{NoRoom, VARINT_MAX, Writer, varint_len};

/// What CONNECT says (section 3.1).
pub(crate) struct Connect<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) clean_start: bool,
    pub(crate) keep_alive_s: u16,
    pub(crate) session_expiry_s: u32,
    pub(crate) receive_max: u16,
    pub(crate) packet_len_max: u32,
}

impl Connect<'_> {
    pub(crate) fn write(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        const PROPERTIES_LEN: usize = 5 + 3 + 5;
        let len = 6 + 1 + 1 + 2 + 1 + PROPERTIES_LEN + 2 + self.client_id.len();
        let mut writer = begin(out, 0x10, len)?;
        writer.string("MQTT")?;
        writer.u8(5)?;
        writer.u8(if self.clean_start { 0x02 } else { 0 })?;
        writer.u16(self.keep_alive_s)?;
        writer.varint(PROPERTIES_LEN)?;
        writer.u8(0x11)?;
        writer.u32(self.session_expiry_s)?;
        writer.u8(0x21)?;
        writer.u16(self.receive_max)?;
        writer.u8(0x27)?;
        writer.u32(self.packet_len_max)?;
        writer.string(self.client_id)?;
        Ok(writer.len())
    }
}

/// SUBSCRIBE to `filters`, each at QoS 1 and without retained messages (section 3.8).
pub(crate) fn subscribe(out: &mut [u8], packet_id: u16, filters: &[&str]) -> Result<usize, NoRoom> {
    /// QoS 1; Retain Handling 2, no retained messages: on these rows there are none.
    const OPTIONS: u8 = 0x21;
    let len = filters.iter().fold(3, |len, filter| len + 2 + filter.len() + 1);
    let mut writer = begin(out, 0x82, len)?;
    writer.u16(packet_id)?;
    writer.varint(0)?;
    for filter in filters {
        writer.string(filter)?;
        writer.u8(OPTIONS)?;
    }
    Ok(writer.len())
}

/// PUBLISH, at QoS 1 where it has a packet identifier, else at QoS 0 (section 3.3).
pub(crate) fn publish(out: &mut [u8], topic: &str, packet_id: Option<u16>, payload: &[u8]) -> Result<usize, NoRoom> {
    let mut writer = begin(
        out,
        if packet_id.is_some() { 0x32 } else { 0x30 },
        publish_body_len(topic, packet_id.is_some(), payload.len()),
    )?;
    writer.string(topic)?;
    if let Some(packet_id) = packet_id {
        writer.u16(packet_id)?;
    }
    writer.varint(0)?;
    writer.bytes(payload)?;
    Ok(writer.len())
}

/// The DUP flag of PUBLISH, in its first byte [MQTT-3.3.1-1].
pub(crate) const PUBLISH_DUP: u8 = 0x08;

/// The bytes of a whole PUBLISH.
pub(crate) const fn publish_len(topic: &str, acknowledged: bool, payload_len: usize) -> usize {
    let body = publish_body_len(topic, acknowledged, payload_len);
    1 + varint_len(body) + body
}

const fn publish_body_len(topic: &str, acknowledged: bool, payload_len: usize) -> usize {
    2 + topic.len() + if acknowledged { 2 } else { 0 } + 1 + payload_len
}

/// PUBACK; the reason code is left out where it is success (section 3.4).
pub(crate) fn puback(out: &mut [u8], packet_id: u16, reason: ReasonCode) -> Result<usize, NoRoom> {
    let success = reason == ReasonCode::SUCCESS;
    let mut writer = begin(out, 0x40, if success { 2 } else { 3 })?;
    writer.u16(packet_id)?;
    if !success {
        writer.u8(reason.0)?;
    }
    Ok(writer.len())
}

/// PINGREQ (section 3.12).
pub(crate) fn pingreq(out: &mut [u8]) -> Result<usize, NoRoom> {
    begin(out, 0xC0, 0).map(|writer| writer.len())
}

/// DISCONNECT (section 3.14).
pub(crate) fn disconnect(out: &mut [u8], reason: ReasonCode) -> Result<usize, NoRoom> {
    let mut writer = begin(out, 0xE0, 1)?;
    writer.u8(reason.0)?;
    Ok(writer.len())
}

fn begin(out: &mut [u8], first: u8, len: usize) -> Result<Writer<'_>, NoRoom> {
    if len > VARINT_MAX || out.len() < 1 + varint_len(len) + len {
        return Err(NoRoom);
    }
    let mut writer = Writer::new(out);
    writer.u8(first)?;
    writer.varint(len)?;
    Ok(writer)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn written(write: impl FnOnce(&mut [u8]) -> Result<usize, NoRoom>) -> std::vec::Vec<u8> {
        let mut out = [0; 300];
        let len = write(&mut out).expect("there is room");
        out[..len].to_vec()
    }

    #[test]
    fn packets_have_the_bytes_of_the_standard() {
        let connect = Connect {
            client_id: "p",
            clean_start: true,
            keep_alive_s: 60,
            session_expiry_s: 1,
            receive_max: 4,
            packet_len_max: 1024,
        };
        assert_eq!(
            written(|out| connect.write(out)),
            [
                0x10, 27, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 13, 0x11, 0, 0, 0, 1, 0x21, 0, 4, 0x27, 0, 0, 4,
                0, 0, 1, b'p'
            ]
        );
        assert_eq!(
            written(|out| subscribe(out, 1, &["a", "b"])),
            [0x82, 11, 0, 1, 0, 0, 1, b'a', 0x21, 0, 1, b'b', 0x21]
        );
        assert_eq!(written(|out| publish(out, "t", Some(9), b"xy")), [0x32, 8, 0, 1, b't', 0, 9, 0, b'x', b'y']);
        assert_eq!(written(|out| publish(out, "t", None, b"xy")), [0x30, 6, 0, 1, b't', 0, b'x', b'y']);
        assert_eq!(written(|out| puback(out, 9, ReasonCode::SUCCESS)), [0x40, 2, 0, 9]);
        assert_eq!(written(|out| puback(out, 9, ReasonCode(0x83))), [0x40, 3, 0, 9, 0x83]);
        assert_eq!(written(pingreq), [0xC0, 0]);
        assert_eq!(written(|out| disconnect(out, ReasonCode::SUCCESS)), [0xE0, 1, 0]);
    }

    #[test]
    fn a_packet_that_does_not_fit_is_not_written_in_part() {
        let payload = [0; 200];
        let len = publish_len("t", true, payload.len());
        let mut out = std::vec![0; len];
        assert_eq!(publish(&mut out, "t", Some(1), &payload), Ok(len));
        let mut short = std::vec![0; len - 1];
        assert_eq!(publish(&mut short, "t", Some(1), &payload), Err(NoRoom));
        assert!(short.iter().all(|byte| *byte == 0));
    }
}
