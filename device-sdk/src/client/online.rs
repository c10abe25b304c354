//! A connection the server has taken: its limits, its Keep Alive, its subscription.

use core::time::Duration;

use unhidra_core::time::Timestamp;

use super::ClientOptions;
use super::decode::{Connack, DecodeError};
use super::ended::Ended;
use super::reason::ReasonCode;

pub(super) struct Online {
    pub(super) in_flight_max: usize,
    pub(super) packet_len_max: usize,
    /// Silence after which PINGREQ is due; `None` without Keep Alive.
    ping_after: Option<Duration>,
    response_timeout: Duration,
    last_sent_at: Timestamp,
    last_received_at: Timestamp,
    ping: Ping,
    subscription: Subscription,
}

#[derive(Clone, Copy)]
enum Ping {
    Idle,
    /// PINGREQ waits behind the packet that has begun, which a dead link never lets end.
    Due {
        deadline: Timestamp,
    },
    Sent {
        deadline: Timestamp,
    },
}

#[derive(Clone, Copy)]
enum Subscription {
    None,
    Asked { packet_id: u16, count: usize, deadline: Timestamp },
}

impl Online {
    /// As CONNACK says, and as CONNECT asked where it says nothing.
    pub(super) fn new(connack: &Connack, options: &ClientOptions, now: Timestamp) -> Self {
        let keep_alive_s = connack.keep_alive_s.unwrap_or(options.keep_alive_s);
        // PINGREQ leaves after three quarters of it, so that a slow network breaks no promise.
        let ping_after = (keep_alive_s > 0).then(|| Duration::from_millis(u64::from(keep_alive_s) * 750));
        Self {
            in_flight_max: usize::from(connack.receive_max),
            packet_len_max: usize::try_from(connack.packet_len_max).unwrap_or(usize::MAX),
            ping_after,
            response_timeout: options.response_timeout,
            last_sent_at: now,
            last_received_at: now,
            ping: Ping::Idle,
            subscription: Subscription::None,
        }
    }

    /// Bytes have left. A link that is slow but takes them is not dead: PINGREQ may wait on.
    pub(super) fn sent(&mut self, now: Timestamp) {
        self.last_sent_at = now;
        if let Ping::Due { deadline } = &mut self.ping {
            *deadline = now.saturating_add(self.response_timeout);
        }
    }

    pub(super) fn received(&mut self, now: Timestamp) {
        self.last_received_at = now;
    }

    /// Whether PINGREQ is due; if so, it leaves now and its answer is due in turn.
    pub(super) fn take_ping(&mut self, now: Timestamp) -> bool {
        let due = matches!(self.ping, Ping::Due { .. });
        if due {
            self.ping = Ping::Sent { deadline: now.saturating_add(self.response_timeout) };
        }
        due
    }

    pub(super) fn pong(&mut self) -> Result<(), Ended> {
        match self.ping {
            Ping::Sent { .. } => {
                self.ping = Ping::Idle;
                Ok(())
            }
            Ping::Idle | Ping::Due { .. } => Err(Ended::OutOfTurn),
        }
    }

    pub(super) fn subscribe(&mut self, packet_id: u16, count: usize, now: Timestamp) {
        let deadline = now.saturating_add(self.response_timeout);
        self.subscription = Subscription::Asked { packet_id, count, deadline };
    }

    /// SUBACK: all that was asked for is granted, or the connection is of no use.
    pub(super) fn subscribed(&mut self, packet_id: u16, reasons: &[u8]) -> Result<(), Ended> {
        match self.subscription {
            Subscription::Asked { packet_id: asked, count, .. } if asked == packet_id => {
                if reasons.len() != count {
                    return Err(Ended::Malformed(DecodeError::Trailing));
                }
                if let Some(refused) = reasons.iter().map(|code| ReasonCode(*code)).find(|code| code.is_failure()) {
                    return Err(Ended::SubscriptionRefused(refused));
                }
                self.subscription = Subscription::None;
                Ok(())
            }
            Subscription::Asked { .. } | Subscription::None => Err(Ended::UnknownPacketId(packet_id)),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let ping = match self.ping {
            Ping::Idle => self.ping_at(),
            Ping::Due { deadline } | Ping::Sent { deadline } => Some(deadline),
        };
        [ping, self.subscription_deadline()].into_iter().flatten().min()
    }

    /// Whether an answer is overdue, or a PINGREQ that cannot leave. Makes one due where it is time.
    pub(super) fn is_overdue(&mut self, now: Timestamp) -> bool {
        if matches!(self.ping, Ping::Idle) && self.ping_at().is_some_and(|at| now >= at) {
            self.ping = Ping::Due { deadline: now.saturating_add(self.response_timeout) };
        }
        let ping = matches!(self.ping, Ping::Due { deadline } | Ping::Sent { deadline } if now >= deadline);
        ping || self.subscription_deadline().is_some_and(|deadline| now >= deadline)
    }

    fn subscription_deadline(&self) -> Option<Timestamp> {
        match self.subscription {
            Subscription::None => None,
            Subscription::Asked { deadline, .. } => Some(deadline),
        }
    }

    /// When PINGREQ is due: after silence of either side, since a server that is gone is noticed
    /// by what it does not answer.
    fn ping_at(&self) -> Option<Timestamp> {
        let quiet_since = self.last_sent_at.min(self.last_received_at);
        self.ping_after.map(|after| quiet_since.saturating_add(after))
    }
}
