use proptest::prelude::*;

use super::*;
use crate::doors::UserName;

fn acl() -> Acl {
    Acl::new("unhidra", RuleSet::default())
}

fn named(who: Admitted, client_id: &str) -> Principal {
    Principal::new(who, ClientId::parse(client_id).expect("an id"))
}

fn pump() -> Principal {
    named(Admitted::Device(DeviceId::parse("pump-7").expect("an id")), "c")
}

fn client() -> Principal {
    named(Admitted::Client(None), "c")
}

fn user(name: &str) -> Principal {
    named(Admitted::Client(Some(UserName::new(name))), "c")
}

fn asked(topic: &str, qos: QoS, retain: bool) -> PublishAsked<'_> {
    PublishAsked { topic: TopicName::parse(topic).expect("a topic"), qos, retain }
}

fn publish(who: &Principal, topic: &str, qos: QoS, retain: bool) -> PublishRight {
    acl().publish(who, asked(topic, qos, retain)).0
}

fn subscribe(who: &Principal, filter: &str) -> SubscribeRight {
    acl().subscribe(who, TopicFilter::parse(filter).expect("a filter")).0
}

/// `allow|deny ACTION WHO TOPIC ...`, where WHO is `*`, `anonymous`, `user:NAME`, `device:NAME`.
fn rules(lines: &[&str]) -> Acl {
    let rule = |(line, text): (usize, &&str)| {
        let mut words = text.split(' ');
        let effect = if words.next() == Some("allow") { Effect::Allow } else { Effect::Deny };
        let action = words.next().expect("an action");
        let actions = Actions {
            publish: matches!(action, "publish" | "all"),
            subscribe: matches!(action, "subscribe" | "all"),
            read: matches!(action, "read" | "all"),
        };
        let who = match words.next().expect("somebody").split_once(':') {
            Some(("user", "*")) => Who::AnyUser,
            Some(("user", name)) => Who::Users([name.to_owned()].into()),
            Some(("device", "*")) => Who::AnyDevice,
            Some((_, name)) => Who::Devices([name.to_owned()].into()),
            None if text.contains(" anonymous ") => Who::Anonymous,
            None => Who::Clients,
        };
        let topics = words.map(|topic| Pattern::parse(topic, "unhidra").expect("a pattern")).collect();
        Rule { effect, actions, who, client_ids: None, topics, retain: None, qos: None, line: line + 1 }
    };
    Acl::new("unhidra", RuleSet::new(lines.iter().enumerate().map(rule).collect()))
}

impl Acl {
    fn publishes(&self, who: &Principal, topic: &str) -> bool {
        self.publish(who, asked(topic, QoS::AtLeastOnce, false)).0 == PublishRight::Route
    }

    /// `None` where the filter is refused; else whether each delivery is looked at.
    fn subscribes(&self, who: &Principal, filter: &str) -> Option<bool> {
        let right = self.subscribe(who, TopicFilter::parse(filter).expect("a filter")).0;
        (right == SubscribeRight::Route).then(|| self.reach(who, filter).checked)
    }

    fn reads(&self, who: &Principal, topic: &str) -> bool {
        self.may_read(who, TopicName::parse(topic).expect("a topic"))
    }
}

#[test]
fn a_device_publishes_to_its_own_rows_alone() {
    use PublishRight::{Deliver, Denied};
    use QoS::{AtLeastOnce, AtMostOnce};
    for (topic, qos, retain, expected) in [
        ("unhidra/devices/pump-7/messages", AtMostOnce, false, Deliver(UplinkRow::Messages)),
        ("unhidra/devices/pump-7/messages", AtLeastOnce, false, Deliver(UplinkRow::Messages)),
        ("unhidra/devices/pump-7/messages", AtLeastOnce, true, Denied),
        ("unhidra/devices/pump-7/prekeys/get", AtLeastOnce, false, Deliver(UplinkRow::PrekeysGet)),
        ("unhidra/devices/pump-7/prekeys/get", AtMostOnce, false, Denied),
        ("unhidra/devices/pump-7/prekeys", AtLeastOnce, false, Denied),
        ("unhidra/devices/pump-7/commands", AtLeastOnce, false, Denied),
        ("unhidra/devices/pump-70/messages", AtLeastOnce, false, Denied),
        ("unhidra/devices/pump-8/messages", AtLeastOnce, false, Denied),
        ("unhidra/devices/pump-7/messages/x", AtLeastOnce, false, Denied),
        ("weather", AtLeastOnce, false, Denied),
        ("$SYS/x", AtLeastOnce, false, Denied),
    ] {
        assert_eq!(publish(&pump(), topic, qos, retain), expected, "{topic} {qos:?} {retain}");
    }
}

