//! How long a subcommand waits for its turn with a data folder.

use std::time::Duration;

use crate::folder::Holder;

/// How long it waits for one process: another subcommand, or a node that is just starting. A slow disk makes
/// either take seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// After how long it says for whom it waits.
const SILENCE: Duration = Duration::from_secs(2);

/// How long it waits in all. A script may start hundreds of subcommands at once; each has the folder for a moment,
/// and they get it in no order.
const IN_ALL: Duration = Duration::from_secs(300);

/// A subcommand that waits.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Who has the folder, and from when on, as far as this one saw.
    holder: Option<Holder>,
    since: Duration,
    said: bool,
}

/// What to do about a folder that another process has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wait {
    /// Look again.
    On,
    /// Say who has it, and look again: once.
    Say,
    /// Give up.
    End,
}

impl Turn {
    /// After `waited` in all the folder is found in the hands of `holder`, or of one that has not written down yet
    /// who it is. Where it went from hand to hand, the wait for one process begins anew.
    pub(super) fn held_by(&mut self, holder: Option<Holder>, waited: Duration) -> Wait {
        if holder.is_some() && holder != self.holder {
            (self.holder, self.since) = (holder, waited);
        }
        if waited - self.since >= PATIENCE || waited >= IN_ALL {
            Wait::End
        } else if waited >= SILENCE && !self.said {
            self.said = true;
            Wait::Say
        } else {
            Wait::On
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::Role;

    fn command(pid: u32) -> Option<Holder> {
        Some(Holder { pid, role: Role::Command })
    }

    /// What a turn says each second, the folder being held as `holder` says.
    fn each_second(holder: impl Fn(u64) -> Option<Holder>) -> Vec<(u64, Wait)> {
        let mut turn = Turn::default();
        let mut said = Vec::new();
        for second in 0.. {
            let wait = turn.held_by(holder(second), Duration::from_secs(second));
            if wait != Wait::On {
                said.push((second, wait));
            }
            if wait == Wait::End {
                break;
            }
        }
        said
    }

    #[test]
    fn one_process_is_waited_for_so_long_and_named() {
        assert_eq!(each_second(|_| command(1)), [(2, Wait::Say), (20, Wait::End)]);
        assert_eq!(each_second(|_| None), [(2, Wait::Say), (20, Wait::End)]);
    }

    #[test]
    fn while_the_folder_goes_from_hand_to_hand_the_wait_goes_on() {
        let hands = |second: u64| command(u32::try_from(second / 15).unwrap());
        assert_eq!(each_second(hands), [(2, Wait::Say), (300, Wait::End)]);
        let last = |second: u64| command(if second < 50 { u32::try_from(second).unwrap() } else { 50 });
        assert_eq!(each_second(last), [(2, Wait::Say), (70, Wait::End)]);
    }

    #[test]
    fn between_two_hands_nobody_is_named_and_nothing_begins_anew() {
        let held = |second: u64| if second.is_multiple_of(2) { command(1) } else { None };
        assert_eq!(each_second(held), [(2, Wait::Say), (20, Wait::End)]);
    }
}
