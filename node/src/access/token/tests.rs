use super::*;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: UnixTime = UnixTime::from_s(1_700_000_000);
const EXP: u64 = 1_700_000_100;

struct Issuer {
    folder: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self, algorithm: &str, key: &[u8]) -> Config {
        let path = self.folder.path().join("key");
        unhidra_certs::write_private(&path, key).unwrap();
        Config {
            key_file: path,
            algorithm: algorithm.to_owned(),
            issuer: "https://issuer".to_owned(),
            audience: "unhidra".to_owned(),
            user_claim: "sub".to_owned(),
            leeway_s: 10,
        }
    }

    fn tokens(&self) -> Tokens {
        Tokens::open(&self.config("HS256", SECRET)).unwrap().unwrap()
    }
}

fn claims(change: Value) -> Value {
    let mut claims = json!({"sub": "ann", "exp": EXP, "iss": "https://issuer", "aud": ["unhidra", "other"]});
    if let (Value::Object(claims), Value::Object(change)) = (&mut claims, change) {
        for (name, value) in change {
            match value {
                Value::Null => drop(claims.remove(&name)),
                value => drop(claims.insert(name, value)),
            }
        }
    }
    claims
}

fn signed(change: Value) -> Vec<u8> {
    encode(&Header::default(), &claims(change), &EncodingKey::from_secret(SECRET)).unwrap().into_bytes()
}

#[test]
fn a_token_proves_its_user_until_it_ends() {
    let tokens = Issuer::new().tokens();
    let token = signed(json!({}));
    assert!(Tokens::looks_like_one(&token) && !Tokens::looks_like_one(b"open sesame"));
    let proven = tokens.prove(&token, None, NOW).unwrap();
    assert_eq!(proven, Proven { user: "ann".to_owned(), until: UnixTime::from_s(EXP + 10) });
    for name in ["", "ann"] {
        assert_eq!(tokens.prove(&token, Some(name), NOW).as_ref(), Ok(&proven));
    }
    assert_eq!(tokens.prove(&token, Some("bob"), NOW), Err(TokenError::OtherUser));
    assert!(tokens.prove(&token, None, UnixTime::from_s(EXP + 9)).is_ok());
    assert_eq!(tokens.prove(&token, None, UnixTime::from_s(EXP + 10)), Err(TokenError::Ended));
}

#[test]
fn a_token_whose_claims_do_not_hold_proves_nobody() {
    let tokens = Issuer::new().tokens();
    let missing = |claim: &str| TokenError::Claim { claim: claim.to_owned() };
    for (change, error) in [
        (json!({"nbf": 1_700_000_011}), Some(TokenError::NotYet)),
        (json!({"nbf": "soon"}), None),
        (json!({"exp": "never"}), None),
        (json!({"exp": null}), None),
        (json!({"sub": null}), Some(missing("sub"))),
        (json!({"sub": 7}), Some(missing("sub"))),
        (json!({"sub": "a/b"}), Some(TokenError::Name)),
        (json!({"sub": "#"}), Some(TokenError::Name)),
        (json!({"aud": "other"}), None),
        (json!({"aud": null}), None),
        (json!({"iss": "https://other"}), None),
    ] {
        let found = tokens.prove(&signed(change.clone()), None, NOW).expect_err(&change.to_string());
        assert!(error.is_none_or(|error| error == found), "{change}: {found}");
    }
    assert!(tokens.prove(&signed(json!({"nbf": 1_700_000_010})), None, NOW).is_ok());
}

#[test]
fn the_algorithm_is_the_keys_whatever_the_token_says() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    // Unsigned, signed by another key, cut, with another algorithm of the same secret.
    let b64 = |value: Value| {
        base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, serde_json::to_vec(&value).unwrap())
    };
    let none = format!("{}.{}.", b64(json!({"alg": "none", "typ": "JWT"})), b64(claims(json!({}))));
    let other = encode(&Header::default(), &claims(json!({})), &EncodingKey::from_secret(&[7; 32])).unwrap();
    let hs512 = Header::new(Algorithm::HS512);
    let stronger = encode(&hs512, &claims(json!({})), &EncodingKey::from_secret(SECRET)).unwrap();
    let good = String::from_utf8(signed(json!({}))).unwrap();
    for token in [none, other, stronger, good[..good.len() - 2].to_owned(), String::new(), "e.y.J".to_owned()] {
        assert!(tokens.prove(token.as_bytes(), None, NOW).is_err(), "{token}");
    }
    // The oldest trick: a public key taken for the secret of HS256.
    let pair = public_key();
    let public = Tokens::open(&issuer.config("ES256", pair.as_bytes())).unwrap().unwrap();
    let forged = encode(&Header::default(), &claims(json!({})), &EncodingKey::from_secret(pair.as_bytes())).unwrap();
    assert!(public.prove(forged.as_bytes(), None, NOW).is_err());
    assert_eq!(tokens.prove(&vec![b'a'; 8193], None, NOW), Err(TokenError::TooLong { len: 8193 }));
}

