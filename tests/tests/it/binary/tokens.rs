//! Signed tokens (JWT) as passwords of real clients: RS256 and ES256, and the ways to forge them.
//! Made here by hand (RFC 7515), so that they share nothing with what checks them.

use std::net::SocketAddr;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use unhidra_core::time::Clock;
use unhidra_node::clock::SystemClock;
use unhidra_tests::process::{FREE_PORTS, Place, Process};

use super::revoked::pem;

/// Who signs.
enum Signer {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    /// HS256 with these bytes as its secret.
    Secret(Vec<u8>),
    /// `"alg":"none"`.
    Nobody,
}

impl Signer {
    fn rsa() -> Self {
        Self::Rsa(Box::new(rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Secret(_) => "HS256",
            Self::Nobody => "none",
        }
    }

    /// The public key in PEM.
    fn public(&self) -> String {
        let der: PublicKeyX509Der<'_> = match self {
            Self::Rsa(key) => key.public_key().as_der().expect("it encodes"),
            Self::Ec(key) => key.public_key().as_der().expect("it encodes"),
            Self::Secret(_) | Self::Nobody => panic!("{} has no public key", self.algorithm()),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    /// A token for `user` that ends in a minute.
    fn token(&self, user: &str) -> String {
        self.token_of(self.algorithm(), &json!({ "sub": user, "exp": seconds() + 60 }))
    }

    fn token_of(&self, says: &str, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": says, "typ": "JWT" })), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).expect("a signature");
                signature
            }
            Self::Ec(key) => key.sign(&random, signed.as_bytes()).expect("a signature").as_ref().to_vec(),
            Self::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
            Self::Nobody => Vec::new(),
        };
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

fn seconds() -> u64 {
    SystemClock::start().unix_now().as_ms() / 1000
}

/// The code of the CONNACK that a client with this password gets.
async fn asks(place: &Place, node: SocketAddr, user: &str, token: &str) -> String {
    let mut command = place.program("mosquitto_pub", "mosquitto-clients");
    command.args(["-d", "-V", "5", "-h", "127.0.0.1", "-p", &node.port().to_string(), "-q", "1", "-t", "lab/t"]);
    command.args(["-m", "1", "-u", user, "-P", token]);
    let ended = Process::start("mosquitto_pub", command).ended().await;
    let line = ended.out.lines().find(|line| line.contains("CONNACK")).map(str::to_owned);
    line.unwrap_or_else(|| panic!("{ended}"))
}

#[tokio::test]
async fn a_token_of_the_right_key_lets_its_user_in_and_no_forgery_does() {
    for (signer, other) in [(Signer::rsa(), Signer::rsa()), (Signer::ec(), Signer::ec())] {
        let (place, algorithm) = (Place::new(), signer.algorithm());
        place.write("key.pem", signer.public());
        let jwt = format!("--set jwt.key_file=key.pem --set jwt.algorithm={algorithm}");
        let node = place.node(&format!("run {FREE_PORTS} --set broker.tcp.listen=127.0.0.1:0 {jwt}")).await;
        let port = node.ready["mqtt_plain"].as_str().and_then(|text| text.parse().ok()).expect("a plain listener");
        let refused = "CONNACK (134)";
        let public = signer.public();
        let claims = json!({ "sub": "ann", "exp": seconds() + 60 });
        let good = signer.token("ann");
        let ended = signer.token_of(algorithm, &json!({ "sub": "ann", "exp": seconds() - 3_600 }));
        // The signature of another token under other claims.
        let [head, _, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts: {good}") };
        let bobs = BASE64_URL_SAFE_NO_PAD.encode(json!({ "sub": "bob", "exp": seconds() + 60 }).to_string());
        for (what, user, token, code) in [
            ("the right key", "ann", good.clone(), "CONNACK (0)"),
            ("another user's", "bob", good.clone(), refused),
            ("another key", "ann", other.token("ann"), refused),
            ("no signature", "ann", Signer::Nobody.token("ann"), refused),
            ("no signature under the right name", "ann", Signer::Nobody.token_of(algorithm, &claims), refused),
            ("the public key as a secret", "ann", Signer::Secret(public.clone().into()).token("ann"), refused),
            (
                "the same under the right name",
                "ann",
                Signer::Secret(public.clone().into()).token_of(algorithm, &claims),
                refused,
            ),
            ("it has ended", "ann", ended, refused),
            ("a stolen signature", "bob", format!("{head}.{bobs}.{signature}"), refused),
            ("the right key again", "ann", good.clone(), "CONNACK (0)"),
        ] {
            let said = asks(&place, port, user, &token).await;
            assert!(said.contains(code), "{algorithm}, {what}: {said}");
        }
        node.stop().await;
    }
}
