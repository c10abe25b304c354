//! What both versions have in common. The library has a crate for each, with the same names and other
//! types under them, so this is written once and made twice.

/// Makes the client of one version in the module where it stands, over the library's crate `$mqtt`. The
/// module says itself, in six functions, where its version is another: `options`, `filter`, `puback`
/// (`None`: it is to come again, and whoever asks lets go of the connection), `receipt` of a PUBACK,
/// `nothing_on_its_way`, the session as this side has it when a connection begins, and
/// `is_taken_over`, whether the broker has said so.
macro_rules! one_version {
    ($mqtt:ident) => {
        use bytes::Bytes;
        use tokio::sync::mpsc;
        use unhidra_bridge::upstream::Answered;
        use unhidra_core::delivery::Answer;
        use unhidra_store::BoxFuture;
        use $mqtt::mqttbytes::QoS;

        use super::{Dialled, Ended, Message, NOWHERE, Receipt, Said, Stuck, Terms};
        use crate::upstream::dial::Wire;

        /// What is said.
        pub(in crate::upstream) struct Client($mqtt::AsyncClient);

        pub(super) fn begin(
            terms: &Terms,
            stream: Box<dyn Wire>,
            said: mpsc::Sender<Said>,
        ) -> (Client, BoxFuture<'static, Ended>) {
            let mut options = options(terms);
            options
                .set_keep_alive(terms.keep_alive_s)
                .set_ack_mode($mqtt::AckMode::Manual)
                .set_session_store(NothingOnItsWay { in_flight_max: terms.in_flight_max() });
            if let Some((user, password)) = &terms.credentials {
                options.set_credentials(user.clone(), password.clone());
            }
            let dialled = Dialled::new(stream);
            options.set_socket_connector(move |_, _| {
                let stream = dialled.take();
                async move { stream }
            });
            let (client, events) = $mqtt::AsyncClient::builder(options).capacity(terms.requests_max()).build();
            (Client(client), Box::pin(drive(events, said)))
        }

        async fn drive(mut events: $mqtt::EventLoop, said: mpsc::Sender<Said>) -> Ended {
            use $mqtt::{Event, Packet};
            loop {
                let heard = match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(ack))) => {
                        Said::Connected { resumed: ack.session_present, packet_max: packet_max(&ack) }
                    }
                    Ok(Event::Incoming(Packet::SubAck(ack))) => {
                        let granted = |code: &$mqtt::SubscribeReasonCode| {
                            matches!(code, $mqtt::SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce))
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
                    Err(error) => return Ended { cause: why(&error), taken_over: is_taken_over(&error) },
                };
                if said.send(heard).await.is_err() {
                    return "the node has let go of the connection".to_owned().into();
                }
            }
        }

        /// Why a connection ended, and where it can be said what to do about it.
        pub(crate) fn why(error: &$mqtt::ConnectionError) -> String {
            use $mqtt::{ConnectReturnCode, ConnectionError, StateError};
            match error {
                ConnectionError::ConnectionRefused(
                    code @ (ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized),
                ) => format!(
                    "it does not let the node in ({code:?}): `user` and `password_file` are not what it expects"
                ),
                ConnectionError::ConnectionRefused(code) => format!("it does not let the node in ({code:?})"),
                ConnectionError::Io(cause)
                | ConnectionError::MqttState(
                    StateError::Io(cause) | StateError::Deserialization($mqtt::mqttbytes::Error::Io(cause)),
                ) => crate::dial::explained(cause),
                ConnectionError::MqttState(StateError::AwaitPingResp) => {
                    "it has not answered a ping within `keep_alive_s`: nobody is behind the connection".to_owned()
                }
                error if is_taken_over(error) => {
                    "another client has come to it with this Client Identifier and has the session now".to_owned()
                }
                error => error.to_string(),
            }
        }

        impl Client {
            pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), Stuck> {
                let filters = filters.iter().map(|name| filter(name));
                self.0.try_subscribe_many(filters).map_err(|_| Stuck)
            }

            pub(super) fn acknowledge(&self, answered: Answered) -> Result<(), Stuck> {
                let Some(ack) = puback(answered) else { return Ok(()) };
                self.0.try_manual_ack($mqtt::ManualAck::PubAck(ack)).map_err(|_| Stuck)
            }

            pub(super) fn publish(&self, topic: String, payload: Bytes) -> Result<BoxFuture<'static, Receipt>, Stuck> {
                let options = $mqtt::PublishOptions::at_least_once();
                let notice = self.0.try_publish_tracked(topic, payload, options).map_err(|_| Stuck)?;
                Ok(Box::pin(async move {
                    match notice.wait_async().await {
                        Ok(puback) => receipt(&puback),
                        // No PUBACK came.
                        Err(_) => Receipt::Lost,
                    }
                }))
            }

            pub(super) fn disconnect(&self) {
                // Where even this does not fit, the end of the stream says it.
                let _ = self.0.try_disconnect();
            }
        }

        /// The session as this side has it when a connection begins: nothing on its way.
        #[derive(Debug)]
        struct NothingOnItsWay {
            in_flight_max: u16,
        }

        impl $mqtt::SessionStore for NothingOnItsWay {
            fn load<'a>(
                &'a self,
                key: &'a $mqtt::SessionStoreKey,
            ) -> BoxFuture<'a, Result<Option<$mqtt::PersistedSession>, $mqtt::SessionStoreError>> {
                let session = nothing_on_its_way(key.client_id(), self.in_flight_max);
                Box::pin(async { Ok(Some(session)) })
            }

            fn save<'a>(
                &'a self,
                _: &'a $mqtt::SessionStoreKey,
                _: &'a $mqtt::PersistedSession,
            ) -> BoxFuture<'a, Result<(), $mqtt::SessionStoreError>> {
                Box::pin(async { Ok(()) })
            }

            fn clear<'a>(
                &'a self,
                _: &'a $mqtt::SessionStoreKey,
            ) -> BoxFuture<'a, Result<(), $mqtt::SessionStoreError>> {
                Box::pin(async { Ok(()) })
            }
        }
    };
}

pub(super) use one_version;
