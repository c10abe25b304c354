//! A real mosquitto that asks who comes: TLS with certificates on one or both sides, keys of other tools, a
//! password, either version of MQTT; and what is said where it does not come about.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use unhidra_certs::{Authority, KeyPair, Request, write_private};
use unhidra_core::ids::DeviceId;
use unhidra_core::time::{Clock, UnixTime};
use unhidra_node::clock::SystemClock;
use unhidra_tests::process::{FREE_PORTS, Place};

use super::ledger;
use super::upstream::{DEVICES, Mosquitto, free_port, journals, once_and_in_order, simulate, wait_for_rows};

const DAY: Duration = Duration::from_secs(86_400);
const PASSWORD: &str = "correct-horse-battery";
const WRONG: &str = "incorrect-horse-battery";

/// Writes `NAME.pem` and `NAME.key` for a server on this address, good for a day from `at`.
fn server(place: &Place, authority: &Authority, name: &str, at: UnixTime) {
    let address = "127.0.0.1".parse().expect("an address");
    let issued = authority.issue_node(&[address], DAY, at).expect("a certificate");
    place.write(&format!("{name}.pem"), issued.certificate.to_pem());
    place.write(&format!("{name}.key"), issued.key.to_pem().expect("PEM").as_bytes());
}

/// Writes `NAME.pem` and `NAME.key` for the node to show, good for a day from `at`.
fn client(place: &Place, authority: &Authority, name: &str, at: UnixTime) {
    let key = KeyPair::generate().expect("a key");
    let id = DeviceId::parse(name).expect("an id");
    let request = Request::from_pem(key.request(&id).expect("a request").as_bytes()).expect("it reads");
    let domain = "unhidra.local".parse().expect("a trust domain");
    let certificate = authority.sign_device(&request, &id, &domain, DAY, at).expect("a certificate");
    place.write(&format!("{name}.pem"), certificate.to_pem());
    write_private(&place.path(&format!("{name}.key")), key.to_pem().expect("PEM").as_bytes()).expect("a file");
}

/// A factory's authority (`factory.pem`), a stranger's (`other.pem`), what both sides show, and passwords:
/// the right one, and one that is not.
async fn files(place: &Place) {
    let now = SystemClock::start().unix_now();
    let long_ago = UnixTime::from_s(now.as_ms() / 1000 - 10 * DAY.as_secs());
    let factory = Authority::generate(100 * DAY, long_ago).expect("an authority");
    let other = Authority::generate(100 * DAY, long_ago).expect("an authority");
    factory.save(&place.path("factory.pem"), &place.path("factory.key")).expect("its files");
    place.write("other.pem", other.certificate().to_pem());
    server(place, &factory, "server", now);
    server(place, &factory, "server-expired", long_ago);
    client(place, &factory, "own", now);
    client(place, &factory, "own-expired", long_ago);
    client(place, &other, "stranger", now);
    for (name, password) in [("password", PASSWORD), ("wrong", WRONG)] {
        write_private(&place.path(name), format!("{password}\n").as_bytes()).expect("a file");
    }
    let mut make = place.program("mosquitto_passwd", "mosquitto");
    make.args(["-b", "-c", "users", "unhidra", PASSWORD]);
    assert!(make.status().await.expect("it runs").success());
    std::fs::set_permissions(place.path("users"), std::fs::Permissions::from_mode(0o644)).expect("the test's file");
}

/// The lines of a listener with TLS under a certificate.
fn tls(place: &Place, name: &str) -> String {
    let here = place.path("");
    let here = here.display();
    format!("cafile {here}factory.pem\ncertfile {here}{name}.pem\nkeyfile {here}{name}.key\n")
}

fn passwords(place: &Place) -> String {
    format!("allow_anonymous false\npassword_file {}\n", place.path("users").display())
}

const CERTIFICATE: &str = "certificate=\"own.pem\",key=\"own.key\"";
const USER: &str = "user=\"unhidra\",password_file=\"password\"";

