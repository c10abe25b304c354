//! What waits for one client.
//!
//! Each subscription is a stream of its own with a mode:
//!
//! ```text
//!            begin at H            until reached
//!   Behind -------------> Joining -------------> Live
//!      ^                     |                     |
//!      +---------------------+---------------------+
//!                 a live frame does not fit
//! ```
//!
//! `Behind` reads nothing and keeps nothing. `Joining` reads the store up to H, the place the
//! dispatcher had reached when the stream was registered with it, while live frames from H on
//! wait. `Live` sends what waits. So nothing is missing and nothing comes twice, and a client in a
//! tunnel costs its bound and no more.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::ids::{CommandId, DeviceId};

use crate::cursor::Position;
use crate::error::Close;
use crate::frame::{Audience, Presence, PresenceEntry, Reply};

/// Changes of presence that wait for one client. Above it the client is told to list anew.
const PRESENCE_MAX: usize = 1024;
/// Devices in one `presence` frame.
const PRESENCE_FRAME: usize = 128;
/// Commands whose fate is told to the client that sent them though it does not watch the device.
/// Above it the oldest is no longer told of.
const TRACKED_MAX: usize = 64;
/// Changes of a device's commands held back while a command to it is on its way to the store.
const HELD_MAX: usize = 256;

/// One frame of live readings, shared by all who watch.
#[derive(Debug)]
pub(crate) struct LiveFrame {
    /// Its text.
    pub(crate) text: Bytes,
    /// The place behind its last reading.
    pub(crate) after: Position,
    /// How many readings it holds.
    pub(crate) readings: usize,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// What waits for one client.
pub(crate) struct Outbox {
    bounds: Bounds,
    // What stands in `replies` and in all streams.
    frames: usize,
    bytes: usize,
    replies: VecDeque<Bytes>,
    presence: PresenceQueue,
    streams: BTreeMap<Audience, Stream>,
    // Names a life of a stream, so that a page read for one is not given to the next.
    lives: u64,
    // The stream that was given its turn to read the store last.
    turn: Option<Audience>,
    sending: Sending,
    tracked: VecDeque<(CommandId, DeviceId)>,
    close: Option<Close>,
}

enum PresenceQueue {
    /// The newest word on each device that has changed.
    Changed(BTreeMap<DeviceId, Presence>),
    /// More has changed than is kept.
    Stale,
}

/// Whether a command of this client is on its way to the store.
enum Sending {
    No,
    /// Its id is not known yet, so every change of its device's commands waits here: the answer
    /// goes first.
    To {
        device: DeviceId,
        held: Vec<Change>,
    },
}

/// A command that has changed, as text.
#[derive(Clone)]
pub(crate) struct Change {
    pub(crate) command: CommandId,
    pub(crate) device: DeviceId,
    /// Whether nothing more will become of it.
    pub(crate) last: bool,
    pub(crate) text: Bytes,
}

struct Stream {
    life: u64,
    // Everything up to here has been handed to the writer.
    sent: Position,
    mode: Mode,
}

enum Mode {
    Live { waiting: VecDeque<Arc<LiveFrame>> },
    Joining { until: Position, waiting: VecDeque<Arc<LiveFrame>> },
    Behind,
}

/// What became of a live frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Pushed {
    /// It waits for the writer.
    Queued,
    /// It did not fit: the stream goes back to reading the store.
    FellBehind,
    /// The stream reads the store, where it will find it.
    NotLive,
}

/// One round of the writer: it sends `frames`, then does what is `next`.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) frames: Vec<Bytes>,
    pub(crate) next: Next,
}

/// What the writer does after sending.
#[derive(Debug)]
pub(crate) enum Next {
    /// Register this stream with the dispatcher ([`Outbox::join`]).
    Join(Audience),
    /// Read a page of this stream from the store ([`Outbox::replayed`]).
    Replay(Replay),
    /// Say so and close.
    Close(Close),
    /// More frames wait: come again at once.
    More,
    /// Wait for a wake.
    Idle,
}

