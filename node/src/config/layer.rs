//! One layer of the configuration over another.
//!
//! A table of the defaults that holds [`NAMED`] stands for tables under names of their owner's choice:
//! what each of them may hold, and what it holds where nothing else is said.

use std::path::Path;

use toml::{Table, Value};
use unhidra_certs::read_public;

use super::shown::{shown, shown_instead, shown_unknown};
use super::{ConfigError, DEFAULT, Origin, Setting, beside};
use crate::upstream::{LIST, PATHS as UPSTREAM_PATHS};

/// The name in the defaults that stands for every name of a table's owner.
const NAMED: &str = "NAME";

/// The most characters of such a name: it is a label of metrics, and a key of the store.
const NAME_LEN_MAX: usize = 32;

/// The keys that name files or folders. In a file they are read from the file's own place.
const PATHS: [&str; 15] = [
    "data",
    "demo.data",
    "pki.ca",
    "pki.ca_key",
    "pki.certificate",
    "pki.key",
    "pki.crl",
    "users.file",
    "jwt.key_file",
    "acl.file",
    "outlets.NAME.ca",
    "outlets.NAME.certificate",
    "outlets.NAME.key",
    "outlets.NAME.password_file",
    "outlets.NAME.secret_file",
];

/// What one source sets.
pub(super) struct Layer {
    origin: Origin,
    table: Table,
}

