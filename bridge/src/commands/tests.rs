use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use unhidra_core::command::{CommandState, Life};
use unhidra_core::ids::DeviceId;

use super::*;

const PACE: Pace = Pace { in_flight: 1, answer: Duration::from_secs(30), grace: Duration::from_secs(60) };

fn now(ms: u64) -> Now {
    Now { timer: Timestamp::from_ms(ms), unix: UnixTime::from_ms(ms) }
}

fn command(n: u8, expires_s: u64) -> Command {
    Command {
        id: CommandId::new([n; 16]),
        device: DeviceId::parse("pump-7").expect("valid"),
        name: "reboot".into(),
        body: Bytes::new(),
        created_at: UnixTime::EPOCH,
        expires_at: UnixTime::from_s(expires_s),
        asked_by: None,
        life: Life::default(),
    }
}

/// Sends the next one, if one may be sent.
fn send(queue: &mut CommandQueue, pace: Pace, ticket: u64, at: Now) -> Option<CommandId> {
    let id = queue.next(pace, at)?.id;
    assert_eq!(queue.sent(&id, Ticket(ticket), at).map(|c| c.state()), Some(CommandState::Sent));
    Some(id)
}

fn id(n: u8) -> CommandId {
    CommandId::new([n; 16])
}

fn state(moved: Option<Command>) -> Option<CommandState> {
    moved.map(|command| command.state())
}

#[test]
fn a_command_is_sent_delivered_and_answered() {
    let mut queue = CommandQueue::default();
    queue.push(command(1, 900));
    assert_eq!(send(&mut queue, PACE, 7, now(10)), Some(id(1)));
    assert!(queue.next(PACE, now(10)).is_none());
    assert_eq!(queue.published(Ticket(8), Outcome::Delivered, PACE, now(11)), None, "another ticket");
    let delivered = queue.published(Ticket(7), Outcome::Delivered, PACE, now(11));
    assert_eq!(state(delivered), Some(CommandState::Delivered));
    let mut answered = |status| queue.answered(&id(1), status, "", PACE, now(12));
    let acting = answered(ReceiptStatus::Accepted).expect("it says more");
    assert_eq!((acting.state(), acting.life.acting_at), (CommandState::Delivered, Some(UnixTime::from_ms(12))));
    assert_eq!(answered(ReceiptStatus::Accepted), None, "a repeat");
    assert_eq!(state(answered(ReceiptStatus::Done)), Some(CommandState::Done));
    assert!(queue.is_empty());
}

#[test]
fn what_a_device_may_have_forgotten_is_not_sent_again() {
    let pace = Pace { in_flight: 2, ..PACE };
    let mut queue = CommandQueue::default();
    queue.push(command(1, 900_000));
    assert_eq!(send(&mut queue, pace, 1, now(10)), Some(id(1)));
    queue.published(Ticket(1), Outcome::Relayed, pace, now(11));
    let others = |queue: &mut CommandQueue, from: u8, count: u8| {
        for n in from..from + count {
            queue.push(command(n, 900_000));
            let ticket = 100 + u64::from(n);
            queue.sent(&id(n), Ticket(ticket), now(12));
            queue.published(Ticket(ticket), Outcome::Relayed, pace, now(12));
            assert_eq!(state(queue.answered(&id(n), ReceiptStatus::Done, "", pace, now(12))), Some(CommandState::Done));
        }
    };
    others(&mut queue, 2, 62);
    // The device knows 64: this one, and those.
    for ticket in 2..4 {
        queue.release();
        assert_eq!(send(&mut queue, pace, ticket, now(13)), Some(id(1)));
        queue.published(Ticket(ticket), Outcome::Relayed, pace, now(13));
    }
    others(&mut queue, 64, 1);
    queue.release();
    assert_eq!(queue.next(pace, now(14)), None, "it waits for its receipt or its end");
    queue.push(command(65, 900_000));
    assert_eq!(send(&mut queue, pace, 5, now(14)), Some(id(65)), "and holds up nothing");
    let done = queue.answered(&id(1), ReceiptStatus::Done, "", pace, now(15));
    assert_eq!(state(done), Some(CommandState::Done));
}

