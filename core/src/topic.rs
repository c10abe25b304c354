//! Topic Names and Topic Filters (MQTT section 4.7), and the match between them.

use thiserror::Error;

/// The most bytes a topic may have: the two-byte length of a UTF-8 string (section 1.5.4).
pub const TOPIC_LEN_MAX: usize = 65_535;

/// A Topic Name: one concrete address, no wildcards (section 4.7).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TopicName<'a>(&'a str);

/// A Topic Filter: a pattern for Topic Names. `+` stands for one level, a last `#` for the level
/// before it and all below (section 4.7.1).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TopicFilter<'a>(&'a str);

/// Which rule a text breaks.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum TopicError {
    /// Topics are at least one character long [MQTT-4.7.3-1].
    #[error("a topic is empty")]
    Empty,
    /// A string of MQTT has at most 65 535 bytes [MQTT-4.7.3-3].
    #[error("a topic of {len} bytes; at most 65535 are allowed")]
    TooLong {
        /// Bytes found.
        len: usize,
    },
    /// A character that may not stand there: a wildcard in a name [MQTT-4.7.1-1], U+0000
    /// [MQTT-4.7.3-2].
    #[error("the character {character:?} at byte {at} of a topic is not allowed there")]
    Forbidden {
        /// The character found.
        character: char,
        /// Its byte index.
        at: usize,
    },
    /// `#` is the last character and a level of its own [MQTT-4.7.1-1]; `+` is a level of its own
    /// [MQTT-4.7.1-2].
    #[error("the wildcard {character:?} at byte {at} is no level of its own, or # is not the last")]
    Wildcard {
        /// The wildcard found.
        character: char,
        /// Its byte index.
        at: usize,
    },
}

fn check_text(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > TOPIC_LEN_MAX {
        return Err(TopicError::TooLong { len: text.len() });
    }
    match text.find('\0') {
        Some(at) => Err(TopicError::Forbidden { character: '\0', at }),
        None => Ok(()),
    }
}

impl<'a> TopicName<'a> {
    /// Parses a Topic Name.
    ///
    /// # Errors
    ///
    /// [`TopicError`] says which rule the text breaks; the caller answers with Reason Code 0x90.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        check_text(text)?;
        match text.bytes().enumerate().find(|(_, byte)| matches!(byte, b'+' | b'#')) {
            Some((at, byte)) => Err(TopicError::Forbidden { character: char::from(byte), at }),
            None => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, in order.
    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether it begins with `$`, so that no wildcard of the first level matches it
    /// [MQTT-4.7.2-1].
    #[must_use]
    pub fn is_reserved(self) -> bool {
        self.0.starts_with('$')
    }
}

impl<'a> TopicFilter<'a> {
    /// Parses a Topic Filter.
    ///
    /// # Errors
    ///
    /// [`TopicError`] says which rule the text breaks; the caller answers with Reason Code 0x8F.
    pub fn parse(text: &'a str) -> Result<Self, TopicError> {
        check_text(text)?;
        let mut at = 0;
        for level in text.split('/') {
            let end = level.len().saturating_add(at);
            let misplaced = match level.find(['+', '#']) {
                None => None,
                Some(_) if level == "+" => None,
                Some(_) if level == "#" && end == text.len() => None,
                Some(found) => Some(found),
            };
            if let Some(found) = misplaced {
                let character = if level.get(found..).is_some_and(|rest| rest.starts_with('+')) { '+' } else { '#' };
                return Err(TopicError::Wildcard { character, at: found.saturating_add(at) });
            }
            at = end.saturating_add(1);
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Its levels, in order.
    pub fn levels(self) -> impl Iterator<Item = &'a str> {
        self.0.split('/')
    }

    /// Whether it holds a wildcard.
    #[must_use]
    pub fn has_wildcard(self) -> bool {
        self.0.contains(['+', '#'])
    }

    /// Whether `name` is among the names this filter stands for (section 4.7).
    #[must_use]
    pub fn matches(self, name: TopicName<'_>) -> bool {
        if name.is_reserved() && !self.0.starts_with('$') {
            return false;
        }
        let mut filter = self.levels();
        let mut name = name.levels();
        loop {
            match (filter.next(), name.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(wanted), Some(found)) if wanted == found => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_has_no_wildcards() {
        assert_eq!(TopicName::parse("a/b").map(TopicName::as_str), Ok("a/b"));
        assert_eq!(TopicName::parse(""), Err(TopicError::Empty));
        assert_eq!(TopicName::parse("a/+"), Err(TopicError::Forbidden { character: '+', at: 2 }));
        assert_eq!(TopicName::parse("a#"), Err(TopicError::Forbidden { character: '#', at: 1 }));
        assert_eq!(TopicName::parse("a\0"), Err(TopicError::Forbidden { character: '\0', at: 1 }));
        let long = "a".repeat(65_536);
        assert_eq!(TopicName::parse(&long), Err(TopicError::TooLong { len: 65_536 }));
    }

    #[test]
    fn a_wildcard_is_a_level_of_its_own() {
        for good in ["#", "+", "a/#", "+/a/+", "/", "a//b", "/+"] {
            assert!(TopicFilter::parse(good).is_ok(), "{good}");
        }
        for (bad, character, at) in
            [("a#", '#', 1), ("#/a", '#', 0), ("a/b+", '+', 3), ("a/#/b", '#', 2), ("++", '+', 0), ("+#", '+', 0)]
        {
            assert_eq!(TopicFilter::parse(bad), Err(TopicError::Wildcard { character, at }), "{bad}");
        }
    }

    #[test]
    fn filters_match_as_section_4_7_says() {
        let table = [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("a/b", "a/B", false),
        ];
        for (filter, name, expected) in table {
            let (Ok(f), Ok(n)) = (TopicFilter::parse(filter), TopicName::parse(name)) else {
                panic!("{filter} {name}")
            };
            assert_eq!(f.matches(n), expected, "{filter} against {name}");
        }
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_what_contains_it(text in "[a-c/]{1,12}") {
            let (Ok(name), Ok(filter), Ok(all)) = (TopicName::parse(&text), TopicFilter::parse(&text), TopicFilter::parse("#")) else {
                return Err(TestCaseError::fail("parses"));
            };
            prop_assert!(filter.matches(name) && all.matches(name));
        }
    }
}
