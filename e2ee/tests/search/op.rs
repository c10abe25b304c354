//! One step of a script: something a device, a node, a network or an adversary does.

use std::fmt;

/// What bytes an adversary makes of what it has seen. It knows every public key, header and head,
/// and no secret.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forgery {
    /// Under a ratchet key nobody has.
    UnknownKey,
    /// The ratchet key and number of the last message, and another tag.
    SeenNumber,
    /// The last message's header with a number as far ahead as this.
    Ahead(u16),
    /// Under a ratchet key nobody has, with a number far ahead.
    UnknownKeyAhead,
    /// Under a ratchet key of small order.
    SmallOrder,
    /// Under the receiver's own ratchet key.
    OwnKey,
    /// The last message's ratchet key in an encoding that is not canonical.
    HighBit,
    /// The last message's PN changed.
    OtherPn,
    /// The last HandshakeInit with another ephemeral key and the counter moved by this much.
    Init(u8),
    /// The last HandshakeInit with another ephemeral key and the highest counter there is.
    InitLast,
    /// The last HandshakeInit naming another one-time prekey.
    InitPrekey,
    /// The last HandshakeInit with a ratchet key nobody has.
    InitKey,
    /// The last ResetRequest, naming the key the device now sends under.
    Reset,
    /// The last bundle, answering the device's present nonce.
    Bundle,
    /// No envelope at all.
    Noise,
}

macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident $(($($argument:ident: $kind:ty),+))? = $word:literal,)+) => {
        /// One step. Its text is a word and numbers.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Op {
            $($(#[$doc])* $name $(($($kind),+))?,)+
            /// Forged bytes reach the node.
            ForgeUp(Forgery),
            /// Forged bytes reach the device.
            ForgeDown(Forgery),
            /// Something has been counted so many times.
            Expect(&'static str, u32),
            /// Something has been counted at most so many times.
            AtMost(&'static str, u32),
        }

        impl Op {
            /// Reads one step.
            pub(crate) fn parse(text: &str) -> Option<Self> {
                let mut words = text.split_whitespace();
                let word = words.next()?;
                let op = match word {
                    $($word => Self::$name $(($({ let $argument: $kind = words.next()?.parse().ok()?; $argument }),+))?,)+
                    "forge-up" => Self::ForgeUp(Forgery::parse(&mut words)?),
                    "forge-down" => Self::ForgeDown(Forgery::parse(&mut words)?),
                    "expect" => Self::Expect(counted(words.next()?)?, words.next()?.parse().ok()?),
                    "at-most" => Self::AtMost(counted(words.next()?)?, words.next()?.parse().ok()?),
                    _ => return None,
                };
                words.next().is_none().then_some(op)
            }
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$name $(($($argument),+))? => {
                        f.write_str($word)?;
                        $($(write!(f, " {}", $argument)?;)+)?
                        Ok(())
                    })+
                    Self::ForgeUp(forgery) => write!(f, "forge-up {forgery}"),
                    Self::ForgeDown(forgery) => write!(f, "forge-down {forgery}"),
                    Self::Expect(what, count) => write!(f, "expect {what} {count}"),
                    Self::AtMost(what, count) => write!(f, "at-most {what} {count}"),
                }
            }
        }
    };
}