#[test]
fn a_device_subscribes_by_exact_topic_alone() {
    use SubscribeRight::{Denied, Listen};
    for (filter, expected) in [
        ("unhidra/devices/pump-7/commands", Listen(DownlinkRow::Commands)),
        ("unhidra/devices/pump-7/prekeys", Listen(DownlinkRow::Prekeys)),
        ("unhidra/devices/pump-7/+", Denied),
        ("unhidra/devices/pump-7/#", Denied),
        ("unhidra/devices/+/commands", Denied),
        ("unhidra/devices/pump-8/commands", Denied),
        ("unhidra/devices/pump-7/messages", Denied),
        ("#", Denied),
    ] {
        assert_eq!(subscribe(&pump(), filter), expected, "{filter}");
    }
}

#[test]
fn a_device_leaves_no_will() {
    let own = asked("unhidra/devices/pump-7/messages", QoS::AtLeastOnce, false);
    let open = asked("weather", QoS::AtLeastOnce, false);
    assert!(!acl().will(&pump(), own) && !acl().will(&pump(), open) && acl().will(&client(), open));
}

#[test]
fn a_plain_client_stays_outside_the_devices_tree() {
    for (topic, right) in [
        ("weather/oslo", PublishRight::Route),
        ("unhidrated", PublishRight::Route),
        ("/unhidra/x", PublishRight::Route),
        ("unhidra", PublishRight::Denied),
        ("unhidra/devices/pump-7/commands", PublishRight::Denied),
        ("$SYS/x", PublishRight::Denied),
    ] {
        assert_eq!(publish(&client(), topic, QoS::AtLeastOnce, false), right, "{topic}");
    }
    for (filter, right) in [
        ("#", SubscribeRight::Route),
        ("+/x", SubscribeRight::Route),
        ("unhidra/#", SubscribeRight::Denied),
        ("unhidra/+/x", SubscribeRight::Denied),
        ("$SYS/#", SubscribeRight::Route),
        ("$other/#", SubscribeRight::Denied),
        ("$share/g/a/#", SubscribeRight::Route),
        ("$share/g/unhidra/#", SubscribeRight::Denied),
    ] {
        assert_eq!(subscribe(&client(), filter), right, "{filter}");
    }
}

#[test]
fn the_first_rule_that_speaks_of_it_decides() {
    let acl = rules(&["deny publish user:bob a/b", "allow publish user:* a/#", "deny all * #"]);
    assert!(!acl.publishes(&user("bob"), "a/b") && acl.publishes(&user("bob"), "a/c"));
    assert!(acl.publishes(&user("eve"), "a/b") && !acl.publishes(&user("eve"), "b"));
    assert!(!acl.publishes(&client(), "a/b"), "a rule for users does not speak of somebody unknown");
    let (_, by) = acl.publish(&user("bob"), asked("a/b", QoS::AtMostOnce, false));
    assert_eq!(by, By::Rule { line: 1 });
}

#[test]
fn a_filter_is_granted_where_one_allow_covers_all_of_it() {
    let acl = rules(&["allow subscribe * a/+/c b/#", "deny all * #"]);
    for (filter, granted) in [
        ("a/b/c", true),
        ("a/+/c", true),
        ("$share/g/a/+/c", true),
        ("a/#", false),
        ("a/+/+", false),
        ("b", true),
        ("b/#", true),
        ("b/+/x/#", true),
        ("+/#", false),
        ("+/b", false),
        ("#", false),
        ("c", false),
    ] {
        assert_eq!(acl.subscribes(&client(), filter), granted.then_some(false), "{filter}");
    }
}

#[test]
fn a_deny_that_covers_a_part_is_held_back_at_delivery() {
    let acl = rules(&["deny read * secret/# a/secret", "deny subscribe * closed/#"]);
    for (filter, granted) in [
        ("#", Some(true)),
        ("+/x", Some(true)),
        ("secret/#", Some(true)),
        ("a/+", Some(true)),
        ("a/b", Some(false)),
        ("closed/x", None),
        ("b/#", Some(false)),
    ] {
        assert_eq!(acl.subscribes(&client(), filter), granted, "{filter}");
    }
    assert!(!acl.reads(&client(), "secret") && !acl.reads(&client(), "secret/x/y"));
    assert!(!acl.reads(&client(), "a/secret") && acl.reads(&client(), "a/b"));
}