/// They are new to the device when they come, though they were sent before.
#[test]
fn those_that_were_sent_before_and_have_not_arrived_count_as_behind() {
    let pace = Pace { in_flight: 4, ..PACE };
    let mut queue = CommandQueue::default();
    for n in [1, 2] {
        queue.push(command(n, 900_000));
        queue.sent(&id(n), Ticket(u64::from(n)), now(10));
        queue.published(Ticket(u64::from(n)), Outcome::Refused, pace, now(10));
    }
    queue.push(command(3, 900_000));
    queue.sent(&id(3), Ticket(3), now(11));
    queue.published(Ticket(3), Outcome::Relayed, pace, now(11));
    for n in 4..65 {
        queue.push(command(n, 900_000));
        queue.sent(&id(n), Ticket(u64::from(n)), now(12));
        queue.answered(&id(n), ReceiptStatus::Done, "", pace, now(12));
    }
    queue.release();
    for expected in [1, 2] {
        let sent = send(&mut queue, pace, 100 + u64::from(expected), now(13));
        assert_eq!(sent, Some(id(expected)), "which the device has refused");
    }
    assert_eq!(queue.next(pace, now(13)), None, "61, and those two");
}

#[test]
fn what_an_outside_broker_has_stays_sent_until_a_receipt_says_more() {
    for outcome in [Outcome::Relayed, Outcome::Unclear] {
        let mut queue = CommandQueue::default();
        queue.push(command(1, 900_000));
        queue.push(command(2, 900_000));
        send(&mut queue, PACE, 1, now(10));
        assert_eq!(queue.published(Ticket(1), outcome, PACE, now(11)), None, "its PUBACK is that broker's word");
        assert!(queue.next(PACE, now(12)).is_none(), "one at a time");
        assert!(matches!(queue.cancel(&id(1), "me", UnixTime::from_ms(12)), Cancelled::TooLate(_)));
        let quiet = queue.opens_at(now(12)).expect("silence lets the next one go");
        let later = now(quiet.as_ms());
        assert_eq!(queue.next(PACE, later).map(|c| c.id), Some(id(2)));
        queue.release();
        assert_eq!(send(&mut queue, PACE, 2, later), Some(id(1)), "it goes again, under its id");
        let done = queue.answered(&id(1), ReceiptStatus::Done, "", PACE, later);
        assert_eq!(state(done), Some(CommandState::Done));
    }
}

#[test]
fn a_receipt_before_the_puback_is_not_taken_back_by_it() {
    let mut queue = CommandQueue::default();
    queue.push(command(1, 900));
    send(&mut queue, PACE, 7, now(10));
    assert!(queue.answered(&id(1), ReceiptStatus::Accepted, "", PACE, now(11)).is_some());
    assert_eq!(queue.published(Ticket(7), Outcome::Delivered, PACE, now(12)), None);
    let failed = queue.answered(&id(1), ReceiptStatus::Failed, "no power", PACE, now(13)).expect("it ends");
    let ended = failed.ended().expect("it has ended");
    assert_eq!((&*ended.cause, ended.by, queue.is_empty()), ("no power", By::Device, true));
}

#[test]
fn a_lost_one_goes_again_and_a_refused_one_waits_for_a_new_beginning() {
    let mut queue = CommandQueue::default();
    queue.push(command(1, 900));
    send(&mut queue, PACE, 1, now(10));
    let refused = queue.published(Ticket(1), Outcome::Refused, PACE, now(11));
    assert_eq!(state(refused), Some(CommandState::Accepted), "the device says that it has it not");
    assert!(queue.next(PACE, now(12)).is_none());
    queue.release();
    send(&mut queue, PACE, 2, now(13));
    assert_eq!(queue.published(Ticket(2), Outcome::Lost, PACE, now(14)), None, "it may have it");
    send(&mut queue, PACE, 3, now(15));
    assert_eq!(queue.published(Ticket(3), Outcome::Refused, PACE, now(16)), None, "of this attempt alone");
    queue.release();
    send(&mut queue, PACE, 4, now(17));
    queue.connection_ended();
    let next = queue.next(PACE, now(18)).expect("it goes again");
    assert_eq!((next.state(), next.life.attempts), (CommandState::Sent, 4));
    assert_eq!(next.life.sent_at, Some(UnixTime::from_ms(17)));
}

