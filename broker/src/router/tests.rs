use super::*;
use crate::config::QueuePolicy;
use crate::doors::{Admitted, ConnectionId};
use crate::net::mailbox::Mailbox;
use crate::packet::{Properties, RetainHandling, Text};
use crate::session::table::SessionKey;
use bytes::Bytes;
use message::Incoming;
use queue::{Pushed, Terms};
use std::time::Duration;
use unhidra_core::ids::ClientId;
use unhidra_core::time::Timestamp;

/// The queue of a client that is there, for four messages.
fn queue() -> Arc<Queue> {
    let whose = SessionKey::new(&Admitted::Client(None), ClientId::parse("c").expect("an id"));
    let (policy, patience) = (QueuePolicy::Newest, Duration::from_millis(100));
    let terms = Terms { messages_max: 4, bytes_max: 1_000_000, policy, keeps_qos0: false, patience };
    let queue = Queue::new(whose, Arc::new(terms));
    queue.attach(Arc::new(Mailbox::new(ConnectionId(1), 1)));
    Arc::new(queue)
}

fn interest(text: &str) -> Interest<'_> {
    Interest::parse(text).expect("an interest")
}

fn subscribe(
    router: &mut Router,
    filter: &str,
    id: u64,
    queue: &Arc<Queue>,
    options: SubscriptionOptions,
    n: Option<u32>,
) {
    router.subscribe(interest(filter), SubscriberId(id), queue.clone(), Subscription { options, identifier: n }, None);
}

