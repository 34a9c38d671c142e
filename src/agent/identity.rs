//! Who the agent is: finds the cluster's id, keeps key and certificate, gets them from the hub at first contact and renews what has expired.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::config::{AgentConfig, CaHash, Trust};
use super::credentials::{Credentials, CredentialsError, CredentialsStore};
use super::pin::{self, PinnedCa};
use super::register::{self, Answer, RegisterError};
use super::{AgentError, pause};
use crate::cluster::Cluster;
use crate::core::api::cluster::RegistrationStatus;
use crate::core::ids::ClusterId;
use crate::core::text::with_causes;

/// A renewed certificate is asked for after this part of the old one's life.
const RENEW_AFTER: (u32, u32) = (2, 3);

/// When the certificate has to be renewed; at once if it cannot be read.
pub(super) fn renewal_due(certificate: &str) -> Option<Instant> {
    let now = jiff::Timestamp::now().as_second();
    let Some((begin, end)) = register::validity(certificate) else {
        return Some(Instant::now());
    };
    let due = begin + (end - begin) / i64::from(RENEW_AFTER.1) * i64::from(RENEW_AFTER.0);
    let left = u64::try_from(due - now).unwrap_or(0);
    Some(Instant::now() + Duration::from_secs(left))
}

/// Whether the certificate's end has come.
fn has_expired(certificate: &str) -> bool {
    register::validity(certificate).is_some_and(|(_, end)| end <= jiff::Timestamp::now().as_second())
}

/// Reads what is kept, or begins with a new key, which is kept before anybody hears of it. Waits for an API server that is needed for this.
pub(super) async fn load(
    config: &AgentConfig,
    cluster: &Cluster,
    store: &CredentialsStore,
    stop: &CancellationToken,
) -> Result<Option<Credentials>, AgentError> {
    let mut attempt = 0;
    loop {
        let error = match load_once(config, cluster, store).await {
            Ok(credentials) => return Ok(Some(credentials)),
            Err(AgentError::Credentials(CredentialsError::Secret(error))) if error.is_transient() => error.explain(),
            Err(AgentError::Identity(error)) if error.is_transient() => error.explain(),
            Err(error) => return Err(error),
        };
        tracing::warn!(%error, "the agent cannot know itself yet; trying again");
        if !pause(config.backoff, attempt, stop).await {
            return Ok(None);
        }
        attempt += 1;
    }
}

async fn load_once(config: &AgentConfig, cluster: &Cluster, store: &CredentialsStore) -> Result<Credentials, AgentError> {
    let (kept, id) = futures::join!(store.load(), cluster.cluster_id());
    let credentials = match (kept?, id) {
        (Some(kept), Ok(id)) if kept.cluster_id != id => return Err(other_cluster(store, &kept.cluster_id, &id)),
        // With its credentials in a file the agent can keep the tunnel up while its API server is down.
        (Some(kept), _) => kept,
        (None, Err(error)) => return Err(AgentError::Identity(error)),
        (None, Ok(cluster_id)) => {
            let fresh = Credentials {
                cluster_id,
                key: register::new_key().map_err(RegisterError::Key)?,
                ca: String::new(),
                certificate: String::new(),
                namespace: String::new(),
                name: String::new(),
            };
            store.save(&fresh).await?;
            fresh
        }
    };
    Ok(with_trust(config, credentials))
}

/// Credentials from another hub are worth nothing with this one; the key stays.
fn with_trust(config: &AgentConfig, mut credentials: Credentials) -> Credentials {
    let same = match &config.trust {
        Trust::Remembered => true,
        Trust::Certificates(pem) => credentials.ca == *pem,
        Trust::Hash(hash) => ca_hash(&credentials.ca) == Some(*hash),
    };
    if !same {
        if !credentials.certificate.is_empty() {
            tracing::warn!("the kept certificate is from another CA than the one stated; registering anew");
        }
        credentials.certificate.clear();
        credentials.ca = match &config.trust {
            Trust::Certificates(pem) => pem.clone(),
            _ => String::new(),
        };
    }
    credentials
}

fn ca_hash(pem: &str) -> Option<CaHash> {
    pin::hash_of(&pin::first_certificate(pem)?)
}

fn other_cluster(store: &CredentialsStore, kept: &ClusterId, found: &ClusterId) -> AgentError {
    AgentError::OtherCluster {
        place: store.describe(),
        kept: kept.clone(),
        found: found.clone(),
    }
}

/// Whether there is a certificate to dial with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Certificate {
    /// There is.
    Held,
    /// The one that there was has expired, and the hub gives no other now.
    NotNow,
    /// Told to stop before there was one.
    Stopped,
}

/// Gets a certificate unless one is held that has not expired.
pub(super) async fn ensure(
    config: &AgentConfig,
    credentials: &mut Credentials,
    store: &CredentialsStore,
    stop: &CancellationToken,
) -> Result<Certificate, AgentError> {
    if credentials.certificate.is_empty() {
        return Ok(match obtain(config, credentials, store, stop).await? {
            true => Certificate::Held,
            false => Certificate::Stopped,
        });
    }
    Ok(match has_expired(&credentials.certificate) {
        true => renew(config, credentials, store, stop).await,
        false => Certificate::Held,
    })
}

