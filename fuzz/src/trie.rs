//! Subscriptions that come and go, and names that are looked up, in the broker's tree and in a list.

use std::collections::BTreeMap;

use unhidra_core::topic::{TopicFilter, TopicName};

use tree::Trie;

#[path = "../../broker/src/router/trie.rs"]
#[allow(unreachable_pub, dead_code, reason = "the broker's own; it is checked there")]
mod tree;

/// As the node's own bound on levels; the tree is as deep as its filters.
const LEVELS_MAX: usize = 32;

/// Runs a script, a step a line: `+key filter`, `-key filter`, `?name`. Both must always agree.
pub(crate) fn run(data: &[u8]) {
    let Ok(script) = std::str::from_utf8(data) else { return };
    let mut tree: Trie<u8, usize> = Trie::default();
    let mut list: BTreeMap<(&str, u8), usize> = BTreeMap::new();
    for (number, line) in script.lines().enumerate() {
        let Some(step) = line.get(1..) else { continue };
        match line.as_bytes().first() {
            Some(b'?') => {
                let Ok(name) = TopicName::parse(step) else { continue };
                let mut found = Vec::new();
                tree.matches(name, &mut |key, value| found.push((*key, *value)));
                found.sort_unstable();
                let stands = |text: &str| TopicFilter::parse(text).is_ok_and(|filter| filter.matches(name));
                let wanted = list.iter().filter(|((text, _), _)| stands(text));
                let mut wanted: Vec<_> = wanted.map(|((_, key), value)| (*key, *value)).collect();
                wanted.sort_unstable();
                assert_eq!(found, wanted, "{name:?} among {list:?}");
            }
            Some(sign @ (b'+' | b'-')) => {
                let (Some(&key), Some(text)) = (step.as_bytes().first(), step.get(1..)) else { continue };
                let Ok(filter) = TopicFilter::parse(text) else { continue };
                if filter.levels().count() > LEVELS_MAX {
                    continue;
                }
                let (mine, its) = match sign {
                    b'+' => (tree.insert(filter, key, number), list.insert((text, key), number)),
                    _ => (tree.remove(filter, &key), list.remove(&(text, key))),
                };
                assert_eq!(mine, its, "{line:?} to {list:?}");
                assert_eq!(tree.get(filter, &key), list.get(&(text, key)));
            }
            _ => {}
        }
        assert_eq!(tree.len(), list.len());
    }
    for (text, key) in list.into_keys() {
        let Ok(filter) = TopicFilter::parse(text) else { continue };
        assert!(tree.remove(filter, &key).is_some(), "{text:?} is there");
    }
    assert_eq!(tree.len(), 0);
}
