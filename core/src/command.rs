//! What a device is told to do, and the life of that.
//!
//! ```text
//!              sent()             delivered(), acting()
//! Accepted <----------> Sent -----------------------------+
//!  |  |  |  came_back()  |                                v
//!  |  |  +-------------- | ---- delivered(), acting() --> Delivered
//!  |  |                  |                                |
//!  |  +------------------+--------------------------------+--> Done, Failed, Expired
//!  +--> Cancelled
//! ```
//!
//! `Sent` falls back to `Accepted` where the device has said of every attempt that it does not take
//! it, or it never left: then it waits to be sealed anew, under the same id. Where a connection ends before
//! its PUBACK, an outside broker has had it or the node dies, nobody knows whether the device has it: it stays `Sent`
//! while it waits, and each further attempt is counted. A device's word may overtake its PUBACK, even
//! that of an attempt before this one, so `Delivered` and the ends follow from `Accepted` too. An end
//! is an end: what is said of the command afterwards is noted and changes nothing. Only what the device
//! cannot have is cancelled; anything else cannot be called back honestly, since it may be carried out.

use alloc::sync::Arc;
use core::fmt;

use bytes::Bytes;

use crate::ids::{CommandId, DeviceId};
use crate::message::ReceiptStatus;
use crate::time::UnixTime;

/// What the node tells a device, as a client asked for it.
#[derive(Clone, Eq, PartialEq)]
pub struct Command {
    /// Its identity, the same over every repeat: of the node's to the device, and of the client's to
    /// the node.
    pub id: CommandId,
    /// To whom.
    pub device: DeviceId,
    /// What to do, `reboot` for instance.
    pub name: Arc<str>,
    /// With what.
    pub body: Bytes,
    /// When it was accepted.
    pub created_at: UnixTime,
    /// After this it is not acted on, nor sent.
    pub expires_at: UnixTime,
    /// Who asked for it, where that is known: the name of a token, for instance. At most
    /// [`NAME_LEN_MAX`](Self::NAME_LEN_MAX) bytes.
    pub asked_by: Option<Arc<str>>,
    /// What has become of it.
    pub life: Life,
}

/// What has become of a command, and when.
///
/// The times of one command never go back, also where the node's clock was set back: each is at
/// least the one before it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Life {
    /// Where it stands.
    pub stage: Stage,
    /// How often it was sealed and handed to the broker.
    pub attempts: u32,
    /// When it was sealed last.
    pub sent_at: Option<UnixTime>,
    /// When the device had it.
    pub delivered_at: Option<UnixTime>,
    /// When the device said that it will act: a receipt with its outcome is promised.
    pub acting_at: Option<UnixTime>,
    /// What a device said after the end.
    pub late: Option<Late>,
}

/// Where a command stands.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Durable, waiting for the device.
    #[default]
    Waiting,
    /// Sealed, durable as such, and handed to the broker, once or again: the device may have it.
    Sent,
    /// The device has it.
    Delivered,
    /// Nothing more will become of it.
    Over(Ended),
}

/// How a command ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// How.
    pub how: Ending,
    /// Who says so.
    pub by: By,
    /// Why, in a few words, at most [`Ended::CAUSE_LEN_MAX`] bytes; empty where there is nothing to
    /// say.
    pub cause: Arc<str>,
    /// When.
    pub at: UnixTime,
}

/// The ends of a command.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Ending {
    /// The device did it.
    Done = 0,
    /// It will not be done: the device could not, or may not be told any more.
    Failed = 1,
    /// Its time passed before it was known to be done.
    Expired = 2,
    /// It was called back, and no device has it.
    Cancelled = 3,
}

/// Whose word it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum By {
    /// The device's.
    Device = 0,
    /// The node's.
    Node = 1,
    /// A client's.
    Client = 2,
}

/// What a device said of a command after its end. It does not change the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Late {
    /// What it said last.
    pub status: ReceiptStatus,
    /// When.
    pub at: UnixTime,
    /// How often it has said something.
    pub count: u32,
}

/// The word for where a command stands.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CommandState {
    /// Durable, waiting for the device.
    Accepted,
    /// Sealed, durable as such, and handed to the broker.
    Sent,
    /// The device has it.
    Delivered,
    /// The device did it.
    Done,
    /// It will not be done.
    Failed,
    /// Its time passed before it was known to be done.
    Expired,
    /// It was called back, and no device has it.
    Cancelled,
}

impl CommandState {
    /// All of them, in the order of a life.
    pub const ALL: [Self; 7] =
        [Self::Accepted, Self::Sent, Self::Delivered, Self::Done, Self::Failed, Self::Expired, Self::Cancelled];

    /// Its word in JSON and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state of a word, if there is one.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing more will become of it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            Self::Accepted | Self::Sent | Self::Delivered => false,
            Self::Done | Self::Failed | Self::Expired | Self::Cancelled => true,
        }
    }
}

