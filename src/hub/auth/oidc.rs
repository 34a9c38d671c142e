//! ID tokens of an OpenID Connect issuer: verified by its keys, read by [`crate::core::access::claims`]. Where the keys come from is in
//! [`super::issuer`].

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters as Kind, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::issuer::{IssuerKeys, KeyKeeper, OidcError};
use crate::core::access::User;
use crate::core::access::claims::ClaimRules;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 64 << 10;

/// A signature algorithm that kube-apiserver takes and this hub can verify; none is symmetric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SigningAlgorithm(Algorithm);

impl std::str::FromStr for SigningAlgorithm {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 | Algorithm::EdDSA) | Err(_) => {
                Err("this is none of RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512")
            }
            Ok(algorithm) => Ok(SigningAlgorithm(algorithm)),
        }
    }
}

/// What a hub needs to know of an issuer.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// How claims become users; has the issuer's URL.
    pub rules: ClaimRules,
    /// The issuer's CA, PEM; the system's without.
    pub ca_file: Option<PathBuf>,
    /// Algorithms that are taken.
    pub algorithms: Vec<SigningAlgorithm>,
}

/// Tells whose an ID token is.
#[derive(Debug)]
pub struct Oidc {
    rules: ClaimRules,
    algorithms: Vec<Algorithm>,
    keys: IssuerKeys,
}

#[derive(Deserialize)]
struct TokenHeader {
    alg: String,
    kid: Option<String>,
    /// Extensions that have to be understood (RFC 7515, 4.1.11); there are none here.
    crit: Option<Value>,
}

impl Oidc {
    /// Prepares the issuer. Its keys come once the keeper runs, so that one that is down keeps no hub from starting.
    pub fn new(config: OidcConfig) -> Result<(Self, KeyKeeper), OidcError> {
        let (keeper, keys) = KeyKeeper::new(&config.rules.issuer, config.ca_file)?;
        let oidc = Oidc {
            rules: config.rules,
            algorithms: config.algorithms.into_iter().map(|stated| stated.0).collect(),
            keys,
        };
        Ok((oidc, keeper))
    }

    /// Whether a token says that this issuer made it.
    pub fn issued(&self, token: &str) -> bool {
        let claims = token.split('.').nth(1).and_then(decode::<Map<String, Value>>);
        token.len() <= MAX_TOKEN
            && claims.is_some_and(|claims| claims.get("iss").and_then(Value::as_str) == Some(&self.rules.issuer))
    }

    /// Whose token this is and until when; else why it is not good.
    pub async fn user(&self, token: &str, now: SystemTime) -> Result<(User, SystemTime), String> {
        let (message, signature) = token.rsplit_once('.').ok_or("is no JWT")?;
        let (head, claims) = message.split_once('.').ok_or("is no JWT")?;
        let header: TokenHeader = decode(head).ok_or("has a header that cannot be read")?;
        let algorithm = self.algorithm(&header)?;
        let verifies = |key: &Jwk| {
            let key = usable(key, algorithm);
            key.is_some_and(|key| jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key, algorithm).unwrap_or(false))
        };
        let right = |keys: &[Jwk]| keys.iter().any(verifies);
        let keys = self.keys.find(header.kid.as_deref(), right).await?;
        if !keys.iter().any(|key| usable(key, algorithm).is_some()) {
            return Err("names a key of its issuer that is not for this algorithm".to_owned());
        }
        if !right(&keys) {
            return Err("has a signature that is not its issuer's".to_owned());
        }
        let claims: Map<String, Value> = decode(claims).ok_or("has claims that cannot be read")?;
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (user, end) = self.rules.user(&claims, seconds)?;
        Ok((user, SystemTime::UNIX_EPOCH + Duration::from_secs(end)))
    }

    fn algorithm(&self, header: &TokenHeader) -> Result<Algorithm, String> {
        if header.crit.is_some() {
            return Err("has critical extensions, of which none is known here".to_owned());
        }
        let algorithm = header
            .alg
            .parse()
            .ok()
            .filter(|algorithm| self.algorithms.contains(algorithm));
        algorithm.ok_or_else(|| {
            let stated: String = header.alg.chars().take(20).collect();
            format!("is signed with {stated:?}, which is not among --oidc-signing-algs")
        })
    }
}

/// A key for signatures, of the kind that the algorithm takes: one that fits another kind proves nothing.
fn usable(key: &Jwk, algorithm: Algorithm) -> Option<DecodingKey> {
    use Algorithm::{ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512};
    let fits = match (&key.algorithm, algorithm) {
        (Kind::RSA(_), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => true,
        (Kind::EllipticCurve(point), ES256) => point.curve == EllipticCurve::P256,
        (Kind::EllipticCurve(point), ES384) => point.curve == EllipticCurve::P384,
        _ => false,
    };
    let signs = !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption));
    (fits && signs).then(|| DecodingKey::from_jwk(key).ok()).flatten()
}

fn decode<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