/// It may have passed it on all the same: what is cancelled is not carried out.
#[test]
fn what_an_outside_broker_says_that_it_did_not_take_is_not_called_back() {
    let mut queue = CommandQueue::default();
    queue.push(command(1, 900));
    send(&mut queue, PACE, 1, now(10));
    assert_eq!(queue.published(Ticket(1), Outcome::Declined, PACE, now(11)), None, "it stays sent");
    assert!(queue.next(PACE, now(12)).is_none());
    assert!(matches!(queue.cancel(&id(1), "me", UnixTime::from_ms(12)), Cancelled::TooLate(_)));
    queue.release();
    assert_eq!(send(&mut queue, PACE, 2, now(13)), Some(id(1)), "it goes again, under its id");
}

#[test]
fn what_a_device_had_no_room_for_goes_again_once_it_has_said_what_became_of_another() {
    let pace = Pace { in_flight: 2, ..PACE };
    let mut queue = CommandQueue::default();
    for n in [1, 2] {
        queue.push(command(n, 900));
        send(&mut queue, pace, u64::from(n), now(10));
    }
    queue.published(Ticket(1), Outcome::Delivered, pace, now(11));
    queue.published(Ticket(2), Outcome::Refused, pace, now(11));
    queue.answered(&id(1), ReceiptStatus::Accepted, "", pace, now(12));
    assert_eq!(queue.next(pace, now(12)), None);
    queue.answered(&id(1), ReceiptStatus::Done, "", pace, now(13));
    assert_eq!(send(&mut queue, pace, 3, now(13)), Some(id(2)));
}

#[test]
fn one_that_is_refused_after_a_new_beginning_waits_for_no_other() {
    let mut queue = CommandQueue::default();
    queue.push(command(1, 900));
    send(&mut queue, PACE, 1, now(10));
    queue.release();
    assert!(queue.next(PACE, now(11)).is_none(), "the device may yet take it");
    queue.published(Ticket(1), Outcome::Refused, PACE, now(12));
    send(&mut queue, PACE, 2, now(13));
    queue.published(Ticket(2), Outcome::Refused, PACE, now(14));
    assert!(queue.next(PACE, now(15)).is_none(), "once for each beginning");
}

#[test]
fn the_next_is_sent_when_the_one_before_is_over_or_the_device_says_nothing_of_it() {
    let mut queue = CommandQueue::default();
    (1..=3).for_each(|n| drop(queue.push(command(n, 900))));
    assert_eq!(send(&mut queue, PACE, 1, now(10)), Some(id(1)));
    queue.published(Ticket(1), Outcome::Delivered, PACE, now(20));
    let quiet_until = 20 + 30_000;
    assert_eq!(send(&mut queue, PACE, 2, now(quiet_until - 1)), None);
    assert_eq!(queue.opens_at(now(30)), Some(Timestamp::from_ms(quiet_until)));
    assert_eq!(send(&mut queue, PACE, 2, now(quiet_until)), Some(id(2)));
    assert_eq!(queue.opens_at(now(quiet_until)), None, "the one before it has no end in silence");
    queue.answered(&id(2), ReceiptStatus::Accepted, "", PACE, now(quiet_until));
    assert_eq!(send(&mut queue, PACE, 3, now(quiet_until + 100_000)), None, "a receipt is promised");
    queue.answered(&id(2), ReceiptStatus::Done, "", PACE, now(quiet_until + 100_001));
    assert_eq!(send(&mut queue, PACE, 3, now(quiet_until + 100_001)), Some(id(3)));
}

#[test]
fn the_window_is_bounded_and_the_order_kept() {
    let eight = Pace { in_flight: 8, ..PACE };
    let mut queue = CommandQueue::default();
    let made: Vec<_> = (1..=20).map(|n| queue.push(command(n, 900)).created_at).collect();
    assert!(made.windows(2).all(|pair| pair[0] < pair[1]), "no two as old: {made:?}");
    let sent: Vec<_> = (0..20).map_while(|ticket| send(&mut queue, eight, ticket, now(50))).collect();
    assert_eq!(sent, (1..=8).map(id).collect::<Vec<_>>());
}

