//! What the limits may be: a bound that stops every device is no bound.

use std::fmt;

use thiserror::Error;
use unhidra_core::ids::DEVICE_ID_LEN_MAX;

use super::{Config, Limits, Prefix};

/// A CONNECT with a Will, and the first message of a device, which has keys of ML-KEM-768 in it.
const PACKET_BYTES_MIN: u64 = 4_096;

/// The longest string of MQTT (section 1.5.4).
const TOPIC_BYTES_MAX: u64 = 65_535;

/// The tree of filters is as deep as this, and is walked and let go of by functions that call themselves.
const TOPIC_LEVELS_MAX: u64 = 1_024;

/// A limit out of its bounds.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub struct LimitError {
    /// Which, below `broker.limits`.
    pub key: &'static str,
    /// What it is set to.
    pub found: u64,
    /// The least it may be.
    pub min: u64,
    /// The most it may be, where there is a bound.
    pub max: Option<u64>,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, found, min, max } = self;
        write!(f, "broker.limits.{key} is {found}; ")?;
        match max {
            Some(max) => write!(f, "{min} to {max} are allowed"),
            None => write!(f, "{min} or more is allowed"),
        }
    }
}

impl Config {
    /// Holds the limits to their bounds.
    ///
    /// # Errors
    ///
    /// [`LimitError`] names the first one out of them.
    pub fn check(&self) -> Result<(), LimitError> {
        self.limits.check(&self.prefix)
    }
}

