//! The end of a connection: what others must hear of it, and what its peer may still read.

use std::future::poll_fn;
use std::task::Poll;

use tokio::time::timeout;

use super::connection::{Client, Connection, Course};
use crate::Broker;
use crate::doors::{BrokerEvent, Identity, Outcome};

impl Connection {
    pub(super) async fn finish(mut self: Box<Self>) {
        let now = self.broker.clock().now();
        self.now = now;
        self.transmit(now);
        if self.wire.is_abandoned() {
            self.wire.abandon();
        }
        // What the peer takes at once it has before anybody is waited for: a DISCONNECT, mostly.
        poll_fn(|cx| {
            let _ = self.wire.poll_write(cx, now);
            Poll::Ready(())
        })
        .await;
        self.settle_subscribers().await;
        let unsent = self.mailbox.close();
        self.take_events();
        self.tell_end();
        self.broker.count(&mut self.tally);
        let device = self.device();
        let Self { broker, mailbox, session, client, arrears, inward, hold, course, mut wire, identity, .. } = *self;
        let mut inward = hold.into_inward(inward);
        if let Client::Admitted { queue, .. } = &client {
            queue.detach();
        }
        let mut remains = session.finish();
        if let Some(remains) = &mut remains {
            remains.resumable.owed = arrears;
        }
        if let Some(device) = device {
            let in_flight = remains.iter().flat_map(|remains| remains.lost.iter().copied());
            let unsent = unsent.into_iter().map(|downlink| downlink.ticket);
            let outcome = Outcome::Lost;
            let lost = in_flight.chain(unsent).map(|ticket| BrokerEvent::Published { device, ticket, outcome });
            inward.extend(lost);
            inward.push(BrokerEvent::Disconnected { device, connection: mailbox.id() });
        }
        offer_all(&broker, inward).await;
        if let (Client::Admitted { key, subscriber, queue, .. }, Some(remains)) = (client, remains) {
            broker.release(&key, subscriber, queue, remains, course == Course::Revoked, true);
        }
        if let Identity::Device(certificate) = &identity {
            broker.unregister_device(&certificate.device, mailbox.id());
        }
        mailbox.end();
        if wire.is_abandoned() {
            return;
        }
        let limits = broker.limits();
        let flush = poll_fn(|cx| match wire.poll_write(cx, now) {
            Poll::Ready(Ok(_)) if wire.has_output() => Poll::Pending,
            Poll::Ready(Ok(_)) => wire.poll_shutdown(cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        });
        if let Ok(Ok(())) = timeout(limits.slow_client(), flush).await {
            // A close with unread input would be a reset, and take the DISCONNECT with it.
            let _ = timeout(limits.linger(), poll_fn(|cx| wire.poll_discard(cx))).await;
        }
    }
}

impl Connection {
    /// What was acknowledged and waits for a subscriber's room must not be lost with the publisher:
    /// ends when it is taken, or when the subscriber is found to be slow.
    async fn settle_subscribers(&mut self) {
        let limits = self.broker.limits();
        // Longer than any queue is waited for, unless our own scheduling fails.
        let give_up = self.broker.clock().now().saturating_add(limits.slow_client());
        loop {
            let now = self.broker.clock().now();
            if self.hold.retry_subscribers(&self.mailbox, &self.broker, now) || now >= give_up {
                return;
            }
            let Some(retry_at) = self.hold.deadline() else { return };
            let _ = timeout(retry_at.min(give_up).saturating_since(now), self.mailbox.arrived()).await;
        }
    }
}

/// Hands over events that must not be lost, however long it takes.
async fn offer_all(broker: &Broker, mut events: Vec<BrokerEvent>) {
    while let Some(device) = events.first().map(|event| *event.device()) {
        match broker.inlet().offer(events) {
            Ok(()) => return,
            Err(back) => {
                events = back;
                broker.inlet().room(&device).await;
            }
        }
    }
}