impl Ending {
    /// The ending of a byte, if there is one.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Done,
            1 => Self::Failed,
            2 => Self::Expired,
            3 => Self::Cancelled,
            _ => return None,
        })
    }
}

impl By {
    /// Whose word a byte stands for, if anybody's.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Device,
            1 => Self::Node,
            2 => Self::Client,
            _ => return None,
        })
    }

    /// Its word in JSON and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Node => "node",
            Self::Client => "client",
        }
    }
}

impl Ended {
    /// The most bytes of a cause.
    pub const CAUSE_LEN_MAX: usize = 128;

    /// An end. A longer cause is cut, and control characters are left out.
    #[must_use]
    pub fn new(how: Ending, by: By, cause: &str, at: UnixTime) -> Self {
        Self { how, by, cause: cut(cause, Self::CAUSE_LEN_MAX), at }
    }
}

/// The beginning of a text that is shown to people, without control characters.
fn cut(text: &str, len_max: usize) -> Arc<str> {
    let mut kept = alloc::string::String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if kept.len().saturating_add(character.len_utf8()) > len_max {
            break;
        }
        kept.push(character);
    }
    kept.into()
}

impl Command {
    /// The most bytes of [`asked_by`](Self::asked_by).
    pub const NAME_LEN_MAX: usize = 128;

    /// Where it stands, in a word.
    #[must_use]
    pub const fn state(&self) -> CommandState {
        match &self.life.stage {
            Stage::Waiting => CommandState::Accepted,
            Stage::Sent => CommandState::Sent,
            Stage::Delivered => CommandState::Delivered,
            Stage::Over(ended) => match ended.how {
                Ending::Done => CommandState::Done,
                Ending::Failed => CommandState::Failed,
                Ending::Expired => CommandState::Expired,
                Ending::Cancelled => CommandState::Cancelled,
            },
        }
    }