impl Limits {
    fn check(&self, prefix: &Prefix) -> Result<(), LimitError> {
        // The longest topic a device needs: {p}/devices/{id}/prekeys/get.
        let prefix = prefix.as_str();
        let topic_bytes = prefix.len() + "/devices/".len() + DEVICE_ID_LEN_MAX + "/prekeys/get".len();
        let topic_levels = prefix.split('/').count() + 4;
        // Named all of them, so that a new one is thought of here. Those without a line may be 0.
        let Self {
            connections_max,
            connections_per_device,
            sessions_max,
            connect_timeout_s,
            keep_alive_max_s,
            // No session outlives its connection.
            session_expiry_max_s: _,
            packet_bytes_max,
            topic_bytes_max,
            topic_levels_max,
            // No aliases.
            topic_aliases_max: _,
            receive_max,
            in_flight_max,
            // Nobody subscribes, but devices to their own rows.
            subscriptions_per_session: _,
            queue_messages_max,
            queue_bytes_max,
            queue_policy: _,
            // No publisher waits for a full queue.
            queue_patience_ms: _,
            queue_qos0: _,
            // Nothing is retained.
            retained_messages_max: _,
            retained_bytes_max: _,
            downlinks_max,
            output_bytes_max,
            slow_client_s,
            // A connection is closed whether its peer has read why or not.
            linger_ms: _,
        } = *self;
        let bounds = [
            ("connections_max", connections_max as u64, 1, None),
            ("connections_per_device", connections_per_device as u64, 1, None),
            ("sessions_max", sessions_max as u64, 1, None),
            ("connect_timeout_s", connect_timeout_s, 1, None),
            // A Keep Alive that is cut to 0 is none: nobody who fell silent would ever be missed.
            ("keep_alive_max_s", keep_alive_max_s.into(), 1, Some(u16::MAX.into())),
            ("packet_bytes_max", packet_bytes_max as u64, PACKET_BYTES_MIN, None),
            ("topic_bytes_max", topic_bytes_max as u64, topic_bytes as u64, Some(TOPIC_BYTES_MAX)),
            ("topic_levels_max", topic_levels_max as u64, topic_levels as u64, Some(TOPIC_LEVELS_MAX)),
            // A protocol error in CONNACK (section 3.2.2.3.3).
            ("receive_max", receive_max.into(), 1, Some(u16::MAX.into())),
            ("in_flight_max", in_flight_max.into(), 1, Some(u16::MAX.into())),
            ("queue_messages_max", queue_messages_max as u64, 1, None),
            ("queue_bytes_max", queue_bytes_max as u64, 1, None),
            ("downlinks_max", downlinks_max as u64, 1, None),
            ("output_bytes_max", output_bytes_max as u64, 1, None),
            ("slow_client_s", slow_client_s, 1, None),
        ];
        let is_out = |found: u64, min: u64, max: Option<u64>| found < min || max.is_some_and(|max| found > max);
        match bounds.into_iter().find(|(_, found, min, max)| is_out(*found, *min, *max)) {
            Some((key, found, min, max)) => Err(LimitError { key, found, min, max }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::limits;
    use super::*;

    fn checked(change: impl FnOnce(&mut Limits)) -> Option<String> {
        let mut limits = limits();
        change(&mut limits);
        limits.check(&"site/north-1".parse().unwrap()).err().map(|error| error.to_string())
    }

    #[test]
    fn a_limit_that_would_stop_every_device_is_refused() {
        type Change = fn(&mut Limits);
        let changes: [(Change, &str); 19] = [
            (|limits| limits.connections_max = 0, "connections_max is 0; 1 or more is allowed"),
            (|limits| limits.connections_per_device = 0, "connections_per_device is 0; 1 or more is allowed"),
            (|limits| limits.sessions_max = 0, "sessions_max is 0; 1 or more is allowed"),
            (|limits| limits.connect_timeout_s = 0, "connect_timeout_s is 0; 1 or more is allowed"),
            (|limits| limits.keep_alive_max_s = 0, "keep_alive_max_s is 0; 1 to 65535 are allowed"),
            (|limits| limits.packet_bytes_max = 0, "packet_bytes_max is 0; 4096 or more is allowed"),
            (|limits| limits.packet_bytes_max = 4_095, "packet_bytes_max is 4095; 4096 or more is allowed"),
            (|limits| limits.topic_bytes_max = 0, "topic_bytes_max is 0; 97 to 65535 are allowed"),
            (|limits| limits.topic_bytes_max = 96, "topic_bytes_max is 96; 97 to 65535 are allowed"),
            (|limits| limits.topic_bytes_max = 65_536, "topic_bytes_max is 65536; 97 to 65535 are allowed"),
            (|limits| limits.topic_levels_max = 5, "topic_levels_max is 5; 6 to 1024 are allowed"),
            (|limits| limits.topic_levels_max = 1_025, "topic_levels_max is 1025; 6 to 1024 are allowed"),
            (|limits| limits.receive_max = 0, "receive_max is 0; 1 to 65535 are allowed"),
            (|limits| limits.in_flight_max = 0, "in_flight_max is 0; 1 to 65535 are allowed"),
            (|limits| limits.queue_messages_max = 0, "queue_messages_max is 0; 1 or more is allowed"),
            (|limits| limits.queue_bytes_max = 0, "queue_bytes_max is 0; 1 or more is allowed"),
            (|limits| limits.downlinks_max = 0, "downlinks_max is 0; 1 or more is allowed"),
            (|limits| limits.output_bytes_max = 0, "output_bytes_max is 0; 1 or more is allowed"),
            (|limits| limits.slow_client_s = 0, "slow_client_s is 0; 1 or more is allowed"),
        ];
        assert_eq!(checked(|_| ()), None);
        for (change, said) in changes {
            assert_eq!(checked(change), Some(format!("broker.limits.{said}")));
        }
    }

    #[test]
    fn a_limit_may_be_0_where_that_turns_something_off_and_as_large_as_its_type() {
        let off = |limits: &mut Limits| {
            limits.session_expiry_max_s = 0;
            limits.topic_aliases_max = 0;
            limits.subscriptions_per_session = 0;
            limits.queue_patience_ms = 0;
            limits.retained_messages_max = 0;
            limits.retained_bytes_max = 0;
            limits.linger_ms = 0;
        };
        assert_eq!(checked(off), None);
        let most = |limits: &mut Limits| {
            limits.connections_max = usize::MAX;
            limits.packet_bytes_max = usize::MAX;
            limits.queue_bytes_max = usize::MAX;
            limits.slow_client_s = u64::MAX;
        };
        assert_eq!(checked(most), None);
    }

    #[test]
    fn the_topic_of_the_longest_device_has_room_at_the_least() {
        let (prefix, device) = ("site/north-1", "d".repeat(DEVICE_ID_LEN_MAX));
        let topic = format!("{prefix}/devices/{device}/prekeys/get");
        let fits = |limits: &mut Limits| {
            limits.topic_bytes_max = topic.len();
            limits.topic_levels_max = topic.split('/').count();
        };
        assert_eq!(checked(fits), None);
        let too_few = checked(|limits| limits.topic_bytes_max = topic.len() - 1);
        assert!(too_few.is_some_and(|said| said.contains("topic_bytes_max")));
    }
}