#[test]
fn only_what_the_device_cannot_have_is_cancelled() {
    let mut queue = CommandQueue::default();
    (1..=2).for_each(|n| drop(queue.push(command(n, 900))));
    send(&mut queue, PACE, 1, now(10));
    let cancel = |queue: &mut CommandQueue, n| queue.cancel(&id(n), "me", UnixTime::from_ms(11));
    assert!(matches!(cancel(&mut queue, 1), Cancelled::TooLate(command) if command.state() == CommandState::Sent));
    let Cancelled::Now(called_back) = cancel(&mut queue, 2) else { panic!("it waits") };
    assert_eq!(called_back.ended().map(|ended| (ended.by, &*ended.cause)), Some((By::Client, "me")));
    assert_eq!(cancel(&mut queue, 2), Cancelled::NotOpen);
    queue.connection_ended();
    assert!(matches!(cancel(&mut queue, 1), Cancelled::TooLate(_)), "it went with the connection, or did not");
    queue.push(command(3, 900));
    queue.answered(&id(1), ReceiptStatus::Done, "", PACE, now(12));
    send(&mut queue, PACE, 2, now(13));
    queue.published(Ticket(2), Outcome::Refused, PACE, now(14));
    assert!(matches!(cancel(&mut queue, 3), Cancelled::Now(command) if command.life.attempts == 1));
    assert!(queue.is_empty());
}

/// What was on its way when the node died may have come through.
#[test]
fn after_a_restart_what_was_sent_is_not_cancelled_and_what_was_not_is() {
    let mut queue = CommandQueue::default();
    let accepted = queue.push(command(1, 900));
    let waits = queue.push(command(2, 900));
    let sent = queue.sent(&accepted.id, Ticket(1), now(10)).expect("it is open");
    let mut queue = CommandQueue::restore(vec![sent, waits], PACE, now(20));
    let cancel = |queue: &mut CommandQueue, n| queue.cancel(&id(n), "me", UnixTime::from_ms(21));
    assert!(matches!(cancel(&mut queue, 1), Cancelled::TooLate(c) if c.state() == CommandState::Sent));
    assert!(matches!(cancel(&mut queue, 2), Cancelled::Now(_)));
    send(&mut queue, PACE, 2, now(22));
    assert_eq!(queue.published(Ticket(2), Outcome::Refused, PACE, now(23)), None, "of this attempt alone");
    assert!(matches!(cancel(&mut queue, 1), Cancelled::TooLate(_)));
    assert_eq!(state(queue.answered(&id(1), ReceiptStatus::Done, "", PACE, now(24))), Some(CommandState::Done));
}

#[test]
fn what_was_never_sent_ends_at_its_expiry_and_what_was_has_a_grace() {
    let mut queue = CommandQueue::default();
    (1..=3).for_each(|n| drop(queue.push(command(n, 5))));
    send(&mut queue, PACE, 1, now(10));
    queue.connection_ended();
    assert_eq!(queue.next_expiry(PACE), Some(UnixTime::from_s(5)));
    let ends = |queue: &mut CommandQueue, s| {
        let expired = queue.expire(PACE, UnixTime::from_s(s));
        expired.iter().map(|c| (c.id, c.ended().map(|ended| ended.cause.to_string()))).collect::<Vec<_>>()
    };
    let never = Some("the device did not come in time".to_owned());
    assert_eq!(ends(&mut queue, 5), [(id(2), never.clone()), (id(3), never)]);
    assert!(queue.next(PACE, now(5000)).is_none(), "it is sent no more");
    assert!(ends(&mut queue, 64).is_empty());
    assert_eq!(ends(&mut queue, 65), [(id(1), Some("it was sent and not acknowledged".to_owned()))]);
    assert!(queue.is_empty());
}

