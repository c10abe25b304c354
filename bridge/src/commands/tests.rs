use bytes::Bytes;
use unhidra_core::command::{CommandState, Life};
use unhidra_core::ids::DeviceId;

use super::*;

mod naive;

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