/// Devices behind a mosquitto with such a listener, to which the node comes with such keys: readings come
/// in, a command gets there, and a node that is killed has everything that was acknowledged, once.
async fn serves(place: &Place, lines: &str, keys: &str) {
    for device in DEVICES {
        place.enroll(device).await;
    }
    let mosquitto = Mosquitto::start(place, lines).await;
    let broker = format!("{{name=\"factory\",address=\"127.0.0.1:{}\",{keys}}}", mosquitto.node);
    let options = format!("--set upstream.backoff_cap_s=1 --set upstream.broker=[{broker}]");
    let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    node.process.logs("an outside broker is reached").await;
    let devices = simulate(place, &mosquitto, "--rate 20").await;
    place.readings(30).await;
    let done = place.run("send pump-2 identify --wait --json --data node").await;
    assert!(done.status == Some(0) && done.out.lines().last().is_some_and(|l| l.contains("\"done\"")), "{done}");
    let shown: Value = serde_json::from_str(&place.done("upstream --json --data node").await).expect("one object");
    assert_eq!((&shown["state"], &shown["last_error"]), (&"connected".into(), &Value::Null), "{shown}");
    assert!(shown["opened"].as_u64() >= Some(30) && shown["sent"].as_u64() >= Some(1), "{shown}");
    // What was in its hands without a commit comes again; what was acknowledged to mosquitto does not.
    let ports = node.ports();
    node.process.signal(Signal::KILL);
    drop(node.process.ended().await);
    let node = place.node(&format!("run {ports} {options}")).await;
    place.readings(30).await;
    devices.signal(Signal::INT);
    let ended = devices.ended().await;
    assert_eq!(ended.status, Some(0), "{ended}");
    let acknowledged = journals(place).iter().flatten().filter(|entry| entry.acknowledged_at.is_some()).count();
    wait_for_rows(place, acknowledged).await;
    node.stop().await;
    let rows = once_and_in_order(place).await;
    assert_eq!(ledger::nothing_is_lost_or_doubled(&journals(place), &rows), acknowledged);
}

#[tokio::test]
async fn mqtt_3_1_1_serves_as_well() {
    let place = Place::new();
    serves(&place, "allow_anonymous true\n", "tls=false,version=\"3.1.1\"").await;
}

#[tokio::test]
async fn in_tls_with_certificates_on_both_sides() {
    let place = Place::new();
    files(&place).await;
    let lines = format!("{}require_certificate true\nallow_anonymous true\n", tls(&place, "server"));
    serves(&place, &lines, &format!("ca=\"factory.pem\",{CERTIFICATE}")).await;
}

#[tokio::test]
async fn in_tls_with_a_password_and_mqtt_3_1_1() {
    let place = Place::new();
    files(&place).await;
    let lines = format!("{}{}", tls(&place, "server"), passwords(&place));
    serves(&place, &lines, &format!("ca=\"factory.pem\",version=\"3.1.1\",{USER}")).await;
}

