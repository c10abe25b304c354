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
use std::fmt;
use std::mem;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use bytes::Bytes;
use unhidra_core::ids::{CommandId, DeviceId};

use crate::cursor::Position;
use crate::error::Close;
use crate::frame::{Audience, Reply};
use crate::registered::{Presence, PresenceEntry};

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
pub(crate) struct LiveFrame {
    /// Its text.
    pub(crate) text: Bytes,
    /// The place behind its last reading.
    pub(crate) after: Position,
    /// How many readings it holds.
    pub(crate) readings: usize,
}

impl fmt::Debug for LiveFrame {
    // Plaintext has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveFrame")
            .field("text_len", &self.text.len())
            .field("after", &self.after)
            .field("readings", &self.readings)
            .finish()
    }
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
    // Where it began to read the store: up to here it has been given all, and told of all that is gone.
    since: Position,
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
    /// The stream reads the store, where it will find it; or the connection is to end.
    NotLive,
}

/// One round of the writer: it sends `frames`, then does what is `next`.
pub(crate) struct Round {
    pub(crate) frames: Vec<Bytes>,
    pub(crate) next: Next,
}

impl fmt::Debug for Round {
    // So are answers: a row that was asked for, a setting.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lens: Vec<usize> = self.frames.iter().map(Bytes::len).collect();
        f.debug_struct("Round").field("frame_lens", &lens).field("next", &self.next).finish()
    }
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
    /// Where the stream began to read.
    pub(crate) since: Position,
    /// Where this page begins.
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

    /// Queues a frame that cannot be read from the store. What can be makes room for it; where it does not fit then
    /// either the client is closed, and comes back with its cursor.
    pub(crate) fn reply(&mut self, text: Bytes) {
        if self.is_closing() {
            return;
        }
        if !self.fits(text.len()) {
            self.fall_behind();
        }
        if self.fits(text.len()) {
            self.count(text.len());
            self.replies.push_back(text);
        } else {
            self.close(Close::SlowClient);
        }
    }

    /// Ends the connection once what waits has been sent. Nothing more is taken, so that whoever reads slowly does
    /// not put off the end. The first reason stands.
    pub(crate) fn close(&mut self, close: Close) {
        if self.is_closing() {
            return;
        }
        self.close = Some(close);
        // No reading is sent to one who has lost the right to see it.
        if matches!(close, Close::TokenRefused | Close::TokenExpired) {
            self.fall_behind();
        }
    }

    /// Whether the connection is to end.
    pub(crate) const fn is_closing(&self) -> bool {
        self.close.is_some()
    }

    /// Opens a stream that is to continue behind `from`. The reply goes before its first reading.
    pub(crate) fn open(&mut self, audience: Audience, from: Position, reply: Bytes) {
        self.reply(reply);
        self.lives += 1;
        self.streams.insert(audience, Stream { life: self.lives, since: from.clone(), sent: from, mode: Mode::Behind });
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
        if self.is_closing() {
            return Pushed::NotLive;
        }
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

    /// Has every stream read the store: rows it would have been given are gone.
    pub(crate) fn fall_behind(&mut self) {
        let dropped: VecDeque<_> = self.streams.values_mut().flat_map(Stream::fall_behind).collect();
        self.discount(&dropped);
    }

    /// Notes that all of a stream's rows up to `to` have been read and are about to be sent.
    ///
    /// Returns whether the stream still wants them: it may have ended meanwhile.
    pub(crate) fn replayed(&mut self, replay: &Replay, to: Position) -> bool {
        let caught_up = Reply::CaughtUp { device: replay.audience }.encode();
        // What was being read when the token was revoked is not sent any more.
        let is_closing = self.is_closing();
        let Some(stream) = self.streams.get_mut(&replay.audience) else { return false };
        if stream.life != replay.life || is_closing {
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
        if self.is_closing() {
            return;
        }
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
    /// watches its device. Gives the device of a command that is told of no longer.
    pub(crate) fn end_command(
        &mut self,
        reply: Bytes,
        taken: Option<(CommandId, DeviceId)>,
        watching: bool,
    ) -> Option<DeviceId> {
        self.reply(reply);
        let mut forgotten = None;
        // Whoever repeats a command is told of it once.
        if let Some(taken) = taken.filter(|taken| !self.tracked.contains(taken)) {
            if self.tracked.len() >= TRACKED_MAX {
                forgotten = self.tracked.pop_front().map(|(_, device)| device);
            }
            self.tracked.push_back(taken);
        }
        if let Sending::To { held, .. } = mem::replace(&mut self.sending, Sending::No) {
            held.into_iter().for_each(|change| self.changed(change, watching));
        }
        forgotten
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
                let (since, from, until) = (stream.since.clone(), stream.sent.clone(), until.clone());
                Next::Replay(Replay { audience, life: stream.life, since, from, until })
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
            Mode::Live { waiting } => {
                self.since = self.sent.clone();
                waiting
            }
            Mode::Joining { waiting, .. } => waiting,
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
mod tests;
