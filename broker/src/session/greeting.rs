//! What a CONNECT must say (section 3.1).

use unhidra_core::ids::{ClientId, ClientIdError};
use unhidra_core::topic::TopicName;

use super::{Request, Rules, SessionError, receive};
use crate::acl::{Principal, PublishAsked};
use crate::packet::{Connect, Property, ReasonCode, Version};

/// Checks what holds for whomever it is.
pub(super) fn check(connect: &Connect, rules: &Rules) -> Result<Request, SessionError> {
    let has = |wanted: fn(&Property) -> bool| connect.properties.iter().any(wanted);
    if has(|property| matches!(property, Property::AuthenticationMethod(_))) {
        return Err(SessionError::AuthenticationMethod);
    }
    if has(|property| matches!(property, Property::AuthenticationData(_))) {
        return Err(SessionError::AuthenticationData);
    }
    if let Some(will) = &connect.will {
        TopicName::parse(will.topic.as_str()).map_err(SessionError::TopicName)?;
        receive::check_properties(&will.properties)?;
        if rules.mqtt.payload_format_check && !receive::is_as_it_says(&will.properties, &will.payload) {
            return Err(SessionError::PayloadFormat);
        }
    }
    let client_id = match ClientId::parse(connect.client_id.as_str()) {
        Ok(id) => Some(id),
        // In 3.1.1 an empty identifier cannot name a session that stays [MQTT-3.1.3-8] (3.1.1).
        Err(ClientIdError::Empty) if connect.version == Version::V5 || connect.clean_start => None,
        Err(error) => return Err(SessionError::ClientId(error)),
    };
    let (user_name, password) = (connect.user_name.clone(), connect.password.clone());
    Ok(Request { client_id, clean_start: connect.clean_start, user_name, password })
}

/// Checks the Will of a known client.
pub(super) fn check_will(connect: &Connect, who: &Principal, rules: &Rules) -> Result<(), ReasonCode> {
    let Some(will) = &connect.will else { return Ok(()) };
    let topic = TopicName::parse(will.topic.as_str()).map_err(|_| ReasonCode::TopicNameInvalid)?;
    let asked = PublishAsked { topic, qos: will.qos, retain: will.retain };
    if rules.acl.will(who, asked) { Ok(()) } else { Err(ReasonCode::NotAuthorized) }
}
