//! What an admitted client subscribes to.

use super::error::FilterError;
use super::keeping::After;
use super::open::Open;
use super::{Change, Event, Interest, Out, Rules, SessionError, Transmit};
use crate::acl::SubscribeRight;
use crate::packet::{
    Packet, Properties, Property, QoS, ReasonCode, SubAck, Subscribe, SubscribeFilter, Text, UnsubAck, Unsubscribe,
};
use crate::router::Subscription;
use crate::router::shared;

/// The first of a packet's filters that is refused, to be told in words: SUBACK and UNSUBACK have
/// one Reason String for all of them. The codes name each.
struct Refused {
    filters: usize,
    answered: usize,
    /// Which, from 1, and why.
    first: Option<(usize, FilterError)>,
}

impl Refused {
    const fn of(filters: usize) -> Self {
        Self { filters, answered: 0, first: None }
    }

    const fn granted(&mut self, code: ReasonCode) -> ReasonCode {
        self.answered += 1;
        code
    }

    fn refused(&mut self, error: FilterError) -> ReasonCode {
        self.answered += 1;
        self.first.get_or_insert((self.answered, error));
        error.reason_code()
    }

    /// What is said besides the codes, to who may be told in words [MQTT-3.1.2-29].
    fn words(self, explains: bool) -> Properties {
        let Some((at, error)) = self.first.filter(|_| explains) else { return Properties::default() };
        let words = match self.filters {
            1 => error.to_string(),
            filters => format!("topic filter {at} of {filters}: {error}"),
        };
        [Property::ReasonString(Text::from_checked(words))].into_iter().collect()
    }
}