/// A public key of P-256 in PEM.
fn public_key() -> String {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der.as_ref());
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

#[test]
fn tokens_of_ed25519_es256_and_a_set_of_keys_are_checked() {
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
    let issuer = Issuer::new();
    let pem = |der: &[u8]| {
        let text = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    };
    let url = |bytes: &[u8]| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, bytes);

    let ed = Ed25519KeyPair::generate().unwrap();
    let signer = EncodingKey::from_ed_der(ed.to_pkcs8().unwrap().as_ref());
    let by_ed = encode(&Header::new(Algorithm::EdDSA), &claims(json!({})), &signer).unwrap();
    let public: PublicKeyX509Der<'_> = ed.public_key().as_der().unwrap();
    let tokens = Tokens::open(&issuer.config("EdDSA", pem(public.as_ref()).as_bytes())).unwrap().unwrap();
    assert_eq!(tokens.prove(by_ed.as_bytes(), None, NOW).unwrap().user, "ann");
    assert!(tokens.prove(&signed(json!({})), None, NOW).is_err());

    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let signer = EncodingKey::from_ec_der(ec.to_pkcs8v1().unwrap().as_ref());
    let header = Header { kid: Some("two".to_owned()), ..Header::new(Algorithm::ES256) };
    let by_ec = encode(&header, &claims(json!({})), &signer).unwrap();
    let public: PublicKeyX509Der<'_> = ec.public_key().as_der().unwrap();
    let tokens = Tokens::open(&issuer.config("ES256", pem(public.as_ref()).as_bytes())).unwrap().unwrap();
    assert_eq!(tokens.prove(by_ec.as_bytes(), None, NOW).unwrap().user, "ann");

    let point = ec.public_key().as_ref();
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "one", "x": url(ed.public_key().as_ref())},
        {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "two", "x": url(&point[1..33]), "y": url(&point[33..65])},
    ]});
    let tokens = Tokens::open(&issuer.config("JWKS", set.to_string().as_bytes())).unwrap().unwrap();
    assert_eq!(tokens.prove(by_ec.as_bytes(), None, NOW).unwrap().user, "ann");
    assert_eq!(tokens.prove(by_ed.as_bytes(), None, NOW), Err(TokenError::UnknownKey), "no kid, several keys");
    let stranger = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    let stranger = encode(&stranger, &claims(json!({})), &signer).unwrap();
    assert!(tokens.prove(stranger.as_bytes(), None, NOW).is_err(), "the key it names signs otherwise");

    for bad in [
        json!({"keys": []}),
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": url(ed.public_key().as_ref())}]}),
        json!({"keys": [{"kty": "oct", "alg": "HS256", "k": url(SECRET)}]}),
    ] {
        assert!(Tokens::open(&issuer.config("JWKS", bad.to_string().as_bytes())).is_err(), "{bad}");
    }
}

#[test]
fn a_key_that_is_none_is_refused() {
    let issuer = Issuer::new();
    assert!(matches!(Tokens::open(&issuer.config("HS256", b"short")), Err(TokensError::Key { .. })));
    assert!(matches!(Tokens::open(&issuer.config("ES256", b"no pem")), Err(TokensError::Key { .. })));
    assert!(matches!(Tokens::open(&issuer.config("none", SECRET)), Err(TokensError::Algorithm { .. })));
    let lax = Config { leeway_s: 301, ..issuer.config("HS256", SECRET) };
    assert!(matches!(Tokens::open(&lax), Err(TokensError::Leeway { found: 301 })));
    let off = Config { key_file: PathBuf::new(), ..lax };
    assert!(matches!(Tokens::open(&off), Ok(None)));
}
