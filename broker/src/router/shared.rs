//! Shared subscriptions (section 4.8.2): each message of a group goes to one of its members.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use unhidra_core::topic::{TopicError, TopicFilter};

use super::message::{Message, Queued};
use super::queue::{Queue, Welcome};
use super::{SubscriberId, Subscription};
use crate::acl::Principal;

/// What a SUBSCRIBE names: a Topic Filter, and the group it is shared in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Interest<'a> {
    /// The ShareName of `$share/{ShareName}/{filter}`.
    pub(crate) share_name: Option<&'a str>,
    pub(crate) filter: TopicFilter<'a>,
}

/// Why a text is no [`Interest`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub(crate) enum InterestError {
    /// [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    #[error("a shared subscription without a name, or with a wildcard in it")]
    ShareName,
    /// [MQTT-4.8.2-2]
    #[error("a shared subscription without a topic filter")]
    NoFilter,
    #[error(transparent)]
    Filter(#[from] TopicError),
}

impl<'a> Interest<'a> {
    /// Parses `filter` or `$share/{ShareName}/{filter}`.
    ///
    /// # Errors
    ///
    /// [`InterestError`] says which rule the text breaks.
    pub(crate) fn parse(text: &'a str) -> Result<Self, InterestError> {
        let Some(shared) = text.strip_prefix("$share/") else {
            return Ok(Self { share_name: None, filter: TopicFilter::parse(text)? });
        };
        let (name, filter) = shared.split_once('/').ok_or(InterestError::NoFilter)?;
        if name.is_empty() || name.contains(['+', '#']) {
            return Err(InterestError::ShareName);
        }
        if filter.is_empty() {
            return Err(InterestError::NoFilter);
        }
        Ok(Self { share_name: Some(name), filter: TopicFilter::parse(filter)? })
    }
}

/// The sessions that share one filter under one name.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// In the order of their coming.
    list: Vec<Member>,
    /// Whose turn it is; past the end it is the first's.
    next: usize,
}

#[derive(Debug)]
struct Member {
    subscriber: SubscriberId,
    queue: Arc<Queue>,
    subscription: Subscription,
    checked: Option<Arc<Principal>>,
}

impl Group {
    /// Adds a member, in place of what the session had here. Says whether it is one more.
    pub(super) fn join(
        &self,
        subscriber: SubscriberId,
        queue: Arc<Queue>,
        subscription: Subscription,
        checked: Option<Arc<Principal>>,
    ) -> bool {
        let mut members = self.lock();
        let member = Member { subscriber, queue, subscription, checked };
        match members.list.iter_mut().find(|known| known.subscriber == subscriber) {
            Some(known) => {
                *known = member;
                false
            }
            None => {
                members.list.push(member);
                true
            }
        }
    }

    /// Takes a member away. Says whether it was one.
    pub(super) fn leave(&self, subscriber: SubscriberId) -> bool {
        let mut members = self.lock();
        let Some(at) = members.list.iter().position(|member| member.subscriber == subscriber) else { return false };
        members.list.remove(at);
        if at < members.next {
            members.next -= 1;
        }
        true
    }

    /// Shows every member.
    pub(super) fn each(&self, mut see: impl FnMut(&Arc<Queue>, Subscription, Option<&Arc<Principal>>)) {
        self.lock().list.iter().for_each(|member| see(&member.queue, member.subscription, member.checked.as_ref()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().list.is_empty()
    }

    /// Whether somebody other than `subscriber` would take a message now.
    pub(crate) fn has_taker_besides(&self, subscriber: SubscriberId) -> bool {
        let members = self.lock();
        let mut others = members.list.iter().filter(|member| member.subscriber != subscriber);
        others.any(|member| member.queue.welcome(crate::packet::QoS::AtLeastOnce) == Welcome::Ready)
    }

    /// A message for the member whose turn it is. One that is away or at its bound is passed over
    /// while another is not; where all are, it goes to one that is there, or else waits in the
    /// session of one that is away. `None` where nobody is left. One that `may_read` does not let
    /// see it is no member to this message.
    pub(crate) fn choose(
        self: &Arc<Self>,
        message: &Arc<Message>,
        may_read: impl Fn(&Principal) -> bool,
    ) -> Option<(Arc<Queue>, Queued)> {
        let mut members = self.lock();
        let count = members.list.len();
        let first = if members.next < count { members.next } else { 0 };
        let mut best: Option<(Welcome, usize)> = None;
        for at in (first..count).chain(0..first) {
            let Some(member) = members.list.get(at) else { continue };
            if !member.checked.as_deref().is_none_or(&may_read) {
                continue;
            }
            let welcome = member.queue.welcome(message.qos().min(member.subscription.options.qos));
            if best.is_none_or(|(known, _)| welcome < known) {
                best = Some((welcome, at));
            }
            if welcome == Welcome::Ready {
                break;
            }
        }
        let (_, at) = best?;
        members.next = at + 1;
        let Member { queue, subscription, .. } = members.list.get(at)?;
        let queued = Queued {
            message: message.clone(),
            qos: message.qos().min(subscription.options.qos),
            retain: subscription.options.retain_as_published && message.retain(),
            identifiers: subscription.identifier.into_iter().collect(),
            group: Some(self.clone()),
            kept: None,
        };
        Some((queue.clone(), queued))
    }

    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_filter_has_a_name_and_a_filter() {
        let parsed = Interest::parse("$share/g/a/+").map(|i| (i.share_name, i.filter.as_str()));
        assert_eq!(parsed, Ok((Some("g"), "a/+")));
        let parsed = Interest::parse("$share/g//x").map(|i| (i.share_name, i.filter.as_str()));
        assert_eq!(parsed, Ok((Some("g"), "/x")));
        let parsed = Interest::parse("$shared/g/a").map(|i| (i.share_name, i.filter.as_str()));
        assert_eq!(parsed, Ok((None, "$shared/g/a")));
        for (bad, error) in [
            ("$share/", InterestError::NoFilter),
            ("$share/g", InterestError::NoFilter),
            ("$share/g/", InterestError::NoFilter),
            ("$share//a", InterestError::ShareName),
            ("$share/+/a", InterestError::ShareName),
            ("$share/g#/a", InterestError::ShareName),
        ] {
            assert_eq!(Interest::parse(bad), Err(error), "{bad}");
        }
        assert!(matches!(Interest::parse("$share/g/a#"), Err(InterestError::Filter(_))));
    }
}
