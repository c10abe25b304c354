//! Tokens that prove a user: JSON Web Tokens, signed by somebody this node trusts (RFC 7519).
//!
//! A token comes as the Password of CONNECT, with no User Name or the one it is for. The algorithm
//! is the key's, whatever the token says. Claims about rights are not looked at: what a user may do
//! is said by the rules of this node alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use thiserror::Error;
use unhidra_certs::FileError;
use unhidra_core::time::UnixTime;

use super::file::{read, read_private};
use super::users::check_name;

/// The longest token taken, in bytes.
const TOKEN_LEN_MAX: usize = 8192;

/// The shortest secret of HS256 (RFC 7518 section 3.2).
const SECRET_LEN_MIN: usize = 32;

/// The longest leeway: clocks that differ by more are to be set.
const LEEWAY_MAX: Duration = Duration::from_secs(300);

/// The table `[jwt]`.
#[derive(Clone, Debug, serde::Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file of the key, or of several: a JWK set. Empty: no tokens.
    pub key_file: PathBuf,
    /// How the key signs: `HS256`, `RS256`, `ES256`, `EdDSA`; or `JWKS`.
    pub algorithm: String,
    /// What `iss` must be; empty, it is not looked at.
    pub issuer: String,
    /// What must be in `aud`; empty, it is not looked at.
    pub audience: String,
    /// The claim that is the user's name.
    pub user_claim: String,
    /// How far the issuer's clock may be off, in s.
    pub leeway_s: u64,
}

/// Why tokens cannot be checked.
#[derive(Debug, Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another algorithm.
    #[error("jwt.algorithm = {found:?}; allowed are HS256, RS256, ES256, EdDSA, and JWKS")]
    Algorithm {
        /// What was found.
        found: String,
    },
    /// It holds no such key.
    #[error("{}: no key of {algorithm}: {cause}", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// For which algorithm.
        algorithm: String,
        /// What is wrong.
        cause: String,
    },
    /// Clocks this far apart are a fault.
    #[error("jwt.leeway_s = {found}; at most {} are allowed", LEEWAY_MAX.as_secs())]
    Leeway {
        /// What was found.
        found: u64,
    },
}

/// Why a token proves nobody. For the log, and never for the peer.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(super) enum TokenError {
    /// It is too long.
    #[error("a token of {len} bytes; at most {TOKEN_LEN_MAX} are taken")]
    TooLong {
        /// Its bytes.
        len: usize,
    },
    /// It is none, or is signed by somebody else.
    #[error("{0}")]
    Invalid(String),
    /// No key of ours has its identifier.
    #[error("no key has the token's identifier")]
    UnknownKey,
    /// A claim is not there, or is no number.
    #[error("the claim {claim} is missing or of another type")]
    Claim {
        /// Which.
        claim: String,
    },
    /// It has ended.
    #[error("the token has ended")]
    Ended,
    /// It does not hold yet.
    #[error("the token does not hold yet")]
    NotYet,
    /// Its user's name is none.
    #[error("the token is for a name no user can have")]
    Name,
    /// It is for somebody else than the User Name.
    #[error("the token is for another user than the User Name says")]
    OtherUser,
}

/// Who a token is for, and for how long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Proven {
    /// The user.
    pub user: String,
    /// When it ends, leeway and all.
    pub until: UnixTime,
}

/// What checks tokens.
pub(super) struct Tokens {
    keys: Vec<Key>,
    user_claim: String,
    leeway_s: u64,
}

struct Key {
    id: Option<String>,
    key: DecodingKey,
    rule: Validation,
}

impl Tokens {
    /// Reads the keys. `None` where the configuration names none.
    ///
    /// # Errors
    ///
    /// [`TokensError`].
    pub(super) fn open(config: &Config) -> Result<Option<Self>, TokensError> {
        let path = &config.key_file;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        if config.leeway_s > LEEWAY_MAX.as_secs() {
            return Err(TokensError::Leeway { found: config.leeway_s });
        }
        let keys = match config.algorithm.as_str() {
            "HS256" => vec![(None, Algorithm::HS256, secret(path)?)],
            "RS256" => vec![(None, Algorithm::RS256, public(path, "RS256", DecodingKey::from_rsa_pem)?)],
            "ES256" => vec![(None, Algorithm::ES256, public(path, "ES256", DecodingKey::from_ec_pem)?)],
            "EdDSA" => vec![(None, Algorithm::EdDSA, public(path, "EdDSA", DecodingKey::from_ed_pem)?)],
            "JWKS" => set(path)?,
            found => return Err(TokensError::Algorithm { found: found.to_owned() }),
        };
        let keys = keys.into_iter().map(|(id, algorithm, key)| Key { id, key, rule: config.rule(algorithm) }).collect();
        Ok(Some(Self { keys, user_claim: config.user_claim.clone(), leeway_s: config.leeway_s }))
    }

