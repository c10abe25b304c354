//! What the broker says of itself, at intervals: `$SYS`, and the metrics that are looked up.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::yield_now;
use tokio::time::sleep;
use unhidra_core::time::Timestamp;
use unhidra_core::topic::TopicName;

use crate::Broker;
use crate::clients::record;
use crate::packet::{Properties, QoS, Text};
use crate::persist::Storing;
use crate::router::message::{Incoming, Message};
use crate::session::table::Seen;
use crate::sys::{Present, Sys};

/// How often the metrics are looked up where `$SYS` is off.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);

impl Broker {
    /// Says what there is, once at the start and then at each interval, for ever. Run it once.
    pub async fn report(&self) {
        let mut sys = Sys::new(self.clock().now());
        loop {
            let present = self.present().await;
            self.metrics().show(&present);
            if let Some(interval) = self.sys_interval {
                let now = self.clock().now();
                for (topic, value) in sys.update(self.metrics().totals(), &present, now) {
                    self.say(&topic, value, now);
                }
                sleep(interval).await;
            } else {
                sleep(METRICS_INTERVAL).await;
            }
        }
    }

    /// Counts what there is, a page of sessions at a time, so that it holds up nobody.
    async fn present(&self) -> Present {
        let (subscriptions, shared_subscriptions) = self.subscriptions();
        let (retained, retained_bytes) = self.retained().size();
        let mut present =
            Present { subscriptions, shared_subscriptions, retained, retained_bytes, ..Present::default() };
        let mut after = None;
        loop {
            let page = self.sessions().page(after.as_ref(), crate::clients::PASSED_MAX);
            for (key, seen) in &page {
                let found = record(key, seen, self.clock().now(), self.clock().unix_now());
                match seen {
                    Seen::Live(_) => present.connected += 1,
                    Seen::Stored { .. } => present.disconnected += 1,
                }
                present.queued += found.queued_messages;
                present.queued_bytes += found.queued_bytes;
                present.in_flight += found.in_flight;
            }
            after = page.into_iter().last().map(|(key, _)| key);
            if after.is_none() {
                return present;
            }
            yield_now().await;
        }
    }

    fn subscriptions(&self) -> (usize, usize) {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        (router.len(), router.shared_len())
    }

    /// Says one value: to those who listen, at QoS 0 so that it waits for nobody who is away, and
    /// to those who will.
    fn say(&self, topic: &str, value: String, now: Timestamp) {
        let Ok(name) = TopicName::parse(topic) else { return };
        let (text, payload, properties) =
            (Text::from_checked(topic.to_owned()), Bytes::from(value), Properties::default());
        let incoming =
            Incoming { topic: &text, payload: &payload, qos: QoS::AtMostOnce, retain: true, properties: &properties };
        let message = Arc::new(Message::new(incoming, now));
        self.sys().put(&message);
        // At QoS 0 nothing of it is kept.
        let mut storing = Storing::default();
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        router.route(
            name,
            None,
            |who| self.rules().acl.may_read(who, name),
            || message,
            |queue, queued| {
                // Without a sender nothing is given back.
                self.push(queue, queued, None, now, &mut storing);
            },
        );
    }
}
