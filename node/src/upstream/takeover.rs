//! Another client with this node's Client Identifier, at one outside broker.

use std::time::Duration;

use unhidra_core::time::Timestamp;

/// How long a connection must have served before its end by another client is a new episode: two that
/// throw each other out in turn hold theirs for moments.
const EPISODE_ENDS_AFTER: Duration = Duration::from_secs(10);

/// Whether it was said that sessions are taken over.
#[derive(Debug, Default)]
pub(super) struct Takeovers {
    said: bool,
}

impl Takeovers {
    /// A connection has ended, which had served since then, and another client has its session or not.
    /// Says whether that is to be said: once an episode.
    pub(super) fn ended(&mut self, taken_over: bool, since: Option<Timestamp>, now: Timestamp) -> bool {
        if since.is_some_and(|since| now.saturating_since(since) >= EPISODE_ENDS_AFTER) {
            self.said = false;
        }
        taken_over && !std::mem::replace(&mut self.said, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_while_two_throw_each_other_out_and_again_after_a_connection_that_lasted() {
        let at = |ms: u64| Timestamp::from_ms(ms);
        let mut takeovers = Takeovers::default();
        assert!(!takeovers.ended(false, Some(at(0)), at(60_000)), "another end");
        assert!(takeovers.ended(true, Some(at(60_000)), at(60_500)));
        assert!(!takeovers.ended(true, Some(at(61_000)), at(70_999)));
        assert!(!takeovers.ended(false, None, at(72_000)) && !takeovers.ended(true, None, at(73_000)), "not let in");
        assert!(takeovers.ended(true, Some(at(80_000)), at(90_000)), "it had come to an end");
        assert!(!takeovers.ended(true, Some(at(90_000)), at(90_001)));
    }
}