    /// Whether a Password looks like a token.
    #[must_use]
    pub(super) fn looks_like_one(password: &[u8]) -> bool {
        password.starts_with(b"eyJ") && password.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// Who a token is for.
    ///
    /// # Errors
    ///
    /// [`TokenError`].
    pub(super) fn prove(&self, token: &[u8], user_name: Option<&str>, now: UnixTime) -> Result<Proven, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::TooLong { len: token.len() });
        }
        let invalid = |error: jsonwebtoken::errors::Error| TokenError::Invalid(error.to_string());
        let id = decode_header(token).map_err(invalid)?.kid;
        let claims = self.verified(token, id.as_deref())?;
        let number = |claim: &str| claims.get(claim).and_then(Value::as_f64);
        let missing = |claim: &str| TokenError::Claim { claim: claim.to_owned() };
        let now_s = (now.as_ms() / 1000) as f64;
        let leeway_s = self.leeway_s as f64;
        let ends = number("exp").filter(|exp| *exp >= 0.0).ok_or_else(|| missing("exp"))?;
        if now_s >= ends + leeway_s {
            return Err(TokenError::Ended);
        }
        match claims.get("nbf").map(Value::as_f64) {
            Some(None) => return Err(missing("nbf")),
            Some(Some(begins)) if now_s + leeway_s < begins => return Err(TokenError::NotYet),
            Some(Some(_)) | None => {}
        }
        let user = claims.get(&self.user_claim).and_then(Value::as_str).ok_or_else(|| missing(&self.user_claim))?;
        check_name(user).map_err(|_| TokenError::Name)?;
        if user_name.is_some_and(|name| !name.is_empty() && name != user) {
            return Err(TokenError::OtherUser);
        }
        // Far ends are cut: a connection does not last a century.
        let until = UnixTime::from_s(ends.min(1e11) as u64).saturating_add(Duration::from_secs(self.leeway_s));
        Ok(Proven { user: user.to_owned(), until })
    }

    fn verified(&self, token: &[u8], id: Option<&str>) -> Result<Map<String, Value>, TokenError> {
        let fits = |key: &&Key| match (id, key.id.as_deref()) {
            (Some(wanted), Some(id)) => wanted == id,
            // A single key needs no identifier, and a token without one is for a single key.
            (None, _) | (_, None) => self.keys.len() == 1,
        };
        let key = self.keys.iter().find(fits).ok_or(TokenError::UnknownKey)?;
        let decoded = decode::<Map<String, Value>>(token, &key.key, &key.rule);
        decoded.map(|token| token.claims).map_err(|error| TokenError::Invalid(error.to_string()))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Config {
    fn rule(&self, algorithm: Algorithm) -> Validation {
        let mut rule = Validation::new(algorithm);
        // Times are held against the node's clock, in `prove`.
        rule.validate_exp = false;
        rule.validate_nbf = false;
        let mut required = vec!["exp"];
        rule.validate_aud = !self.audience.is_empty();
        if !self.audience.is_empty() {
            rule.set_audience(&[&self.audience]);
            required.push("aud");
        }
        if !self.issuer.is_empty() {
            rule.set_issuer(&[&self.issuer]);
            required.push("iss");
        }
        rule.set_required_spec_claims(&required);
        rule
    }
}

fn secret(path: &Path) -> Result<DecodingKey, TokensError> {
    let bytes = read_private(path)?;
    let secret = bytes.trim_ascii_end();
    if secret.len() < SECRET_LEN_MIN {
        let cause = format!("a secret of {} bytes; it has at least {SECRET_LEN_MIN}", secret.len());
        return Err(TokensError::Key { path: path.into(), algorithm: "HS256".to_owned(), cause });
    }
    Ok(DecodingKey::from_secret(secret))
}

fn public(
    path: &Path,
    algorithm: &str,
    parse: fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>,
) -> Result<DecodingKey, TokensError> {
    let bytes = read(path)?;
    parse(&bytes).map_err(|error| TokensError::Key {
        path: path.into(),
        algorithm: algorithm.to_owned(),
        cause: format!("a public key in PEM is expected: {error}"),
    })
}

fn set(path: &Path) -> Result<Vec<(Option<String>, Algorithm, DecodingKey)>, TokensError> {
    let failed = |cause: String| TokensError::Key { path: path.into(), algorithm: "JWKS".to_owned(), cause };
    let bytes = read(path)?;
    let set: JwkSet = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    let keys = set.keys.iter().map(|jwk| one_of_set(jwk).map_err(failed)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(failed("the set is empty".to_owned()));
    }
    Ok(keys)
}

/// A key of a set must say how it signs, so that no token can choose, and must not be a secret:
/// sets are fetched and shown.
fn one_of_set(jwk: &Jwk) -> Result<(Option<String>, Algorithm, DecodingKey), String> {
    let id = jwk.common.key_id.clone();
    let name = id.as_deref().unwrap_or("without kid");
    let algorithm = match jwk.common.key_algorithm {
        Some(KeyAlgorithm::RS256) => Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => Algorithm::ES256,
        Some(KeyAlgorithm::EdDSA) => Algorithm::EdDSA,
        Some(other) => return Err(format!("the key {name} has alg {other}; allowed are RS256, ES256 and EdDSA")),
        None => return Err(format!("the key {name} says no alg")),
    };
    let key = DecodingKey::from_jwk(jwk).map_err(|error| format!("the key {name}: {error}"))?;
    Ok((id, algorithm, key))
}

#[cfg(test)]
mod tests;
