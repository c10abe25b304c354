use super::*;
use crate::doors::{Admitted, ConnectionId};
use crate::packet::{Properties, Text};
use crate::router::message::{Incoming, Message};
use bytes::Bytes;
use tokio::time::timeout;
use unhidra_core::ids::ClientId;

const PATIENCE_MS: u64 = 100;

fn message(qos: QoS, payload_len: usize) -> Queued {
    let (topic, properties) = (&Text::from("t"), &Properties::default());
    let payload = &Bytes::from(vec![0; payload_len]);
    let message = Message::new(Incoming { topic, payload, qos, retain: false, properties }, Timestamp::ZERO);
    Queued { message: Arc::new(message), qos, retain: false, identifiers: Box::default(), group: None, kept: None }
}

fn mailbox(number: u64) -> Arc<Mailbox> {
    Arc::new(Mailbox::new(ConnectionId(number), 1))
}

fn terms(messages_max: usize, bytes_max: usize) -> Terms {
    let patience = Duration::from_millis(PATIENCE_MS);
    Terms { messages_max, bytes_max, policy: QueuePolicy::Newest, keeps_qos0: false, patience }
}

fn queue(terms: Terms) -> Queue {
    let whose = SessionKey::new(&Admitted::Client(None), ClientId::parse("c").expect("an id"));
    Queue::new(whose, Arc::new(terms))
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn sizes(queue: &Queue) -> Vec<usize> {
    queue.take(usize::MAX, usize::MAX, at(0)).iter().map(|queued| queued.message.payload_len()).collect()
}

/// A queue of two messages, full, whose reader has left them because its peer takes no more.
fn blocked(policy: QueuePolicy) -> (Queue, Arc<Mailbox>) {
    let (queue, reader) = (queue(Terms { policy, ..terms(2, 1_000_000) }), mailbox(1));
    queue.attach(reader.clone());
    for len in [1, 2] {
        let pushed = queue.push(message(QoS::AtLeastOnce, len), None, at(0));
        assert!(matches!(pushed, Pushed::Taken { ref evicted, .. } if evicted.is_empty()));
    }
    assert!(queue.take(0, usize::MAX, at(0)).is_empty());
    (queue, reader)
}

/// Section 3.3.2.3.3; and where it is kept over a restart, whoever keeps it hears of it.
#[test]
fn what_has_expired_takes_nobodys_place() {
    use crate::packet::Property;
    let expiring = |s| {
        let (topic, payload) = (&Text::from("t"), &Bytes::new());
        let properties = &[Property::MessageExpiryInterval(s)].into_iter().collect();
        let qos = QoS::AtLeastOnce;
        let message = Message::new(Incoming { topic, payload, qos, retain: false, properties }, Timestamp::ZERO);
        Queued { message: Arc::new(message), ..super::tests::message(qos, 0) }
    };
    for policy in [QueuePolicy::Newest, QueuePolicy::Oldest] {
        let queue = queue(Terms { policy, ..terms(3, 1_000_000) }).kept_for(SubscriberId(1));
        for queued in [expiring(20), expiring(10), message(QoS::AtLeastOnce, 1)] {
            assert!(matches!(queue.push(queued, None, at(0)), Pushed::Taken { .. }));
        }
        let push = |ms, len| queue.push(message(QoS::AtLeastOnce, len), None, at(ms));
        if policy == QueuePolicy::Newest {
            assert!(matches!(push(9_999, 2), Pushed::Dropped(DropCause::Full)));
        }
        let Pushed::Taken { evicted, .. } = push(10_000, 3) else { panic!("there is room") };
        assert_eq!(evicted.iter().map(|q| q.kept.as_ref().unwrap().sequence.get()).collect::<Vec<_>>(), [2]);
        let Pushed::Taken { evicted, .. } = push(20_000, 4) else { panic!("there is room") };
        assert_eq!(evicted.iter().map(|q| q.kept.as_ref().unwrap().sequence.get()).collect::<Vec<_>>(), [1]);
        let left = queue.take_if(|_| true);
        assert_eq!(left.iter().map(|q| q.message.payload_len()).collect::<Vec<_>>(), [1, 3, 4]);
    }
}

#[test]
fn a_message_waits_for_nobody_at_qos_0_unless_it_is_to() {
    for keeps_qos0 in [false, true] {
        let queue = queue(Terms { keeps_qos0, ..terms(2, 1_000_000) });
        let pushed = queue.push(message(QoS::AtMostOnce, 1), None, at(0));
        match keeps_qos0 {
            true => assert!(matches!(pushed, Pushed::Taken { .. })),
            false => assert!(matches!(pushed, Pushed::Dropped(DropCause::Away))),
        }
        assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1), None, at(0)), Pushed::Taken { .. }));
        queue.attach(mailbox(1));
        let _ = queue.push(message(QoS::AtMostOnce, 1), None, at(0));
        queue.detach();
        assert_eq!(queue.depth().messages, if keeps_qos0 { 2 } else { 1 });
    }
}