#[test]
fn after_a_restart_what_was_sent_goes_again_and_what_was_delivered_does_not() {
    let at = |n, stage| {
        let mut command = command(n, 900);
        command.life = Life { stage, attempts: 1, delivered_at: Some(UnixTime::from_s(10)), ..Life::default() };
        command
    };
    let over = Stage::Over(Ended::new(Ending::Done, By::Device, "", UnixTime::EPOCH));
    let stored = vec![at(1, Stage::Delivered), at(2, Stage::Sent), at(3, over)];
    let queue = CommandQueue::restore(stored, PACE, now(15_000));
    assert_eq!(queue.len(), 2);
    assert!(queue.next(PACE, now(15_000)).is_none(), "the device has the first and may answer yet");
    assert_eq!(queue.opens_at(now(15_000)), Some(Timestamp::from_ms(40_000)), "of its 30 s 5 have passed");
    assert_eq!(queue.next(PACE, now(40_000)).map(|c| c.id), Some(id(2)));
}

#[test]
fn commands_of_a_device_that_is_gone_end() {
    let ended: Vec<_> = revoked(vec![command(1, 900)], UnixTime::from_s(1)).collect();
    assert_eq!(ended.iter().map(Command::state).collect::<Vec<_>>(), [CommandState::Failed]);
}

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Push { lives_s: u64 },
    SendAll,
    Published { which: usize, outcome: u8 },
    Release,
    ConnectionEnds,
    Receipt { which: usize, status: u8 },
    Cancel { which: usize },
    Pass { ms: u64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..200_u64).prop_map(|lives_s| Step::Push { lives_s }),
        4 => Just(Step::SendAll),
        4 => (any::<usize>(), 0..5_u8).prop_map(|(which, outcome)| Step::Published { which, outcome }),
        1 => Just(Step::Release),
        1 => Just(Step::ConnectionEnds),
        3 => (any::<usize>(), 0..5_u8).prop_map(|(which, status)| Step::Receipt { which, status }),
        1 => any::<usize>().prop_map(|which| Step::Cancel { which }),
        3 => (0..60_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Restart),
    ]
}

/// The naive queue: one entry for each command there ever was, and every question answered by a
/// look at all of them.
#[derive(Default)]
struct Model {
    all: Vec<Naive>,
}

#[derive(Clone, Debug)]
struct Naive {
    id: CommandId,
    expires: u64,
    attempts: u32,
    may_have_it: bool,
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Waits,
    Aside,
    Flies { ticket: u64, overtaken: bool },
    There { since: u64, promised: bool },
    Over(CommandState),
}

impl Model {
    fn busy(&self, at: u64) -> usize {
        let holds_up = |naive: &&Naive| match naive.place {
            Place::Flies { .. } => true,
            Place::There { since, promised } => promised || at < since + 30_000,
            Place::Waits | Place::Aside | Place::Over(_) => false,
        };
        self.all.iter().filter(holds_up).count()
    }

    fn next(&self, in_flight: usize, at: u64) -> Option<CommandId> {
        let waits = |naive: &&Naive| naive.place == Place::Waits && naive.expires > at;
        if self.busy(at) < in_flight { self.all.iter().find(waits).map(|naive| naive.id) } else { None }
    }

    /// The connection ends: what was on its way may have come through.
    fn all_wait(&mut self) {
        for naive in &mut self.all {
            if matches!(naive.place, Place::Aside | Place::Flies { .. }) {
                naive.may_have_it |= naive.place != Place::Aside;
                naive.place = Place::Waits;
            }
        }
    }

    fn expire(&mut self, at: u64) -> Vec<CommandId> {
        let mut over = Vec::new();
        for naive in &mut self.all {
            let grace = if naive.attempts > 0 { 60_000 } else { 0 };
            if !matches!(naive.place, Place::Over(_)) && naive.expires + grace <= at {
                naive.place = Place::Over(CommandState::Expired);
                over.push(naive.id);
            }
        }
        over
    }

    fn state(&self, id: &CommandId) -> Option<CommandState> {
        let naive = self.all.iter().find(|naive| naive.id == *id)?;
        Some(match naive.place {
            Place::Waits | Place::Aside if !naive.may_have_it => CommandState::Accepted,
            Place::Waits | Place::Aside | Place::Flies { .. } => CommandState::Sent,
            Place::There { .. } => CommandState::Delivered,
            Place::Over(state) => state,
        })
    }
}

/// The queue, the model, and what was written of each command.
struct Both {
    queue: CommandQueue,
    model: Model,
    written: BTreeMap<CommandId, Command>,
    pace: Pace,
    at: u64,
    tickets: u64,
    ids: u8,
}