ops! {
    /// The device takes so many readings.
    Read(count: u8) = "read",
    /// The device says so many things at QoS 0, and all are lost.
    Lost(count: u16) = "lost",
    /// The device says so many things at QoS 0, and all arrive.
    Tell(count: u8) = "tell",
    /// The device asks for a bundle without need.
    Ask = "ask",
    /// The device loses its power now.
    Reboot = "reboot",
    /// The device loses its power in its nth next write, when so many records of it lie in flash.
    CutAt(write: u8, records: u8) = "cut-at",
    /// The device boots so many times and says nothing.
    Boots(count: u8) = "boots",
    /// So many times: the device says something that is lost, and loses its power.
    Burn(count: u8) = "burn",
    /// The device's flash is copied.
    KeepFlash = "keep-flash",
    /// A copy of the device's flash comes back: of all, the nth.
    RollBack(copy: u8) = "roll-back",
    /// The device's clock jumps by minutes.
    Clock(minutes: i16) = "clock",
    /// The device is enrolled anew, with another identity key.
    Enrol = "enrol",
    /// The connection ends; what is on its way is lost.
    Disconnect = "disconnect",
    /// The device connects, if it is not connected.
    Connect = "connect",
    /// The nth message on its way to the node arrives.
    Up(nth: u8) = "up",
    /// The same, and it stays on its way too.
    UpAgain(nth: u8) = "up-again",
    /// The nth message on its way to the node is lost.
    LoseUp(nth: u8) = "lose-up",
    /// The nth message on its way to the device arrives.
    Down(nth: u8) = "down",
    /// The same, and it stays on its way too.
    DownAgain(nth: u8) = "down-again",
    /// The nth message on its way to the device is lost.
    LoseDown(nth: u8) = "lose-down",
    /// So many next acknowledgements of the node are lost.
    LoseAcks(count: u8) = "lose-acks",
    /// The device takes what is unacknowledged for refused.
    GiveUp = "give-up",
    /// Everything arrives in order, until nothing is on its way.
    Flow = "flow",
    /// The nth message on its way to the node arrives with a bit flipped, and stays on its way.
    FlipUp(nth: u8, bit: u16) = "flip-up",
    /// The nth message on its way to the device arrives with a bit flipped, and stays on its way.
    FlipDown(nth: u8, bit: u16) = "flip-down",
    /// What the device sent nth last comes again.
    ReplayUp(nth: u16) = "replay-up",
    /// What the node sent nth last comes again.
    ReplayDown(nth: u16) = "replay-down",
    /// The nth last HandshakeInit comes again.
    ReplayInit(nth: u8) = "replay-init",
    /// What the node sent nth last reaches the node.
    ReflectUp(nth: u8) = "reflect-up",
    /// What the device sent nth last reaches the device.
    ReflectDown(nth: u8) = "reflect-down",
    /// The node is given a command that expires in so many minutes.
    Command(minutes: u16) = "command",
    /// The node says so many things, and all are lost.
    Say(count: u8) = "say",
    /// The node's process ends and begins again.
    Restart = "restart",
    /// The node's process ends in its nth next commit, which is done (1) or not (0).
    NodeCutAt(commit: u8, done: u8) = "node-cut-at",
    /// The node's nth next commit fails, and is done (1) or not (0).
    NodeFailAt(commit: u8, done: u8) = "node-fail-at",
    /// The node's writer keeps up to so many drafts waiting.
    Busy(drafts: u8) = "busy",
    /// The node's store is backed up.
    Backup = "backup",
    /// The node is restored from a backup: of all, the nth.
    Restore(copy: u8) = "restore",
    /// Minutes pass, and nothing arrives.
    Wait(minutes: u16) = "wait",
    /// Minutes pass, and everything arrives.
    Live(minutes: u16) = "live",
    /// Seconds pass.
    WaitSeconds(seconds: u16) = "wait-s",
}

/// What is counted.
pub(crate) const COUNTED: [&str; 21] = [
    "acknowledged",
    "acted",
    "alives",
    "begun",
    "bundles",
    "down",
    "duplicates",
    "expired",
    "hellos",
    "not-opened",
    "obeyed",
    "opened",
    "over-budget",
    "refused",
    "repeated",
    "resets",
    "sealed",
    "steps",
    "steps-failed",
    "too-far",
    "tried-far",
];

fn counted(word: &str) -> Option<&'static str> {
    COUNTED.into_iter().find(|name| *name == word)
}

impl Forgery {
    fn parse<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<Self> {
        Some(match words.next()? {
            "unknown-key" => Self::UnknownKey,
            "seen-number" => Self::SeenNumber,
            "ahead" => Self::Ahead(words.next()?.parse().ok()?),
            "unknown-key-ahead" => Self::UnknownKeyAhead,
            "small-order" => Self::SmallOrder,
            "own-key" => Self::OwnKey,
            "high-bit" => Self::HighBit,
            "other-pn" => Self::OtherPn,
            "init" => Self::Init(words.next()?.parse().ok()?),
            "init-last" => Self::InitLast,
            "init-prekey" => Self::InitPrekey,
            "init-key" => Self::InitKey,
            "reset" => Self::Reset,
            "bundle" => Self::Bundle,
            "noise" => Self::Noise,
            _ => return None,
        })
    }
}

impl fmt::Display for Forgery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKey => f.write_str("unknown-key"),
            Self::SeenNumber => f.write_str("seen-number"),
            Self::Ahead(by) => write!(f, "ahead {by}"),
            Self::UnknownKeyAhead => f.write_str("unknown-key-ahead"),
            Self::SmallOrder => f.write_str("small-order"),
            Self::OwnKey => f.write_str("own-key"),
            Self::HighBit => f.write_str("high-bit"),
            Self::OtherPn => f.write_str("other-pn"),
            Self::Init(by) => write!(f, "init {by}"),
            Self::InitLast => f.write_str("init-last"),
            Self::InitPrekey => f.write_str("init-prekey"),
            Self::InitKey => f.write_str("init-key"),
            Self::Reset => f.write_str("reset"),
            Self::Bundle => f.write_str("bundle"),
            Self::Noise => f.write_str("noise"),
        }
    }
}
