//! First contact and renewal of an expired certificate: one POST, repeated until the hub has decided.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::config::AgentConfig;
use super::credentials::Credentials;
use crate::core::api::CLUSTERS_VERSION;
use crate::core::api::cluster::{CSR_ANNOTATION, RegistrationSpec, RegistrationStatus};
use crate::core::ids::ClusterId;
use crate::tunnel::dial::{self, DialError};

const PATH: &str = "/apis/clusters.clusternet.io/v1beta1/clusterregistrationrequests";
const TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_LIMIT: usize = 256 * 1024;

/// What the hub said to a registration request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// Here is the certificate.
    Approved(RegistrationStatus),
    /// A person has to decide; the text says what to do.
    Pending(String),
}

/// Why a registration got no certificate.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The hub was not reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke, or no answer came in time.
    #[error("the hub broke the registration off: {0}")]
    Broken(String),
    /// The hub refuses, and will refuse again.
    #[error("the hub refuses the registration: {message}")]
    Refused {
        /// What the hub said.
        message: String,
    },
    /// A person has decided against this cluster.
    #[error("the hub refuses the registration: {message}")]
    Denied {
        /// What the hub said.
        message: String,
    },
    /// The hub cannot answer now.
    #[error("the hub cannot register clusters now (HTTP status {status}): {message}")]
    Unavailable {
        /// HTTP status.
        status: u16,
        /// What the hub said.
        message: String,
    },
    /// The key is not usable.
    #[error("the agent's key cannot be used: {0}; remove the agent's credentials to register with a new key")]
    Key(#[from] rcgen::Error),
}

impl RegisterError {
    /// Whether asking again cannot help. A refusal may come from whatever stands between, or from a hub that is being restored: who has been
    /// heard before asks on.
    pub(super) fn is_final(&self, was_heard: bool) -> bool {
        match self {
            RegisterError::Refused { .. } => !was_heard,
            RegisterError::Denied { .. } | RegisterError::Key(_) => true,
            RegisterError::Dial(_) | RegisterError::Broken(_) | RegisterError::Unavailable { .. } => false,
        }
    }
}

/// A new private key, PEM.
pub(super) fn new_key() -> Result<String, rcgen::Error> {
    Ok(KeyPair::generate()?.serialize_pem())
}

/// A certificate signing request, PEM. Only its public key counts; the name is for people.
pub(super) fn signing_request(key: &str, cluster: &ClusterId) -> Result<String, rcgen::Error> {
    let key = KeyPair::from_pem(key)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("branchline:cluster:{cluster}"));
    params.distinguished_name = name;
    params.serialize_request(&key)?.pem()
}

/// Begin and end of a certificate's validity, seconds since 1970.
pub(super) fn validity(certificate: &str) -> Option<(i64, i64)> {
    let der = super::pin::first_certificate(certificate)?;
    let (_, parsed) = X509Certificate::from_der(&der).ok()?;
    Some((
        parsed.validity().not_before.timestamp(),
        parsed.validity().not_after.timestamp(),
    ))
}

/// Asks once. With a token it is a registration; without one, the renewal of a certificate that has expired.
pub(super) async fn ask(
    config: &AgentConfig,
    credentials: &Credentials,
    tls: Arc<rustls::ClientConfig>,
    token: Option<&str>,
) -> Result<Answer, RegisterError> {
    let body = request_body(config, credentials)?;
    let stream = dial::connect(&config.hub, tls).await?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = http_request(config, token, &body);
        let (answer, _) = futures::join!(
            async {
                let response = sender.send_request(request).await?;
                let status = response.status();
                let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
                drop(sender);
                Ok::<_, hyper::Error>((status, body.map(|b| b.to_bytes()).unwrap_or_default()))
            },
            connection
        );
        answer
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok((status, body))) => judge(status, &body),
        Ok(Err(error)) => Err(RegisterError::Broken(error.to_string())),
        Err(_) => Err(RegisterError::Broken(format!("no answer within {} s", TIMEOUT.as_secs()))),
    }
}

