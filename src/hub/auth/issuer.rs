//! The keys of an OpenID Connect issuer: discovery and key set over HTTPS, fetched by one task, at the start, every hour, and when somebody
//! brings a token by a key that is not known. The last keys stay while that fails.
//!
//! ```text
//! fetch ─► published ─► pause ─► asked for, or an hour later ─► fetch
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jsonwebtoken::jwk::Jwk;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::core::text::with_causes;
use crate::hub::tls;

/// How long keys are used before they are fetched again.
const FRESH: Duration = Duration::from_secs(3600);
/// Between two attempts to fetch: tokens with made-up key ids must not turn the hub against its issuer.
const ATTEMPT_PAUSE: Duration = Duration::from_secs(10);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: usize = 1 << 20;

/// Why an issuer cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// Not HTTPS.
    #[error("the issuer {0} is no https:// URL without query and fragment")]
    Url(String),
    /// The CA file.
    #[error("the CA file {path} cannot be used ({message})")]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// What the last attempt brought.
#[derive(Clone, Debug, Default)]
struct Fetched {
    /// When it ended; `None` before the first one has.
    at: Option<Instant>,
    keys: Arc<Vec<Jwk>>,
    failure: Option<String>,
}

/// The issuer's keys as others see them.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    issuer: String,
    fetched: watch::Receiver<Fetched>,
    wanted: Arc<Notify>,
}

/// Fetches the keys.
#[derive(Debug)]
pub struct KeyKeeper {
    issuer: String,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    publish: watch::Sender<Fetched>,
    wanted: Arc<Notify>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl IssuerKeys {
    /// The keys with this id, without an id all; else why there are none. Waits for a fetch if they are not `right`, unless there has just been
    /// one: an issuer may give a new key the id of an old one.
    pub(super) async fn find(&self, id: Option<&str>, right: impl Fn(&[Jwk]) -> bool) -> Result<Vec<Jwk>, String> {
        let mut fetched = self.fetched.clone();
        let known = fetched.borrow_and_update().clone();
        let keys = known.with_id(id);
        if right(&keys) || known.at.is_some_and(|at| at.elapsed() < ATTEMPT_PAUSE) {
            return self.outcome(keys, &known);
        }
        self.wanted.notify_one();
        // An attempt that does not end in time, or a hub that goes away, leaves what was known.
        let _ = tokio::time::timeout(FETCH_TIMEOUT, fetched.changed()).await;
        let known = fetched.borrow().clone();
        self.outcome(known.with_id(id), &known)
    }

    fn outcome(&self, keys: Vec<Jwk>, known: &Fetched) -> Result<Vec<Jwk>, String> {
        match (&known.failure, known.at) {
            _ if !keys.is_empty() => Ok(keys),
            (None, Some(_)) => Err("is signed by a key that its issuer does not publish".to_owned()),
            (failure, _) => Err(format!(
                "cannot be verified: the keys of {} cannot be fetched: {}",
                self.issuer,
                failure.as_deref().unwrap_or("there was no answer yet")
            )),
        }
    }
}

impl Fetched {
    fn with_id(&self, id: Option<&str>) -> Vec<Jwk> {
        let fits = |key: &&Jwk| id.is_none() || key.common.key_id.as_deref() == id;
        self.keys.iter().filter(fits).cloned().collect()
    }
}

impl KeyKeeper {
    pub(super) fn new(issuer: &str, ca_file: Option<PathBuf>) -> Result<(Self, IssuerKeys), OidcError> {
        if !is_issuer(issuer) {
            return Err(OidcError::Url(issuer.to_owned()));
        }
        let builder = ClientConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions()?;
        let tls = builder
            .with_root_certificates(roots(ca_file.as_deref())?)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        let (publish, fetched) = watch::channel(Fetched::default());
        let wanted = Arc::new(Notify::new());
        let keys = IssuerKeys {
            issuer: issuer.to_owned(),
            fetched,
            wanted: Arc::clone(&wanted),
        };
        let keeper = KeyKeeper {
            issuer: issuer.to_owned(),
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector),
            publish,
            wanted,
        };
        Ok((keeper, keys))
    }

    /// Fetches until `stop`.
    pub async fn keep(self, stop: CancellationToken) {
        let fetching = async {
            loop {
                self.attempt().await;
                tokio::time::sleep(ATTEMPT_PAUSE).await;
                // Either is a reason to go on.
                let _ = tokio::time::timeout(FRESH, self.wanted.notified()).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = fetching => {}
        }
    }

    async fn attempt(&self) {
        let outcome = tokio::time::timeout(FETCH_TIMEOUT, self.fetch()).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH_TIMEOUT.as_secs())));
        if let Err(why) = &outcome {
            tracing::warn!(
                issuer = self.issuer,
                why,
                "the issuer's keys cannot be fetched; the last ones stay"
            );
        }
        self.publish.send_modify(|fetched| {
            fetched.at = Some(Instant::now());
            match outcome {
                Ok(keys) => (fetched.keys, fetched.failure) = (Arc::new(keys), None),
                Err(why) => fetched.failure = Some(why),
            }
        });
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let base = self.issuer.trim_end_matches('/');
        let discovered: Discovery = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
        if discovered.issuer != self.issuer {
            return Err(format!(
                "it calls itself {:?}, not as --oidc-issuer-url has it",
                discovered.issuer
            ));
        }
        let set: KeySet = self.get(&discovered.jwks_uri).await?;
        // A key of a kind that is not known here says nothing against the others.
        Ok(set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok())
            .collect())
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        let failed = |error: &dyn std::error::Error| format!("{url}: {}", with_causes(error));
        let uri: Uri = url.parse().map_err(|error| failed(&error))?;
        let response = self.client.get(uri).await.map_err(|error| failed(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| format!("{url}: {error}"))?.to_bytes();
        if !status.is_success() {
            return Err(format!("{url} answered {status}"));
        }
        serde_json::from_slice(&body).map_err(|error| failed(&error))
    }
}

fn is_issuer(url: &str) -> bool {
    let parsed = url.parse::<Uri>().ok();
    let is_https = parsed.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
    is_https && !url.contains(['?', '#', '@'])
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, OidcError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let wrong = |message: String| OidcError::Ca {
        path: path.to_owned(),
        message,
    };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("it has no certificate".to_owned()));
    }
    Ok(roots)
}