#[test]
fn a_full_queue_of_a_client_that_is_away_keeps_what_the_policy_says() {
    for (policy, kept) in
        [(QueuePolicy::Newest, [1, 2]), (QueuePolicy::Oldest, [2, 3]), (QueuePolicy::Disconnect, [1, 2])]
    {
        let queue = queue(Terms { policy, ..terms(2, 1_000_000) });
        let sender = mailbox(9);
        let pushed: Vec<_> =
            (1..=3).map(|len| queue.push(message(QoS::AtLeastOnce, len), Some(&sender), at(0))).collect();
        match policy {
            QueuePolicy::Oldest => {
                assert!(matches!(pushed[2], Pushed::Taken { ref evicted, .. } if evicted.len() == 1))
            }
            _ => assert!(matches!(pushed[2], Pushed::Dropped(DropCause::Full))),
        }
        assert_eq!(sizes(&queue), kept);
    }
}

#[test]
fn publishers_wait_for_a_client_that_takes_nothing_once_and_for_so_long() {
    let (queue, _reader) = blocked(QueuePolicy::Newest);
    let sender = mailbox(9);
    let push = |ms| queue.push(message(QoS::AtLeastOnce, 3), Some(&sender), at(ms));
    for ms in [0, 50, PATIENCE_MS - 1] {
        assert!(matches!(push(ms), Pushed::Full(_, until) if until == at(PATIENCE_MS)));
    }
    assert!(matches!(push(PATIENCE_MS), Pushed::Dropped(DropCause::Slow)));
    assert_eq!(queue.welcome(QoS::AtLeastOnce), Welcome::Lost);
    assert!(matches!(push(10_000), Pushed::Dropped(DropCause::Slow)), "it is slow until half is gone");
    assert_eq!(queue.take(1, usize::MAX, at(10_000)).len(), 1);
    assert!(matches!(push(10_000), Pushed::Taken { .. }));
    assert!(matches!(push(10_000), Pushed::Full(..)), "it has kept up, and may fall behind again");
}

#[test]
fn publishers_do_not_wait_for_a_client_that_took_nothing_long_before_its_queue_was_full() {
    let sender = mailbox(9);
    let push = |queue: &Queue, ms| queue.push(message(QoS::AtLeastOnce, 3), Some(&sender), at(ms));
    let (dead, _reader) = blocked(QueuePolicy::Newest);
    assert!(dead.take(0, usize::MAX, at(90)).is_empty(), "a turn in which it took nothing");
    assert!(matches!(push(&dead, PATIENCE_MS), Pushed::Dropped(DropCause::Slow)));
    let (alive, _reader) = blocked(QueuePolicy::Newest);
    assert_eq!(alive.take(1, usize::MAX, at(90)).len(), 1);
    assert!(matches!(push(&alive, 90), Pushed::Taken { .. }));
    assert!(matches!(push(&alive, PATIENCE_MS), Pushed::Full(_, until) if until == at(90 + PATIENCE_MS)));
}

