use super::*;
use crate::access::Files;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use unhidra_certs::{Authority, write_private, write_public};
use unhidra_core::time::UnixTime;

fn sources() -> Sources {
    Sources { purpose: Purpose::Node, file: None, set: Vec::new(), data: None, log_format: None }
}

fn set(assignments: &[&str]) -> Sources {
    Sources { set: assignments.iter().map(ToString::to_string).collect(), ..sources() }
}

struct File {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("node.toml");
    fs::write(&path, text).unwrap();
    File { folder, path }
}

impl File {
    fn sources(&self) -> Sources {
        Sources { file: Some(self.path.clone()), ..sources() }
    }
}

#[track_caller]
fn refused(sources: &Sources, parts: &[&str]) {
    let text = sources.load().expect_err("refused").to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn the_defaults_are_a_configuration_with_the_ports_of_the_table() {
    let config = sources().load().unwrap().config;
    let address = |text: &str| text.parse().unwrap();
    assert_eq!(config.broker.tls.listen, unhidra_broker::Listen::from(address("127.0.0.1:8883")));
    assert_eq!(config.broker.tcp.listen, unhidra_broker::Listen::default());
    assert_eq!(config.gateway.listen, address("127.0.0.1:8080"));
    assert_eq!(config.admin.listen, address("127.0.0.1:9600"));
    assert!(config.store.master_key_file.ends_with("data/node.key"), "{:?}", config.store.master_key_file);
}

#[test]
fn every_default_says_what_it_is() {
    let mut commented = false;
    let mut keys = 0;
    for (at, line) in DEFAULT.lines().enumerate() {
        if line.starts_with('#') {
            commented = true;
        } else {
            if line.contains(" = ") {
                keys += 1;
                assert!(commented, "line {} of default.toml stands without a comment: {line}", at + 1);
            }
            // A table's comment is not its first key's.
            commented = false;
        }
    }
    assert_eq!(keys, layer::leaves(&layer::defaults().unwrap()).len(), "one key a line");
}

#[test]
fn a_limit_that_would_stop_every_device_is_refused() {
    for (setting, said) in [
        ("receive_max=0", "broker.limits.receive_max is 0; 1 to 65535 are allowed"),
        ("packet_bytes_max=100", "broker.limits.packet_bytes_max is 100; 4096 or more is allowed"),
    ] {
        refused(&set(&[&format!("broker.limits.{setting}")]), &[said]);
    }
    assert!(set(&["broker.limits.retained_messages_max=0"]).load().is_ok());
}

#[test]
fn reserved_ports_have_a_comment_and_no_key() {
    let values = layer::defaults().unwrap().to_string();
    for port in ["8083", "8084", "8443"] {
        assert!(DEFAULT.contains(port) && !values.contains(port), "{port}");
    }
}

#[test]
fn what_is_nearer_to_the_command_line_wins() {
    let file = file("data = '/a'\n[gateway]\nlisten = '127.0.0.1:1'\n[admin]\nlisten = '127.0.0.1:2'\n");
    let sources = Sources {
        set: vec!["gateway.listen=127.0.0.1:3".into(), "gateway.listen = \"127.0.0.1:4\"".into()],
        data: Some("/b".into()),
        log_format: Some(Format::Json),
        ..file.sources()
    };
    let config = sources.load().unwrap().config;
    assert_eq!(config.data, Path::new("/b"));
    assert_eq!(config.gateway.listen.port(), 4);
    assert_eq!(config.admin.listen.port(), 2);
    assert_eq!(config.log.format, Format::Json);
    assert_eq!(config.store.master_key_file, Path::new("/b.key"));
}

#[test]
fn the_demo_has_a_folder_of_its_own() {
    let file = file("data = '/srv/node'\n");
    let demo = |data| Sources { purpose: Purpose::Demo, data, ..file.sources() }.load().unwrap().config.data;
    assert_eq!(demo(None), Path::new("data/demo"));
    assert_eq!(demo(Some("/srv/other".into())), Path::new("/srv/other"));
}

#[test]
fn an_assignment_is_toml_or_a_bare_text_where_a_text_is_expected() {
    let level = |text: &str| set(&[text]).load().unwrap().config.log.level;
    assert_eq!(level("log.level=debug"), "debug");
    assert_eq!(level("log.level = 'debug'"), "debug");
    // Both sides of the second "=" belong to the value.
    assert_eq!(level("log.level=info,unhidra_broker=debug"), "info,unhidra_broker=debug");
    let config = set(&["broker.prefix=true", "gateway.hosts=['a.example']", "pump.shards=0x10"]).load().unwrap().config;
    assert_eq!(config.broker.prefix.as_str(), "true");
    assert_eq!(config.gateway.hosts, ["a.example"]);
    assert_eq!(config.pump.shards, 16);
    for none in ["", "=", "log.level", "=1", "a..b=1", ".=1"] {
        refused(&set(&[none]), &["KEY=VALUE"]);
    }
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    refused(&set(&["gateway.lisen=127.0.0.1:1"]), &["--set", "gateway.lisen", "gateway.listen is near"]);
    refused(&set(&["tcp.listen=off"]), &["tcp", "[a table]", "no key tcp"]);
    refused(&set(&["gateway.zzzzzzzzzzzzzz=1"]), &["in [gateway] are", "clients_max"]);
    refused(&set(&["zzzzzzzzzzzzzz=1"]), &["at the top are", "broker"]);
    let file = file("[broker.tcp]\nanonymus = true\n");
    refused(&file.sources(), &["node.toml", "broker.tcp.anonymus", "true", "broker.tcp.anonymous is near"]);
}

#[test]
fn a_key_without_its_table_is_told_its_whole_name() {
    refused(&set(&["inbox_max=1"]), &["its whole name is pump.inbox_max"]);
}

#[test]
fn a_value_of_another_type_names_both_types() {
    let expected = ["broker.tcp.anonymous", "\"yes\"", "a text", "true or false", "false"];
    refused(&set(&["broker.tcp.anonymous='yes'"]), &expected);
    refused(&set(&["pump.shards=many"]), &["pump.shards = \"many\"", "a text", "a whole number"]);
    refused(&set(&["store.key_expiry_days='a year'"]), &["store.key_expiry_days = [a text]", "a whole number"]);
    refused(&set(&["pki.crl_interval_s=0"]), &["pki.crl_interval_s", "0", "nonzero u16"]);
    refused(&set(&["pki.crl_interval_s=65536"]), &["pki.crl_interval_s", "65536", "u16"]);
    refused(&set(&["gateway=1"]), &["gateway = 1", "a table is expected, such as one with"]);
    refused(&set(&["gateway.listen.port=1"]), &["gateway.listen", "a table", "a text", "127.0.0.1:8080"]);
    refused(&set(&["gateway.hosts=a.example"]), &["gateway.hosts", "a list"]);
}

#[test]
fn a_value_that_is_not_allowed_names_what_is() {
    refused(
        &set(&["broker.tls.listen=localhost"]),
        &["--set", "broker.tls.listen", "localhost", "an IP address with a port"],
    );
    refused(&set(&["gateway.listen=8080"]), &["gateway.listen", "8080", "socket address"]);
    refused(&set(&["log.format=xml"]), &["log.format", "xml", "text", "json"]);
    refused(&set(&["log.level=loud"]), &["log.level", "loud", "allowed are"]);
    refused(&set(&["pump.shards=-1"]), &["pump.shards", "-1"]);
    refused(&set(&["pump.inbox_max=0"]), &["pump.inbox_max", "0", "nonzero"]);
    refused(&set(&["pki.trust_domain=A/B"]), &["pki.trust_domain", "A/B", "a-z 0-9"]);
    refused(&set(&["pki.names=['a b']"]), &["pki.names", "a b", "host name"]);
    refused(
        &set(&["gateway.hosts=['a', 1]"]),
        &["gateway.hosts[1]", "['a', 1]".replace('\'', "\"").as_str(), "a string"],
    );
    refused(&set(&["broker.prefix=a/#"]), &["broker.prefix", "a/#", "A-Z a-z"]);
    refused(&set(&["store.journal_bytes=1"]), &["store.journal_bytes", "1", "67108864"]);
    let file = file("[log]\nformat = 'xml'\n");
    refused(&file.sources(), &["node.toml", "log.format", "xml"]);
}

/// Of a list too: which of it, where it stands, and what was found.
#[test]
fn what_is_wrong_about_one_outside_broker_is_shown() {
    let broker = |line: &str| {
        let text = format!("[[upstream.broker]]\nname = 'a'\naddress = 'a:1'\n[[upstream.broker]]\n{line}\n");
        file(&(text + "name = 'b'\naddress = 'b:1'\n"))
    };
    for (line, parts) in [
        ("keep_alive_s = 70000", ["upstream.broker[1].keep_alive_s = 70000", "u16"]),
        ("keep_alive_s = 0", ["upstream.broker[1].keep_alive_s = 0", "nonzero"]),
        ("receive_max = -1", ["upstream.broker[1].receive_max = -1", "u16"]),
        ("silent_s = 1.5", ["upstream.broker[1].silent_s = 1.5", "a whole number is expected"]),
        ("tls = 1", ["upstream.broker[1].tls = 1", "true or false"]),
        ("tls = 'yes'", ["upstream.broker[1].tls = \"yes\"", "true or false"]),
        ("silent_s = '15 min'", ["upstream.broker[1].silent_s = \"15 min\"", "a whole number"]),
        ("keep_alive = 7", ["upstream.broker[1].keep_alive (its value is 7)", "there is no key"]),
        ("version = '4'", ["upstream.broker[1].version = \"4\"", "3.1.1"]),
        ("address = 'x'", ["upstream.broker[1].address = [a text]", "HOST:PORT"]),
    ] {
        let wrong = broker(line);
        let text = if line.starts_with("address") {
            fs::read_to_string(&wrong.path).unwrap().replace("address = 'b:1'\n", "")
        } else {
            fs::read_to_string(&wrong.path).unwrap()
        };
        fs::write(&wrong.path, text).unwrap();
        refused(&wrong.sources(), &[&["node.toml"], &parts[..]].concat());
    }
    let common = file("[upstream]\nkeep_alive_s = 70000\n[[upstream.broker]]\nname = 'a'\naddress = 'a:1'\n");
    refused(&common.sources(), &["node.toml: upstream.keep_alive_s = 70000", "u16"]);
    let set_here = "upstream.broker=[{name='a',address='a:1',receive_max=0}]";
    refused(&set(&[set_here]), &["--set: upstream.broker[0].receive_max = 0", "nonzero"]);
    refused(&set(&["upstream.broker=[7]"]), &["upstream.broker[0] = 7", "a table is expected"]);
}

#[test]
fn a_half_written_file_is_refused_by_its_line() {
    let half = file("[gateway]\nlisten = \"127.0.0.1:80");
    refused(&half.sources(), &["node.toml", "no TOML", "line 2"]);
    refused(&file("[gateway\n").sources(), &["no TOML", "line 1"]);
    refused(&file("[log]\nlevel = 'info'\nlevel = 'warn'\n").sources(), &["no TOML", "line 3"]);
    let binary = file("");
    fs::write(&binary.path, [0xff, 0xfe]).unwrap();
    refused(&binary.sources(), &["no TOML", "utf-8"]);
    let missing = Sources { file: Some("/no/such/node.toml".into()), ..sources() };
    refused(&missing, &["/no/such/node.toml"]);
    assert!(file("").sources().load().is_ok(), "an empty file changes nothing");
}

#[test]
fn paths_of_a_file_begin_where_it_lies_and_others_where_the_command_was_given() {
    let file = file("data = 'd'\n");
    assert_eq!(file.sources().load().unwrap().config.data, file.folder.path().join("d"));
    assert_eq!(set(&["data=d"]).load().unwrap().config.data, Path::new("d"));
}

#[test]
fn without_certificates_every_listener_is_on_loopback() {
    for key in ["broker.tls.listen", "gateway.listen", "admin.listen"] {
        refused(&set(&[&format!("{key}=0.0.0.0:0")]), &[key, "0.0.0.0:0", "loopback", "pki.certificate"]);
        assert!(set(&[&format!("{key}=[::1]:0")]).load().is_ok(), "{key}");
    }
    assert!(set(&["broker.tls.listen=off"]).load().is_ok());
    refused(&set(&["pki.ca=ca.pem"]), &["pki.ca is set", "pki.certificate is not"]);
}

#[test]
fn with_certificates_of_ones_own_a_listener_goes_where_it_is_told() {
    let own = ["pki.ca=ca.pem", "pki.certificate=node.pem", "pki.key=node.key", "broker.tls.listen=0.0.0.0:8883"];
    assert!(set(&own).load().is_ok());
}

#[test]
fn plain_mqtt_is_asked_for_in_so_many_words() {
    let nobody = ["broker.tcp.listen=127.0.0.1:0", "broker.tcp.users=false"];
    refused(&set(&nobody), &["broker.tcp.listen", "broker.tcp.anonymous = true"]);
    let local = ["broker.tcp.listen=127.0.0.1:0", "broker.tcp.anonymous=true"];
    assert!(set(&local).load().is_ok());
    let out = ["broker.tcp.listen=0.0.0.0:1883", "broker.tcp.anonymous=true"];
    refused(&set(&out), &["broker.tcp.listen", "0.0.0.0:1883", "broker.tcp.insecure = true"]);
    let insecure = ["broker.tcp.listen=0.0.0.0:1883", "broker.tcp.anonymous=true", "broker.tcp.insecure=true"];
    assert!(set(&insecure).load().is_ok());
}

#[expect(clippy::disallowed_methods, reason = "certificates are held against the wall clock")]
fn now() -> UnixTime {
    UnixTime::from_s(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
}

/// An operator's file and certificates.
fn operator(listen: &str) -> File {
    let file = file("");
    let path = |name| file.folder.path().join(name);
    let authority = Authority::generate(Duration::from_secs(86_400), now()).unwrap();
    authority.save(&path("ca.pem"), &path("ca.key")).unwrap();
    certify(&file, &authority);
    let text = format!(
        "[pki]\nca = 'ca.pem'\ncertificate = 'node.pem'\nkey = 'node.key'\n[broker.tls]\nlisten = '{listen}'\n"
    );
    fs::write(&file.path, text).unwrap();
    file
}

fn certify(file: &File, authority: &Authority) {
    let node = authority.issue_node(&["node.example".parse().unwrap()], Duration::from_secs(3600), now()).unwrap();
    write_public(&file.folder.path().join("node.pem"), node.certificate.to_pem().as_bytes()).unwrap();
    write_private(&file.folder.path().join("node.key"), node.key.to_pem().unwrap().as_bytes()).unwrap();
}

fn layout(file: &File) -> Layout {
    Layout::at(&file.folder.path().join("data")).unwrap()
}

#[test]
fn a_reload_takes_new_certificates_and_says_what_needs_a_restart() {
    let file = operator("0.0.0.0:8883");
    let sources = file.sources();
    let running = sources.load().unwrap();
    let unchanged = sources.reload(&running, &layout(&file), now()).unwrap();
    assert!(unchanged.applied.is_empty() && unchanged.restart.is_empty());

    let text = fs::read_to_string(&file.path).unwrap();
    fs::rename(file.folder.path().join("ca.pem"), file.folder.path().join("new.pem")).unwrap();
    let text = text.replace("ca.pem", "new.pem").replace("0.0.0.0", "127.0.0.1");
    fs::write(&file.path, text.replace("[pki]", "[pki]\ncrl_interval_s = 3")).unwrap();
    let reloaded = sources.reload(&running, &layout(&file), now()).unwrap();
    let keys = (reloaded.applied, reloaded.restart);
    let live = ["pki.ca", "pki.crl_interval_s"].map(str::to_owned);
    assert_eq!(keys, (live.to_vec(), vec!["broker.tls.listen".to_owned()]));
    assert_eq!(reloaded.loaded.config.pki.crl_interval_s.get(), 3);
    assert!(reloaded.loaded.config.pki.ca.ends_with("new.pem"));
    let listen = unhidra_broker::Listen::from("0.0.0.0:8883".parse::<std::net::SocketAddr>().unwrap());
    assert_eq!(reloaded.loaded.config.broker.tls.listen, listen, "the node goes on listening where it does");
    // What needs a restart is said again until there is one.
    let again = sources.reload(&reloaded.loaded, &layout(&file), now()).unwrap();
    assert_eq!((again.applied, again.restart), (vec![], vec!["broker.tls.listen".to_owned()]));
}

#[test]
fn a_certificate_the_node_has_made_is_made_anew_in_time_and_offered() {
    let file = file("[broker.tls]\nlisten = '127.0.0.1:0'\n");
    let running = file.sources().load().unwrap();
    let layout = layout(&file);
    fs::create_dir_all(layout.pki()).unwrap();
    let pki = unhidra_certs::Pki::open(&running.config.pki, &layout.pki(), now()).unwrap();
    assert!(renewed(&running, &pki, &layout, now()).unwrap().is_none());
    let late = pki.identity.chain[0].expires();
    let (new, _) = renewed(&running, &pki, &layout, late).unwrap().expect("it ends");
    assert_eq!(new.roots, pki.roots, "devices know whom they trust");
    assert!(new.identity.chain[0].remaining(late).is_some());
    assert!(renewed(&running, &new, &layout, late).unwrap().is_none());
}

#[test]
fn keys_whose_files_cannot_be_used_stay_as_they_run_and_are_tried_again() {
    let file = operator("0.0.0.0:8883");
    let sources = file.sources();
    let running = sources.load().unwrap();
    let text = fs::read_to_string(&file.path).unwrap();
    let text = text.replace("[pki]", "[pki]\ncrl_interval_s = 3");
    let named = "[users]\nfile = \"u\"\n[jwt]\nissuer = \"i\"\nkey_file = \"k\"\n[acl]\nfile = \"a\"\n";
    fs::write(&file.path, format!("{text}\n{named}")).unwrap();
    let reload = |running: &Loaded| sources.reload(running, &layout(&file), now()).unwrap();
    let keys = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();

    let mut reloaded = reload(&running);
    assert_eq!(reloaded.leave(&[], &running), keys(&[]));
    let left = reloaded.leave(&[Files::Rules, Files::Users], &running);
    assert_eq!(left, keys(&["acl.file", "users.file"]));
    assert_eq!(reloaded.applied, keys(&["jwt.issuer", "jwt.key_file", "pki.crl_interval_s"]));
    let config = &reloaded.loaded.config;
    assert_eq!((&config.users, &config.acl), (&running.config.users, &running.config.acl));
    assert_eq!(config.jwt.issuer, "i");
    // Until they can be used.
    let mut again = reload(&reloaded.loaded);
    assert_eq!(again.applied, left);
    assert!(again.leave(&[], &reloaded.loaded).is_empty() && again.loaded.config.acl.file.ends_with("a"));
    let mut all = reload(&running);
    assert_eq!(all.leave(&[Files::Tokens], &running), keys(&["jwt.issuer", "jwt.key_file"]));
    assert_eq!(all.loaded.config.jwt, running.config.jwt);
}

#[test]
fn a_reload_of_something_broken_changes_nothing_and_says_why() {
    let file = operator("0.0.0.0:8883");
    let sources = file.sources();
    let running = sources.load().unwrap();
    let refusal = || sources.reload(&running, &layout(&file), now()).unwrap_err().to_string();

    let text = fs::read_to_string(&file.path).unwrap();
    fs::write(&file.path, &text[..text.len() - 5]).unwrap();
    assert!(refusal().contains("no TOML"), "{}", refusal());
    fs::write(&file.path, &text).unwrap();
    let node = fs::read(file.folder.path().join("node.pem")).unwrap();
    fs::write(file.folder.path().join("node.pem"), &node[..node.len() / 2]).unwrap();
    assert!(refusal().contains("pki.certificate"), "{}", refusal());
    fs::write(file.folder.path().join("node.pem"), &node).unwrap();
    fs::set_permissions(file.folder.path().join("node.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal().contains("mode 0644"), "{}", refusal());
}

#[test]
fn a_reload_does_not_leave_a_public_listener_with_certificates_made_here() {
    let file = operator("0.0.0.0:8883");
    let sources = file.sources();
    let running = sources.load().unwrap();
    fs::write(&file.path, "").unwrap();
    let text = sources.reload(&running, &layout(&file), now()).unwrap_err().to_string();
    assert!(text.contains("broker.tls.listen = 0.0.0.0:8883") && text.contains("loopback"), "{text}");
}

/// Wherever it stands, and whatever is wrong with it: the words of the error go into the log.
#[test]
fn no_error_and_nothing_that_is_printed_tells_a_secret() {
    const SECRET: &str = "hunter2";
    for text in [
        "[outlets.hook]\nkind = 'webhook'\nsecret_file = 's'\nurl = 'https://user:hunter2@a.example/'\n",
        "[outlets.hook]\nkind = 'webhook'\nsecret_file = 's'\nurl = 'http://a.example/?token=hunter2'\n",
        "[outlets.hook]\nkind = 'webhook'\nsecret_file = 's'\nurl = 'a b://hunter2'\n",
        "[outlets.hook]\nkind = 'mqtt'\nurl = 'mqtts://a.example/hunter2'\n",
        "[outlets.hook]\nurl = ['hunter2']\n",
        "[outlets.hook]\npassword = 'hunter2'\n",
        "[outlets.hook]\npassword = 'hunter2\n",
        "[outlets.hook]\nheaders = { authorization = 'Bearer hunter2' }\n",
        "[store]\nmaster_key_command = 'vault --token hunter2'\n",
        "[store]\nmaster_key_command = ['vault', 7, 'hunter2']\n",
        "[store]\nmaster_key = 'hunter2'\n",
        "[upstream]\nuser = 7\npassword = 'hunter2'\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'user:hunter2@a.example:8883'\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'hunter2@a.example:8883'\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'a.example:8883/?token=hunter2'\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'a.example:8883'\npassword = 'hunter2'\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'a:1'\nkeep_alive_s = 'https://user:hunter2@a.example/'\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'a:1'\nkeep_alive_s = ['hunter2']\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'a:1'\nuser = ['hunter2']\n",
        "[[upstream.broker]]\nname = 'a'\naddress = { hunter2 = 1 }\n",
        "[[upstream.broker]]\nname = 'a'\naddress = 'a:1'\npassword_file = { path = 'hunter2' }\n",
        "[upstream]\nbroker = ['hunter2']\n",
        "[upstream]\nbroker = 'a:hunter2@b'\n",
        "password = 'hunter2'\n",
        "[pump]\nshards = 'https://user:hunter2@a.example/'\n",
        "[store]\nmaster_key_command_timeout_s = 'hunter2'\n",
    ] {
        let error = file(text).sources().load().expect_err(text);
        assert!(!error.to_string().contains(SECRET) && !format!("{error:?}").contains(SECRET), "{text}: {error}");
    }
    // Nor does a configuration that is good, where it is printed.
    let good = set(&["store.master_key_command=['vault', 'hunter2']"]);
    let loaded = good.load().unwrap();
    for printed in [format!("{good:?}"), format!("{loaded:?}"), format!("{:?}", loaded.config.store)] {
        assert!(!printed.contains(SECRET), "{printed}");
    }
    // A number may be one too.
    for key in ["outlets.hook.password", "outlets.hook.api_token", "store.master_key"] {
        let error = set(&[&format!("{key}=4711")]).load().map(|loaded| loaded.config.outlets.len());
        assert!(error.is_err() && !format!("{error:?}").contains("4711"), "{key}: {error:?}");
    }
    for assignment in ["outlets.hook.url=https://user:hunter2@a.example/", "=hunter2", "a..b=hunter2"] {
        let error = set(&[assignment]).load().map(|loaded| loaded.config.outlets.len());
        assert!(!format!("{error:?}").contains(SECRET), "{assignment}: {error:?}");
    }
}