/// A stretch of the store that a stream has to read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Replay {
    pub(crate) audience: Audience,
    pub(crate) life: u64,
    pub(crate) from: Position,
    pub(crate) until: Position,
}

impl Outbox {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            frames: 0,
            bytes: 0,
            replies: VecDeque::new(),
            presence: PresenceQueue::Changed(BTreeMap::new()),
            streams: BTreeMap::new(),
            lives: 0,
            turn: None,
            sending: Sending::No,
            tracked: VecDeque::new(),
            close: None,
        }
    }

    /// Queues a frame that cannot be read from the store. Where it does not fit the client is
    /// closed, and comes back with its cursor.
    pub(crate) fn reply(&mut self, text: Bytes) {
        if self.fits(text.len()) {
            self.count(text.len());
            self.replies.push_back(text);
        } else {
            self.close(Close::SlowClient);
        }
    }

    /// Ends the connection once the writer sees it. The first reason stands.
    pub(crate) fn close(&mut self, close: Close) {
        self.close.get_or_insert(close);
    }

    /// Opens a stream that is to continue behind `from`. The reply goes before its first reading.
    pub(crate) fn open(&mut self, audience: Audience, from: Position, reply: Bytes) {
        self.reply(reply);
        self.lives += 1;
        self.streams.insert(audience, Stream { life: self.lives, sent: from, mode: Mode::Behind });
    }

    /// Ends a stream; what waited in it is dropped.
    pub(crate) fn end(&mut self, audience: &Audience) {
        if let Some(mut stream) = self.streams.remove(audience) {
            let dropped = stream.fall_behind();
            self.discount(&dropped);
        }
    }

    /// Registers a stream that is behind: live frames after `until`, the dispatcher's place, wait
    /// from now on. Called under the dispatcher's lock, so that no frame is between.
    pub(crate) fn join(&mut self, audience: &Audience, until: &Position) {
        if let Some(stream) = self.streams.get_mut(audience)
            && matches!(stream.mode, Mode::Behind)
        {
            stream.mode = Mode::Joining { until: until.clone(), waiting: VecDeque::new() };
        }
    }

    /// Queues a live frame for a stream.
    pub(crate) fn push(&mut self, audience: &Audience, frame: &Arc<LiveFrame>) -> Pushed {
        let fits = self.fits(frame.text.len());
        let Some(stream) = self.streams.get_mut(audience) else { return Pushed::NotLive };
        match &mut stream.mode {
            Mode::Behind => Pushed::NotLive,
            Mode::Live { waiting } | Mode::Joining { waiting, .. } if fits => {
                waiting.push_back(frame.clone());
                self.count(frame.text.len());
                Pushed::Queued
            }
            Mode::Live { .. } | Mode::Joining { .. } => {
                let dropped = stream.fall_behind();
                self.discount(&dropped);
                Pushed::FellBehind
            }
        }
    }

    /// Notes that all of a stream's rows up to `to` have been read and are about to be sent.
    ///
    /// Returns whether the stream still wants them: it may have ended meanwhile.
    pub(crate) fn replayed(&mut self, replay: &Replay, to: Position) -> bool {
        let caught_up = Reply::CaughtUp { device: replay.audience }.encode();
        let Some(stream) = self.streams.get_mut(&replay.audience) else { return false };
        if stream.life != replay.life {
            return false;
        }
        stream.sent = to;
        if let Mode::Joining { until, waiting } = &mut stream.mode
            && until.beyond(&stream.sent).is_none()
        {
            let waiting = mem::take(waiting);
            stream.mode = Mode::Live { waiting };
            // In front of what waits, and not in `replies`, which is sent before the page.
            let after = stream.sent.clone();
            if let Mode::Live { waiting } = &mut stream.mode {
                self.frames += 1;
                self.bytes += caught_up.len();
                waiting.push_front(Arc::new(LiveFrame { text: caught_up, after, readings: 0 }));
            }
        }
        true
    }

    /// Notes that a device came or went.
    pub(crate) fn presence(&mut self, device: DeviceId, presence: Presence) {
        if let PresenceQueue::Changed(changed) = &mut self.presence {
            changed.insert(device, presence);
            if changed.len() > PRESENCE_MAX {
                self.presence = PresenceQueue::Stale;
            }
        }
    }

    /// Notes that a command is on its way to the store, its id not yet known.
    pub(crate) fn begin_command(&mut self, device: DeviceId) {
        self.sending = Sending::To { device, held: Vec::new() };
    }

    /// Queues the answer to the command on its way, then what was held back behind it. `taken` is
    /// the command, where it was taken and more may become of it. `watching` is whether the client
    /// watches its device.
    pub(crate) fn end_command(&mut self, reply: Bytes, taken: Option<(CommandId, DeviceId)>, watching: bool) {
        self.reply(reply);
        if let Some(taken) = taken {
            if self.tracked.len() >= TRACKED_MAX {
                self.tracked.pop_front();
            }
            self.tracked.push_back(taken);
        }
        if let Sending::To { held, .. } = mem::replace(&mut self.sending, Sending::No) {
            held.into_iter().for_each(|change| self.changed(change, watching));
        }
    }

    /// Queues a change of a command, where the client watches its device or has sent it.
    pub(crate) fn changed(&mut self, change: Change, watching: bool) {
        if let Sending::To { device, held } = &mut self.sending
            && *device == change.device
        {
            if held.len() < HELD_MAX {
                held.push(change);
            } else {
                self.close(Close::SlowClient);
            }
            return;
        }
        let tracked = self.tracked.iter().position(|(command, _)| *command == change.command);
        if tracked.is_some() || watching {
            self.reply(change.text);
        }
        if let Some(at) = tracked
            && change.last
        {
            self.tracked.remove(at);
        }
    }

    /// Whether a command of `device` that this client has sent may still change.
    pub(crate) fn tracks(&self, device: &DeviceId) -> bool {
        let sending = matches!(&self.sending, Sending::To { device: to, .. } if to == device);
        sending || self.tracked.iter().any(|(_, tracked)| tracked == device)
    }

    /// Takes the next round: at most `frames` of at most `bytes`, but one always.
    ///
    /// Replies go first, then presence, then what is live. One page of the store follows even
    /// where there is live traffic, so that neither starves the other.
    pub(crate) fn take(&mut self, at_most: Bounds) -> Round {
        let mut taken = Taken { frames: Vec::new(), bytes: 0, at_most };
        while !taken.is_full()
            && let Some(text) = self.replies.pop_front()
        {
            taken.add(text);
        }
        self.take_presence(&mut taken);
        for stream in self.streams.values_mut() {
            let Mode::Live { waiting } = &mut stream.mode else { continue };
            while !taken.is_full()
                && let Some(frame) = waiting.pop_front()
            {
                stream.sent = frame.after.clone();
                taken.add(frame.text.clone());
            }
        }
        self.frames -= taken.frames.len();
        self.bytes -= taken.bytes;
        let next = match self.close {
            // What was said before the end is sent; what was not yet read is not.
            Some(close) if taken.frames.is_empty() => Next::Close(close),
            Some(_) => Next::More,
            None => match self.next_replay() {
                Next::Idle if !taken.frames.is_empty() => Next::More,
                next => next,
            },
        };
        Round { frames: taken.frames, next }
    }

    fn take_presence(&mut self, taken: &mut Taken) {
        let before = (taken.frames.len(), taken.bytes);
        match &mut self.presence {
            PresenceQueue::Stale => {
                taken.add(Reply::PresenceStale {}.encode());
                self.presence = PresenceQueue::Changed(BTreeMap::new());
            }
            PresenceQueue::Changed(changed) => {
                while !taken.is_full() && !changed.is_empty() {
                    let batch = std::iter::from_fn(|| changed.pop_first()).take(PRESENCE_FRAME);
                    let devices = batch.map(|(device, presence)| PresenceEntry::new(&device, presence)).collect();
                    taken.add(Reply::Presence { devices }.encode());
                }
            }
        }
        // Presence is not counted while it waits; `take` discounts all it returns.
        self.frames += taken.frames.len() - before.0;
        self.bytes += taken.bytes - before.1;
    }

    // Streams take turns, a page each.
    fn next_replay(&mut self) -> Next {
        let reads = |stream: &Stream| !matches!(stream.mode, Mode::Live { .. });
        let after = self
            .turn
            .and_then(|turn| self.streams.range((Excluded(turn), Unbounded)).find(|(_, stream)| reads(stream)));
        let Some((audience, stream)) = after.or_else(|| self.streams.iter().find(|(_, stream)| reads(stream))) else {
            return Next::Idle;
        };
        let audience = *audience;
        let next = match &stream.mode {
            Mode::Joining { until, .. } => {
                Next::Replay(Replay { audience, life: stream.life, from: stream.sent.clone(), until: until.clone() })
            }
            Mode::Behind | Mode::Live { .. } => return Next::Join(audience),
        };
        self.turn = Some(audience);
        next
    }

    // One frame is always taken, however large.
    const fn fits(&self, len: usize) -> bool {
        self.frames == 0 || (self.frames < self.bounds.frames && self.bytes + len <= self.bounds.bytes)
    }

    const fn count(&mut self, len: usize) {
        self.frames += 1;
        self.bytes += len;
    }

    fn discount(&mut self, dropped: &VecDeque<Arc<LiveFrame>>) {
        self.frames -= dropped.len();
        self.bytes -= dropped.iter().map(|frame| frame.text.len()).sum::<usize>();
    }
}

