//! MQTT 5.0.

use rumqttc as mqtt;
use rumqttc::{PubAckReason, RetainForwardRule, SubscribeFilterInput};
use unhidra_core::delivery::Refusal;

use super::version::one_version;

one_version!(mqtt);

fn options(terms: &Terms) -> mqtt::MqttOptions {
    let mut options = mqtt::MqttOptions::new(terms.client_id.clone(), NOWHERE);
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(terms.session_expiry_s))
        .set_receive_maximum(Some(terms.receive_max))
        .set_max_packet_size(Some(terms.packet_bytes_max))
        .set_connect_timeout(terms.connect_timeout)
        .set_outgoing_inflight_upper_limit(terms.in_flight_max());
    options
}

/// Maximum Packet Size (section 3.2.2.3.6).
fn packet_max(ack: &mqtt::ConnAck) -> usize {
    let told = ack.properties.as_ref().and_then(|properties| properties.max_packet_size);
    told.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX)
}

/// A retained message is older than this node's wish to hear it: a repeat at best.
fn filter(filter: &str) -> SubscribeFilterInput {
    SubscribeFilterInput::new(filter.to_owned(), QoS::AtLeastOnce)
        .preserve_retain(true)
        .retain_forward_rule(RetainForwardRule::Never)
}

fn puback(answered: Answered) -> Option<mqtt::PubAck> {
    let mut ack = mqtt::PubAck::new(answered.packet_id, None);
    ack.reason = match answered.answer {
        Answer::Accepted => PubAckReason::Success,
        Answer::Refused(Refusal::DoesNotOpen) => PubAckReason::ImplementationSpecificError,
        Answer::Refused(Refusal::NotAuthorized) => PubAckReason::NotAuthorized,
        Answer::Refused(Refusal::QuotaExceeded) => PubAckReason::QuotaExceeded,
        Answer::Retry => return None,
    };
    Some(ack)
}

/// The library gives every PUBACK as it came. Of one with a reason from 0x80 on the broker has not taken the message;
/// with 0x10 it has nobody to give it to, and drops it (section 3.4.2.1).
fn receipt(answered: &mqtt::PublishResult) -> Receipt {
    match answered {
        mqtt::PublishResult::Qos1(puback) if puback.reason != PubAckReason::Success => Receipt::Refused,
        _ => Receipt::Taken,
    }
}

/// DISCONNECT with reason 0x8E (section 3.14.2.1).
const fn is_taken_over(error: &mqtt::ConnectionError) -> bool {
    use mqtt::{ConnectionError, DisconnectReasonCode, StateError};
    matches!(
        error,
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        })
    )
}

fn nothing_on_its_way(client_id: &str, in_flight_max: u16) -> mqtt::PersistedSession {
    mqtt::PersistedSession {
        format_version: 1,
        client_id: client_id.to_owned(),
        clean_start: false,
        session_expiry_interval: None,
        outgoing_inflight_upper_limit: Some(in_flight_max),
        ack_mode: mqtt::PersistedAckMode::Manual,
        last_pkid: 0,
        last_puback: 0,
        replay: Vec::new(),
        incoming_qos2: Vec::new(),
    }
}
