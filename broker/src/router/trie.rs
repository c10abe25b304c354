//! Subscriptions by Topic Filter, found by Topic Name.
//!
//! A tree of levels: each node has its literal children, one child for `+`, and the subscribers
//! of the filters that end in it or in a `#` right below it. A look-up allocates nothing and walks
//! at most two branches a level: it sees a node only if the node stands for a beginning of the name,
//! so at most 2^levels nodes, and never more than the filters have levels in all. Depth is bounded
//! by `topic_levels_max`.

// Named so that this file can be compiled from elsewhere too: by the fuzz target and the benchmark.
#[path = "trie/overlap.rs"]
mod overlap;

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};

use unhidra_core::topic::{TopicFilter, TopicName};

/// Values under Topic Filters, one for each filter and key.
#[derive(Debug)]
pub(crate) struct Trie<K, V> {
    root: Node<K, V>,
    len: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    children: HashMap<Box<str>, Node<K, V>>,
    plus: Option<Box<Node<K, V>>>,
    /// Of filters that end here. Ordered, so that a simulation runs twice alike.
    here: BTreeMap<K, V>,
    /// Of filters that end in `#` below here.
    below: BTreeMap<K, V>,
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Self { root: Node::default(), len: 0 }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self { children: HashMap::new(), plus: None, here: BTreeMap::new(), below: BTreeMap::new() }
    }
}

impl<K: Ord, V> Trie<K, V> {
    /// How many values there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Puts a value under a filter and a key, and gives the one that was there.
    pub(crate) fn insert(&mut self, filter: TopicFilter<'_>, key: K, value: V) -> Option<V> {
        let mut node = &mut self.root;
        let mut ends_below = false;
        for level in filter.levels() {
            node = match level {
                "#" => {
                    ends_below = true;
                    break;
                }
                "+" => node.plus.get_or_insert_default(),
                _ => node.children.entry(level.into()).or_default(),
            };
        }
        let values = if ends_below { &mut node.below } else { &mut node.here };
        let before = values.insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Takes a value away, and with it the nodes nobody needs any more.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, filter: TopicFilter<'_>, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = self.root.remove(&mut filter.levels(), key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The value under a filter and a key.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, filter: TopicFilter<'_>, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &self.root;
        for level in filter.levels() {
            node = match level {
                "#" => return node.below.get(key),
                "+" => node.plus.as_ref()?,
                _ => node.children.get(level)?,
            };
        }
        node.here.get(key)
    }

    /// Shows every value whose filter stands for `name`. Allocates nothing.
    pub(crate) fn matches<'t>(&'t self, name: TopicName<'_>, see: &mut impl FnMut(&'t K, &'t V)) {
        let name_text = name.as_str();
        if name.is_reserved() {
            // No wildcard of the first level matches it [MQTT-4.7.2-1].
            let (first, rest) = split_level(name_text);
            if let Some(child) = self.root.children.get(first) {
                child.matches(rest, see);
            }
        } else {
            self.root.matches(Some(name_text), see);
        }
    }
}

fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (text, None),
    }
}

impl<K: Ord, V> Node<K, V> {
    fn matches<'t>(&'t self, rest: Option<&str>, see: &mut impl FnMut(&'t K, &'t V)) {
        // `#` stands for the level before it too (section 4.7.1.2).
        self.below.iter().for_each(|(key, value)| see(key, value));
        let Some(rest) = rest else {
            return self.here.iter().for_each(|(key, value)| see(key, value));
        };
        let (level, rest) = split_level(rest);
        if let Some(child) = self.children.get(level) {
            child.matches(rest, see);
        }
        if let Some(child) = &self.plus {
            child.matches(rest, see);
        }
    }

    fn remove<Q: Ord + ?Sized>(&mut self, levels: &mut dyn Iterator<Item = &str>, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        match levels.next() {
            None => self.here.remove(key),
            Some("#") => self.below.remove(key),
            Some("+") => {
                let child = self.plus.as_mut()?;
                let removed = child.remove(levels, key);
                if child.is_bare() {
                    self.plus = None;
                }
                removed
            }
            Some(level) => {
                let child = self.children.get_mut(level)?;
                let removed = child.remove(levels, key);
                if child.is_bare() {
                    self.children.remove(level);
                }
                removed
            }
        }
    }

    fn is_bare(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> TopicFilter<'_> {
        TopicFilter::parse(text).expect("a filter")
    }

    fn keys(trie: &Trie<u32, ()>, name: &str) -> Vec<u32> {
        let mut keys = Vec::new();
        trie.matches(TopicName::parse(name).expect("a name"), &mut |key, ()| keys.push(*key));
        keys.sort_unstable();
        keys
    }

    #[test]
    fn a_name_finds_every_filter_that_stands_for_it() {
        let mut trie = Trie::default();
        for (key, text) in (1..).zip(["a/b", "a/+", "a/#", "#", "+/b", "+", "a/b/#", "$SYS/#", "a/b/c"]) {
            trie.insert(filter(text), key, ());
        }
        assert_eq!(keys(&trie, "a/b"), [1, 2, 3, 4, 5, 7]);
        assert_eq!(keys(&trie, "a"), [3, 4, 6]);
        assert_eq!(keys(&trie, "$SYS/x"), [8]);
        assert!(keys(&trie, "$other").is_empty());
        assert_eq!(keys(&trie, "a/b/c"), [3, 4, 7, 9]);
    }

    #[test]
    fn nothing_is_left_of_what_was_removed() {
        let mut trie = Trie::default();
        let filters = ["a/b/c", "a/+/c", "a/#", "+", "#"];
        filters.iter().for_each(|text| assert!(trie.insert(filter(text), 1, ()).is_none()));
        assert!(trie.insert(filter("#"), 1, ()).is_some() && trie.len() == 5);
        assert!(trie.remove(filter("a/b"), &1).is_none());
        filters.iter().for_each(|text| assert!(trie.remove(filter(text), &1).is_some(), "{text}"));
        assert!(trie.root.is_bare() && trie.len() == 0);
    }

    proptest! {
        /// The tree finds what the match of one filter against one name finds.
        #[test]
        fn the_tree_agrees_with_the_definition(
            filters in proptest::collection::vec("([ab$]|\\+|)(/([ab]|\\+|)){0,3}(/#)?", 1..12),
            name in "[ab$](/[ab]?){0,3}",
        ) {
            let mut trie = Trie::default();
            let mut expected = Vec::new();
            let name = TopicName::parse(&name).expect("a name");
            for (key, text) in (0_u32..).zip(&filters) {
                let Ok(filter) = TopicFilter::parse(text) else { continue };
                trie.insert(filter, key, ());
                if filter.matches(name) {
                    expected.push(key);
                }
            }
            prop_assert_eq!(keys(&trie, name.as_str()), expected);
        }
    }
}
