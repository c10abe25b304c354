//! MQTT 3.1.1.

use rumqttc_v4 as mqtt;

use super::version::one_version;

one_version!(mqtt);

/// The longest packet of ours: a command's body is at most 60 000 bytes, and its topic a few hundred.
const PACKET_LEN_MAX: usize = 128 * 1024;

fn options(terms: &Terms) -> mqtt::MqttOptions {
    let mut options = mqtt::MqttOptions::new(terms.client_id.clone(), NOWHERE);
    options
        .set_clean_session(false)
        .set_max_packet_size(usize::try_from(terms.packet_bytes_max).unwrap_or(usize::MAX), PACKET_LEN_MAX)
        .set_inflight(terms.in_flight_max());
    options
}

/// It has no word for it.
const fn packet_max(_: &mqtt::ConnAck) -> usize {
    usize::MAX
}

fn filter(filter: &str) -> mqtt::SubscribeFilter {
    mqtt::SubscribeFilter::new(filter.to_owned(), QoS::AtLeastOnce)
}

/// It has no reason: what is at fault is acknowledged like the rest, or it would come for ever.
fn puback(answered: Answered) -> Option<mqtt::PubAck> {
    (answered.answer != Answer::Retry).then(|| mqtt::PubAck::new(answered.packet_id))
}

/// It has no reason either: what it takes and has nobody to give it to is gone.
const fn receipt(_: &mqtt::PublishResult) -> Receipt {
    Receipt::Taken
}

/// It closes the connection without a word.
const fn is_taken_over(_: &mqtt::ConnectionError) -> bool {
    false
}

fn nothing_on_its_way(client_id: &str, in_flight_max: u16) -> mqtt::PersistedSession {
    mqtt::PersistedSession {
        format_version: 1,
        client_id: client_id.to_owned(),
        clean_session: false,
        max_inflight: in_flight_max,
        ack_mode: mqtt::PersistedAckMode::Manual,
        last_pkid: 0,
        last_puback: 0,
        replay: Vec::new(),
        incoming_qos2: Vec::new(),
    }
}