impl Both {
    fn write(&mut self, command: Command) {
        if let Some(before) = self.written.get(&command.id) {
            assert!(!before.is_final(), "{:?} after its end: {command:?}", before.state());
            let (old, new) = (before.state(), command.state());
            let falls_back = old == CommandState::Sent && new == CommandState::Accepted;
            let says_more = old == CommandState::Delivered && new == old;
            let again = old == CommandState::Sent && new == old && command.life.attempts > before.life.attempts;
            let forward = (old as u8) < (new as u8);
            assert!(falls_back || says_more || again || forward, "{old:?} to {new:?}");
            assert!(command.life.attempts >= before.life.attempts);
            assert!(command.life.sent_at >= before.life.sent_at);
        }
        self.written.insert(command.id, command);
    }

    fn step(&mut self, step: &Step) {
        let here = now(self.at);
        match *step {
            Step::Push { lives_s } if self.ids < 250 => {
                self.ids += 1;
                let mut new = command(self.ids, 0);
                new.created_at = here.unix;
                new.expires_at = here.unix.saturating_add(Duration::from_secs(lives_s));
                let expires = new.expires_at.as_ms();
                let naive = Naive { id: new.id, expires, attempts: 0, may_have_it: false, place: Place::Waits };
                self.model.all.push(naive);
                let pushed = self.queue.push(new);
                self.write(pushed);
            }
            Step::Push { .. } => {}
            Step::SendAll => loop {
                let wanted = self.model.next(self.pace.in_flight, self.at);
                assert_eq!(self.queue.next(self.pace, here).map(|c| c.id), wanted);
                let Some(id) = wanted else { break };
                self.tickets += 1;
                let sent = self.queue.sent(&id, Ticket(self.tickets), here).expect("it is open");
                self.write(sent);
                let naive = self.model.all.iter_mut().find(|naive| naive.id == id).expect("known");
                naive.attempts += 1;
                naive.place = Place::Flies { ticket: self.tickets, overtaken: false };
            },
            Step::Published { which, outcome } => {
                let flying = self.model.all.iter_mut().filter(|naive| matches!(naive.place, Place::Flies { .. }));
                let mut flying: Vec<_> = flying.collect();
                let Some(count) = flying.len().checked_sub(1) else { return };
                let naive = &mut flying[which % (count + 1)];
                let Place::Flies { ticket, overtaken } = naive.place else { return };
                let outcomes =
                    [Outcome::Delivered, Outcome::Refused, Outcome::Lost, Outcome::Unsent, Outcome::Declined];
                let outcome = outcomes[usize::from(outcome)];
                naive.place = match outcome {
                    Outcome::Delivered => Place::There { since: self.at, promised: false },
                    Outcome::Refused | Outcome::Declined if !overtaken => Place::Aside,
                    Outcome::Refused | Outcome::Declined | Outcome::Lost | Outcome::Unsent => Place::Waits,
                    Outcome::Relayed | Outcome::Unclear => unreachable!("the device has a connection here"),
                };
                naive.may_have_it |= matches!(outcome, Outcome::Lost | Outcome::Declined);
                let moves = outcome == Outcome::Delivered || !naive.may_have_it;
                let moved = self.queue.published(Ticket(ticket), outcome, self.pace, here);
                assert_eq!(moved.is_some(), moves);
                moved.into_iter().for_each(|moved| self.write(moved));
            }
            Step::Release => {
                self.queue.release();
                for naive in &mut self.model.all {
                    naive.place = match naive.place {
                        Place::Aside => Place::Waits,
                        Place::Flies { ticket, .. } => Place::Flies { ticket, overtaken: true },
                        other => other,
                    };
                }
            }
            Step::ConnectionEnds => {
                self.queue.connection_ended();
                self.model.all_wait();
            }
            Step::Receipt { which, status } => {
                let Some(count) = self.model.all.len().checked_sub(1) else { return };
                let naive = &mut self.model.all[which % (count + 1)];
                let status = ReceiptStatus::from_byte(status).expect("a status");
                let is_open = !matches!(naive.place, Place::Over(_));
                if is_open {
                    naive.place = match (status, naive.place) {
                        (ReceiptStatus::Accepted, Place::There { since, .. }) => Place::There { since, promised: true },
                        (ReceiptStatus::Accepted, _) => Place::There { since: self.at, promised: true },
                        (ReceiptStatus::Done, _) => Place::Over(CommandState::Done),
                        (ReceiptStatus::Failed | ReceiptStatus::Unknown, _) => Place::Over(CommandState::Failed),
                        (ReceiptStatus::Expired, _) => Place::Over(CommandState::Expired),
                    };
                }
                let id = naive.id;
                if is_open && matches!(naive.place, Place::Over(_)) {
                    let aside = self.model.all.iter_mut().filter(|naive| matches!(naive.place, Place::Aside));
                    aside.for_each(|naive| naive.place = Place::Waits);
                }
                let moved = self.queue.answered(&id, status, "because", self.pace, here);
                assert!(is_open || moved.is_none());
                moved.into_iter().for_each(|moved| self.write(moved));
            }
            Step::Cancel { which } => {
                let Some(count) = self.model.all.len().checked_sub(1) else { return };
                let naive = &mut self.model.all[which % (count + 1)];
                match (self.queue.cancel(&naive.id, "me", here.unix), naive.place) {
                    (Cancelled::Now(command), Place::Waits | Place::Aside) if !naive.may_have_it => {
                        naive.place = Place::Over(CommandState::Cancelled);
                        self.write(command);
                    }
                    (Cancelled::TooLate(_), Place::Flies { .. } | Place::There { .. }) => {}
                    (Cancelled::TooLate(_), Place::Waits | Place::Aside) if naive.may_have_it => {}
                    (Cancelled::NotOpen, Place::Over(_)) => {}
                    (other, place) => panic!("{place:?} gives {other:?}"),
                }
            }
            Step::Pass { ms } => {
                self.at += ms;
                let over = self.queue.expire(self.pace, UnixTime::from_ms(self.at));
                let mut found: Vec<_> = over.iter().map(|command| command.id).collect();
                let mut wanted = self.model.expire(self.at);
                found.sort();
                wanted.sort();
                assert_eq!(found, wanted);
                over.into_iter().for_each(|command| self.write(command));
            }
            Step::Restart => {
                let mut open: Vec<_> = self.written.values().filter(|c| !c.is_final()).cloned().collect();
                open.sort_by_key(|command| (command.created_at, command.id));
                self.queue = CommandQueue::restore(open, self.pace, here);
                self.model.all_wait();
            }
        }
    }