impl Layer {
    pub(super) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let origin = Origin::File(path.into());
        let text = String::from_utf8(read_public(path)?)
            .map_err(|error| ConfigError::Syntax { origin: origin.clone(), cause: error.to_string() })?;
        let mut table: Table = text
            .parse()
            .map_err(|error| ConfigError::Syntax { origin: origin.clone(), cause: without_the_line(&text, &error) })?;
        for key in PATHS {
            each_mut(&mut table, key, &mut |value| {
                if let Value::String(found) = value {
                    *found = beside(path, found).to_string_lossy().into_owned();
                }
            });
        }
        if let Some(Value::Table(upstream)) = table.get_mut("upstream") {
            paths_of_upstreams(path, upstream);
        }
        Ok(Self { origin, table })
    }

    /// Reads `KEY=VALUE`. The value is TOML; where a text is expected it needs no quotes.
    pub(super) fn from_assignment(text: &str, schema: &Table) -> Result<Self, ConfigError> {
        // Whatever stands for the key; a value is not told.
        let none = || ConfigError::Assignment { found: text.split('=').next().unwrap_or_default().to_owned() };
        let (key, value) = text.split_once('=').ok_or_else(none)?;
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || key.split('.').any(str::is_empty) {
            return Err(none());
        }
        let bare = || Value::String(value.to_owned());
        let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        let value = match (parsed, get_expected(schema, key)) {
            (Some(parsed @ Value::String(_)), _) => parsed,
            (_, Some(Value::String(_))) => bare(),
            (Some(parsed), _) => parsed,
            (None, _) => bare(),
        };
        Ok(Self { origin: Origin::Set, table: nest(key, value) })
    }

    pub(super) fn from_option(name: &'static str, key: &str, value: &str) -> Self {
        Self { origin: Origin::Option(name), table: nest(key, Value::String(value.to_owned())) }
    }

    /// Holds keys and types to the defaults'.
    pub(super) fn check(&self, schema: &Table) -> Result<(), ConfigError> {
        self.check_table(&self.table, schema, schema, "")
    }

    fn check_table(&self, found: &Table, here: &Table, schema: &Table, above: &str) -> Result<(), ConfigError> {
        for (name, value) in found {
            let key = join(above, name);
            if here.contains_key(NAMED) && !is_name(name) {
                let cause = format!("{name:?} is no name; a name has 1 to {NAME_LEN_MAX} characters of a-z 0-9 _ -");
                return Err(ConfigError::Invalid { setting: self.setting(key, value), cause });
            }
            match (value, here.get(name).or_else(|| here.get(NAMED))) {
                (_, None) => {
                    let hint = hint(&key, above, here, schema);
                    let (value, origin) = (shown_unknown(&key, value), self.origin.clone());
                    return Err(ConfigError::UnknownKey { setting: Box::new(Setting { key, value, origin }), hint });
                }
                (Value::Array(listed), Some(_)) if is_list_of_upstreams(above, name) => {
                    let each = keys_of_an_upstream(here);
                    for (at, one) in listed.iter().enumerate() {
                        self.check_upstream(one, &each, schema, format!("{key}[{at}]"))?;
                    }
                }
                // Names are an operator's there; what stands under them, the type it becomes says.
                (Value::Table(_), Some(Value::Table(expected))) if expected.is_empty() => {}
                (Value::Table(inner), Some(Value::Table(expected))) => {
                    self.check_table(inner, expected, schema, &key)?;
                }
                (value, Some(expected)) if !same_type(value, expected) => {
                    return Err(self.wrong_type(key, value, expected));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Holds one outside broker of the list to the keys it may have.
    fn check_upstream(&self, one: &Value, each: &Table, schema: &Table, key: String) -> Result<(), ConfigError> {
        match one {
            Value::Table(one) => self.check_table(one, each, schema, &key),
            other => Err(self.wrong_type(key, other, &Value::Table(each.clone()))),
        }
    }

    fn wrong_type(&self, key: String, value: &Value, expected: &Value) -> ConfigError {
        let (value_shown, origin) = (shown_instead(&key, value, expected), self.origin.clone());
        ConfigError::WrongType {
            setting: Box::new(Setting { key, value: value_shown, origin }),
            found: type_of(value),
            expected: type_of(expected),
            example: example(expected),
        }
    }

    fn setting(&self, key: String, value: &Value) -> Box<Setting> {
        Box::new(Setting { value: shown(&key, value), key, origin: self.origin.clone() })
    }

    pub(super) fn merge_into(&self, table: &mut Table) {
        merge(&self.table, table);
    }
}

/// Whether this is where outside brokers stand, each a table in a list.
fn is_list_of_upstreams(above: &str, name: &str) -> bool {
    above == "upstream" && name == LIST
}

/// The keys of one outside broker, with what the defaults have there: those that hold for all of them,
/// and two of its own.
fn keys_of_an_upstream(common: &Table) -> Table {
    let mut each = common.clone();
    each.remove(LIST);
    for (key, example) in [("name", "factory"), ("address", "HOST:PORT")] {
        each.insert(key.to_owned(), Value::String(example.to_owned()));
    }
    each
}

/// Where a file is no TOML, and why. The line itself is not told: a secret may stand in it.
fn without_the_line(text: &str, error: &toml::de::Error) -> String {
    let Some(span) = error.span() else { return error.message().to_owned() };
    let before = text.get(..span.start).unwrap_or(text);
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    format!("line {line}, column {column}: {}", error.message())
}

/// The files of outside brokers: those for all of them, and those of each in its list.
fn paths_of_upstreams(file: &Path, upstream: &mut Table) {
    let mut listed = match upstream.get_mut(LIST) {
        Some(Value::Array(listed)) => std::mem::take(listed),
        _ => Vec::new(),
    };
    let each = listed.iter_mut().filter_map(Value::as_table_mut).chain([&mut *upstream]);
    for one in each {
        for key in UPSTREAM_PATHS {
            if let Some(Value::String(found)) = one.get_mut(key) {
                *found = beside(file, found).to_string_lossy().into_owned();
            }
        }
    }
    if !listed.is_empty() {
        upstream.insert(LIST.to_owned(), Value::Array(listed));
    }
}

/// The defaults.
pub(super) fn defaults() -> Result<Table, ConfigError> {
    DEFAULT
        .parse()
        .map_err(|error: toml::de::Error| ConfigError::Syntax { origin: Origin::Default, cause: error.to_string() })
}

/// The layer that has the last word about a key.
pub(super) fn origin(layers: &[Layer], key: &str) -> Origin {
    let last = layers.iter().rev().find(|layer| get(&layer.table, key).is_some());
    last.map_or(Origin::Default, |layer| layer.origin.clone())
}

/// The value of a dotted key. An index into an array is the array where nothing comes behind it, and in
/// an array of tables one of them where a key does.
pub(super) fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let (name, index) = first.split_once('[').map_or((first, None), |(name, index)| (name, Some(index)));
    match (table.get(name)?, rest) {
        (value, None) => Some(value),
        (Value::Table(inner), Some(rest)) => get(inner, rest),
        (Value::Array(listed), Some(rest)) => {
            let index: usize = index?.strip_suffix(']')?.parse().ok()?;
            get(listed.get(index)?.as_table()?, rest)
        }
        _ => None,
    }
}

/// What the defaults say of a dotted key, whatever name its owner gave to a table.
fn get_expected<'a>(schema: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    match (schema.get(first).or_else(|| schema.get(NAMED))?, rest) {
        (value, None) => Some(value),
        (Value::Table(inner), Some(rest)) => get_expected(inner, rest),
        _ => None,
    }
}

