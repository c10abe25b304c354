//! What of a value may be told, in errors and so in the log.
//!
//! In an address a user and a password may stand, in a path or a query a token, in a command anything;
//! and what stands under a key that does not exist may be what somebody meant to hide. So texts are
//! shown of keys that are known to hold nothing of the kind. Numbers and truths are no secrets, and
//! neither is a short word where one of those is expected, unless the key speaks of secrets.

use toml::Value;

/// Keys, or what several begin with, whose texts are shown; `*` stands for a name of its owner's choice.
const HARMLESS: [&str; 26] = [
    "admin.listen",
    "broker.limits.",
    "broker.mqtt.",
    "broker.prefix",
    "broker.tcp.",
    "broker.tls.",
    "broker.ws.",
    "broker.wss.",
    "data",
    "demo.data",
    "gateway.hosts",
    "gateway.listen",
    "gateway.origins",
    "jwt.algorithm",
    "log.",
    "outlets.*.classes",
    "outlets.*.devices",
    "outlets.*.format",
    "outlets.*.from",
    "outlets.*.kind",
    "outlets.*.tags",
    "pki.names",
    "pki.trust_domain",
    "store.durability",
    "upstream.broker.version",
    "upstream.version",
];

/// A value as people are shown it.
pub(super) fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => value.to_string(),
        Value::String(_) | Value::Array(_) | Value::Table(_) if is_harmless(key) => value.to_string(),
        Value::String(_) => "[a text]".to_owned(),
        Value::Array(_) => "[a list]".to_owned(),
        Value::Table(_) => "[a table]".to_owned(),
    }
}

/// A value of the wrong type, as people are shown it. `expected` is what the defaults have there.
pub(super) fn shown_instead(key: &str, value: &Value, expected: &Value) -> String {
    match (value, expected) {
        (Value::String(text), Value::Integer(_) | Value::Float(_) | Value::Boolean(_))
            if is_a_word(text) && !speaks_of_secrets(key) =>
        {
            value.to_string()
        }
        _ => shown(key, value),
    }
}

/// The value of a key that does not exist: a number too may be meant as what is to be hidden.
pub(super) fn shown_unknown(key: &str, value: &Value) -> String {
    match value {
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) if speaks_of_secrets(key) => {
            "[a value]".to_owned()
        }
        _ => shown(key, value),
    }
}

/// The most characters of a word that somebody may have meant as a number, with its unit.
const WORD_LEN_MAX: usize = 24;

/// Whether a text may be a number gone wrong, and no address, command or phrase.
fn is_a_word(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '.' | ',' | '_' | '+' | '-' | '%');
    text.len() <= WORD_LEN_MAX && text.chars().all(allowed)
}

/// What a key is called where a secret may stand at it or beside it.
const OF_SECRETS: [&str; 6] = ["key", "keys", "password", "secret", "token", "tokens"];

fn speaks_of_secrets(key: &str) -> bool {
    key.split(['.', '_']).any(|part| OF_SECRETS.contains(&part))
}

fn is_harmless(key: &str) -> bool {
    let key = without_indexes(key);
    HARMLESS.iter().any(|harmless| match (harmless.strip_suffix('.'), harmless.split_once(".*.")) {
        // Below the table too, but not in tables of tables.
        (Some(table), _) => {
            key.strip_prefix(table).is_some_and(|rest| rest.starts_with('.') && !rest[1..].contains('.'))
        }
        (None, Some((before, after))) => {
            let rest = key.strip_prefix(before).and_then(|rest| rest.strip_prefix('.'));
            rest.and_then(|rest| rest.split_once('.')).is_some_and(|(_, last)| last == after)
        }
        (None, None) => *harmless == key,
    })
}

/// A key as it would stand if what is in a list stood there alone.
fn without_indexes(key: &str) -> String {
    key.split('.').map(|part| part.split_once('[').map_or(part, |(name, _)| name)).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_where_it_is_known_to_hold_no_secret() {
        let text = Value::String("hunter2".to_owned());
        let is_shown = |key: &str| shown(key, &text).contains("hunter2");
        for key in
            ["log.level", "gateway.listen", "gateway.hosts[1]", "outlets.hook.kind", "upstream.broker[1].version"]
        {
            assert!(is_shown(key), "{key}");
        }
        for key in [
            "outlets.hook.url",
            "outlets.hook.user",
            "outlets.kind",
            "outlets.a.b.kind",
            "outlets.hook.password",
            "store.master_key_command",
            "store.master_key_command[2]",
            "upstream.broker",
            "upstream.broker[0]",
            "upstream.broker[0].address",
            "broker.tls.colour.red",
            "colour",
            "database",
            "",
        ] {
            assert!(!is_shown(key), "{key}");
        }
        assert_eq!(shown("outlets.hook.batch_rows", &Value::Integer(0)), "0");
        assert_eq!(shown_unknown("outlets.hook.batch_row", &Value::Integer(0)), "0");
        assert_eq!(shown_unknown("outlets.hook.password", &Value::Integer(4711)), "[a value]");
        assert_eq!(shown("outlets.hook.url", &Value::Array(vec![text])), "[a list]");
    }

    #[test]
    fn a_word_is_shown_where_a_number_or_a_truth_is_expected_and_nothing_else_is() {
        let is_shown = |key: &str, text: &str, expected: &Value| {
            let value = Value::String(text.to_owned());
            shown_instead(key, &value, expected).contains(text)
        };
        let (number, truth) = (Value::Integer(10), Value::Boolean(false));
        for text in ["many", "10 s", "64 KiB", "1,5", "yes", "-1"] {
            assert!(is_shown("pump.shards", text, &number) && is_shown("users.wait", text, &truth), "{text}");
        }
        for text in
            ["https://user:hunter2@a.example/", "--token=hunter2", "correct horse battery staple", "Bearer/hunter2"]
        {
            assert!(!is_shown("pump.shards", text, &number), "{text}");
        }
        for key in ["store.master_key_command_timeout_s", "gateway.tokens_max", "outlets.hook.password"] {
            assert!(!is_shown(key, "hunter2", &number), "{key}");
        }
        assert!(!is_shown("store.master_key_command", "hunter2", &Value::Array(Vec::new())), "a list is expected");
    }
}
