//! What an agent is started with, checked: nothing optional is left that a later step would have to guess.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Access;
use crate::core::access::limits::ImpersonationLimits;
use crate::core::reach::Reachable;
use crate::tunnel::TunnelSettings;
use crate::tunnel::backoff::Backoff;
use crate::tunnel::dial::HubAddress;

/// Everything that an agent needs to know at its start.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Where the hub is.
    pub hub: HubAddress,
    /// How the hub is known.
    pub trust: Trust,
    /// Bootstrap token for the first contact; not needed once the agent has a certificate.
    pub token: Option<String>,
    /// The name that the cluster asks for.
    pub name: String,
    /// The dedicated namespace that it asks for; empty leaves it to the hub.
    pub namespace: String,
    /// `EdgeCluster`, `StandardCluster` or any other word.
    pub cluster_type: String,
    /// Labels that it asks for.
    pub labels: BTreeMap<String, String>,
    /// How to reach its own API server.
    pub access: Access,
    /// Services beside the API server that users may reach through the tunnel.
    pub reachable: Reachable,
    /// Where its key and certificate are kept.
    pub credentials: CredentialsPlace,
    /// Pauses between attempts to reach the hub.
    pub backoff: Backoff,
    /// How often a registration that waits for a person asks again.
    pub pending_interval: Duration,
    /// How often nodes and networks are looked at, at most.
    pub survey_interval: Duration,
    /// Limits of the tunnel.
    pub tunnel: TunnelSettings,
    /// Whom the hub may have impersonated in this cluster.
    pub impersonation: Arc<ImpersonationLimits>,
}

/// Where key and certificate are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CredentialsPlace {
    /// Secret `branchline-agent` in namespace `branchline-system` of the cluster.
    Secret,
    /// A file that only its owner can read.
    File(PathBuf),
}

/// How the agent knows that it talks to its hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// The hub's CA is the one whose public key has this SHA-256.
    Hash(CaHash),
    /// The hub's CA is in this PEM text.
    Certificates(String),
    /// The CA that was pinned at registration; only for an agent that has credentials already.
    Remembered,
}

/// SHA-256 over the SubjectPublicKeyInfo of a CA certificate, as kubeadm writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CaHash(pub [u8; 32]);

/// A text that is not a CA hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a CA hash: it has the form sha256:<64 hexadecimal digits>, as `branchline token create --print-join` prints it"
)]
pub struct InvalidCaHash(String);

impl FromStr for CaHash {
    type Err = InvalidCaHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCaHash(text.chars().take(90).collect());
        let digits = text.strip_prefix("sha256:").ok_or_else(invalid)?;
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(invalid());
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| invalid())?;
        }
        Ok(CaHash(hash))
    }
}

impl std::fmt::Display for CaHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_hash_is_read_as_it_is_printed() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(text.parse::<CaHash>().unwrap().to_string(), text);
        for wrong in ["", "sha256:00", "md5:00", &"é".repeat(35)] {
            assert!(wrong.parse::<CaHash>().is_err(), "{wrong}");
        }
    }
}
