//! The file of a backup.
//!
//! ```text
//! magic     "unhidra backup\n", version 1
//! frame     kind 1, length 4, payload, SHA-256 over all of the file before it 32
//!
//! kind 1    head      JSON: who made it, when, of what
//! kind 2    file      name length 2, name, contents        a file of the data folder, as it lies
//! kind 3    records   partition 2, table 1, then for each: key length 2, key, record length 4, record
//! kind 4    end       JSON: how many records and bytes
//! ```
//!
//! Integers are big-endian. Each frame answers for all before it, so a file that was cut, changed,
//! or put together of two is known at the first frame that is not as it was; without its end it is
//! no backup. Records stay sealed as they lie in the store.

use std::io::{self, Read};

use aws_lc_rs::digest;
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use unhidra_store::Piece;

const MAGIC: &[u8; 16] = b"unhidra backup\n\x01";
const CHECK_LEN: usize = 32;

/// The most bytes of a payload: more than any record has.
const PAYLOAD_MAX: u32 = (1 << 30) + (1 << 20);

/// What a backup says of itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Head {
    /// The program's version.
    pub program: String,
    /// When it was begun, in ms since the Unix epoch.
    pub created_at: u64,
    /// How many partitions the store has.
    pub partitions: u16,
    /// About how many bytes will follow; the store's use of the disk.
    pub bytes_about: u64,
}

/// What ends a backup.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct End {
    /// How many files of the data folder it has.
    pub files: u64,
    /// How many records.
    pub records: u64,
    /// How many bytes of keys and records.
    pub bytes: u64,
}

/// One frame.
#[derive(Debug, PartialEq)]
pub(crate) enum Frame {
    Head(Head),
    File { name: String, contents: Vec<u8> },
    Records(Piece),
    End(End),
}

/// Why a file is no backup.
#[derive(Debug, Error)]
pub enum FrameError {
    /// It begins otherwise.
    #[error("it does not begin as a backup does")]
    Magic,
    /// It is of another version.
    #[error("it is of version {found}; this program reads version 1")]
    Version {
        /// Its version.
        found: u8,
    },
    /// It ends too early.
    #[error("it ends at byte {at}, in the middle: the backup was not finished, or was cut")]
    Short {
        /// Where.
        at: u64,
    },
    /// Something in it is not as it was.
    #[error("what lies before byte {at} is not as it was written")]
    Check {
        /// Where that shows.
        at: u64,
    },
    /// Its checks are right, and it says what no backup says.
    #[error("the frame at byte {at}: {cause}")]
    Frame {
        /// Where it begins.
        at: u64,
        /// What is wrong.
        cause: String,
    },
    /// Something comes after its end.
    #[error("more follows its end, at byte {at}")]
    Long {
        /// Where.
        at: u64,
    },
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Turns frames into bytes, and counts them.
pub(crate) struct Writer {
    hash: digest::Context,
    begun: bool,
    counted: End,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { hash: digest::Context::new(&digest::SHA256), begun: false, counted: End::default() }
    }

    /// A frame's bytes.
    ///
    /// # Errors
    ///
    /// It has more bytes than a frame may have.
    pub(crate) fn put(&mut self, frame: &Frame) -> Result<Bytes, FrameError> {
        let mut payload = BytesMut::new();
        let kind = match frame {
            Frame::Head(head) => {
                payload.put_slice(&json(head)?);
                1
            }
            Frame::File { name, contents } => {
                payload.put_u16(u16::try_from(name.len()).map_err(|_| wrong(0, "a name of more than 65 535 bytes"))?);
                payload.put_slice(name.as_bytes());
                payload.put_slice(contents);
                self.counted.files += 1;
                2
            }
            Frame::Records(piece) => {
                put_piece(&mut payload, piece)?;
                self.counted.records += piece.records.len() as u64;
                self.counted.bytes += piece.records.iter().map(|(k, r)| (k.len() + r.len()) as u64).sum::<u64>();
                3
            }
            Frame::End(end) => {
                payload.put_slice(&json(end)?);
                4
            }
        };
        let len = u32::try_from(payload.len()).ok().filter(|len| *len <= PAYLOAD_MAX);
        let len = len.ok_or_else(|| wrong(0, "a frame of more than 1 GiB"))?;
        let mut out = BytesMut::with_capacity(MAGIC.len() + 5 + payload.len() + CHECK_LEN);
        if !self.begun {
            out.put_slice(MAGIC);
            self.begun = true;
        }
        out.put_u8(kind);
        out.put_u32(len);
        out.put_slice(&payload);
        self.hash.update(&out);
        let check = self.hash.clone().finish();
        self.hash.update(check.as_ref());
        out.put_slice(check.as_ref());
        Ok(out.freeze())
    }

