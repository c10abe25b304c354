//! Which client watches which devices.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::frame::Audience;

/// One connection of one client, never given twice in a process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct ClientNumber(pub(crate) u64);

/// The watchers of each audience, and a handle `T` to each of them.
///
/// Bounded by the clients and by the subscriptions one client may have.
pub(crate) struct Subscriptions<T> {
    watchers: BTreeMap<Audience, BTreeMap<ClientNumber, T>>,
    /// The same the other way round: a client that leaves costs its own subscriptions and nobody else's.
    audiences: HashMap<ClientNumber, BTreeSet<Audience>>,
}

impl<T> Subscriptions<T> {
    pub(crate) fn new() -> Self {
        Self { watchers: BTreeMap::new(), audiences: HashMap::new() }
    }

    pub(crate) fn insert(&mut self, audience: Audience, client: ClientNumber, handle: T) {
        self.watchers.entry(audience).or_default().insert(client, handle);
        self.audiences.entry(client).or_default().insert(audience);
    }

    pub(crate) fn remove(&mut self, audience: &Audience, client: ClientNumber) {
        self.unlist(audience, client);
        if let Some(audiences) = self.audiences.get_mut(&client) {
            audiences.remove(audience);
            if audiences.is_empty() {
                self.audiences.remove(&client);
            }
        }
    }

    /// Removes a client from every audience, and says from how many.
    pub(crate) fn remove_all(&mut self, client: ClientNumber) -> usize {
        let audiences = self.audiences.remove(&client).unwrap_or_default();
        audiences.iter().for_each(|audience| self.unlist(audience, client));
        audiences.len()
    }

    fn unlist(&mut self, audience: &Audience, client: ClientNumber) {
        if let Some(watchers) = self.watchers.get_mut(audience) {
            watchers.remove(&client);
            if watchers.is_empty() {
                self.watchers.remove(audience);
            }
        }
    }

    /// Whether `client` watches exactly this audience.
    pub(crate) fn contains(&self, audience: &Audience, client: ClientNumber) -> bool {
        self.watchers.get(audience).is_some_and(|watchers| watchers.contains_key(&client))
    }

    /// Whether anybody watches exactly this audience.
    pub(crate) fn any(&self, audience: &Audience) -> bool {
        self.watchers.contains_key(audience)
    }

    /// The watchers of exactly this audience.
    pub(crate) fn of(&self, audience: &Audience) -> impl Iterator<Item = (ClientNumber, &T)> {
        self.watchers.get(audience).into_iter().flatten().map(|(client, handle)| (*client, handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::device;

    #[test]
    fn an_audience_has_exactly_its_watchers() {
        let mut subscriptions = Subscriptions::new();
        let pump = Audience::Device(device("pump-7"));
        subscriptions.insert(Audience::All, ClientNumber(1), 'a');
        subscriptions.insert(pump, ClientNumber(1), 'b');
        subscriptions.insert(pump, ClientNumber(2), 'c');
        let of = |s: &Subscriptions<char>, a| s.of(a).map(|(_, handle)| *handle).collect::<String>();
        assert_eq!((of(&subscriptions, &Audience::All), of(&subscriptions, &pump)), ("a".into(), "bc".into()));
        assert!(!subscriptions.any(&Audience::Device(device("pump-8"))));
        subscriptions.remove(&pump, ClientNumber(1));
        subscriptions.remove(&pump, ClientNumber(9));
        assert!(subscriptions.contains(&pump, ClientNumber(2)) && !subscriptions.contains(&pump, ClientNumber(1)));
        subscriptions.remove(&pump, ClientNumber(2));
        assert!(!subscriptions.any(&pump) && subscriptions.any(&Audience::All));
        subscriptions.insert(pump, ClientNumber(1), 'd');
        assert_eq!(subscriptions.remove_all(ClientNumber(1)), 2);
        assert!(!subscriptions.any(&pump) && !subscriptions.any(&Audience::All));
        assert!(subscriptions.audiences.is_empty());
        assert_eq!(subscriptions.remove_all(ClientNumber(1)), 0);
    }
}