impl Stream {
    fn fall_behind(&mut self) -> VecDeque<Arc<LiveFrame>> {
        match mem::replace(&mut self.mode, Mode::Behind) {
            Mode::Live { waiting } | Mode::Joining { waiting, .. } => waiting,
            Mode::Behind => VecDeque::new(),
        }
    }
}

struct Taken {
    frames: Vec<Bytes>,
    bytes: usize,
    at_most: Bounds,
}

impl Taken {
    fn add(&mut self, text: Bytes) {
        self.bytes += text.len();
        self.frames.push(text);
    }

    const fn is_full(&self) -> bool {
        self.frames.len() >= self.at_most.frames || self.bytes >= self.at_most.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;
    use unhidra_core::ids::{Offset, Partition};
    use unhidra_core::time::UnixTime;

    const ALL: Bounds = Bounds { frames: 1000, bytes: 1_000_000 };

    fn outbox(frames: usize, bytes: usize) -> Outbox {
        Outbox::new(Bounds { frames, bytes })
    }

    fn at(offset: u64) -> Position {
        [Offset::new(offset)].into_iter().collect()
    }

    fn frame(after: u64) -> Arc<LiveFrame> {
        Arc::new(LiveFrame { text: Bytes::from(format!("live-{after}")), after: at(after), readings: 1 })
    }

    fn texts(round: Round) -> Vec<String> {
        round.frames.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect()
    }

    fn next(outbox: &mut Outbox) -> Next {
        outbox.take(ALL).next
    }

    fn replay(outbox: &mut Outbox) -> Replay {
        match next(outbox) {
            Next::Replay(replay) => replay,
            other => panic!("{other:?} instead of a replay"),
        }
    }

    fn joined(outbox: &mut Outbox, from: u64, until: u64) -> Replay {
        outbox.open(Audience::All, at(from), Bytes::from_static(b"subscribed"));
        let round = outbox.take(ALL);
        assert!(matches!(round.next, Next::Join(Audience::All)));
        assert_eq!(texts(round), ["subscribed"]);
        outbox.join(&Audience::All, &at(until));
        replay(outbox)
    }

    const CAUGHT_UP: &str = r#"{"type":"caught_up","device":"*"}"#;

    #[test]
    fn a_stream_reads_up_to_where_it_joined_and_then_what_waited() {
        let mut outbox = outbox(10, 1000);
        let replay = joined(&mut outbox, 3, 7);
        assert_eq!((&replay.from, &replay.until), (&at(3), &at(7)));
        assert_eq!(outbox.push(&Audience::All, &frame(8)), Pushed::Queued);
        assert!(outbox.replayed(&replay, at(5)));
        let rest = self::replay(&mut outbox);
        assert_eq!(rest.from, at(5));
        assert_eq!(outbox.push(&Audience::All, &frame(9)), Pushed::Queued);
        assert!(outbox.replayed(&rest, at(7)));
        assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP, "live-8", "live-9"]);
        assert!(matches!(next(&mut outbox), Next::Idle));
    }

    #[test]
    fn a_slow_client_falls_back_to_the_store_behind_what_it_was_sent() {
        let mut outbox = outbox(2, 1000);
        let replay = joined(&mut outbox, 0, 0);
        assert!(outbox.replayed(&replay, at(0)));
        assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP]);
        outbox.push(&Audience::All, &frame(1));
        assert_eq!(texts(outbox.take(ALL)), ["live-1"]);
        assert_eq!(outbox.push(&Audience::All, &frame(2)), Pushed::Queued);
        assert_eq!(outbox.push(&Audience::All, &frame(3)), Pushed::Queued);
        assert_eq!(outbox.push(&Audience::All, &frame(4)), Pushed::FellBehind);
        assert_eq!(outbox.push(&Audience::All, &frame(5)), Pushed::NotLive);
        assert_eq!((outbox.frames, outbox.bytes), (0, 0), "nothing is kept of what the store has");
        assert!(matches!(next(&mut outbox), Next::Join(Audience::All)));
        outbox.join(&Audience::All, &at(5));
        let replay = self::replay(&mut outbox);
        assert_eq!((replay.from.clone(), replay.until.clone()), (at(1), at(5)));
        outbox.push(&Audience::All, &frame(6));
        assert!(outbox.replayed(&replay, at(5)));
        assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP, "live-6"]);
    }

    #[test]
    fn a_client_that_joins_and_falls_behind_again_keeps_what_it_has_read() {
        let mut outbox = outbox(1, 1000);
        let replay = joined(&mut outbox, 0, 10);
        outbox.push(&Audience::All, &frame(11));
        assert_eq!(outbox.push(&Audience::All, &frame(12)), Pushed::FellBehind);
        assert!(outbox.replayed(&replay, at(4)));
        outbox.join(&Audience::All, &at(12));
        assert!(matches!(next(&mut outbox), Next::Replay(r) if r.from == at(4) && r.until == at(12)));
    }

    #[test]
    fn bytes_bound_as_frames_do_but_one_frame_is_always_taken() {
        let mut outbox = outbox(100, 8);
        let replay = joined(&mut outbox, 0, 0);
        assert!(outbox.replayed(&replay, at(0)));
        assert_eq!(texts(outbox.take(ALL)), [CAUGHT_UP]);
        let large = Arc::new(LiveFrame { text: Bytes::from(vec![b'x'; 50]), after: at(1), readings: 1 });
        assert_eq!(outbox.push(&Audience::All, &large), Pushed::Queued);
        assert_eq!(outbox.push(&Audience::All, &frame(2)), Pushed::FellBehind);
    }

    #[test]
    fn replies_beyond_the_bound_end_the_connection_after_what_was_said() {
        let mut outbox = outbox(2, 1000);
        for text in ["a", "b", "c"] {
            outbox.reply(Bytes::from_static(text.as_bytes()));
        }
        assert_eq!(texts(outbox.take(ALL)), ["a", "b"]);
        assert!(matches!(next(&mut outbox), Next::Close(Close::SlowClient)));
    }

    #[test]
    fn a_page_for_an_ended_stream_is_not_given_to_the_next_of_its_name() {
        let mut outbox = outbox(10, 1000);
        let replay = joined(&mut outbox, 0, 5);
        outbox.end(&Audience::All);
        assert!(!outbox.replayed(&replay, at(5)));
        outbox.open(Audience::All, at(3), Bytes::from_static(b"again"));
        assert!(!outbox.replayed(&replay, at(5)));
    }

    #[test]
    fn ending_a_stream_frees_what_waited() {
        let mut outbox = outbox(10, 1000);
        joined(&mut outbox, 0, 5);
        outbox.push(&Audience::All, &frame(6));
        outbox.end(&Audience::All);
        assert_eq!((outbox.frames, outbox.bytes), (0, 0));
        assert!(matches!(next(&mut outbox), Next::Idle));
    }

    #[test]
    fn presence_is_told_once_a_device_and_replaced_by_a_word_when_there_is_too_much() {
        let mut outbox = outbox(10, 1000);
        let now = |online| Presence { online, since: UnixTime::from_ms(5) };
        outbox.presence(device("a"), now(true));
        outbox.presence(device("a"), now(false));
        let entry = r#"{"type":"presence","devices":[{"device":"a","online":false,"since":5}]}"#;
        assert_eq!(texts(outbox.take(ALL)), [entry]);
        for n in 0..=PRESENCE_MAX {
            outbox.presence(device(&format!("d{n}")), now(true));
        }
        assert_eq!(texts(outbox.take(ALL)), [r#"{"type":"presence_stale"}"#]);
        assert_eq!((outbox.frames, outbox.bytes), (0, 0));
        outbox.presence(device("a"), now(true));
        assert_eq!(texts(outbox.take(ALL)).len(), 1);
    }

    fn change(id: u8, to: &str, last: bool) -> Change {
        let text = Bytes::from(format!("{id}-{last}"));
        Change { command: CommandId::new([id; 16]), device: device(to), last, text }
    }

    #[test]
    fn the_answer_to_a_command_goes_before_what_became_of_it() {
        let mut outbox = outbox(10, 1000);
        outbox.begin_command(device("a"));
        outbox.changed(change(1, "a", false), false);
        outbox.changed(change(2, "a", false), false);
        assert!(outbox.tracks(&device("a")));
        outbox.end_command(Bytes::from_static(b"taken"), Some((CommandId::new([1; 16]), device("a"))), false);
        assert_eq!(texts(outbox.take(ALL)), ["taken", "1-false"], "and nobody else's is told");
        outbox.changed(change(1, "a", true), false);
        assert_eq!(texts(outbox.take(ALL)), ["1-true"]);
        assert!(!outbox.tracks(&device("a")));
        outbox.changed(change(1, "a", true), false);
        assert!(matches!(next(&mut outbox), Next::Idle));
        outbox.changed(change(3, "b", true), true);
        assert_eq!(texts(outbox.take(ALL)), ["3-true"], "a watcher is told");
    }

    #[test]
    fn streams_that_read_the_store_take_turns_and_do_not_hold_up_live_ones() {
        let mut outbox = outbox(100, 10_000);
        let live = joined(&mut outbox, 0, 0);
        assert!(outbox.replayed(&live, at(0)));
        for id in ["a", "b"] {
            let audience = Audience::Device(device(id));
            outbox.open(audience, at(0), Bytes::from_static(b"ok"));
            outbox.join(&audience, &at(9));
        }
        let mut turns = Vec::new();
        for offset in 1..=4 {
            outbox.push(&Audience::All, &frame(offset));
            let round = outbox.take(ALL);
            let Next::Replay(replay) = &round.next else { panic!("{round:?}") };
            turns.push(replay.audience.to_string());
            assert!(texts(round).contains(&format!("live-{offset}")));
        }
        assert_eq!(turns, ["a", "b", "a", "b"]);
    }

    #[test]
    fn live_frames_of_other_logs_move_the_place_too() {
        let mut outbox = outbox(10, 1000);
        let replay = joined(&mut outbox, 0, 0);
        assert!(outbox.replayed(&replay, at(0)));
        outbox.push(&Audience::All, &frame(4));
        assert_eq!(texts(outbox.take(ALL)).len(), 2);
        assert_eq!(outbox.streams[&Audience::All].sent.at(Partition::new(0)), Offset::new(4));
    }
}