#[test]
fn a_rule_must_spell_the_prefix_to_show_what_devices_say() {
    let said = "unhidra/devices/pump-7/messages";
    let wide = rules(&["allow all * # +/devices/# +/+/+/messages {user}/devices/#"]);
    for filter in ["unhidra/#", "unhidra/+/x", said, "unhidra/devices/#", "unhidra"] {
        assert_eq!(wide.subscribes(&user("unhidra"), filter), None, "{filter}");
    }
    assert!(wide.subscribes(&user("unhidra"), "+/devices/#").is_some() && !wide.reads(&user("unhidra"), said));
    assert!(!wide.reach(&user("unhidra"), "#").devices);

    let spelt = rules(&["allow subscribe user:alice {p}/devices/+/messages", "allow read user:ann unhidra/#"]);
    assert_eq!(spelt.subscribes(&user("alice"), "unhidra/devices/+/messages"), Some(false));
    assert_eq!(spelt.subscribes(&user("alice"), "$share/g/unhidra/devices/+/messages"), Some(false));
    assert_eq!(spelt.subscribes(&user("alice"), "unhidra/devices/#"), None);
    assert_eq!(spelt.subscribes(&user("ann"), "unhidra/#"), None, "to read is not to subscribe");
    assert!(spelt.reach(&user("alice"), "unhidra/devices/+/messages").devices && spelt.reads(&user("alice"), said));
    assert!(spelt.reach(&user("alice"), "#").devices && spelt.reach(&user("alice"), "+/devices/#").devices);
    assert!(!spelt.reach(&user("alice"), "weather/#").devices && !spelt.reads(&user("bob"), said));
    assert!(!spelt.reads(&user("alice"), "unhidra/devices/pump-7/commands"));
}

#[test]
fn nobody_but_the_device_speaks_below_the_prefix() {
    let acl = rules(&["allow all * {p}/# #", "allow all device:* {p}/# #", "allow publish * $SYS/# $share/# $own/#"]);
    for topic in ["unhidra", "unhidra/devices/pump-7/messages", "unhidra/devices/pump-8/commands", "$SYS/x", "$share/a"]
    {
        assert!(!acl.publishes(&client(), topic) && !acl.publishes(&user("a"), topic), "{topic}");
    }
    assert!(
        !acl.publishes(&pump(), "unhidra/devices/pump-8/messages")
            && !acl.publishes(&pump(), "unhidra/devices/pump-7/x")
    );
    assert!(acl.publishes(&client(), "$own/x") && acl.publishes(&pump(), "weather"));
}

#[test]
fn a_device_keeps_its_rows_and_gets_no_more_unless_a_rule_names_it() {
    let acl = rules(&["deny all device:* #", "deny all device:pump-7 {p}/#", "allow all * #"]);
    let own = asked("unhidra/devices/pump-7/messages", QoS::AtLeastOnce, false);
    assert_eq!(acl.publish(&pump(), own), (PublishRight::Deliver(UplinkRow::Messages), By::OwnRow));
    let row = TopicFilter::parse("unhidra/devices/pump-7/commands").expect("a filter");
    assert_eq!(acl.subscribe(&pump(), row).0, SubscribeRight::Listen(DownlinkRow::Commands));
    assert!(!acl.publishes(&pump(), "weather") && acl.subscribes(&pump(), "weather").is_none());

    let everybody = rules(&["allow all * #"]);
    assert!(!everybody.publishes(&pump(), "weather") && everybody.subscribes(&pump(), "weather").is_none());
    let named = rules(&["allow all device:pump-7 site/{device}/# #"]);
    assert!(named.publishes(&pump(), "site/pump-7/x") && named.subscribes(&pump(), "weather").is_some());
    let other = rules(&["allow all device:pump-8 #"]);
    assert!(!other.publishes(&pump(), "weather"));
}

#[test]
fn a_placeholder_stands_for_one_level_and_what_could_pass_for_more_matches_no_allow() {
    let acl = rules(&["allow all * home/{user}/# by-id/{client_id}", "deny all * #"]);
    assert!(acl.publishes(&user("ann"), "home/ann/x") && !acl.publishes(&user("ann"), "home/bob/x"));
    assert!(!acl.publishes(&client(), "home//x"), "nobody has no name");
    assert_eq!(acl.subscribes(&user("ann"), "home/ann/#"), Some(false));
    for (name, topic) in [("+", "home/bob/x"), ("#", "home/bob/x"), ("a/b", "home/a/b/x"), ("bob/..", "home/bob/../x")]
    {
        assert!(!acl.publishes(&user(name), topic), "{name} {topic}");
        assert!(acl.subscribes(&user(name), "home/+/x").is_none() && acl.subscribes(&user(name), "home/#").is_none());
    }
    let id = |text| named(Admitted::Client(None), text);
    assert!(acl.publishes(&id("x"), "by-id/x") && !acl.publishes(&id("x/y"), "by-id/x/y"));
    assert!(acl.subscribes(&id("+"), "by-id/+").is_none() && acl.subscribes(&id("#"), "by-id/#").is_none());
    // And what could pass for more escapes no deny.
    let deny = rules(&["deny all * by-id/{client_id}/secret"]);
    assert!(!deny.publishes(&id("+"), "by-id/x/secret") && deny.publishes(&id("y"), "by-id/x/secret"));
}