fn http_request(config: &AgentConfig, token: Option<&str>, body: &str) -> Request<Full<bytes::Bytes>> {
    let mut request = Request::new(Full::from(body.to_owned()));
    *request.method_mut() = http::Method::POST;
    // The base path was taken out of a parsed URI, so that it can stand in one again.
    *request.uri_mut() = format!("{}{PATH}", config.hub.base_path).parse().unwrap_or_default();
    let headers = request.headers_mut();
    let mut set = |name, text: &str| {
        if let Ok(value) = header::HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    set(header::HOST, &config.hub.authority());
    set(header::CONTENT_TYPE, "application/json");
    set(header::CONNECTION, "close");
    if let Some(token) = token {
        set(header::AUTHORIZATION, &format!("Bearer {token}"));
    }
    request
}

fn request_body(config: &AgentConfig, credentials: &Credentials) -> Result<String, rcgen::Error> {
    let cluster = &credentials.cluster_id;
    let spec = RegistrationSpec {
        cluster_id: cluster.clone(),
        cluster_type: config.cluster_type.clone(),
        cluster_name: config.name.clone(),
        cluster_namespace: config.namespace.clone(),
        cluster_labels: config.labels.clone(),
        sync_mode: "Pull".to_owned(),
    };
    let labels = BTreeMap::from([
        ("clusters.clusternet.io/cluster-id", cluster.as_str()),
        ("clusters.clusternet.io/cluster-name", &config.name),
    ]);
    let annotations = json!({CSR_ANNOTATION: signing_request(&credentials.key, cluster)?});
    let metadata = json!({"name": format!("clusternet-{cluster}"), "labels": labels, "annotations": annotations});
    let kind = "ClusterRegistrationRequest";
    Ok(json!({"apiVersion": CLUSTERS_VERSION, "kind": kind, "metadata": metadata, "spec": spec}).to_string())
}

fn judge(status: StatusCode, body: &[u8]) -> Result<Answer, RegisterError> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    if !status.is_success() {
        let message = match value["message"].as_str() {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned(),
        };
        return Err(match status.as_u16() {
            // The rest of 4xx would be refused again; these two ask for patience.
            400..=499 if !matches!(status.as_u16(), 408 | 429) => RegisterError::Refused { message },
            status => RegisterError::Unavailable { status, message },
        });
    }
    let registration: RegistrationStatus = serde_json::from_value(value["status"].clone()).unwrap_or_default();
    match registration.result.as_deref() {
        Some("Approved") if !registration.certificate.is_empty() => Ok(Answer::Approved(registration)),
        Some("Denied") => Err(RegisterError::Denied {
            message: match registration.error_message.is_empty() {
                true => "it was denied by a person; ask whoever runs the hub".to_owned(),
                false => registration.error_message,
            },
        }),
        _ => Ok(Answer::Pending(registration.error_message)),
    }
}

/// A PEM text that travels in base64.
pub(super) fn decode(field: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(field.trim()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let approved = br#"{"status":{"result":"Approved","certificate":"eA==","managedClusterName":"edge-1"}}"#;
        assert!(
            matches!(judge(StatusCode::CREATED, approved), Ok(Answer::Approved(status)) if status.managed_cluster_name == "edge-1")
        );
        let pending = judge(
            StatusCode::CREATED,
            br#"{"status":{"errorMessage":"run branchline approve edge-1"}}"#,
        )
        .unwrap();
        assert_eq!(pending, Answer::Pending("run branchline approve edge-1".to_owned()));
        let denied = judge(StatusCode::OK, br#"{"status":{"result":"Denied"}}"#).unwrap_err();
        assert!(denied.is_final(true) && denied.to_string().contains("denied by a person"));
        let token = judge(
            StatusCode::UNAUTHORIZED,
            br#"{"kind":"Status","message":"the token has expired"}"#,
        )
        .unwrap_err();
        assert!(token.is_final(false) && !token.is_final(true) && token.to_string().ends_with("the token has expired"));
        assert!(!judge(StatusCode::SERVICE_UNAVAILABLE, b"").unwrap_err().is_final(false));
    }

    #[test]
    fn requests_are_signed_with_the_kept_key() {
        let id: ClusterId = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap();
        let request = signing_request(&new_key().unwrap(), &id).unwrap();
        assert!(request.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
    }
}
