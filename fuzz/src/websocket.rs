//! What a peer of MQTT over WebSocket sends: frames, cut anywhere.

#[path = "../../broker/src/net/websocket/frame.rs"]
#[allow(dead_code, reason = "the broker's own codec; it is checked there")]
mod codec;

use codec::{Asked, Decoder, FrameError};

/// The largest frame taken: small, so that a short input can be over it.
const FRAME_MAX: u64 = 70_000;

/// What a stream says: its data, every pong and close it asks for, and what it ends with.
#[derive(Debug, Eq, PartialEq)]
struct Said {
    data: Vec<u8>,
    asked: Vec<Asked>,
    end: Result<(), FrameError>,
}

/// The first byte says how large the pieces are that the others come in. Whatever they are, a peer says
/// the same; and what a decoder asks for, it can also be told.
pub(crate) fn run(data: &[u8]) {
    let Some((size, stream)) = data.split_first() else { return };
    let (single, cut) = (read(stream, 1), read(stream, usize::from(*size) + 1));
    assert_eq!(single.end, cut.end);
    // What came in one piece with what broke a rule goes with it, and of several pings in a piece the
    // last is answered.
    assert!(single.data.starts_with(&cut.data));
    assert!(cut.end.is_err() || single.data == cut.data);
    assert!(cut.asked.len() <= single.asked.len());
    assert!(cut.end.is_err() || cut.asked.last() == single.asked.last());
    for asked in &single.asked {
        let frame = codec::control_frame(asked);
        assert_eq!(frame.len(), 2 + usize::from(frame[1]), "{asked:?}");
        assert!(frame[1] <= 125, "{asked:?} is longer than a control frame may be");
    }
    if single.end.is_ok() {
        echoed(&single.data);
    }
}

fn read(stream: &[u8], size: usize) -> Said {
    let mut decoder = Decoder::new(FRAME_MAX);
    let mut said = Said { data: Vec::new(), asked: Vec::new(), end: Ok(()) };
    for piece in stream.chunks(size) {
        let mut piece = piece.to_vec();
        match decoder.decode(&mut piece) {
            Ok(kept) => said.data.extend_from_slice(&piece[..kept]),
            Err(error) => {
                said.end = Err(error);
                break;
            }
        }
        said.asked.extend(decoder.take_asked());
    }
    said
}

/// Data that came goes out in a frame of ours, which says the same once it is masked as a client's.
fn echoed(data: &[u8]) {
    let (head, used) = codec::binary_head(data.len() as u64);
    let mut frame = head[..used].to_vec();
    frame[1] |= 0x80;
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(data);
    let wanted = if data.len() as u64 > FRAME_MAX {
        Err(FrameError::TooLong { len: data.len() as u64, max: FRAME_MAX })
    } else {
        Ok(())
    };
    let said = read(&frame, frame.len());
    assert_eq!(said.end, wanted);
    assert!(wanted.is_err() || said.data == data);
}