/// Runs openssl in the test's folder.
async fn openssl(place: &Place, line: &str) {
    let mut command = place.program("openssl", "openssl");
    let done = command.args(line.split_whitespace()).output().await.expect("it runs");
    assert!(done.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Keys as other tools make them: the names of their files, and how a file of each begins.
const FOREIGN: [(&str, &str); 3] = [
    ("rsa-pkcs1", "-----BEGIN RSA PRIVATE KEY-----"),
    ("rsa-pkcs8", "-----BEGIN PRIVATE KEY-----"),
    ("ec-sec1", "-----BEGIN EC PRIVATE KEY-----"),
];

/// Writes `NAME.key` and `NAME.pem` for each of them, under the factory's authority.
async fn foreign_keys(place: &Place) {
    openssl(place, "genrsa -traditional -out rsa-pkcs1.key 2048").await;
    openssl(place, "pkcs8 -topk8 -nocrypt -in rsa-pkcs1.key -out rsa-pkcs8.key").await;
    openssl(place, "ecparam -name prime256v1 -genkey -noout -out ec-sec1.key").await;
    place.write("extensions", "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n");
    for (serial, (name, begins)) in (1..).zip(FOREIGN) {
        let key = place.path(&format!("{name}.key"));
        let pem = std::fs::read_to_string(&key).expect("the test's file");
        assert!(pem.starts_with(begins), "{name}: {:?}", pem.lines().next());
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("the test's file");
        openssl(place, &format!("req -new -key {name}.key -subj /CN={name} -out request")).await;
        let signed = "-CA factory.pem -CAkey factory.key -days 1 -extfile extensions";
        openssl(place, &format!("x509 -req -in request {signed} -set_serial {serial} -out {name}.pem")).await;
    }
}

#[tokio::test]
async fn a_client_certificate_may_have_an_rsa_key_or_one_of_another_tool() {
    let place = Place::new();
    files(&place).await;
    foreign_keys(&place).await;
    place.enroll("pump-1").await;
    let lines = format!("{}require_certificate true\nallow_anonymous true\n", tls(&place, "server"));
    let mosquitto = Mosquitto::start(&place, &lines).await;
    // All at one broker, where each name has one connection.
    let brokers = FOREIGN.map(|(name, _)| {
        let at = format!("address=\"127.0.0.1:{}\",client_id=\"{name}\",ca=\"factory.pem\"", mosquitto.node);
        format!("{{name=\"{name}\",{at},certificate=\"{name}.pem\",key=\"{name}.key\"}}")
    });
    let node = place.node(&format!("run {FREE_PORTS} --set upstream.broker=[{}]", brokers.join(","))).await;
    node.process.logs_again("an outside broker is reached", FOREIGN.len()).await;
    let shown = place.done("upstream --json --data node").await;
    let shown: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(shown.len(), FOREIGN.len());
    for record in &shown {
        assert_eq!((&record["state"], &record["last_error"]), (&"connected".into(), &Value::Null), "{record}");
    }
    node.stop().await;
}

/// What stands wrong, and what the log and `unhidra upstream` say of it: name, where, with what.
fn wrongs(ports: [u16; 3]) -> Vec<(&'static str, String, &'static str)> {
    let [both, expired, users] = ports;
    let ca = "ca=\"factory.pem\"";
    let at = |host: &str, port: u16, keys: &str| format!("address=\"{host}:{port}\",{keys}");
    let here = |port: u16, keys: &str| at("127.0.0.1", port, keys);
    let user = "user=\"unhidra\",password_file=\"wrong\"";
    vec![
        ("wrong-ca", here(both, &format!("ca=\"other.pem\",{CERTIFICATE}")), "none of the authorities in `ca`"),
        ("another-name", at("localhost", both, &format!("{ca},{CERTIFICATE}")), "its certificate has another name"),
        ("expired-there", here(expired, ca), "its certificate has expired"),
        ("no-certificate", here(both, ca), "set `certificate` and `key`"),
        (
            "stranger",
            here(both, &format!("{ca},certificate=\"stranger.pem\",key=\"stranger.key\"")),
            "it refuses this node's `certificate`",
        ),
        (
            "expired-here",
            here(both, &format!("{ca},certificate=\"own-expired.pem\",key=\"own-expired.key\"")),
            "it refuses this node's `certificate`, which has expired",
        ),
        ("wrong-password", here(users, &format!("{ca},{user}")), "`user` and `password_file`"),
        ("wrong-old", here(users, &format!("{ca},{user},version=\"3.1.1\"")), "`user` and `password_file`"),
        ("nobody", here(users, ca), "`user` and `password_file`"),
    ]
}

#[tokio::test]
async fn what_is_wrong_is_said_counted_and_left_alone_and_no_secret_is_in_the_log() {
    let place = Place::new();
    files(&place).await;
    place.enroll("pump-1").await;
    let [expired, users] = [free_port(), free_port()];
    let both = format!("{}require_certificate true\nallow_anonymous true\n", tls(&place, "server"));
    let more = format!(
        "listener {expired} 127.0.0.1\n{}allow_anonymous true\nlistener {users} 127.0.0.1\n{}{}",
        tls(&place, "server-expired"),
        tls(&place, "server"),
        passwords(&place)
    );
    let mosquitto = Mosquitto::start(&place, &format!("{both}{more}")).await;
    let wrongs = wrongs([mosquitto.node, expired, users]);
    let right = format!("{{name=\"right\",address=\"127.0.0.1:{users}\",ca=\"factory.pem\",{USER}}}");
    // Each has an identifier of its own: several go to one broker.
    let brokers = wrongs.iter().map(|(name, keys, _)| format!("{{name=\"{name}\",client_id=\"{name}\",{keys}}}"));
    let brokers = brokers.chain([right]).collect::<Vec<_>>().join(",");
    let options = format!(
        "--set upstream.backoff_base_ms=50 --set upstream.backoff_cap_s=1 --set upstream.breaker_failures=3 --set \
         upstream.broker=[{brokers}]"
    );
    let node = place.node(&format!("run {FREE_PORTS} {options}")).await;
    node.process.logs("an outside broker is reached").await;
    for (name, ..) in &wrongs {
        node.process.logs(&format!("target_name=\"upstream:{name}\"")).await;
    }
    let shown = place.done("upstream --json --data node").await;
    let shown: BTreeMap<String, Value> = shown
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|record| (record["name"].as_str().expect("a name").to_owned(), record))
        .collect();
    let right = &shown["right"];
    assert_eq!((&right["state"], &right["last_error"]), (&"connected".into(), &Value::Null), "{right}");
    for (name, _, says) in &wrongs {
        let record = &shown[*name];
        assert_eq!(record["state"], "resting", "{record}");
        assert!(record["last_error"].as_str().is_some_and(|error| error.contains(says)), "{says}: {record}");
    }
    let log = node.process.to_string();
    for (name, _, says) in &wrongs {
        let said = |line: &&str| line.contains(&format!("upstream=\"{name}\"")) && line.contains(says);
        assert_eq!(log.lines().filter(said).count(), 3, "{name}: as often as the breaker lets it fail\n{log}");
    }
    let keys = ["own.key", "own-expired.key", "stranger.key"].map(|key| {
        let pem = std::fs::read_to_string(place.path(key)).expect("the test's file");
        pem.lines().nth(1).expect("a line of the key").to_owned()
    });
    for secret in keys.iter().map(String::as_str).chain([PASSWORD, WRONG]) {
        assert!(!log.contains(secret) && !shown.values().any(|record| record.to_string().contains(secret)));
    }
    node.stop().await;
}
