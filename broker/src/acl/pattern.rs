//! The topics a rule speaks of: a Topic Filter whose levels may also be `{user}`, `{device}` or
//! `{client_id}`, which stand for what the client is, and `{p}`, the devices' prefix.
//!
//! Two trees are reserved. A wildcard of the first level does not stand for `$...`
//! [MQTT-4.7.2-1], and none at all for what is below `{p}`: a rule must spell the prefix, so that
//! `#` lets nobody see what devices say.

use std::fmt;

use thiserror::Error;
use unhidra_core::topic::{TopicError, TopicFilter};

use super::Principal;

/// What a rule's topics look like.
#[derive(Clone, Eq, PartialEq)]
pub struct Pattern {
    text: Box<str>,
    levels: Box<[Level]>,
    spells_prefix: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Level {
    Literal(Box<str>),
    /// `+`
    One,
    /// `#`
    Rest,
    Of(Placeholder),
}

/// What a level stands for that a client brings with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Placeholder {
    User,
    Device,
    ClientId,
}

/// Whether a rule lets or refuses: it decides what a value means that could pass for topic syntax.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PatternError {
    /// It is no Topic Filter.
    #[error(transparent)]
    Filter(#[from] TopicError),
    /// A brace that makes no placeholder.
    #[error(
        "the level {level:?}; a brace stands only in {{user}}, {{device}}, {{client_id}} and {{p}}, \
         each a level of its own, {{p}} at the beginning"
    )]
    Placeholder {
        /// The level found.
        level: String,
    },
}

/// What a placeholder is for one client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Value<'a> {
    /// The client has none: the pattern stands for nothing.
    Absent,
    /// It holds `/`, `+` or `#`: an allow stands for nothing, a deny for any level.
    Unclean,
    Is(&'a str),
}

impl Pattern {
    /// Reads a pattern, for the devices' prefix `{p}`.
    ///
    /// # Errors
    ///
    /// [`PatternError`] says what is wrong with it.
    pub fn parse(text: &str, prefix: &str) -> Result<Self, PatternError> {
        TopicFilter::parse(text)?;
        let mut levels = Vec::new();
        for (at, level) in text.split('/').enumerate() {
            match level {
                "+" => levels.push(Level::One),
                "#" => levels.push(Level::Rest),
                "{user}" => levels.push(Level::Of(Placeholder::User)),
                "{device}" => levels.push(Level::Of(Placeholder::Device)),
                "{client_id}" => levels.push(Level::Of(Placeholder::ClientId)),
                "{p}" if at == 0 => levels.extend(prefix.split('/').map(|level| Level::Literal(level.into()))),
                _ if level.contains(['{', '}']) => {
                    return Err(PatternError::Placeholder { level: level.to_owned() });
                }
                _ => levels.push(Level::Literal(level.into())),
            }
        }
        let mut begins = levels.iter();
        let spells_prefix = prefix.split('/').all(|wanted| {
            let found = begins.next();
            matches!(found, Some(Level::Literal(found)) if **found == *wanted)
        });
        Ok(Self { text: text.into(), levels: levels.into(), spells_prefix })
    }

    /// Whether it spells the devices' prefix, and so speaks of their tree alone.
    #[must_use]
    pub const fn spells_prefix(&self) -> bool {
        self.spells_prefix
    }

    fn begins_reserved(&self) -> bool {
        matches!(self.levels.first(), Some(Level::Literal(level)) if level.starts_with('$'))
    }

    /// Whether it stands for the Topic Name `name`. `inside`: the name is in the devices' tree.
    pub(super) fn matches(&self, name: &str, inside: bool, who: &Principal, effect: Effect) -> bool {
        if inside != self.spells_prefix || name.starts_with('$') != self.begins_reserved() {
            return false;
        }
        let mut name = name.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            match name.next() {
                Some(found) if level.holds(found, who, effect) => {}
                _ => return false,
            }
        }
        name.next().is_none()
    }

    /// Whether every Topic Name that `filter` stands for is one of this pattern's, reserved trees
    /// apart. `inside`: the filter is in the devices' tree by its own letters.
    pub(super) fn covers(&self, filter: &str, inside: bool, who: &Principal, effect: Effect) -> bool {
        if inside != self.spells_prefix || filter.starts_with('$') != self.begins_reserved() {
            return false;
        }
        let mut filter = filter.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            match filter.next() {
                Some("#") | None => return false,
                Some("+") if matches!(level, Level::One) => {}
                Some("+") => return false,
                Some(found) if level.holds(found, who, effect) => {}
                Some(_) => return false,
            }
        }
        filter.next().is_none()
    }

    /// Whether some Topic Name may be both this pattern's and `filter`'s.
    pub(super) fn meets(&self, filter: &str, who: &Principal, effect: Effect) -> bool {
        if filter.starts_with('$') != self.begins_reserved() {
            return false;
        }
        let mut filter = filter.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            match filter.next() {
                Some("#") => return true,
                Some("+") if level.is_possible(who, effect) => {}
                Some(found) if level.holds(found, who, effect) => {}
                Some(_) | None => return false,
            }
        }
        matches!(filter.next(), None | Some("#"))
    }
}

impl Level {
    /// Whether a level of a topic is this one.
    fn holds(&self, found: &str, who: &Principal, effect: Effect) -> bool {
        match self {
            Self::Literal(wanted) => **wanted == *found,
            Self::One => true,
            Self::Rest => false,
            Self::Of(placeholder) => match who.value(*placeholder) {
                Value::Is(value) => value == found,
                Value::Unclean => effect == Effect::Deny,
                Value::Absent => false,
            },
        }
    }

    /// Whether it stands for anything at all.
    fn is_possible(&self, who: &Principal, effect: Effect) -> bool {
        match self {
            Self::Literal(_) | Self::One | Self::Rest => true,
            Self::Of(placeholder) => match who.value(*placeholder) {
                Value::Is(_) => true,
                Value::Unclean => effect == Effect::Deny,
                Value::Absent => false,
            },
        }
    }
}

impl Principal {
    fn value(&self, placeholder: Placeholder) -> Value<'_> {
        let value = match placeholder {
            Placeholder::User => self.user(),
            Placeholder::Device => self.device().map(unhidra_core::ids::DeviceId::as_str),
            Placeholder::ClientId => Some(self.client_id().as_str()),
        };
        match value {
            None => Value::Absent,
            Some(value) if value.is_empty() || value.contains(['/', '+', '#']) => Value::Unclean,
            Some(value) => Value::Is(value),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}
