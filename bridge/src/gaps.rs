//! Message numbers of a device that were passed over: what an outside broker has dropped, or a device
//! lost with its lease, is seen by them.

use unhidra_e2ee::recent::MessageTag;

/// Chains that are looked at: of both sessions, and of each the one before, for their messages may come
/// late. One that is forgotten too early would count from 0 when it is heard again.
const CHAINS: usize = 4;

/// How far a device's chains have come, newest first. It begins with the first message after the
/// device's records were read, and counts nothing before that.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    chains: [Option<Chain>; CHAINS],
}

#[derive(Clone, Copy, Debug)]
struct Chain {
    key: [u8; 4],
    next: u32,
}

/// What a message's number says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// So many numbers before it have not come; they may still.
    After(u32),
    /// It is one of those that were passed over.
    Late,
}

impl Gaps {
    /// Takes note of a message that has opened.
    pub(crate) fn see(&mut self, tag: MessageTag) -> Place {
        let after = Chain { key: tag.key, next: tag.number.saturating_add(1) };
        match self.chains.iter_mut().flatten().find(|chain| chain.key == tag.key) {
            Some(chain) if tag.number < chain.next => Place::Late,
            Some(chain) => Place::After(tag.number - std::mem::replace(chain, after).next),
            None => {
                let is_first = self.chains.iter().all(Option::is_none);
                self.chains.rotate_right(1);
                if let Some(newest) = self.chains.first_mut() {
                    *newest = Some(after);
                }
                Place::After(if is_first { 0 } else { tag.number })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: u8, number: u32) -> MessageTag {
        MessageTag { key: [key; 4], number, tag: [0; 4] }
    }

    #[test]
    fn numbers_that_are_passed_over_are_counted_and_may_come_late() {
        let mut gaps = Gaps::default();
        for (key, number, expected) in [
            (1, 500, Place::After(0)),
            (1, 501, Place::After(0)),
            (1, 504, Place::After(2)),
            (1, 503, Place::Late),
            (2, 1, Place::After(1)),
            (1, 502, Place::Late),
            (2, 2, Place::After(0)),
            (3, 0, Place::After(0)),
            (1, 505, Place::After(0)),
            (4, 0, Place::After(0)),
            (1, 506, Place::After(0)),
            (2, 3, Place::After(0)),
        ] {
            assert_eq!(gaps.see(message(key, number)), expected, "{key} {number}");
        }
    }
}