#[test]
fn a_slow_client_loses_what_the_policy_says() {
    for (policy, kept) in
        [(QueuePolicy::Newest, [1, 2]), (QueuePolicy::Oldest, [2, 3]), (QueuePolicy::Disconnect, [1, 2])]
    {
        let (queue, reader) = blocked(policy);
        let sender = mailbox(9);
        let push = |ms| queue.push(message(QoS::AtLeastOnce, 3), Some(&sender), at(ms));
        assert!(matches!(push(0), Pushed::Full(..)));
        let taken = matches!(push(PATIENCE_MS), Pushed::Taken { ref evicted, .. } if evicted.len() == 1);
        assert_eq!(taken, policy == QueuePolicy::Oldest);
        let order = (policy == QueuePolicy::Disconnect).then_some(Order::Close(ReasonCode::QuotaExceeded));
        assert_eq!(reader.take().order, order);
        assert_eq!(sizes(&queue), kept);
    }
}

#[test]
fn a_client_whose_turn_has_not_come_is_not_slow() {
    let queue = queue(terms(1, 1_000_000));
    queue.attach(mailbox(1));
    let sender = mailbox(9);
    let push = |ms| queue.push(message(QoS::AtLeastOnce, 1), Some(&sender), at(ms));
    assert!(matches!(push(0), Pushed::Taken { .. }));
    for ms in [0, PATIENCE_MS, 10 * PATIENCE_MS] {
        assert!(matches!(push(ms), Pushed::Full(..)));
    }
}

#[test]
fn nobody_waits_who_cannot() {
    let (queue, _reader) = blocked(QueuePolicy::Newest);
    assert!(matches!(queue.push(message(QoS::AtLeastOnce, 1), None, at(0)), Pushed::Dropped(DropCause::Slow)));
}

#[test]
fn bytes_are_bounded_and_one_message_always_fits() {
    let queue = queue(terms(100, 5_000));
    queue.attach(mailbox(1));
    let sender = mailbox(9);
    let push = |len| queue.push(message(QoS::AtLeastOnce, len), Some(&sender), at(0));
    assert!(matches!(push(10_000), Pushed::Taken { .. }));
    assert!(matches!(push(1), Pushed::Full(..)));
    assert_eq!(sizes(&queue), [10_000]);
    assert!(matches!(push(1), Pushed::Taken { .. }));
}

#[test]
fn what_is_taken_is_bounded_by_the_window_and_by_bytes() {
    let queue = queue(terms(100, 1_000_000));
    queue.attach(mailbox(1));
    let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtMostOnce];
    for (len, qos) in (1..).zip(qos) {
        assert!(matches!(queue.push(message(qos, len), None, at(0)), Pushed::Taken { .. }));
    }
    let take = |window, bytes| -> Vec<usize> {
        queue.take(window, bytes, at(0)).iter().map(|queued| queued.message.payload_len()).collect()
    };
    assert_eq!(take(0, usize::MAX), [1]);
    assert_eq!(take(1, usize::MAX), [2, 3]);
    assert_eq!(take(2, 1), [4], "the one that passes the bound is the last");
    assert!(take(2, 0).is_empty());
    assert_eq!(take(0, 1), [5]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_woken_by_the_first_message_and_a_writer_at_half() {
    let (queue, reader, writer) = (queue(terms(4, 1_000_000)), mailbox(1), mailbox(2));
    queue.attach(reader.clone());
    let push = || queue.push(message(QoS::AtLeastOnce, 1), Some(&writer), at(0));
    (0..4).for_each(|_| assert!(matches!(push(), Pushed::Taken { .. })));
    let patience = Duration::from_secs(1);
    timeout(patience, reader.arrived()).await.expect("woken");
    assert!(matches!(push(), Pushed::Full(..)));
    assert_eq!(queue.take(1, usize::MAX, at(0)).len(), 1);
    assert!(timeout(patience, writer.arrived()).await.is_err(), "there is room for one, not for a batch");
    assert_eq!(queue.take(1, usize::MAX, at(0)).len(), 1);
    timeout(patience, writer.arrived()).await.expect("woken");
}
