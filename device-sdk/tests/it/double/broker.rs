//! The few packets of MQTT 5 a device sends, answered.

use std::collections::VecDeque;

/// A packet of the device.
#[derive(Debug)]
pub(crate) enum FromDevice {
    Connect { clean_start: bool },
    Publish { topic: String, packet_id: Option<u16>, dup: bool, payload: Vec<u8> },
    Puback { packet_id: u16, reason: u8 },
    Subscribe { packet_id: u16, topics: usize },
    Pingreq,
    Disconnect { reason: u8 },
}

/// One connection and the MQTT session behind it.
#[derive(Default)]
pub(crate) struct Broker {
    input: Vec<u8>,
    output: Vec<u8>,
    /// What waits to be sent at QoS 1: at most four are unacknowledged.
    queue: VecDeque<(String, Vec<u8>)>,
    unacknowledged: Vec<u16>,
    next_id: u16,
    known: bool,
    /// The largest packet it takes, in bytes.
    pub(crate) packet_max: Option<u8>,
    /// PUBACK reason codes the device gave.
    pub(crate) refused_by_device: Vec<u8>,
    /// How often it gave success.
    pub(crate) acknowledged_by_device: usize,
}

const RECEIVE_MAX: usize = 4;

impl Broker {
    /// The connection is gone. What was not acknowledged is forgotten: whoever published it does
    /// so anew.
    pub(crate) fn disconnected(&mut self) {
        self.input.clear();
        self.output.clear();
        self.queue.clear();
        self.unacknowledged.clear();
    }

    /// The broker forgets its sessions.
    pub(crate) fn forget(&mut self) {
        self.known = false;
    }

    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Vec<FromDevice> {
        self.input.extend(bytes);
        let mut found = Vec::new();
        while let Some((first, body, len)) = whole(&self.input) {
            let packet = parse(first, body);
            self.input.drain(..len);
            match &packet {
                FromDevice::Connect { clean_start } => {
                    let present = self.known && !clean_start;
                    self.known = true;
                    match self.packet_max {
                        None => self.output.extend([0x20, 3, u8::from(present), 0, 0]),
                        Some(max) => self.output.extend([0x20, 8, u8::from(present), 0, 5, 0x27, 0, 0, 0, max]),
                    }
                }
                FromDevice::Subscribe { packet_id, topics } => {
                    let [high, low] = packet_id.to_be_bytes();
                    self.output.extend([0x90, 3 + *topics as u8, high, low, 0]);
                    self.output.extend(vec![1; *topics]);
                }
                FromDevice::Puback { packet_id, reason } => {
                    self.unacknowledged.retain(|id| id != packet_id);
                    if *reason >= 0x80 {
                        self.refused_by_device.push(*reason);
                    } else {
                        self.acknowledged_by_device += 1;
                    }
                }
                FromDevice::Pingreq => self.output.extend([0xD0, 0]),
                FromDevice::Publish { .. } | FromDevice::Disconnect { .. } => {}
            }
            found.push(packet);
        }
        found
    }

    pub(crate) fn puback(&mut self, packet_id: u16, reason: u8) {
        let [high, low] = packet_id.to_be_bytes();
        self.output.extend([0x40, 3, high, low, reason]);
    }

    pub(crate) fn publish(&mut self, topic: &str, payload: Vec<u8>) {
        self.queue.push_back((topic.into(), payload));
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        while self.unacknowledged.len() < RECEIVE_MAX
            && let Some((topic, payload)) = self.queue.pop_front()
        {
            self.next_id = self.next_id % u16::MAX + 1;
            self.unacknowledged.push(self.next_id);
            let body = [
                &(topic.len() as u16).to_be_bytes()[..],
                topic.as_bytes(),
                &self.next_id.to_be_bytes(),
                &[0],
                &payload,
            ]
            .concat();
            let len = match u8::try_from(body.len()) {
                Ok(len @ 0..0x80) => vec![len],
                _ => vec![body.len() as u8 | 0x80, (body.len() >> 7) as u8],
            };
            self.output.push(0x32);
            self.output.extend(len);
            self.output.extend(body);
        }
        std::mem::take(&mut self.output)
    }
}

fn whole(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut len, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((bytes[0], bytes.get(at..at + len)?, at + len))
}

fn parse(first: u8, body: &[u8]) -> FromDevice {
    let number = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    match first >> 4 {
        1 => FromDevice::Connect { clean_start: body[7] & 2 != 0 },
        3 => {
            let topic_end = 2 + usize::from(number(0));
            let acknowledged = first & 6 != 0;
            let payload = topic_end + if acknowledged { 3 } else { 1 };
            FromDevice::Publish {
                topic: String::from_utf8(body[2..topic_end].to_vec()).expect("a topic is UTF-8"),
                packet_id: acknowledged.then(|| number(topic_end)),
                dup: first & 8 != 0,
                payload: body[payload..].to_vec(),
            }
        }
        4 => FromDevice::Puback { packet_id: number(0), reason: body.get(2).copied().unwrap_or(0) },
        8 => {
            let mut rest = &body[3..];
            let mut topics = 0;
            while let [high, low, after @ ..] = rest {
                rest = &after[usize::from(u16::from_be_bytes([*high, *low])) + 1..];
                topics += 1;
            }
            FromDevice::Subscribe { packet_id: number(0), topics }
        }
        12 => FromDevice::Pingreq,
        14 => FromDevice::Disconnect { reason: body[0] },
        other => panic!("packet type {other} of a device"),
    }
}
