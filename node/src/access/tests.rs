use super::*;
use crate::testing::Ground;
use unhidra_broker::{Entrance, Peer};

const PASSWORD: &[u8] = b"open sesame";

struct Gate {
    access: Access,
    entrance: Entrance,
    _ground: Ground,
    folder: tempfile::TempDir,
}

impl Gate {
    async fn new(users: &[&str]) -> Self {
        let (ground, folder) = (Ground::new(), tempfile::tempdir().unwrap());
        let file = folder.path().join("users");
        if !users.is_empty() {
            let mut known = Users::default();
            users.iter().for_each(|name| known.set(name, Hashed::of(PASSWORD, &[3; SALT_LEN]).unwrap()));
            known.write(&file).unwrap();
        }
        let config = Config {
            file,
            checks_at_once: NonZeroUsize::new(4).unwrap(),
            checks_waiting_max: 8,
            check_patience_s: 60,
            remember_s: 60,
            failures_per_address: 2,
            failures_per_user: 3,
        };
        let no_tokens = TokenConfig {
            key_file: PathBuf::new(),
            algorithm: "ES256".to_owned(),
            issuer: String::new(),
            audience: String::new(),
            user_claim: "sub".to_owned(),
            leeway_s: 0,
        };
        let registry = ground.registry().await;
        let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
        let access = Access::open(&config, &no_tokens, registry, ground.clock.clone(), &mut rng).unwrap();
        let entrance = Entrance { name: "tcp", anonymous: false, users: true };
        Self { access, entrance, _ground: ground, folder }
    }

    async fn asks(&self, from: &str, name: Option<&str>, password: Option<&[u8]>) -> Result<Entrant, Denied> {
        let address: std::net::SocketAddr = from.parse().unwrap();
        let (peer, identity) = (Peer::from(address), Identity::Anonymous);
        let (entrance, user_name) = (&self.entrance, name);
        let introduction = Introduction { identity: &identity, entrance, peer: &peer, user_name, password };
        self.access.admit(introduction).await
    }
}

fn user(entrant: Result<Entrant, Denied>) -> Result<Option<String>, Denied> {
    entrant.map(|entrant| match entrant.who {
        Admitted::Client(user) => user.map(|user| user.to_string()),
        Admitted::Device(device) => panic!("{device} is a device"),
    })
}

#[tokio::test]
async fn a_user_comes_in_by_its_password_and_nobody_by_another() {
    let gate = Gate::new(&["ann"]).await;
    let here = "10.0.0.1:5";
    assert_eq!(user(gate.asks(here, Some("ann"), Some(PASSWORD)).await), Ok(Some("ann".to_owned())));
    assert_eq!(user(gate.asks(here, Some("ann"), Some(b"open")).await), Err(Denied::BadCredentials));
    assert_eq!(user(gate.asks(here, None, None).await), Err(Denied::AnonymousForbidden));
    assert_eq!(user(gate.asks("10.0.0.2:5", Some("ann"), None).await), Err(Denied::BadCredentials));
}

#[tokio::test]
async fn the_beginning_of_a_password_that_is_too_long_lets_nobody_in() {
    let gate = Gate::new(&["ann"]).await;
    let longest = [b'x'; PASSWORD_LEN_MAX];
    let mut users = Users::default();
    users.set("ann", Hashed::of(&longest, &[4; SALT_LEN]).unwrap());
    gate.access.use_users(users);
    let longer = [&longest[..], b"y"].concat();
    for _ in 0..2 {
        // Nor is it remembered.
        assert_eq!(user(gate.asks("10.0.0.1:5", Some("ann"), Some(&longer)).await), Err(Denied::BadCredentials));
    }
    assert_eq!(user(gate.asks("10.0.0.2:5", Some("ann"), Some(&longest)).await), Ok(Some("ann".to_owned())));
}

#[tokio::test]
async fn a_name_that_is_nobodys_is_checked_like_another() {
    let gate = Gate::new(&["ann"]).await;
    // The path is the same: a check takes a turn, and a wrong password makes it rest.
    assert_eq!(user(gate.asks("10.0.0.1:5", Some("eve"), Some(PASSWORD)).await), Err(Denied::BadCredentials));
    assert_eq!(gate.access.checker.resting(), 1);
    assert_eq!(user(gate.asks("10.0.0.1:5", Some("ann"), Some(b"wrong")).await), Err(Denied::BadCredentials));
    assert_eq!(gate.access.checker.resting(), 2);
}

#[tokio::test]
async fn after_too_many_failures_nothing_is_checked_but_what_is_remembered() {
    let gate = Gate::new(&["ann", "bob"]).await;
    let here = "10.0.0.1:5";
    assert_eq!(user(gate.asks(here, Some("ann"), Some(PASSWORD)).await), Ok(Some("ann".to_owned())));
    for _ in 0..2 {
        assert_eq!(user(gate.asks(here, Some("bob"), Some(b"wrong")).await), Err(Denied::BadCredentials));
    }
    assert_eq!(user(gate.asks(here, Some("bob"), Some(PASSWORD)).await), Err(Denied::TooManyFailures));
    assert_eq!(user(gate.asks(here, Some("ann"), Some(PASSWORD)).await), Ok(Some("ann".to_owned())));
    assert_eq!(user(gate.asks("10.0.0.2:5", Some("bob"), Some(PASSWORD)).await), Ok(Some("bob".to_owned())));
}

#[tokio::test]
async fn where_there_are_no_users_a_name_is_no_name() {
    let mut gate = Gate::new(&[]).await;
    assert_eq!(user(gate.asks("10.0.0.1:5", Some("ann"), Some(PASSWORD)).await), Err(Denied::BadCredentials));
    gate.entrance.anonymous = true;
    assert_eq!(user(gate.asks("10.0.0.1:5", Some("ann"), Some(PASSWORD)).await), Ok(None));
    let mut gate = Gate::new(&["ann"]).await;
    gate.entrance.anonymous = true;
    assert_eq!(user(gate.asks("10.0.0.1:5", None, None).await), Ok(None));
    assert_eq!(user(gate.asks("10.0.0.1:5", Some("ann"), Some(b"wrong")).await), Err(Denied::BadCredentials));
}

#[tokio::test]
async fn a_password_that_was_taken_away_lets_nobody_in_any_more() {
    let gate = Gate::new(&["ann", "bob"]).await;
    let ann = gate.asks("10.0.0.1:5", Some("ann"), Some(PASSWORD)).await.unwrap();
    let bob = gate.asks("10.0.0.1:5", Some("bob"), Some(PASSWORD)).await.unwrap();
    let mut users = Users::read(&gate.folder.path().join("users")).unwrap();
    users.remove("ann");
    users.set("bob", Hashed::of(b"another", &[4; SALT_LEN]).unwrap());
    let changed = gate.access.use_users(users);
    assert_eq!(changed, [(UserName::new("ann"), false), (UserName::new("bob"), true)]);
    assert!(!gate.access.still_admits(&ann) && !gate.access.still_admits(&bob));
    assert_eq!(user(gate.asks("10.0.0.3:5", Some("ann"), Some(PASSWORD)).await), Err(Denied::BadCredentials));
    assert_eq!(user(gate.asks("10.0.0.3:5", Some("bob"), Some(PASSWORD)).await), Err(Denied::BadCredentials));
    assert_eq!(user(gate.asks("10.0.0.4:5", Some("bob"), Some(b"another")).await), Ok(Some("bob".to_owned())));
}