    /// Whether nothing more will become of it.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self.life.stage, Stage::Over(_))
    }

    /// How it ended, where it has.
    #[must_use]
    pub const fn ended(&self) -> Option<&Ended> {
        match &self.life.stage {
            Stage::Over(ended) => Some(ended),
            Stage::Waiting | Stage::Sent | Stage::Delivered => None,
        }
    }

    /// Whether it asks for the same as another: device, name and body. A client that repeats itself
    /// gives the same id and asks for the same.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        (self.device, &self.name, &self.body) == (other.device, &other.name, &other.body)
    }

    /// It is sealed and handed to the broker, for the first time or again. Says whether that is to be
    /// written.
    pub fn sent(&mut self, at: UnixTime) -> bool {
        let moves = matches!(self.life.stage, Stage::Waiting | Stage::Sent);
        if moves {
            let at = self.not_before(at);
            self.life.stage = Stage::Sent;
            self.life.sent_at = Some(at);
            self.life.attempts = self.life.attempts.saturating_add(1);
        }
        moves
    }

    /// It is known that the device has it from no attempt, and it waits again. Says whether it moved.
    pub fn came_back(&mut self) -> bool {
        let moves = matches!(self.life.stage, Stage::Sent);
        if moves {
            self.life.stage = Stage::Waiting;
        }
        moves
    }

    /// The device has it. Says whether it moved.
    pub fn delivered(&mut self, at: UnixTime) -> bool {
        let moves = matches!(self.life.stage, Stage::Waiting | Stage::Sent);
        if moves {
            let at = self.not_before(at);
            self.life.stage = Stage::Delivered;
            self.life.delivered_at = Some(at);
        }
        moves
    }

    /// The device has it, and says that it will act. Says whether it moved.
    pub fn acting(&mut self, at: UnixTime) -> bool {
        let moved = self.delivered(at);
        let says_more = matches!(self.life.stage, Stage::Delivered) && self.life.acting_at.is_none();
        if says_more {
            let at = self.not_before(at);
            self.life.acting_at = Some(at);
        }
        moved || says_more
    }

    /// It is over. Says whether it moved: the first end stands, and only what waits is cancelled.
    pub fn end(&mut self, ended: Ended) -> bool {
        let moves = match (&self.life.stage, ended.how) {
            (Stage::Over(_), _) | (Stage::Sent | Stage::Delivered, Ending::Cancelled) => false,
            (Stage::Waiting | Stage::Sent | Stage::Delivered, _) => true,
        };
        if moves {
            let at = self.not_before(ended.at);
            self.life.stage = Stage::Over(Ended { at, ..ended });
        }
        moves
    }

    /// Notes what the device says of it after its end. Says whether there is an end to note it at.
    pub fn note(&mut self, status: ReceiptStatus, at: UnixTime) -> bool {
        let is_over = self.is_final();
        if is_over {
            let count = self.life.late.map_or(0, |late| late.count).saturating_add(1);
            let at = self.not_before(at);
            self.life.late = Some(Late { status, at, count });
        }
        is_over
    }

    /// The time that is written down for `at`: no time of a command is before another that was
    /// written down earlier.
    fn not_before(&self, at: UnixTime) -> UnixTime {
        let life = &self.life;
        let times = [
            Some(self.created_at),
            life.sent_at,
            life.delivered_at,
            life.acting_at,
            self.ended().map(|ended| ended.at),
            life.late.map(|late| late.at),
        ];
        times.into_iter().flatten().fold(at, UnixTime::max)
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("id", &self.id)
            .field("device", &self.device)
            .field("life", &self.life)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn command() -> Command {
        Command {
            id: CommandId::new([1; 16]),
            device: DeviceId::parse("pump-7").unwrap_or_else(|error| panic!("{error}")),
            name: "reboot".into(),
            body: Bytes::new(),
            created_at: UnixTime::from_ms(10),
            expires_at: UnixTime::from_s(100),
            asked_by: None,
            life: Life::default(),
        }
    }

    type Step = fn(&mut Command) -> bool;
    type Follows = fn(CommandState) -> CommandState;

    const AT: UnixTime = UnixTime::from_ms(20);

    fn end(command: &mut Command, how: Ending) -> bool {
        command.end(Ended::new(how, By::Device, "", AT))
    }

    /// Each state with each thing that may happen to it, and what it is afterwards.
    #[test]
    fn the_diagram_is_all_there_is() {
        use CommandState::{Accepted, Cancelled, Delivered, Done, Expired, Failed, Sent};
        let reach: [(CommandState, &[Step]); 7] = [
            (Accepted, &[]),
            (Sent, &[|c| c.sent(AT)]),
            (Delivered, &[|c| c.sent(AT), |c| c.delivered(AT)]),
            (Done, &[|c| end(c, Ending::Done)]),
            (Failed, &[|c| end(c, Ending::Failed)]),
            (Expired, &[|c| end(c, Ending::Expired)]),
            (Cancelled, &[|c| end(c, Ending::Cancelled)]),
        ];
        let steps: [(Step, Follows); 7] = [
            (|c| c.sent(AT), |from| if from == Accepted { Sent } else { from }),
            (Command::came_back, |from| if from == Sent { Accepted } else { from }),
            (|c| c.delivered(AT), |from| if matches!(from, Accepted | Sent) { Delivered } else { from }),
            (|c| end(c, Ending::Done), |from| if from.is_final() { from } else { Done }),
            (|c| end(c, Ending::Failed), |from| if from.is_final() { from } else { Failed }),
            (|c| end(c, Ending::Expired), |from| if from.is_final() { from } else { Expired }),
            (|c| end(c, Ending::Cancelled), |from| if from == Accepted { Cancelled } else { from }),
        ];
        for (from, way) in reach {
            for (n, (step, follows)) in steps.iter().enumerate() {
                let mut command = command();
                for step in way {
                    assert!(step(&mut command));
                }
                assert_eq!(command.state(), from);
                let moved = step(&mut command);
                assert_eq!(command.state(), follows(from), "{from:?}, step {n}");
                let again = from == Sent && n == 0;
                assert_eq!(moved, again || command.state() != from, "{from:?}, step {n}");
            }
        }
    }

    #[test]
    fn times_of_a_clock_that_was_set_back_never_go_back() {
        let mut command = command();
        let ms = UnixTime::from_ms;
        assert!(command.sent(ms(50)) && command.came_back() && command.sent(ms(40)));
        assert!(command.acting(ms(30)));
        assert!(command.end(Ended::new(Ending::Done, By::Device, "", ms(5))));
        assert!(command.note(ReceiptStatus::Failed, ms(1)) && command.note(ReceiptStatus::Done, ms(60)));
        let life = &command.life;
        assert_eq!((life.attempts, life.sent_at, life.delivered_at), (2, Some(ms(50)), Some(ms(50))));
        assert_eq!((life.acting_at, command.ended().map(|ended| ended.at)), (Some(ms(50)), Some(ms(50))));
        assert_eq!(life.late, Some(Late { status: ReceiptStatus::Done, at: ms(60), count: 2 }));
        assert_eq!(command.state(), CommandState::Done);
    }

    #[test]
    fn that_it_will_act_is_said_once() {
        let mut command = command();
        assert!(command.sent(AT) && command.delivered(AT));
        assert!(command.acting(AT) && !command.acting(AT));
        assert!(!command.note(ReceiptStatus::Done, AT), "there is no end yet");
    }

    #[test]
    fn a_cause_is_short_and_holds_no_control_characters() {
        let long = "ä".repeat(200);
        let cause = Ended::new(Ending::Failed, By::Device, &long, AT).cause;
        assert_eq!(cause.len(), Ended::CAUSE_LEN_MAX);
        assert_eq!(&*Ended::new(Ending::Failed, By::Device, "a\n\u{1b}[2Jb", AT).cause, "a[2Jb");
    }

    #[test]
    fn every_word_reads_back() {
        let words: Vec<_> = CommandState::ALL.iter().map(|state| CommandState::from_word(state.as_str())).collect();
        assert_eq!(words, CommandState::ALL.map(Some));
        assert_eq!(CommandState::from_word("queued"), None);
    }
}