    /// What was put so far.
    pub(crate) const fn counted(&self) -> End {
        self.counted
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    serde_json::to_vec(value).map_err(|error| wrong(0, &error.to_string()))
}

fn put_piece(payload: &mut BytesMut, piece: &Piece) -> Result<(), FrameError> {
    payload.put_u16(piece.partition);
    payload.put_u8(piece.table);
    for (key, record) in &piece.records {
        payload.put_u16(u16::try_from(key.len()).map_err(|_| wrong(0, "a key of more than 65 535 bytes"))?);
        payload.put_slice(key);
        payload.put_u32(u32::try_from(record.len()).map_err(|_| wrong(0, "a record of more than 4 GiB"))?);
        payload.put_slice(record);
    }
    Ok(())
}

fn wrong(at: u64, cause: &str) -> FrameError {
    FrameError::Frame { at, cause: cause.to_owned() }
}

/// Reads frames back, one in memory at a time.
pub(crate) struct Reader<R> {
    input: R,
    hash: digest::Context,
    at: u64,
    counted: End,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Begin,
    Within,
    Ended,
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(input: R) -> Self {
        let hash = digest::Context::new(&digest::SHA256);
        Self { input, hash, at: 0, counted: End::default(), state: State::Begin }
    }

    /// How many bytes were read.
    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// The next frame; `None` after the end, once it is whole.
    ///
    /// # Errors
    ///
    /// [`FrameError`].
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        match self.state {
            State::Begin => self.begin()?,
            State::Within => {}
            State::Ended => {
                return match self.input.read(&mut [0])? {
                    0 => Ok(None),
                    _ => Err(FrameError::Long { at: self.at }),
                };
            }
        }
        let begin = self.at;
        let head = self.take(5)?;
        let (kind, len) = match head[..] {
            [kind, a, b, c, d] => (kind, u32::from_be_bytes([a, b, c, d])),
            _ => return Err(FrameError::Short { at: self.at }),
        };
        if len > PAYLOAD_MAX {
            // A length nobody wrote is damage, whatever the check behind it would say.
            return Err(FrameError::Check { at: self.at });
        }
        let payload = self.take(u64::from(len))?;
        let expected = self.hash.clone().finish();
        let check = self.take(CHECK_LEN as u64)?;
        if check != expected.as_ref() {
            return Err(FrameError::Check { at: self.at });
        }
        let frame = self.frame(begin, kind, payload)?;
        Ok(Some(frame))
    }

    fn begin(&mut self) -> Result<(), FrameError> {
        let magic = self.take(MAGIC.len() as u64).map_err(|_| FrameError::Magic)?;
        match (magic.split_last(), MAGIC.split_last()) {
            (Some((_, found)), Some((_, allowed))) if found != allowed => return Err(FrameError::Magic),
            (Some((found, _)), Some((allowed, _))) if found != allowed => {
                return Err(FrameError::Version { found: *found });
            }
            _ => {}
        }
        self.state = State::Within;
        Ok(())
    }

