//! The frames of WebSocket (RFC 6455 section 5.2), as a server reads and writes them. No I/O.
//!
//! ```text
//! 1 B  FIN, three reserved bits, opcode: 0 continuation, 1 text, 2 binary, 8 close, 9 ping, 10 pong
//! 1 B  MASK, length: up to 125; 126: in the next 2 B; 127: in the next 8 B
//! 4 B  the mask, of a client always
//!      the payload, masked
//! ```
//!
//! Nothing of a message is kept: its payload is unmasked where it was read, frame or no frame, and
//! moves to the front. MQTT packets may begin and end anywhere in frames [MQTT-6.0.0-2].

use thiserror::Error;

/// The most a control frame holds.
const CONTROL_MAX: usize = 125;

/// A normal end.
pub(super) const NORMAL: u16 = 1000;

/// Why bytes are none that MQTT over WebSocket allows.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(super) enum FrameError {
    /// A reserved bit is set, and no extension was agreed on.
    #[error("a frame with reserved bits")]
    Reserved,
    /// Its opcode is not known.
    #[error("a frame of the unknown kind {found}")]
    Opcode {
        /// Which.
        found: u8,
    },
    /// It is a text frame, and MQTT goes in binary ones alone [MQTT-6.0.0-1].
    #[error("a text frame; MQTT is binary")]
    Text,
    /// A client masks what it sends.
    #[error("a frame without a mask")]
    Unmasked,
    /// A length takes as few bytes as it can, and 63 bits.
    #[error("a frame whose length is not written as it must be")]
    Length,
    /// It is larger than is taken.
    #[error("a frame of {len} bytes; at most {max} are taken")]
    TooLong {
        /// How long.
        len: u64,
        /// How long it may be.
        max: u64,
    },
    /// A control frame is whole and short.
    #[error("a control frame in parts, or of more than 125 bytes")]
    Control,
    /// A continuation of nothing, or a new message within one.
    #[error("a frame out of its message's order")]
    Order,
}

impl FrameError {
    /// What the close frame says (RFC 6455 section 7.4.1).
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Text => 1003,
            Self::TooLong { .. } => 1009,
            Self::Reserved | Self::Opcode { .. } | Self::Unmasked | Self::Length | Self::Control | Self::Order => 1002,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Data,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Within a frame's first 2 to 14 bytes.
    Head { bytes: [u8; 14], filled: usize },
    /// Within its payload.
    Payload { kind: Kind, remaining: u64, mask: [u8; 4] },
    /// A close was read: what follows is no concern of ours.
    Closed,
}

/// What a peer asked for beside its data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// A pong with this payload. Of several pings the last is answered.
    Pong(Box<[u8]>),
    /// A close with this code.
    Close(u16),
}

/// Takes frames apart.
#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
    /// A message's last frame has not come yet.
    in_message: bool,
    frame_max: u64,
    /// The payload of a control frame, and nothing else.
    control: Vec<u8>,
    asked: Option<Asked>,
}

impl Decoder {
    /// Takes frames of at most so many bytes.
    pub(super) const fn new(frame_max: u64) -> Self {
        let state = State::Head { bytes: [0; 14], filled: 0 };
        Self { state, in_message: false, frame_max, control: Vec::new(), asked: None }
    }

    /// What the peer asked for since the last time.
    pub(super) fn take_asked(&mut self) -> Option<Asked> {
        self.asked.take()
    }

