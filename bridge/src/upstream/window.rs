//! Messages of an outside broker between PUBLISH and PUBACK.

use std::collections::{BTreeSet, VecDeque};

use unhidra_core::delivery::{AckToken, Answer};
use unhidra_core::ids::DeviceId;

/// Messages in the order they came.
///
/// Answers come in any order, for devices do not wait for each other; PUBACKs leave in this one
/// [MQTT-4.6.0-2]. One window is one connection's: its tokens mean nothing to the next, for the
/// broker sends again what was not acknowledged.
///
/// A message that is to come again ([`Answer::Retry`]) is passed by: it gets no PUBACK on this
/// connection, keeps its place among those that may wait, and holds up none behind it. The PUBACKs
/// that do leave are in order still. So that no device's later messages overtake it, all of that
/// device are passed by from there on.
///
/// One of QoS 0 has no identifier and gets no PUBACK, but has a place like the others: else a broker
/// could have any number of them wait in the node.
#[derive(Debug)]
pub struct Window {
    /// The token of the oldest that waits.
    first: u64,
    waiting: VecDeque<Received>,
    /// The identifiers of those that wait.
    taken: BTreeSet<u16>,
    max: usize,
    /// The Packet Identifiers that were passed by.
    passed: BTreeSet<u16>,
    /// Whose messages those were.
    passed_devices: BTreeSet<DeviceId>,
}

#[derive(Debug)]
struct Received {
    /// None at QoS 0.
    packet_id: Option<u16>,
    /// In whose name it came, if it could be said.
    device: Option<DeviceId>,
    answer: Option<Answer>,
}

