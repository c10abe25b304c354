//! The filters that have a topic in common with another one.

use std::ops::ControlFlow;

use unhidra_core::topic::TopicFilter;

use super::{Node, Trie};

impl<K: Ord, V> Trie<K, V> {
    /// Shows every value whose filter stands for a topic that `wanted` stands for too, with the
    /// filter, until `see` breaks. Not for the way of a message: it builds each filter's text.
    pub(crate) fn overlapping<'t>(
        &'t self,
        wanted: TopicFilter<'_>,
        see: &mut impl FnMut(&str, &'t K, &'t V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let wanted: Vec<&str> = wanted.levels().collect();
        self.root.overlapping(&wanted, &mut String::new(), true, see)
    }
}

impl<K: Ord, V> Node<K, V> {
    /// `path` is this node's: levels, each followed by `/`.
    fn overlapping<'t>(
        &'t self,
        wanted: &[&str],
        path: &mut String,
        is_root: bool,
        see: &mut impl FnMut(&str, &'t K, &'t V) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // No wildcard of the first level matches a reserved topic [MQTT-4.7.2-1].
        let is_reserved = is_root && wanted.first().is_some_and(|level| level.starts_with('$'));
        if !is_reserved {
            let filter = format!("{path}#");
            self.below.iter().try_for_each(|(key, value)| see(&filter, key, value))?;
        }
        if matches!(wanted, [] | ["#"]) {
            // `#` stands for the level before it too (section 4.7.1.2).
            let filter = path.strip_suffix('/').unwrap_or(path);
            self.here.iter().try_for_each(|(key, value)| see(filter, key, value))?;
        }
        let Some((level, rest)) = wanted.split_first() else { return ControlFlow::Continue(()) };
        let rest = if *level == "#" { wanted } else { rest };
        let length = path.len();
        let mut go = |name: &str, child: &'t Self, path: &mut String| {
            path.push_str(name);
            path.push('/');
            let flow = child.overlapping(rest, path, false, see);
            path.truncate(length);
            flow
        };
        if !is_reserved && let Some(child) = &self.plus {
            go("+", child, path)?;
        }
        if matches!(*level, "#" | "+") {
            let shown = self.children.iter().filter(|(name, _)| !(is_root && name.starts_with('$')));
            shown.into_iter().try_for_each(|(name, child)| go(name, child, path))
        } else {
            self.children.get(*level).map_or(ControlFlow::Continue(()), |child| go(level, child, path))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use unhidra_core::topic::TopicName;

    use super::*;

    fn filter(text: &str) -> TopicFilter<'_> {
        TopicFilter::parse(text).expect("a filter")
    }

    fn overlapping(filters: &[&str], wanted: &str) -> Vec<String> {
        let mut trie = Trie::default();
        filters.iter().for_each(|text| assert!(trie.insert(filter(text), 0_u32, ()).is_none()));
        let mut found = Vec::new();
        let _ = trie.overlapping(filter(wanted), &mut |filter, _, ()| {
            found.push(filter.to_owned());
            ControlFlow::Continue(())
        });
        found.sort();
        found
    }

    #[test]
    fn filters_with_a_topic_in_common_are_found_with_their_text() {
        let all = ["#", "+", "+/b", "a", "a/#", "a/+", "a/b", "a/b/c", "$SYS/#", "/", "a//b"];
        assert_eq!(overlapping(&all, "a/b"), ["#", "+/b", "a/#", "a/+", "a/b"]);
        assert_eq!(overlapping(&all, "a/#"), ["#", "+", "+/b", "a", "a/#", "a/+", "a/b", "a/b/c", "a//b"].sorted());
        assert_eq!(overlapping(&all, "$SYS/x"), ["$SYS/#"]);
        assert_eq!(overlapping(&all, "+"), ["#", "+", "a", "a/#"]);
        assert_eq!(overlapping(&all, "/"), ["#", "/"]);
        assert_eq!(overlapping(&all, "a//b"), ["#", "a/#", "a//b"].sorted());
        assert!(!overlapping(&all, "#").contains(&"$SYS/#".to_owned()));
    }

    trait Sorted {
        fn sorted(self) -> Vec<String>;
    }

    impl<const N: usize> Sorted for [&str; N] {
        fn sorted(self) -> Vec<String> {
            let mut all: Vec<String> = self.iter().map(|text| (*text).to_owned()).collect();
            all.sort();
            all
        }
    }

    #[test]
    fn a_look_ends_when_enough_is_seen() {
        let mut trie = Trie::default();
        (0..100_u32).for_each(|key| assert!(trie.insert(filter("a/+"), key, ()).is_none()));
        let mut seen = 0;
        let _ = trie.overlapping(filter("#"), &mut |_, _, ()| {
            seen += 1;
            if seen < 10 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert_eq!(seen, 10);
    }

    proptest! {
        /// For a name it finds what the match of each filter against it finds.
        #[test]
        fn of_a_name_it_is_the_match(
            filters in proptest::collection::btree_set("([ab$]|\\+|)(/([ab]|\\+|)){0,3}(/#)?", 1..12),
            name in "[ab$](/[ab]?){0,3}",
        ) {
            let good: Vec<&str> =
                filters.iter().map(String::as_str).filter(|text| TopicFilter::parse(text).is_ok()).collect();
            let topic = TopicName::parse(&name).expect("a name");
            let mut expected: Vec<String> =
                good.iter().filter(|text| filter(text).matches(topic)).map(|text| (*text).to_owned()).collect();
            expected.sort();
            prop_assert_eq!(overlapping(&good, &name), expected);
        }
    }
}
