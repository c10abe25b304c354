//! What of a value may be told, in errors and so in the log.
//!
//! In an address a user and a password may stand, in a path or a query a token, in a command anything;
//! and what stands under a key that does not exist may be what somebody meant to hide. So texts are
//! shown of keys that are known to hold nothing of the kind. Numbers and truths are no secrets.

use toml::Value;

/// Keys, or what several begin with, whose texts are shown; `*` stands for a name of its owner's choice.
const HARMLESS: [&str; 25] = [
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

fn is_harmless(key: &str) -> bool {
    let key = key.split_once('[').map_or(key, |(key, _)| key);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_where_it_is_known_to_hold_no_secret() {
        let text = Value::String("hunter2".to_owned());
        let is_shown = |key: &str| shown(key, &text).contains("hunter2");
        for key in ["log.level", "gateway.listen", "gateway.hosts[1]", "outlets.hook.kind", "broker.tls.listen"] {
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
            "upstream[0].address",
            "broker.tls.colour.red",
            "colour",
            "database",
            "",
        ] {
            assert!(!is_shown(key), "{key}");
        }
        assert_eq!(shown("outlets.hook.batch_rows", &Value::Integer(0)), "0");
        assert_eq!(shown("outlets.hook.url", &Value::Array(vec![text])), "[a list]");
    }
}