#[test]
fn a_rule_may_look_at_retain_and_qos_and_the_client_identifier() {
    let topics = || vec![Pattern::parse("a/#", "unhidra").expect("a pattern")];
    let deny = Rule {
        effect: Effect::Deny,
        actions: Actions::ALL,
        who: Who::Clients,
        client_ids: None,
        topics: topics(),
        retain: None,
        qos: None,
        line: 1,
    };
    let one = |rule: Rule| Acl::new("unhidra", RuleSet::new(vec![rule]));
    let right = |acl: &Acl, qos, retain| acl.publish(&client(), asked("a/b", qos, retain)).0;
    let retained = one(Rule { retain: Some(true), ..deny.clone() });
    assert_eq!(right(&retained, QoS::AtMostOnce, true), PublishRight::Denied);
    assert_eq!(right(&retained, QoS::AtMostOnce, false), PublishRight::Route);
    let twice = one(Rule { qos: Some(vec![2]), ..deny.clone() });
    assert_eq!(right(&twice, QoS::ExactlyOnce, false), PublishRight::Denied);
    assert_eq!(right(&twice, QoS::AtLeastOnce, false), PublishRight::Route);
    let other = one(Rule { client_ids: Some(["d".to_owned()].into()), ..deny });
    assert_eq!(right(&other, QoS::AtLeastOnce, false), PublishRight::Route);
}

#[test]
fn a_brace_is_a_placeholder_or_an_error() {
    for bad in ["a/{usr}", "a/x{user}", "{user", "a/{p}", "{}"] {
        assert!(matches!(Pattern::parse(bad, "unhidra"), Err(PatternError::Placeholder { .. })), "{bad}");
    }
    assert!(Pattern::parse("a/#/b", "unhidra").is_err());
    assert!(Pattern::parse("{p}/devices/+/messages", "site/unhidra").expect("a pattern").spells_prefix());
    assert!(!Pattern::parse("site/#", "site/unhidra").expect("a pattern").spells_prefix());
}

/// A file of a thousand users with a rule each, and ten for all of them.
fn large() -> Acl {
    let mut lines: Vec<String> = (0..1_000).map(|n| format!("allow all user:u{n} home/u{n}/#")).collect();
    lines.extend((0..10).map(|n| format!("allow publish user:* site/{n}/+/temperature")));
    lines.push("deny all * #".to_owned());
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    rules(&lines)
}

#[test]
fn a_check_meets_the_rules_of_its_client_alone_and_allocates_nothing() {
    let (acl, who) = (large(), user("u500"));
    assert_eq!(acl.rules.load().of(&who).count(), 12);
    let counted = allocation_counter::measure(|| {
        assert!(acl.publishes(&who, "site/9/x/temperature") && !acl.publishes(&who, "home/u501/x"));
        assert!(acl.reads(&who, "home/u500/x") && !acl.reads(&who, "site/1/x/temperature"));
        assert!(acl.publish(&pump(), asked("unhidra/devices/pump-7/messages", QoS::AtMostOnce, false)).1 == By::OwnRow);
    });
    // One is the test's own: `pump` makes a client identifier.
    assert!(counted.count_total <= 1, "{counted:?}");
}

proptest! {
    /// What a subscription is granted without a look at each delivery, it may read; and whatever a
    /// filter is granted, a covering or meeting of patterns agrees with the match of names.
#[test]
    fn filters_agree_with_the_names_they_stand_for(
        lines in proptest::collection::vec("(allow|deny) (subscribe|read|all) \\* ([ab]|\\+)(/([ab]|\\+)){0,2}(/#)?", 0..5),
        filter in "([ab]|\\+)(/([ab]|\\+)){0,2}(/#)?",
        name in "[ab](/[ab]){0,3}",
    ) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let acl = rules(&lines);
        let shown = TopicFilter::parse(&filter).expect("a filter").matches(TopicName::parse(&name).expect("a name"));
        match acl.subscribes(&client(), &filter) {
            Some(false) if shown => prop_assert!(acl.reads(&client(), &name), "{lines:?}"),
            _ => {}
        }
        for line in &lines {
            let pattern = Pattern::parse(line.rsplit(' ').next().expect("a topic"), "unhidra").expect("a pattern");
            let holds = pattern.matches(&name, false, &client(), Effect::Deny);
            if pattern.covers(&filter, false, &client(), Effect::Deny) && shown {
                prop_assert!(holds, "{pattern} covers {filter}, not {name}");
            }
            if holds && shown {
                prop_assert!(pattern.meets(&filter, &client(), Effect::Deny), "{pattern} meets {filter} at {name}");
            }
        }
    }
}
