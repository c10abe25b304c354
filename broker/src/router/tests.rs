use super::*;
use crate::packet::{Properties, RetainHandling, Text};
use bytes::Bytes;
use message::Incoming;
use unhidra_core::time::Timestamp;

fn subscribe(
    router: &mut Router,
    filter: &str,
    id: u64,
    queue: &Arc<Queue>,
    options: SubscriptionOptions,
    n: Option<u32>,
) {
    let filter = TopicFilter::parse(filter).expect("a filter");
    router.subscribe(filter, SubscriberId(id), queue.clone(), Subscription { options, identifier: n });
}

fn route(router: &Router, topic: &'static str, qos: QoS, retain: bool, from: Option<u64>) -> Vec<Queued> {
    let name = TopicName::parse(topic).expect("a name");
    let mut given = Vec::new();
    let make = || {
        let (topic, payload, properties) = (&Text::from(topic), &Bytes::new(), &Properties::default());
        Arc::new(Message::new(Incoming { topic, payload, qos, retain, properties }, Timestamp::ZERO))
    };
    let count = router.route(name, from.map(SubscriberId), make, |_, queued| given.push(queued));
    assert_eq!(count, given.len());
    given
}

#[test]
fn overlapping_subscriptions_deliver_once_with_the_highest_qos_and_all_identifiers() {
    let (mut router, queue) = (Router::default(), Arc::new(Queue::new(9, 9000)));
    let with = SubscriptionOptions::with_qos;
    subscribe(&mut router, "a/#", 1, &queue, with(QoS::AtMostOnce), Some(7));
    subscribe(&mut router, "a/+", 1, &queue, with(QoS::AtLeastOnce), Some(8));
    subscribe(&mut router, "b", 1, &queue, with(QoS::AtLeastOnce), Some(9));
    subscribe(&mut router, "a/b", 2, &queue, with(QoS::AtMostOnce), None);
    let given = route(&router, "a/b", QoS::AtLeastOnce, false, None);
    let seen: Vec<_> = given.iter().map(|q| (q.qos, q.identifiers.clone())).collect();
    assert_eq!(seen, [(QoS::AtLeastOnce, vec![7, 8]), (QoS::AtMostOnce, vec![])]);
    assert!(Arc::ptr_eq(&given[0].message, &given[1].message), "one message for all");
}

#[test]
fn qos_is_the_lower_of_publish_and_subscription() {
    let (mut router, queue) = (Router::default(), Arc::new(Queue::new(9, 9000)));
    subscribe(&mut router, "a", 1, &queue, SubscriptionOptions::with_qos(QoS::AtLeastOnce), None);
    assert_eq!(route(&router, "a", QoS::AtMostOnce, false, None)[0].qos, QoS::AtMostOnce);
    assert_eq!(route(&router, "a", QoS::AtLeastOnce, false, None)[0].qos, QoS::AtLeastOnce);
}

#[test]
fn no_local_leaves_out_the_publisher_and_retain_as_published_keeps_the_flag() {
    let (mut router, queue) = (Router::default(), Arc::new(Queue::new(9, 9000)));
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
    let (mut router, queue) = (Router::default(), Arc::new(Queue::new(9, 9000)));
    subscribe(&mut router, "a", 1, &queue, SubscriptionOptions::with_qos(QoS::AtMostOnce), Some(1));
    subscribe(&mut router, "a", 1, &queue, SubscriptionOptions::with_qos(QoS::AtLeastOnce), Some(2));
    let given = route(&router, "a", QoS::AtLeastOnce, false, None);
    assert_eq!((given.len(), given[0].qos, given[0].identifiers.clone()), (1, QoS::AtLeastOnce, vec![2]));
    router.unsubscribe(TopicFilter::parse("a").expect("a filter"), SubscriberId(1));
    assert!(route(&router, "a", QoS::AtLeastOnce, false, None).is_empty() && router.len() == 0);
}