    fn take(&mut self, len: u64) -> Result<Vec<u8>, FrameError> {
        // Grows as it comes: a length from the file must not take memory for what is not there.
        let mut bytes = Vec::new();
        let read = (&mut self.input).take(len).read_to_end(&mut bytes)?;
        self.at += read as u64;
        if (read as u64) < len {
            return Err(FrameError::Short { at: self.at });
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn frame(&mut self, at: u64, kind: u8, payload: Vec<u8>) -> Result<Frame, FrameError> {
        let short = || wrong(at, "it ends too early");
        let first = at == MAGIC.len() as u64;
        match kind {
            1 if first => serde_json::from_slice(&payload).map(Frame::Head).map_err(|e| wrong(at, &e.to_string())),
            _ if first => Err(wrong(at, "a backup begins with its head")),
            2 => {
                let (len, rest) = payload.split_first_chunk::<2>().ok_or_else(short)?;
                let (name, contents) = rest.split_at_checked(u16::from_be_bytes(*len).into()).ok_or_else(short)?;
                let name = String::from_utf8(name.to_vec()).map_err(|_| wrong(at, "a name that is no text"))?;
                self.counted.files += 1;
                Ok(Frame::File { name, contents: contents.to_vec() })
            }
            3 => {
                let piece = piece(Bytes::from(payload)).ok_or_else(short)?;
                self.counted.records += piece.records.len() as u64;
                self.counted.bytes += piece.records.iter().map(|(k, r)| (k.len() + r.len()) as u64).sum::<u64>();
                Ok(Frame::Records(piece))
            }
            4 => {
                let end: End = serde_json::from_slice(&payload).map_err(|e| wrong(at, &e.to_string()))?;
                if end != self.counted {
                    return Err(wrong(at, "it has not as many files, records and bytes as its end says"));
                }
                self.state = State::Ended;
                Ok(Frame::End(end))
            }
            kind => Err(wrong(at, &format!("its kind is {kind}; it is of a newer program"))),
        }
    }
}

fn piece(mut payload: Bytes) -> Option<Piece> {
    let mut take = |len: usize| (payload.len() >= len).then(|| payload.split_to(len));
    let partition = u16::from_be_bytes(*take(2)?.first_chunk()?);
    let table = *take(1)?.first()?;
    let mut records = Vec::new();
    while let Some(len) = take(2) {
        let key = take(u16::from_be_bytes(*len.first_chunk()?).into())?;
        let len = u32::from_be_bytes(*take(4)?.first_chunk()?);
        records.push((key, take(usize::try_from(len).ok()?)?));
    }
    // A single byte more is no record.
    take(1).is_none().then_some(Piece { partition, table, records })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let record = |n: u8| (Bytes::from(vec![n; 3]), Bytes::from(vec![n; usize::from(n)]));
        vec![
            Frame::Head(Head { program: "1".into(), created_at: 2, partitions: 1, bytes_about: 3 }),
            Frame::File { name: "store/format".into(), contents: b"text".to_vec() },
            Frame::Records(Piece { partition: 0, table: 10, records: vec![record(0), record(200)] }),
            Frame::Records(Piece { partition: 1, table: 1, records: vec![record(7)] }),
            Frame::End(End { files: 1, records: 3, bytes: 9 + 207 }),
        ]
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::new();
        let bytes = frames().iter().flat_map(|frame| writer.put(frame).unwrap().to_vec()).collect();
        assert_eq!(Frame::End(writer.counted()), frames().pop().unwrap());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while let Some(frame) = reader.next()? {
            found.push(frame);
        }
        Ok(found)
    }

    #[test]
    fn frames_read_back_as_they_were_written() {
        assert_eq!(read(&written()).unwrap(), frames());
    }

    #[test]
    fn no_changed_byte_and_no_cut_goes_unseen() {
        let whole = written();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            assert!(read(&changed).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(read(&longer), Err(FrameError::Long { .. })));
    }

    #[test]
    fn frames_of_one_backup_do_not_go_into_another() {
        let mut writer = Writer::new();
        let parts: Vec<Bytes> = frames().iter().map(|frame| writer.put(frame).unwrap()).collect();
        let swapped = [&parts[0], &parts[1], &parts[3], &parts[2], &parts[4]].map(|part| part.to_vec()).concat();
        assert!(matches!(read(&swapped), Err(FrameError::Check { .. })));
        let left_out = [&parts[0], &parts[1], &parts[3], &parts[4]].map(|part| part.to_vec()).concat();
        assert!(matches!(read(&left_out), Err(FrameError::Check { .. })));
    }

    #[test]
    fn what_is_no_backup_says_so() {
        for (bytes, text) in [
            (&b"hello"[..], "does not begin as a backup"),
            (b"unhidra backup\n\x02", "version 2"),
            (b"unhidra backup\n\x01", "it ends at byte 16"),
        ] {
            let refused = read(bytes).unwrap_err().to_string();
            assert!(refused.contains(text), "{refused}");
        }
    }
}