/// A message whose turn has come: never one that is to come again.
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
        Self {
            first,
            waiting: VecDeque::new(),
            taken: BTreeSet::new(),
            max,
            passed: BTreeSet::new(),
            passed_devices: BTreeSet::new(),
        }
    }

    /// Takes note of a PUBLISH in a device's name, and gives the token it is answered under. `None` for one that waits
    /// already: its answer serves both.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]: one more than were allowed to wait.
    pub fn receive(&mut self, packet_id: u16, device: Option<DeviceId>) -> Result<Option<AckToken>, NoRoom> {
        if self.taken.contains(&packet_id) {
            return Ok(None);
        }
        // Some brokers send it again on the same connection.
        self.passed.remove(&packet_id);
        let token = self.waits(Some(packet_id), device)?;
        self.taken.insert(packet_id);
        Ok(Some(token))
    }

    /// Takes note of a PUBLISH of QoS 0 in a device's name, and gives the token that ends its wait.
    ///
    /// # Errors
    ///
    /// [`NoRoom`]: one more than were allowed to wait.
    pub fn receive_unacknowledged(&mut self, device: Option<DeviceId>) -> Result<AckToken, NoRoom> {
        self.waits(None, device)
    }

    fn waits(&mut self, packet_id: Option<u16>, device: Option<DeviceId>) -> Result<AckToken, NoRoom> {
        if self.is_full() {
            return Err(NoRoom);
        }
        let token = AckToken(self.next());
        self.waiting.push_back(Received { packet_id, device, answer: None });
        Ok(token)
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
        loop {
            let received = self.waiting.front()?;
            let (packet_id, device, answer) = (received.packet_id, received.device, received.answer?);
            self.waiting.pop_front();
            self.first += 1;
            let Some(packet_id) = packet_id else { continue };
            self.taken.remove(&packet_id);
            if answer != Answer::Retry {
                return Some(Answered { packet_id, answer });
            }
            self.passed.insert(packet_id);
            self.passed_devices.extend(device);
        }
    }

    /// How many messages were passed by.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.passed.len()
    }

    /// Whether a device's messages are passed by on this connection.
    #[must_use]
    pub fn passes_by(&self, device: &DeviceId) -> bool {
        self.passed_devices.contains(device)
    }

    /// Whether no further message may come.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len().saturating_add(self.passed.len()) >= self.max
    }

    /// Whether none waits for its answer.
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
        let tokens: Vec<AckToken> = [7, 5, 6].iter().map(|id| window.receive(*id, None).unwrap().unwrap()).collect();
        window.answer(tokens[2], Answer::Accepted);
        window.answer(tokens[1], Answer::Accepted);
        assert!(drain(&mut window).is_empty());
        window.answer(tokens[0], Answer::Accepted);
        assert_eq!(drain(&mut window), [7, 5, 6]);
    }

    #[test]
    fn one_more_than_may_wait_is_refused_and_a_repeat_is_none() {
        let mut window = Window::new(0, 2);
        assert!(window.receive(1, None).is_ok() && window.receive(2, None).is_ok() && window.is_full());
        assert_eq!(window.receive(1, None), Ok(None));
        assert_eq!(window.receive(3, None), Err(NoRoom));
    }

    #[test]
    fn an_identifier_is_free_once_it_is_answered_and_not_before() {
        let mut window = Window::new(0, 2);
        let [first, second] = [1, 2].map(|id| window.receive(id, None).unwrap().unwrap());
        window.answer(second, Answer::Accepted);
        assert_eq!((window.pop(), window.receive(2, None)), (None, Ok(None)), "its answer waits for its turn");
        window.answer(first, Answer::Accepted);
        assert_eq!(drain(&mut window), [1, 2]);
        assert!(window.receive(2, None).is_ok_and(|token| token.is_some()));
    }

    #[test]
    fn an_answer_for_the_connection_before_is_dropped() {
        let mut before = Window::new(0, 2);
        let late = before.receive(1, None).unwrap().unwrap();
        let mut window = Window::new(before.next(), 2);
        let token = window.receive(1, None).unwrap().unwrap();
        window.answer(late, Answer::Accepted);
        assert_eq!(window.pop(), None);
        let refused = Answer::Refused(unhidra_core::delivery::Refusal::DoesNotOpen);
        window.answer(token, refused);
        window.answer(AckToken(99), Answer::Accepted);
        assert_eq!(window.pop(), Some(Answered { packet_id: 1, answer: refused }));
    }

    #[test]
    fn what_is_to_come_again_gets_no_puback_keeps_its_place_and_holds_up_nobody() {
        let [pump, valve] = ["pump-7", "valve-1"].map(|id| DeviceId::parse(id).expect("an id"));
        let mut window = Window::new(0, 3);
        let first = window.receive(1, Some(pump)).unwrap().unwrap();
        let second = window.receive(2, Some(valve)).unwrap().unwrap();
        window.answer(second, Answer::Accepted);
        assert!(drain(&mut window).is_empty() && !window.passes_by(&pump));
        window.answer(first, Answer::Retry);
        assert_eq!(drain(&mut window), [2]);
        assert!(window.passes_by(&pump) && !window.passes_by(&valve));
        assert!(window.is_empty() && window.passed() == 1 && !window.is_full());
        for packet_id in [3, 4] {
            let token = window.receive(packet_id, Some(pump)).unwrap().unwrap();
            window.answer(token, Answer::Retry);
            assert!(drain(&mut window).is_empty());
        }
        assert_eq!((window.passed(), window.receive(5, Some(valve))), (3, Err(NoRoom)));
        // One that the broker sends again by itself waits anew, and counts once.
        assert!(matches!(window.receive(3, Some(pump)), Ok(Some(_))));
        assert!(window.is_full() && window.passed() == 2);
    }
    #[test]
    fn what_has_no_identifier_has_a_place_until_its_answer_and_gets_no_puback() {
        let pump = DeviceId::parse("pump-7").expect("an id");
        let mut window = Window::new(0, 2);
        let first = window.receive_unacknowledged(Some(pump)).unwrap();
        let second = window.receive(7, Some(pump)).unwrap().unwrap();
        assert_eq!((window.is_full(), window.receive_unacknowledged(None)), (true, Err(NoRoom)));
        window.answer(second, Answer::Accepted);
        assert!(drain(&mut window).is_empty(), "its turn comes behind the first");
        // It does not come again, so nothing waits for that.
        window.answer(first, Answer::Retry);
        assert_eq!(drain(&mut window), [7]);
        assert!(window.is_empty() && window.passed() == 0 && !window.passes_by(&pump));
    }
}