fn route(router: &Router, topic: &'static str, qos: QoS, retain: bool, from: Option<u64>) -> Vec<Queued> {
    let name = TopicName::parse(topic).expect("a name");
    let mut given = Vec::new();
    let make = || {
        let (topic, payload, properties) = (&Text::from(topic), &Bytes::new(), &Properties::default());
        Arc::new(Message::new(Incoming { topic, payload, qos, retain, properties }, Timestamp::ZERO))
    };
    let count = router.route(name, from.map(SubscriberId), |_| false, make, |_, queued| given.push(queued));
    assert_eq!(count, given.len());
    given
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_qos_and_all_identifiers() {
    let (mut router, queue) = (Router::default(), queue());
    let with = SubscriptionOptions::with_qos;
    subscribe(&mut router, "a/#", 1, &queue, with(QoS::AtMostOnce), Some(7));
    subscribe(&mut router, "a/+", 1, &queue, with(QoS::AtLeastOnce), Some(8));
    subscribe(&mut router, "b", 1, &queue, with(QoS::AtLeastOnce), Some(9));
    subscribe(&mut router, "a/b", 2, &queue, with(QoS::AtMostOnce), None);
    let given = route(&router, "a/b", QoS::AtLeastOnce, false, None);
    let seen: Vec<_> = given.iter().map(|q| (q.qos, q.identifiers.clone())).collect();
    assert_eq!(seen, [(QoS::AtLeastOnce, [7, 8].into()), (QoS::AtMostOnce, Box::default())]);
    assert!(Arc::ptr_eq(&given[0].message, &given[1].message), "one message for all");
}

#[test]
fn qos_is_the_lower_of_publish_and_subscription() {
    let (mut router, queue) = (Router::default(), queue());
    subscribe(&mut router, "a", 1, &queue, SubscriptionOptions::with_qos(QoS::AtLeastOnce), None);
    assert_eq!(route(&router, "a", QoS::AtMostOnce, false, None)[0].qos, QoS::AtMostOnce);
    assert_eq!(route(&router, "a", QoS::AtLeastOnce, false, None)[0].qos, QoS::AtLeastOnce);
}

#[test]
fn no_local_leaves_out_the_publisher_and_retain_as_published_keeps_the_flag() {
    let (mut router, queue) = (Router::default(), queue());
    let plain = SubscriptionOptions::with_qos(QoS::AtMostOnce);
    let special = SubscriptionOptions {
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
        ..plain
    };
    subscribe(&mut router, "a", 1, &queue, special, None);
    subscribe(&mut router, "a", 2, &queue, plain, None);
    let flags = |from| route(&router, "a", QoS::AtMostOnce, true, from).iter().map(|q| q.retain).collect::<Vec<_>>();
    assert_eq!(flags(Some(1)), [false]);
    assert_eq!(flags(Some(2)), [true, false]);
}

#[test]
fn a_subscription_replaces_the_sessions_own_with_the_same_filter() {
    let (mut router, queue) = (Router::default(), queue());
    subscribe(&mut router, "a", 1, &queue, SubscriptionOptions::with_qos(QoS::AtMostOnce), Some(1));
    subscribe(&mut router, "a", 1, &queue, SubscriptionOptions::with_qos(QoS::AtLeastOnce), Some(2));
    let given = route(&router, "a", QoS::AtLeastOnce, false, None);
    assert_eq!((given.len(), given[0].qos, given[0].identifiers.clone()), (1, QoS::AtLeastOnce, [2].into()));
    router.unsubscribe(interest("a"), SubscriberId(1));
    assert!(route(&router, "a", QoS::AtLeastOnce, false, None).is_empty() && router.len() == 0);
}

/// Routes a message and puts it where it belongs. Says whose queues were given one.
fn deliver(router: &Router, topic: &'static str, queues: &[Arc<Queue>]) -> Vec<usize> {
    let name = TopicName::parse(topic).expect("a name");
    let mut to = Vec::new();
    let make = || {
        let (topic, payload, properties) = (&Text::from(topic), &Bytes::new(), &Properties::default());
        let qos = QoS::AtLeastOnce;
        Arc::new(Message::new(Incoming { topic, payload, qos, retain: false, properties }, Timestamp::ZERO))
    };
    router.route(
        name,
        None,
        |_| false,
        make,
        |queue, queued| {
            to.extend(queues.iter().position(|known| Arc::ptr_eq(known, queue)));
            assert!(matches!(queue.push(queued, None, Timestamp::ZERO), Pushed::Taken { .. }));
        },
    );
    to
}

fn group(router: &mut Router, filter: &str, count: u64) -> Vec<Arc<Queue>> {
    let queues: Vec<_> = (0..count).map(|_| queue()).collect();
    for (id, queue) in (0..).zip(&queues) {
        subscribe(router, filter, id, queue, SubscriptionOptions::with_qos(QoS::AtLeastOnce), None);
    }
    queues
}

#[test]
fn a_group_takes_turns() {
    let mut router = Router::default();
    let queues = group(&mut router, "$share/g/a/+", 3);
    let turns: Vec<_> = (0..7).flat_map(|_| deliver(&router, "a/b", &queues)).collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0]);
    assert_eq!(router.len(), 3);
}

#[test]
fn a_member_at_its_bound_or_away_is_passed_over_while_another_can_take() {
    let mut router = Router::default();
    let queues = group(&mut router, "$share/g/a", 3);
    queues[1].detach();
    let turns: Vec<_> = (0..6).flat_map(|_| deliver(&router, "a", &queues)).collect();
    assert_eq!(turns, [0, 2, 0, 2, 0, 2]);
    queues[0].take(usize::MAX, usize::MAX, Timestamp::ZERO);
    (0..5).for_each(|_| drop(deliver(&router, "a", &queues)));
    assert_eq!(queues.each_len(), [4, 0, 4]);
    // The two that are there are full, and it is not for them to be waited for.
    let all_full: Vec<_> = (0..4).flat_map(|_| route(&router, "a", QoS::AtLeastOnce, false, None)).collect();
    assert_eq!(all_full.len(), 4);
    queues[0].detach();
    queues[2].detach();
    let turns: Vec<_> = (0..4).flat_map(|_| deliver(&router, "a", &queues)).collect();
    assert_eq!(turns, [1, 1, 1, 1], "it waits in the session that has room");
}

trait EachLen {
    fn each_len(&self) -> Vec<usize>;
}