impl Open {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, rules: &Rules, out: &mut Out) -> Result<(), SessionError> {
        let is_shared = |filter: &SubscribeFilter| filter.filter.as_str().starts_with("$share/");
        if subscribe.filters.iter().any(|filter| filter.options.no_local && is_shared(filter)) {
            return Err(SessionError::NoLocalOfShared);
        }
        let identifier = subscribe.properties.find(|property| match property {
            Property::SubscriptionIdentifier(id) => Some(*id),
            _ => None,
        });
        // SUBACK leaves before what is retained, which the events bring, unless it waits for a store.
        let mut steps = Vec::new();
        let (packet_id, mut refused) = (subscribe.packet_id, Refused::of(subscribe.filters.len()));
        // More than a session may have are others beyond its bound, or repeats: each would be looked up.
        let mut left = rules.limits.subscriptions_per_session;
        let one = |filter| match self.subscribe_one(filter, identifier, rules, &mut left, &mut steps, out) {
            Ok(granted) => refused.granted(granted),
            Err(error) => refused.refused(error),
        };
        let reasons = subscribe.filters.into_iter().map(one).collect();
        let properties = refused.words(self.explains);
        self.listens(steps, Packet::SubAck(SubAck { packet_id, properties, reasons }), out);
        Ok(())
    }

    /// Answers, once what the session listens to is kept as far as it is to be.
    fn listens(&mut self, steps: Vec<Interest>, answer: Packet, out: &mut Out) {
        if steps.is_empty() {
            out.packet(answer);
        } else {
            self.keep(|| Change::Listens(steps), Some(After::Transmit(Transmit::Packet(answer))), out);
        }
    }

    fn subscribe_one(
        &mut self,
        wanted: SubscribeFilter,
        identifier: Option<u32>,
        rules: &Rules,
        left: &mut usize,
        steps: &mut Vec<Interest>,
        out: &mut Out,
    ) -> Result<ReasonCode, FilterError> {
        let text = wanted.filter.as_str();
        let shared::Interest { share_name, filter } = shared::Interest::parse(text).map_err(FilterError::NoFilter)?;
        let (bytes, bytes_max) = (text.len(), rules.limits.topic_bytes_max);
        let (levels, levels_max) = (filter.levels().count(), rules.limits.topic_levels_max);
        if bytes > bytes_max || levels > levels_max {
            return Err(FilterError::TooLarge { bytes, bytes_max, levels, levels_max });
        }
        let granted = match rules.acl.subscribe(&self.who, filter).0 {
            SubscribeRight::Denied => return Err(FilterError::NotAuthorized),
            SubscribeRight::Listen(_) if share_name.is_some() => return Err(FilterError::RowShared),
            SubscribeRight::Listen(row) => {
                // The rows have QoS 1 and below (e2ee/PROTOCOL.md section 2).
                let qos = wanted.options.qos.min(QoS::AtLeastOnce);
                self.rows.insert(row, qos);
                if self.keeping.is_some() {
                    steps.push(Interest::Listens(row, qos));
                }
                out.events.push_back(Event::Listen(row));
                qos
            }
            SubscribeRight::Route => {
                let is_new = !self.subscriptions.contains_key(text);
                let max = rules.limits.subscriptions_per_session;
                if *left == 0 || (is_new && self.subscriptions.len() >= max) {
                    return Err(FilterError::TooMany { max });
                }
                *left -= 1;
                let subscription = Subscription { options: wanted.options, identifier };
                self.subscriptions.insert(text.into(), subscription);
                if self.keeping.is_some() {
                    steps.push(Interest::Begun(text.into(), subscription));
                }
                out.events.push_back(Event::Subscribe { filter: wanted.filter, subscription, is_new });
                wanted.options.qos
            }
        };
        Ok(match granted {
            QoS::AtMostOnce => ReasonCode::Success,
            QoS::AtLeastOnce => ReasonCode::GrantedQos1,
            QoS::ExactlyOnce => ReasonCode::GrantedQos2,
        })
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe, rules: &Rules, out: &mut Out) {
        let mut steps = Vec::new();
        let (packet_id, mut refused) = (unsubscribe.packet_id, Refused::of(unsubscribe.filters.len()));
        let one = |filter| match self.unsubscribe_one(filter, rules, &mut steps, out) {
            Ok(ended) => refused.granted(ended),
            Err(error) => refused.refused(error),
        };
        let reasons = unsubscribe.filters.into_iter().map(one).collect();
        let properties = refused.words(self.explains);
        self.listens(steps, Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }), out);
        self.send_waiting(rules, out);
    }

    fn unsubscribe_one(
        &mut self,
        text: Text,
        rules: &Rules,
        steps: &mut Vec<Interest>,
        out: &mut Out,
    ) -> Result<ReasonCode, FilterError> {
        let interest = shared::Interest::parse(text.as_str()).map_err(FilterError::NoFilter)?;
        let shared::Interest { share_name, filter } = interest;
        // Whoever lost a right may still let go of what it had by it.
        match rules.acl.own_row(&self.who, filter).filter(|_| share_name.is_none()) {
            Some(row) if self.rows.remove(&row).is_some() => {
                if self.keeping.is_some() {
                    steps.push(Interest::ListensNoMore(row));
                }
                out.events.push_back(Event::Unlisten(row));
            }
            None if self.subscriptions.remove(text.as_str()).is_some() => {
                if self.keeping.is_some() {
                    steps.push(Interest::Ended(text.as_str().into()));
                }
                out.events.push_back(Event::Unsubscribe { filter: text });
            }
            Some(_) | None => return Ok(ReasonCode::NoSubscriptionExisted),
        }
        Ok(ReasonCode::Success)
    }

    /// Holds the subscriptions to the rules, which are others now.
    pub(super) fn review(&mut self, rules: &Rules, out: &mut Out) {
        let text = |filter: &str| Text::from_checked(filter.to_owned());
        for filter in rules.acl.lost(&self.who, self.subscriptions.keys().map(|filter| &**filter)) {
            self.subscriptions.remove(&filter);
            out.events.push_back(Event::Unsubscribe { filter: text(&filter) });
        }
        for (filter, subscription) in &self.subscriptions {
            out.events.push_back(Event::Renew { filter: text(filter), subscription: *subscription });
        }
    }
}
