//! MQTT 5.0.

use bytes::Bytes;
use rumqttc::mqttbytes::QoS;
use rumqttc::{
    AckMode, AsyncClient, Event, EventLoop, ManualAck, MqttOptions, Packet, PersistedAckMode, PersistedSession, PubAck,
    PubAckReason, PublishNoticeError, PublishOptions, RetainForwardRule, SessionStore, SessionStoreError,
    SessionStoreKey, SubscribeFilterInput, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use unhidra_bridge::upstream::Answered;
use unhidra_core::delivery::{Answer, Refusal};
use unhidra_store::BoxFuture;

use super::{Dialled, Message, Receipt, Said, Stuck, Terms};
use crate::upstream::dial::Wire;

/// What is said.
pub(in crate::upstream) struct Client(AsyncClient);

pub(super) fn begin(
    terms: &Terms,
    stream: Box<dyn Wire>,
    said: mpsc::Sender<Said>,
) -> (Client, BoxFuture<'static, String>) {
    let mut options = MqttOptions::new(terms.client_id.clone(), ("outside", 1));
    options
        .set_keep_alive(terms.keep_alive_s)
        .set_clean_start(false)
        .set_session_expiry_interval(Some(terms.session_expiry_s))
        .set_receive_maximum(Some(terms.receive_max))
        .set_max_packet_size(Some(terms.packet_bytes_max))
        .set_connect_timeout(terms.connect_timeout)
        .set_outgoing_inflight_upper_limit(terms.in_flight_max())
        .set_ack_mode(AckMode::Manual)
        .set_session_store(NothingOnItsWay { in_flight_max: terms.in_flight_max() });
    if let Some((user, password)) = &terms.credentials {
        options.set_credentials(user.clone(), password.clone());
    }
    let dialled = Dialled::new(stream);
    options.set_socket_connector(move |_, _| {
        let stream = dialled.take();
        async move { stream }
    });
    let (client, events) = AsyncClient::builder(options).capacity(terms.requests_max()).build();
    (Client(client), Box::pin(drive(events, said)))
}

async fn drive(mut events: EventLoop, said: mpsc::Sender<Said>) -> String {
    loop {
        let heard = match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(ack))) => Said::Connected { resumed: ack.session_present },
            Ok(Event::Incoming(Packet::SubAck(ack))) => {
                let granted = |code: &SubscribeReasonCode| {
                    matches!(code, SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce))
                };
                Said::Subscribed { granted: ack.return_codes.iter().all(granted) }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => match publish.qos {
                QoS::ExactlyOnce => Said::Violation("it sends QoS 2, which was not asked for"),
                qos => Said::Message(Message {
                    packet_id: (qos == QoS::AtLeastOnce).then_some(publish.pkid),
                    topic: publish.topic,
                    payload: publish.payload,
                    retain: publish.retain,
                }),
            },
            Ok(_) => continue,
            Err(error) => return error.to_string(),
        };
        if said.send(heard).await.is_err() {
            return "the node has let go of the connection".to_owned();
        }
    }
}

impl Client {
    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), Stuck> {
        // A retained message is older than this node's wish to hear it: a repeat at best.
        let filter = |filter: &String| {
            SubscribeFilterInput::new(filter.clone(), QoS::AtLeastOnce)
                .preserve_retain(true)
                .retain_forward_rule(RetainForwardRule::Never)
        };
        self.0.try_subscribe_many(filters.iter().map(filter)).map_err(|_| Stuck)
    }

    pub(super) fn acknowledge(&self, answered: Answered) -> Result<(), Stuck> {
        let mut ack = PubAck::new(answered.packet_id, None);
        ack.reason = match answered.answer {
            Answer::Accepted => PubAckReason::Success,
            Answer::Refused(Refusal::DoesNotOpen) => PubAckReason::ImplementationSpecificError,
            Answer::Refused(Refusal::NotAuthorized) => PubAckReason::NotAuthorized,
            Answer::Refused(Refusal::QuotaExceeded) => PubAckReason::QuotaExceeded,
            // It is to come again: whoever asks lets go of the connection.
            Answer::Retry => return Ok(()),
        };
        self.0.try_manual_ack(ManualAck::PubAck(ack)).map_err(|_| Stuck)
    }

    pub(super) fn publish(&self, topic: String, payload: Bytes) -> Result<BoxFuture<'static, Receipt>, Stuck> {
        let notice = self.0.try_publish_tracked(topic, payload, PublishOptions::at_least_once()).map_err(|_| Stuck)?;
        Ok(Box::pin(async move {
            match notice.wait_async().await {
                Ok(_) => Receipt::Taken,
                Err(PublishNoticeError::V5PubAck(_)) => Receipt::Refused,
                Err(_) => Receipt::Lost,
            }
        }))
    }

    pub(super) fn disconnect(&self) {
        // Where even this does not fit, the end of the stream says it.
        let _ = self.0.try_disconnect_now();
    }
}

/// The session as this side has it when a connection begins: nothing on its way.
#[derive(Debug)]
struct NothingOnItsWay {
    in_flight_max: u16,
}

impl SessionStore for NothingOnItsWay {
    fn load<'a>(
        &'a self,
        key: &'a SessionStoreKey,
    ) -> BoxFuture<'a, Result<Option<PersistedSession>, SessionStoreError>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: None,
            outgoing_inflight_upper_limit: Some(self.in_flight_max),
            ack_mode: PersistedAckMode::Manual,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async { Ok(Some(session)) })
    }

    fn save<'a>(
        &'a self,
        _: &'a SessionStoreKey,
        _: &'a PersistedSession,
    ) -> BoxFuture<'a, Result<(), SessionStoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> BoxFuture<'a, Result<(), SessionStoreError>> {
        Box::pin(async { Ok(()) })
    }
}