impl EachLen for Vec<Arc<Queue>> {
    fn each_len(&self) -> Vec<usize> {
        self.iter().map(|queue| queue.depth().messages).collect()
    }
}

#[test]
fn groups_by_other_names_and_own_subscriptions_each_get_the_message() {
    let mut router = Router::default();
    let queues = group(&mut router, "$share/g/a", 2);
    subscribe(&mut router, "$share/h/a", 0, &queues[0], SubscriptionOptions::with_qos(QoS::AtMostOnce), Some(4));
    subscribe(&mut router, "+", 1, &queues[1], SubscriptionOptions::with_qos(QoS::AtLeastOnce), Some(5));
    let given = route(&router, "a", QoS::AtLeastOnce, false, None);
    let mut seen: Vec<_> = given.iter().map(|q| (q.qos, q.identifiers.to_vec(), q.group.is_some())).collect();
    seen.sort();
    let expected =
        [(QoS::AtMostOnce, vec![4], true), (QoS::AtLeastOnce, vec![], true), (QoS::AtLeastOnce, vec![5], false)];
    assert_eq!(seen, expected);
}

#[test]
fn a_group_ends_with_its_last_member() {
    let mut router = Router::default();
    let queues = group(&mut router, "$share/g/#", 2);
    subscribe(&mut router, "$share/g/#", 1, &queues[1], SubscriptionOptions::with_qos(QoS::AtMostOnce), None);
    assert_eq!(router.len(), 2, "a member has one subscription to it");
    router.unsubscribe(interest("$share/g/#"), SubscriberId(0));
    assert_eq!(deliver(&router, "x", &queues), [1]);
    router.unsubscribe(interest("$share/g/#"), SubscriberId(1));
    router.unsubscribe(interest("$share/g/#"), SubscriberId(1));
    assert!(route(&router, "x", QoS::AtLeastOnce, false, None).is_empty() && router.len() == 0);
}

#[test]
fn where_rules_split_a_filter_each_delivery_is_asked_about() {
    for filter in ["#", "$share/g/#"] {
        let (mut router, queue) = (Router::default(), queue());
        let who = Principal::new(Admitted::Client(None), ClientId::parse("c").expect("an id"));
        let options = SubscriptionOptions::with_qos(QoS::AtMostOnce);
        let subscription = Subscription { options, identifier: None };
        router.subscribe(interest(filter), SubscriberId(1), queue.clone(), subscription, Some(Arc::new(who)));
        assert!(route(&router, "a", QoS::AtMostOnce, false, None).is_empty(), "{filter}");
        router.subscribe(interest(filter), SubscriberId(1), queue, subscription, None);
        assert_eq!(route(&router, "a", QoS::AtMostOnce, false, None).len(), 1, "{filter}");
    }
}

#[test]
fn a_look_up_among_100_000_filters_allocates_nothing() {
    let (mut router, queue) = (Router::default(), queue());
    let options = SubscriptionOptions::with_qos(QoS::AtLeastOnce);
    for id in 0..100_000 {
        subscribe(&mut router, &format!("site/{}/pump/{}", id % 1000, id / 1000), id, &queue, options, None);
    }
    for (id, filter) in (200_000..).zip(["site/+/pump/7", "site/#", "+/5/+/7", "#", "site/5/+/+"]) {
        (0..20).for_each(|more| subscribe(&mut router, filter, id + more * 10, &queue, options, None));
    }
    let (topic, payload, properties) = (&Text::from("site/5/pump/7"), &Bytes::new(), &Properties::default());
    let qos = QoS::AtLeastOnce;
    let message = Arc::new(Message::new(Incoming { topic, payload, qos, retain: false, properties }, Timestamp::ZERO));
    let name = TopicName::parse("site/5/pump/7").expect("a name");
    let look = || router.route(name, None, |_| true, || message.clone(), |_, _| {});
    assert_eq!(look(), 101);
    let counted = allocation_counter::measure(|| assert_eq!(look(), 101));
    assert_eq!(counted.count_total, 0);
}
