//! What client and node agree on in CONNECT and CONNACK.

use unhidra_core::ids::ClientId;

use super::Rules;
use crate::config::Limits;
use crate::packet::{Connect, Properties, Property, Text, Version};

/// What client and node have agreed on in CONNECT and CONNACK.
pub(super) struct Terms {
    pub(super) packet_max: usize,
    pub(super) in_flight_max: u16,
    pub(super) keep_alive_s: u16,
    pub(super) expiry_s: u32,
    /// Whether failures may be explained in words: in 5.0, unless the client says no.
    pub(super) explains: bool,
    /// Topic Aliases we may set.
    pub(super) aliases_max: u16,
}

impl Terms {
    pub(super) fn of(connect: &Connect, limits: &Limits) -> Self {
        let properties = &connect.properties;
        let packet_max = properties.find(|property| match property {
            Property::MaximumPacketSize(bytes) => Some(usize::try_from(*bytes).unwrap_or(usize::MAX)),
            _ => None,
        });
        let receive_max = properties.find(|property| match property {
            Property::ReceiveMaximum(count) => Some(*count),
            _ => None,
        });
        let aliases_max = properties.find(|property| match property {
            Property::TopicAliasMaximum(count) => Some(*count),
            _ => None,
        });
        let wanted_expiry_s = match (connect.version, connect.clean_start) {
            (Version::V5, _) => properties.find(session_expiry_s).unwrap_or(0),
            (Version::V3_1_1, true) => 0,
            (Version::V3_1_1, false) => u32::MAX,
        };
        let keep_alive_s = match connect.version {
            Version::V5 => connect.keep_alive_s.min(limits.keep_alive_max_s),
            Version::V3_1_1 => connect.keep_alive_s,
        };
        Self {
            packet_max: packet_max.unwrap_or(usize::MAX),
            in_flight_max: receive_max.unwrap_or(u16::MAX).min(limits.in_flight_max),
            keep_alive_s,
            expiry_s: wanted_expiry_s.min(limits.session_expiry_max_s),
            explains: connect.version == Version::V5 && explains(connect),
            aliases_max: aliases_max.unwrap_or(0).min(limits.topic_aliases_max),
        }
    }

    /// What CONNACK says, as far as it differs from what the client takes for granted.
    pub(super) fn announced(&self, connect: &Connect, assigned: Option<&ClientId>, rules: &Rules) -> Properties {
        let limits = &rules.limits;
        let packet_max = u32::try_from(limits.packet_bytes_max).unwrap_or(u32::MAX);
        let mut announced: Properties =
            [Property::ReceiveMaximum(limits.receive_max), Property::MaximumPacketSize(packet_max)]
                .into_iter()
                .collect();
        if limits.topic_aliases_max > 0 {
            announced.push(Property::TopicAliasMaximum(limits.topic_aliases_max));
        }
        if self.expiry_s != connect.properties.find(session_expiry_s).unwrap_or(0) {
            announced.push(Property::SessionExpiryInterval(self.expiry_s));
        }
        if self.keep_alive_s != connect.keep_alive_s {
            announced.push(Property::ServerKeepAlive(self.keep_alive_s));
        }
        let asks = |property: &Property| *property == Property::RequestResponseInformation(true);
        if !rules.mqtt.response_information.is_empty() && connect.properties.iter().any(asks) {
            // Only where it was asked for [MQTT-3.1.2-28].
            let text = Text::from_checked(rules.mqtt.response_information.as_str().to_owned());
            announced.push(Property::ResponseInformation(text));
        }
        if let Some(id) = assigned {
            announced.push(Property::AssignedClientIdentifier(Text::from_checked(id.as_str().to_owned())));
        }
        announced
    }
}

/// What Request Problem Information says (section 3.1.2.11.7).
pub(super) fn explains(connect: &Connect) -> bool {
    !connect.properties.iter().any(|property| *property == Property::RequestProblemInformation(false))
}

pub(super) fn session_expiry_s(property: &Property) -> Option<u32> {
    match property {
        Property::SessionExpiryInterval(s) => Some(*s),
        _ => None,
    }
}