/// Gets another certificate. An agent that had one never gives up: who refuses it now may take that back, or is not the hub at all.
pub(super) async fn renew(
    config: &AgentConfig,
    credentials: &mut Credentials,
    store: &CredentialsStore,
    stop: &CancellationToken,
) -> Certificate {
    match obtain(config, credentials, store, stop).await {
        Ok(true) => Certificate::Held,
        Ok(false) => Certificate::Stopped,
        Err(error) => {
            let error = with_causes(&error);
            tracing::error!(%error, "no new certificate; trying again");
            Certificate::NotNow
        }
    }
}

/// Gets a certificate: by its key alone if there was one before, else, or if the hub does not know that key any more, with the token.
/// Waits for a person if the hub does. `false`: stopped before there was an answer.
async fn obtain(
    config: &AgentConfig,
    credentials: &mut Credentials,
    store: &CredentialsStore,
    stop: &CancellationToken,
) -> Result<bool, AgentError> {
    let token = config.token.as_deref();
    if !credentials.certificate.is_empty() {
        match ask_until_decided(config, credentials, store, None, stop).await {
            Err(AgentError::Register(error)) if error.is_final(false) && token.is_some() => {
                let error = with_causes(&error);
                tracing::warn!(%error, "the certificate cannot be renewed; registering with the token");
            }
            result => return result,
        }
    }
    match token {
        Some(token) => ask_until_decided(config, credentials, store, Some(token), stop).await,
        None => Err(AgentError::NoToken { place: store.describe() }),
    }
}

async fn ask_until_decided(
    config: &AgentConfig,
    credentials: &mut Credentials,
    store: &CredentialsStore,
    token: Option<&str>,
    stop: &CancellationToken,
) -> Result<bool, AgentError> {
    let (tls, pinned) = first_contact(config, credentials)?;
    let (mut attempt, mut told) = (0, None);
    loop {
        match register::ask(config, credentials, tls.clone(), token).await {
            Ok(Answer::Approved(status)) => {
                accept(credentials, &status, pinned.as_ref().and_then(|pinned| pinned.found()))?;
                store.save(credentials).await?;
                let (name, namespace) = (&credentials.name, &credentials.namespace);
                tracing::info!(cluster = name, namespace, renewal = token.is_none(), "registered");
                return Ok(true);
            }
            Ok(Answer::Pending(message)) => {
                attempt = 0;
                if told.as_ref() != Some(&message) {
                    tracing::info!(message, "the registration waits for a person at the hub");
                    told = Some(message);
                }
                if !wait(config.pending_interval, stop).await {
                    return Ok(false);
                }
            }
            Err(error) if error.is_final(told.is_some()) => return Err(error.into()),
            Err(error) => {
                if let Some(wrong) = pinned.as_ref().and_then(|pinned| pinned.wrong()) {
                    return Err(AgentError::WrongCa(wrong));
                }
                let error = with_causes(&error);
                tracing::warn!(%error, "no answer to the registration yet; trying again");
                if !pause(config.backoff, attempt, stop).await {
                    return Ok(false);
                }
                attempt += 1;
            }
        }
    }
}

type FirstContact = (Arc<ClientConfig>, Option<Arc<PinnedCa>>);

fn first_contact(config: &AgentConfig, credentials: &Credentials) -> Result<FirstContact, AgentError> {
    match &config.trust {
        Trust::Remembered if credentials.ca.is_empty() => Err(AgentError::NoTrust),
        Trust::Hash(hash) if credentials.ca.is_empty() => {
            let (tls, pinned) = pin::pinning(*hash)?;
            Ok((tls, Some(pinned)))
        }
        _ => Ok((pin::trusting(&credentials.ca, None)?, None)),
    }
}

/// The certificate must be for our key, or the next handshake would only fail with less to say.
fn accept(credentials: &mut Credentials, status: &RegistrationStatus, ca: Option<String>) -> Result<(), AgentError> {
    let decoded = register::decode(&status.certificate).ok_or(AgentError::NoCertificate)?;
    if let Some(ca) = ca {
        credentials.ca = ca;
    }
    pin::trusting(&credentials.ca, Some((&decoded, &credentials.key)))?;
    credentials.certificate = decoded;
    credentials.namespace = status.dedicated_namespace.clone();
    credentials.name = status.managed_cluster_name.clone();
    Ok(())
}

/// `false`: stopped.
async fn wait(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        () = tokio::time::sleep(time) => true,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::time::SystemTime;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Valid from `past` seconds ago until `left` seconds from now.
    fn certificate(past: u64, left: u64) -> String {
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - Duration::from_secs(past)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(left)).into();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn certificates_are_renewed_at_two_thirds_of_their_life() {
        let due = renewal_due(&certificate(0, 900)).unwrap() - Instant::now();
        assert!((590..=601).contains(&due.as_secs()), "{due:?}");
        assert!(renewal_due(&certificate(900, 90)).unwrap() <= Instant::now());
        assert!(has_expired(&certificate(900, 0)) && !has_expired(&certificate(900, 90)));
    }
}