/// Shows every value of a dotted key: several, where a level of it is [`NAMED`].
fn each_mut(table: &mut Table, key: &str, visit: &mut dyn FnMut(&mut Value)) {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    for (_, value) in table.iter_mut().filter(|(name, _)| first == NAMED || name.as_str() == first) {
        match (value, rest) {
            (value, None) => visit(value),
            (Value::Table(inner), Some(rest)) => each_mut(inner, rest, visit),
            _ => {}
        }
    }
}

/// Gives each table under a name of its owner's choice what the defaults say and it does not, and
/// takes out what stood for them.
pub(super) fn fill_named(table: &mut Table, schema: &Table) {
    table.remove(NAMED);
    for (name, value) in table.iter_mut() {
        let Value::Table(inner) = value else { continue };
        match (schema.get(name), schema.get(NAMED)) {
            (Some(Value::Table(expected)), _) => fill_named(inner, expected),
            (None, Some(Value::Table(expected))) => {
                let mut whole = expected.clone();
                merge(inner, &mut whole);
                fill_named(&mut whole, expected);
                *inner = whole;
            }
            _ => {}
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    (1..=NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Every dotted key of a table with its value, in order.
pub(super) fn leaves(table: &Table) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                found.extend(leaves(inner).into_iter().map(|(key, value)| (join(name, &key), value)));
            }
            _ => found.push((name.clone(), value)),
        }
    }
    found
}

/// Sets one dotted key that the table has.
pub(super) fn put(table: &mut Table, key: &str, value: Value) {
    merge(&nest(key, value), table);
}

fn merge(from: &Table, into: &mut Table) {
    for (name, value) in from {
        match (value, into.get_mut(name)) {
            (Value::Table(from), Some(Value::Table(into))) => merge(from, into),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

fn nest(key: &str, value: Value) -> Table {
    let mut names = key.split('.').rev();
    let last = names.next().unwrap_or_default();
    let one = |name: &str, value| Table::from_iter([(name.to_owned(), value)]);
    names.fold(one(last, value), |inner, name| one(name, Value::Table(inner)))
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}

fn same_type(value: &Value, expected: &Value) -> bool {
    value.same_type(expected) || matches!((value, expected), (Value::Integer(_), Value::Float(_)))
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

fn example(value: &Value) -> String {
    match value {
        Value::Table(table) => format!("one with {}", names(table)),
        value => value.to_string(),
    }
}

/// The key that was meant, if one is near; else those there are.
fn hint(key: &str, above: &str, here: &Table, schema: &Table) -> String {
    let known: Vec<String> = leaves(schema).into_iter().map(|(key, _)| key).collect();
    let tail = format!(".{key}");
    if let Some(whole) = known.iter().find(|known| known.ends_with(&tail)) {
        return format!("its whole name is {whole}");
    }
    let nearest = known.iter().map(|known| (distance(key, known), known)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 2.max(key.len() / 5) => format!("{nearest} is near"),
        _ if above.is_empty() => format!("at the top are {}", names(here)),
        _ => format!("in [{above}] are {}", names(here)),
    }
}

fn names(table: &Table) -> String {
    table.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// How many characters must be put in, taken out or replaced (Levenshtein). Both are keys: short.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(DISTANCE_LEN_MAX).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(DISTANCE_LEN_MAX).enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&b) {
            let replaced = corner + usize::from(a != *b);
            corner = *cell;
            *cell = replaced.min(corner + 1).min(left + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// A key somebody made a book of is compared by its beginning.
const DISTANCE_LEN_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_what_must_change() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