    fn agree(&self) {
        for (id, command) in &self.written {
            assert_eq!(Some(command.state()), self.model.state(id));
            assert_eq!(self.queue.get(id).is_some(), !command.is_final());
            let life = &command.life;
            let ended = command.ended().map(|ended| ended.at);
            let times = [Some(command.created_at), life.sent_at, life.delivered_at, life.acting_at, ended];
            let times: Vec<_> = times.into_iter().flatten().collect();
            assert!(times.is_sorted() || life.attempts > 1 && times.last() == times.iter().max(), "{command:?}");
        }
        let next = self.queue.next(self.pace, now(self.at)).map(|c| c.id);
        assert_eq!(next, self.model.next(self.pace.in_flight, self.at));
    }
}

proptest! {
    /// Whatever happens, in whatever order: the queue does what the naive one does, what is written
    /// goes forward as the diagram says, and in the end each command has one end.
    #[test]
    fn the_queue_does_what_a_naive_one_does(
        steps in proptest::collection::vec(step(), 1..120),
        in_flight in 1..=8_usize,
    ) {
        let mut both = Both {
            queue: CommandQueue::default(),
            model: Model::default(),
            written: BTreeMap::new(),
            pace: Pace { in_flight, ..PACE },
            at: 1,
            tickets: 0,
            ids: 0,
        };
        for step in &steps {
            both.step(step);
            both.agree();
        }
        // The longest life, and the grace.
        both.step(&Step::Pass { ms: 200_000 + 60_000 });
        both.agree();
        prop_assert!(both.written.values().all(Command::is_final) && both.queue.is_empty());
    }
}
