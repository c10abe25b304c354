//! The topic a row goes to, by a template: `site/{tag:site}/{device}/{name}`.
//!
//! What a device or an operator chose stays within its level: `/`, `+`, `#`, `%`, control characters
//! and a `$` at the beginning are written as `%` and two hexadecimal digits for each byte. What is
//! missing is `_`.

use std::fmt::Write as _;

use thiserror::Error;
use unhidra_core::device::Device;
use unhidra_core::message::{Reading, UplinkKind};
use unhidra_core::topic::{TopicError, TopicName};

/// A topic with places to fill.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Literal(String),
    Device,
    Class,
    Name,
    Kind,
    /// The value of the tag `KEY=VALUE` or `KEY:VALUE`.
    Tag(String),
}

/// Why a text is no [`Template`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum TemplateError {
    /// A brace without its other.
    #[error("a brace that is not closed, or was not opened")]
    Brace,
    /// A place that is none.
    #[error("{{{found}}} is no place; there are {{device}}, {{class}}, {{name}}, {{kind}} and {{tag:KEY}}")]
    Unknown {
        /// What was found.
        found: String,
    },
    /// It makes no topic.
    #[error("it makes no topic: {0}")]
    Topic(#[from] TopicError),
    /// Messages of all devices would be told apart by nothing.
    #[error("it begins with $, which belongs to the broker")]
    Reserved,
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (literal, found) = rest.split_at(at);
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            let place = found.strip_prefix('{').and_then(|found| found.split_once('}'));
            let (name, behind) = place.ok_or(TemplateError::Brace)?;
            parts.push(match name {
                "device" => Part::Device,
                "class" => Part::Class,
                "name" => Part::Name,
                "kind" => Part::Kind,
                _ => match name.strip_prefix("tag:") {
                    Some(key) if !key.is_empty() => Part::Tag(key.to_owned()),
                    _ => return Err(TemplateError::Unknown { found: name.to_owned() }),
                },
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        let template = Self(parts);
        let sample: String = template.0.iter().map(|part| if let Part::Literal(t) = part { t } else { "x" }).collect();
        TopicName::parse(&sample)?;
        if sample.starts_with('$') { Err(TemplateError::Reserved) } else { Ok(template) }
    }

    /// The topic of a row. It is a Topic Name whatever the row holds.
    pub(crate) fn topic(&self, row: &Reading, device: Option<&Device>) -> String {
        let mut topic = String::new();
        for part in &self.0 {
            let value = match part {
                Part::Literal(text) => {
                    topic.push_str(text);
                    continue;
                }
                Part::Device => row.uplink.device.as_str(),
                Part::Name => &row.uplink.name,
                Part::Kind => kind(row.uplink.kind),
                Part::Class => device.map_or("", |device| device.class.as_str()),
                Part::Tag(key) => device.and_then(|device| tag(device, key)).unwrap_or_default(),
            };
            let first = topic.is_empty();
            put_level(value, first, &mut topic);
        }
        topic
    }
}

/// The word of a row's kind.
pub(crate) const fn kind(kind: UplinkKind) -> &'static str {
    match kind {
        UplinkKind::Reading => "reading",
        UplinkKind::Receipt { .. } => "receipt",
        UplinkKind::Event => "event",
        UplinkKind::Ignored | UplinkKind::Trimmed => "ignored",
    }
}

fn tag<'d>(device: &'d Device, key: &str) -> Option<&'d str> {
    let value = |text: &'d str| text.strip_prefix(key)?.strip_prefix(['=', ':']);
    device.tags.iter().find_map(|tag| value(tag.as_str()))
}

/// A text as one level, or a part of one.
pub(crate) fn level(text: &str) -> String {
    let mut level = String::new();
    put_level(text, false, &mut level);
    level
}

fn put_level(text: &str, first: bool, out: &mut String) {
    if text.is_empty() {
        out.push('_');
    }
    for (at, character) in text.char_indices() {
        let reserved = matches!(character, '/' | '+' | '#' | '%') || (first && at == 0 && character == '$');
        if !reserved && !character.is_control() && !is_noncharacter(character) {
            out.push(character);
            continue;
        }
        let mut bytes = [0; 4];
        for byte in character.encode_utf8(&mut bytes).bytes() {
            // Writing to a text does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// What a broker may refuse in a topic [MQTT-1.5.4-1].
const fn is_noncharacter(character: char) -> bool {
    let code = character as u32;
    code & 0xfffe == 0xfffe || (code >= 0xfdd0 && code <= 0xfdef)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outlets::testing::{device, row};
    use proptest::prelude::*;

    #[test]
    fn places_are_filled_and_what_is_missing_is_an_underscore() {
        let device = device("pump-7", "pump", &["site=hamburg", "floor:2"]);
        let topic = |template: &str| Template::parse(template).unwrap().topic(&row("pump-7", 1, "temp"), Some(&device));
        assert_eq!(topic("a/{tag:site}/{tag:floor}/{class}/{device}/{name}"), "a/hamburg/2/pump/pump-7/temp");
        assert_eq!(topic("{tag:si}-{tag:none}/{kind}"), "_-_/reading");
        let bare = Template::parse("{class}/{name}").unwrap();
        assert_eq!(bare.topic(&row("pump-7", 1, ""), None), "_/_");
    }

    #[test]
    fn a_name_stays_within_its_level() {
        for (name, expected) in [
            ("a/b", "a%2Fb"),
            ("../x", "..%2Fx"),
            ("+", "%2B"),
            ("#", "%23"),
            ("%2F", "%252F"),
            ("\u{0}\u{7f}", "%00%7F"),
            ("\u{ffff}", "%EF%BF%BF"),
            ("$SYS", "$SYS"),
            ("wärme", "wärme"),
        ] {
            assert_eq!(level(name), expected);
        }
        let whole = Template::parse("{name}/x").unwrap();
        assert_eq!(whole.topic(&row("a", 1, "$SYS"), None), "%24SYS/x");
    }

    #[test]
    fn what_makes_no_topic_is_refused() {
        for text in ["", "a/+/{name}", "#", "a/{nam}", "a/{name", "a}b", "{tag:}", "$SYS/{name}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_level(name in any::<String>()) {
            let topic = Template::parse("p/{device}/{name}").unwrap().topic(&row("pump-7", 1, &name), None);
            prop_assert!(TopicName::parse(&topic).is_ok());
            prop_assert!(topic.starts_with("p/pump-7/"));
            prop_assert_eq!(topic.matches('/').count(), 2);
        }

        #[test]
        fn two_names_never_share_a_topic(a in "[a/%+#_$]{0,4}", b in "[a/%+#_$]{0,4}") {
            prop_assume!(a != b && ![&a, &b].iter().any(|name| name.is_empty()));
            prop_assert_ne!(level(&a), level(&b));
        }
    }
}