    /// Reads bytes as they came. Leaves the data among them, unmasked, at their front, and says how
    /// many they are.
    ///
    /// # Errors
    ///
    /// The peer broke a rule: the connection is over.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, FrameError> {
        let (mut read, mut kept) = (0, 0);
        while read < bytes.len() {
            match &mut self.state {
                State::Closed => break,
                State::Head { bytes: head, filled } => {
                    if let (Some(to), Some(from)) = (head.get_mut(*filled), bytes.get(read)) {
                        *to = *from;
                    }
                    *filled += 1;
                    read += 1;
                    let (head, filled) = (*head, *filled);
                    if filled == head_len(head) {
                        self.begin(head)?;
                    }
                }
                State::Payload { kind, remaining, mask } => {
                    let take = usize::try_from(*remaining).unwrap_or(usize::MAX).min(bytes.len() - read);
                    bytes.copy_within(read..read + take, kept);
                    if let Some(data) = bytes.get_mut(kept..kept + take) {
                        unmask(data, *mask);
                        if *kind == Kind::Data {
                            kept += take;
                        } else {
                            self.control.extend_from_slice(data);
                        }
                    }
                    read += take;
                    *remaining -= take as u64;
                    mask.rotate_left(take % 4);
                    if *remaining == 0 {
                        let kind = *kind;
                        self.end(kind);
                    }
                }
            }
        }
        Ok(kept)
    }

    /// A frame's head is whole.
    fn begin(&mut self, head: [u8; 14]) -> Result<(), FrameError> {
        let [first, second, ..] = head;
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        if first & 0x70 != 0 {
            return Err(FrameError::Reserved);
        }
        let kind = match (opcode, self.in_message) {
            (0, true) | (2, false) => Kind::Data,
            (0, false) | (2, true) => return Err(FrameError::Order),
            (1, _) => return Err(FrameError::Text),
            (8, _) => Kind::Close,
            (9, _) => Kind::Ping,
            (10, _) => Kind::Pong,
            (found, _) => return Err(FrameError::Opcode { found }),
        };
        if second & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let len = payload_len(head)?;
        if kind == Kind::Data {
            if len > self.frame_max {
                return Err(FrameError::TooLong { len, max: self.frame_max });
            }
            self.in_message = !fin;
        } else if !fin || len > CONTROL_MAX as u64 {
            return Err(FrameError::Control);
        }
        self.state = State::Payload { kind, remaining: len, mask: mask_of(head) };
        if len == 0 {
            self.end(kind);
        }
        Ok(())
    }

    /// A frame is whole.
    fn end(&mut self, kind: Kind) {
        self.state = State::Head { bytes: [0; 14], filled: 0 };
        let control = std::mem::take(&mut self.control);
        match kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping => self.asked = Some(Asked::Pong(control.into())),
            Kind::Close => {
                let code = control.first_chunk().map_or(NORMAL, |code| u16::from_be_bytes(*code));
                self.asked = Some(Asked::Close(code));
                self.state = State::Closed;
            }
        }
    }
}

