//! Messages of an outside broker between PUBLISH and PUBACK.

use std::collections::VecDeque;

use unhidra_core::delivery::{AckToken, Answer};

/// Messages of QoS 1 in the order they came.
///
/// Answers come in any order, for devices do not wait for each other; PUBACKs leave in this one
/// [MQTT-4.6.0-2]. One window is one connection's: its tokens mean nothing to the next, for the
/// broker sends again what was not acknowledged.
#[derive(Debug)]
pub struct Window {
    /// The token of the oldest that waits.
    first: u64,
    waiting: VecDeque<Received>,
    max: usize,
}

#[derive(Debug)]
struct Received {
    packet_id: u16,
    answer: Option<Answer>,
}

/// A message whose turn has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answered {
    /// Which.
    pub packet_id: u16,
    /// How it is answered.
    pub answer: Answer,
}

/// As many messages wait for their answer as may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NoRoom;

impl Window {
    /// A window of at most `max` messages whose first token is `first`. Where the tokens of a window
    /// begin behind those of the one before it, a late answer for that one is known and dropped.
    #[must_use]
    pub const fn new(first: u64, max: usize) -> Self {
        Self { first, waiting: VecDeque::new(), max }
    }

    /// Takes note of a PUBLISH, and gives the token it is answered under. `None` for one that waits
    /// already: its answer serves both.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]: one more than were allowed to wait.
    pub fn receive(&mut self, packet_id: u16) -> Result<Option<AckToken>, NoRoom> {
        if self.waiting.iter().any(|received| received.packet_id == packet_id) {
            return Ok(None);
        }
        if self.is_full() {
            return Err(NoRoom);
        }
        let token = self.next();
        self.waiting.push_back(Received { packet_id, answer: None });
        Ok(Some(AckToken(token)))
    }

    /// The bridge's word on a message. That of another window is dropped.
    pub fn answer(&mut self, token: AckToken, answer: Answer) {
        let place = token.0.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(received) = place.and_then(|place| self.waiting.get_mut(place)) {
            received.answer = Some(answer);
        }
    }

    /// The next message to answer, if it is its turn.
    pub fn pop(&mut self) -> Option<Answered> {
        let received = self.waiting.front()?;
        let (packet_id, answer) = (received.packet_id, received.answer?);
        self.waiting.pop_front();
        self.first += 1;
        Some(Answered { packet_id, answer })
    }

    /// Whether no further message may come.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.max
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The token of the next message, of this window or the one behind it.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first + self.waiting.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(window: &mut Window) -> Vec<u16> {
        std::iter::from_fn(|| window.pop()).map(|answered| answered.packet_id).collect()
    }

    #[test]
    fn pubacks_leave_in_the_order_of_their_messages() {
        let mut window = Window::new(0, 3);
        let tokens: Vec<AckToken> = [7, 5, 6].iter().map(|id| window.receive(*id).unwrap().unwrap()).collect();
        window.answer(tokens[2], Answer::Accepted);
        window.answer(tokens[1], Answer::Accepted);
        assert!(drain(&mut window).is_empty());
        window.answer(tokens[0], Answer::Accepted);
        assert_eq!(drain(&mut window), [7, 5, 6]);
    }

    #[test]
    fn one_more_than_may_wait_is_refused_and_a_repeat_is_none() {
        let mut window = Window::new(0, 2);
        assert!(window.receive(1).is_ok() && window.receive(2).is_ok() && window.is_full());
        assert_eq!(window.receive(1), Ok(None));
        assert_eq!(window.receive(3), Err(NoRoom));
    }

    #[test]
    fn an_answer_for_the_connection_before_is_dropped() {
        let mut before = Window::new(0, 2);
        let late = before.receive(1).unwrap().unwrap();
        let mut window = Window::new(before.next(), 2);
        let token = window.receive(1).unwrap().unwrap();
        window.answer(late, Answer::Accepted);
        assert_eq!(window.pop(), None);
        window.answer(token, Answer::Retry);
        window.answer(AckToken(99), Answer::Accepted);
        assert_eq!(window.pop(), Some(Answered { packet_id: 1, answer: Answer::Retry }));
    }
}
