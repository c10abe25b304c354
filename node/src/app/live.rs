//! A running node, as the control socket sees it.

use std::sync::Arc;
use std::time::Duration;

use unhidra_broker::SessionName;
use unhidra_core::command::Command;
use unhidra_core::ids::DeviceId;
use unhidra_core::message::MessageName;
use unhidra_core::setting::Setting;
use unhidra_core::topic::{TopicError, TopicFilter};
use unhidra_gateway::{Tokens, Use, Visible};

use super::refused::refused;
use crate::actor;
use crate::control::{
    Addresses, Asked, CancelAsked, ClientName, ClientRecord, ClientsAsked, ClientsPage, ControlError, KickAsked,
    Kicked, Live, RevokeTokensAsked, RevokedTokens, SendAsked, SetAsked, SubscriberRecord, SubscribersAsked,
    SubscribersFound, TokenAsked, TokenRecord,
};
use crate::outlets::{self, OutletRecord};
use crate::pump::{NewCommand, Pump, Rooms};
use crate::upstream::UpstreamRecord;

/// How many clients one answer holds at most.
const CLIENTS_MAX: usize = 256;

/// How many subscriptions one answer holds at most.
const SUBSCRIBERS_MAX: usize = 10_000;

/// What it answers from: the rooms, and what stands beside them.
pub(super) struct LiveNode {
    pub(super) rooms: Arc<Rooms>,
    pub(super) pump: Arc<Pump>,
    pub(super) tokens: Arc<Tokens>,
    pub(super) addresses: Addresses,
    pub(super) outlets: outlets::Watch,
}

impl Live for LiveNode {
    fn addresses(&self) -> Addresses {
        self.addresses.clone()
    }

    fn is_online(&self, device: &DeviceId) -> bool {
        // As clients are told, which counts who is heard behind an outside broker. Of a connection they
        // are told a moment later, and of none beyond what is remembered.
        self.rooms.gateway.is_online(device) || self.rooms.broker.is_connected(device)
    }

    fn send(&self, asked: SendAsked) -> Asked<'_, Command> {
        Box::pin(async move {
            let SendAsked { device, id, name, body, expires_in_ms } = asked;
            let name: MessageName = name
                .parse()
                .map_err(|error: unhidra_core::message::MessageNameError| ControlError::Invalid(error.to_string()))?;
            let expires_after = expires_in_ms.map(Duration::from_millis);
            let new = NewCommand { id, device, name, body, expires_after, asked_by: actor::current() };
            let refused = |not_taken| refused(not_taken, device, id, None);
            self.pump.send(new).await.map_err(refused)
        })
    }

    fn cancel(&self, asked: CancelAsked) -> Asked<'_, Command> {
        Box::pin(async move {
            let CancelAsked { device, id } = asked;
            let refused = |not_taken| refused(not_taken, device, Some(id), None);
            self.pump.cancel(device, id, actor::current()).await.map_err(refused)
        })
    }

    fn set(&self, asked: SetAsked) -> Asked<'_, Setting> {
        Box::pin(async move {
            let (device, name) = (asked.device, asked.name.clone());
            let refused = |not_taken| refused(not_taken, device, None, Some(name));
            self.pump.set(asked.into()).await.map_err(refused)
        })
    }

    fn mint(&self, asked: &TokenAsked) -> Result<String, ControlError> {
        let lifetime = asked.lifetime_s.map_or(self.tokens.session_lifetime(), Duration::from_secs);
        let uses = if asked.once { Use::Once } else { Use::Session };
        Ok(self.tokens.mint(asked.name(), Visible::All, asked.may_command, lifetime, uses))
    }

    fn tokens(&self) -> Vec<TokenRecord> {
        self.tokens.list().into_iter().map(TokenRecord::from).collect()
    }

    fn revoke_tokens(&self, asked: &RevokeTokensAsked) -> RevokedTokens {
        let tokens = self.tokens.revoke(&asked.name);
        RevokedTokens { tokens, clients: self.rooms.gateway.end(&asked.name) }
    }

    fn clients(&self, asked: &ClientsAsked) -> Result<ClientsPage, ControlError> {
        let after = asked.after.as_ref().map(SessionName::try_from).transpose()?;
        let page = self.rooms.broker.clients(after.as_ref(), CLIENTS_MAX, |found| asked.wants(found));
        let clients = page.clients.iter().map(ClientRecord::from).collect();
        Ok(ClientsPage { clients, next: page.next.as_ref().map(ClientName::from) })
    }

    fn outlets(&self) -> Vec<OutletRecord> {
        self.outlets.records()
    }

    fn subscribers(&self, asked: &SubscribersAsked) -> Result<SubscribersFound, ControlError> {
        let invalid = |error: TopicError| ControlError::Invalid(format!("{:?}: {error}", asked.topic));
        let wanted = TopicFilter::parse(&asked.topic).map_err(invalid)?;
        let found = self.rooms.broker.subscribers(wanted, SUBSCRIBERS_MAX);
        let subscribers = found.subscribers.iter().map(SubscriberRecord::from).collect();
        Ok(SubscribersFound { subscribers, more: found.more })
    }

    fn upstreams(&self) -> Vec<UpstreamRecord> {
        self.rooms.upstreams.records()
    }

    fn kick(&self, asked: KickAsked) -> Asked<'_, Kicked> {
        Box::pin(async move {
            let sessions = asked.clients.iter().map(SessionName::try_from).collect::<Result<Vec<_>, _>>()?;
            let kicked = self.rooms.broker.kick(&sessions, asked.forget).await;
            Ok(Kicked { clients: kicked.iter().map(ClientRecord::from).collect() })
        })
    }
}