/// How long a head is whose first bytes are these.
const fn head_len(head: [u8; 14]) -> usize {
    let [_, second, ..] = head;
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    // Without a mask there are none to wait for: it is refused at once.
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

fn payload_len(head: [u8; 14]) -> Result<u64, FrameError> {
    let [_, second, a, b, c, d, e, f, g, h, ..] = head;
    match second & 0x7f {
        126 => Some(u64::from(u16::from_be_bytes([a, b]))).filter(|len| *len > 125),
        127 => {
            let len = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            Some(len).filter(|len| *len > u64::from(u16::MAX) && *len >> 63 == 0)
        }
        len => Some(len.into()),
    }
    .ok_or(FrameError::Length)
}

const fn mask_of(head: [u8; 14]) -> [u8; 4] {
    let [_, second, a, b, c, d, e, f, _, _, g, h, i, j] = head;
    match second & 0x7f {
        126 => [c, d, e, f],
        127 => [g, h, i, j],
        _ => [a, b, c, d],
    }
}

fn unmask(data: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The head of a binary frame of so many bytes, and its own length.
pub(super) fn binary_head(len: u64) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    let (length, used): (&[u8], _) = match len {
        0..=125 => (&[len as u8], 2),
        126..=0xffff => (&[&[126][..], &(len as u16).to_be_bytes()].concat(), 4),
        _ => (&[&[127][..], &len.to_be_bytes()].concat(), 10),
    };
    for (to, from) in head.iter_mut().zip([0x82].iter().chain(length)) {
        *to = *from;
    }
    (head, used)
}

/// A control frame, whole.
pub(super) fn control_frame(asked: &Asked) -> Vec<u8> {
    let code;
    let (opcode, payload) = match asked {
        Asked::Pong(payload) => (0x8a, payload.get(..CONTROL_MAX).unwrap_or(payload)),
        Asked::Close(found) => {
            code = found.to_be_bytes();
            (0x88, &code[..])
        }
    };
    let mut frame = vec![opcode, payload.len() as u8];
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x22, 0x44, 0x88];
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..=125 => frame.push(0x80 | len as u8),
            len @ 126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend((len as u16).to_be_bytes());
            }
            len => {
                frame.push(0x80 | 127);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Decodes in pieces of this size.
    fn decode(bytes: &[u8], piece: usize) -> Result<(Vec<u8>, Vec<Asked>), FrameError> {
        let mut decoder = Decoder::new(100_000);
        let (mut data, mut asked) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            let kept = decoder.decode(&mut piece)?;
            data.extend_from_slice(&piece[..kept]);
            asked.extend(decoder.take_asked());
        }
        Ok((data, asked))
    }

    #[test]
    fn data_comes_out_whole_however_it_is_cut() {
        let long: Vec<u8> = (0..70_000_u32).map(|i| i as u8).collect();
        let stream = [
            frame(0x82, b"one"),
            frame(0x02, b"be"),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"gin"),
            frame(0x82, &long[..200]),
            frame(0x82, &long),
            frame(0x8a, b"nobody asked"),
            frame(0x88, &[0x03, 0xe9, b'b', b'y', b'e']),
            b"whatever follows".to_vec(),
        ]
        .concat();
        let expected = [&b"onebegin"[..], &long[..200], &long].concat();
        for piece in [1, 2, 3, 7, 64, 1_000, stream.len()] {
            let (data, asked) = decode(&stream, piece).expect("good frames");
            assert!(data == expected, "in pieces of {piece}");
            assert_eq!(asked.last(), Some(&Asked::Close(1001)));
        }
        let (_, asked) = decode(&stream, 1).expect("good frames");
        assert_eq!(asked[0], Asked::Pong(b"are you there"[..].into()));
    }

    #[test]
    fn what_breaks_a_rule_is_refused_with_its_code() {
        for (bytes, error, code) in [
            (frame(0x81, b"text"), FrameError::Text, 1003),
            (frame(0xc2, b""), FrameError::Reserved, 1002),
            (frame(0x83, b""), FrameError::Opcode { found: 3 }, 1002),
            (frame(0x8b, b""), FrameError::Opcode { found: 11 }, 1002),
            (frame(0x80, b""), FrameError::Order, 1002),
            ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), FrameError::Order, 1002),
            (frame(0x09, b""), FrameError::Control, 1002),
            (frame(0x89, &[0; 126]), FrameError::Control, 1002),
            (vec![0x82, 0x01, 0x00], FrameError::Unmasked, 1002),
            (vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], FrameError::Length, 1002),
            (vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0], FrameError::Length, 1002),
            (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::Length, 1002),
            (
                vec![0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa1, 0, 0, 0, 0],
                FrameError::TooLong { len: 100_001, max: 100_000 },
                1009,
            ),
        ] {
            assert_eq!(decode(&bytes, bytes.len()), Err(error));
            assert_eq!(error.code(), code, "{error}");
        }
    }

    #[test]
    fn a_servers_frames_carry_their_length_and_no_mask() {
        assert_eq!(binary_head(125).0[..2], [0x82, 125]);
        assert_eq!(binary_head(126), ([0x82, 126, 0, 126, 0, 0, 0, 0, 0, 0], 4));
        assert_eq!(binary_head(65_536), ([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 10));
        assert_eq!(control_frame(&Asked::Close(1000)), [0x88, 2, 0x03, 0xe8]);
        assert_eq!(control_frame(&Asked::Pong(b"x"[..].into())), [0x8a, 1, b'x']);
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in any::<Vec<u8>>(), piece in 1_usize..20) {
            let _ = decode(&bytes, piece);
        }

        #[test]
        fn any_data_in_any_frames_comes_out(parts in proptest::collection::vec(any::<Vec<u8>>(), 1..6), piece in 1_usize..20) {
            let last = parts.len() - 1;
            let frames = parts.iter().enumerate().map(|(at, part)| {
                frame(if at == 0 { 2 } else { 0 } | if at == last { 0x80 } else { 0 }, part)
            });
            let stream: Vec<u8> = frames.flatten().collect();
            prop_assert_eq!(decode(&stream, piece).map(|(data, _)| data), Ok(parts.concat()));
        }
    }
}
