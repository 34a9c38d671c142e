//! Who a peer is and what it may do: pure decisions with their reasons. Never sees a socket, a clock or a certificate's bytes.

pub mod attributes;
pub mod claims;
pub mod impersonation;
pub mod limits;
pub mod rbac;
pub mod token_file;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use self::attributes::Attributes;
use self::rbac::{AllowedBy, Policy};
use super::ids::ClusterId;

/// The group whose members may do everything on the hub.
pub const ADMINS: &str = "branchline:admins";
/// The organisation in every agent's certificate.
pub const AGENTS: &str = "branchline:agents";
/// What the common name of an agent's certificate begins with; the cluster's id follows.
pub const CLUSTER_PREFIX: &str = "branchline:cluster:";

/// The digest of a public key: `sha256:` and the hex SHA-256 of its SubjectPublicKeyInfo, as kubeadm writes it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct KeyDigest(String);

/// A text that is no key digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key digest (sha256: and 64 hexadecimal digits)")]
pub struct InvalidKeyDigest(String);

impl KeyDigest {
    /// The digest of a SubjectPublicKeyInfo in DER.
    pub fn of_public_key(subject_public_key_info: &[u8]) -> Self {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(subject_public_key_info);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        KeyDigest(format!("sha256:{hex}"))
    }

    /// The digest as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyDigest {
    type Err = InvalidKeyDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
        match hex {
            Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => Ok(KeyDigest(text.to_ascii_lowercase())),
            _ => Err(InvalidKeyDigest(text.chars().take(80).collect())),
        }
    }
}

impl<'de> Deserialize<'de> for KeyDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Who stands at the other end of a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Identity {
    /// A cluster's agent.
    Agent {
        /// The cluster.
        cluster: ClusterId,
        /// The key that it proved to have.
        key: KeyDigest,
    },
    /// A person or a program with a certificate.
    User(User),
    /// Nobody that this hub knows, and why.
    Anonymous(Anonymity),
}

/// An authenticated user.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct User {
    /// Name: of a certificate its common name.
    pub name: String,
    /// Groups: of a certificate its organisations.
    pub groups: Vec<String>,
    /// Extra attributes, which only impersonation gives.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// In whose name something is changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Actor {
    /// The user whose rights it was measured by.
    pub user: String,
    /// Who sent the request, where that one acted as the user.
    pub sender: Option<String>,
}

/// Why a peer is nobody.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Anonymity {
    /// No certificate came, which is also what clients do whose certificate is from another CA.
    #[error("no client certificate of this hub was presented")]
    NoCertificate,
    /// Its time is over.
    #[error("the client certificate has expired")]
    Expired,
    /// Its time has not come.
    #[error("the client certificate is not valid yet: compare the clocks")]
    NotYetValid,
    /// Another CA signed it.
    #[error("the client certificate is not from this hub's CA")]
    OtherAuthority,
    /// A bearer token that proves nothing.
    #[error("the bearer token {0}")]
    Token(String),
    /// A cluster's credential came, and none of the hub.
    #[error(
        "a cluster's own credential came, and none of this hub; unless the hub runs with --allow-anonymous-cluster-credentials, a client \
         certificate or token of the hub is needed as well"
    )]
    OnlyOfCluster,
    /// It is meant for something else, for example a server.
    #[error("the certificate is not meant for clients")]
    OtherPurpose,
    /// It cannot be read, or says nothing that makes sense.
    #[error("the client certificate is not understood ({0})")]
    NotUnderstood(String),
}

/// What a valid certificate says about its holder.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Subject {
    /// Common name.
    pub common_name: String,
    /// Organisations.
    pub organizations: Vec<String>,
}

/// Who the holder of a certificate is, once the certificate itself was found valid.
pub fn identify(subject: Subject, key: KeyDigest) -> Identity {
    let is_agent = subject.organizations.iter().any(|organization| organization == AGENTS);
    match (subject.common_name.strip_prefix(CLUSTER_PREFIX), is_agent) {
        (Some(id), true) => match id.parse() {
            Ok(cluster) => Identity::Agent { cluster, key },
            Err(error) => not_understood(format!("{error}")),
        },
        (Some(_), false) => not_understood(format!("its name is an agent's, but its organisation is not {AGENTS}")),
        (None, true) => not_understood(format!("its organisation is {AGENTS}, but its name is not a cluster's")),
        (None, false) if subject.common_name.is_empty() => not_understood("it has no common name".to_owned()),
        (None, false) => Identity::User(User {
            name: subject.common_name,
            groups: subject.organizations,
            extra: BTreeMap::new(),
        }),
    }
}

fn not_understood(why: String) -> Identity {
    Identity::Anonymous(Anonymity::NotUnderstood(why))
}

/// A refusal in the words of Kubernetes: HTTP status, reason for programs, message for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// Kubernetes' reason, for example `Forbidden`.
    pub reason: &'static str,
    /// What was refused, why, and what to do.
    pub message: String,
    /// After how many seconds it makes sense to try again; 0 when it makes none.
    pub retry_after_seconds: u32,
    /// The field that is at fault, and what is wrong with it.
    pub field: Option<Box<(String, String)>>,
}

impl Refusal {
    /// A refusal that trying again does not change.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Refusal {
            code,
            reason,
            message: message.into(),
            retry_after_seconds: 0,
            field: None,
        }
    }

    /// 401: the peer is nobody.
    pub fn unauthorized(why: &Anonymity) -> Self {
        let message = format!("Unauthorized: {why}; `branchline kubeconfig` writes a kubeconfig with a certificate of this hub");
        Refusal::new(401, "Unauthorized", message)
    }

    /// 403: the peer is somebody who may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Refusal::new(403, "Forbidden", message)
    }

    /// 403: the user lacks this right, and what grants it.
    pub fn missing(user: &User, right: &Attributes) -> Self {
        Refusal::forbidden(format!(
            "{}; RBAC objects below hub/ in the source repository grant it: {}",
            right.forbidden_to(&user.name),
            right.rule_that_grants()
        ))
    }

    /// The Kubernetes `Status` object.
    pub fn to_status(&self) -> serde_json::Value {
        let mut status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if self.retry_after_seconds > 0 {
            status["details"] = serde_json::json!({"retryAfterSeconds": self.retry_after_seconds});
        }
        status
    }
}

/// The user behind a request to the API or to a cluster, if it is one. What the user may do is in [`rbac`].
pub fn user_of(identity: &Identity) -> Result<&User, Refusal> {
    match identity {
        Identity::Anonymous(why) => Err(Refusal::unauthorized(why)),
        Identity::Agent { cluster, .. } => Err(Refusal::forbidden(format!(
            "forbidden: the agent of cluster {cluster} cannot send requests; an agent's certificate opens its own tunnel and nothing else"
        ))),
        Identity::User(user) => Ok(user),
    }
}

/// What a request needs besides a credential: the right to act as somebody, and any one of some rights.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Need {
    /// Who was authenticated.
    pub user: User,
    /// What acting as somebody else takes; all of it is needed.
    pub impersonation: Vec<Attributes>,
    /// Whose rights the request itself is measured by.
    pub subject: User,
    /// Any of these is enough.
    pub any: Vec<Attributes>,
    /// What a refusal names: what was asked for, in the words of who asked, who learns no others by it.
    pub told: Attributes,
}

impl Need {
    /// By what it is met; else what is missing, and where it would be granted.
    pub fn check(&self, policy: &Policy) -> Result<AllowedBy, Refusal> {
        let lacking = |right: &&Attributes| policy.decide(&self.user, right).is_none();
        if let Some(right) = self.impersonation.iter().find(lacking) {
            return Err(Refusal::missing(&self.user, right));
        }
        let met = self.any.iter().find_map(|right| policy.decide(&self.subject, right));
        met.ok_or_else(|| Refusal::missing(&self.subject, &self.told))
    }
}

/// The key of the agent behind a request for a cluster's tunnel, if it is that cluster's agent.
pub fn authorize_agent<'a>(identity: &'a Identity, wanted: &ClusterId) -> Result<&'a KeyDigest, Refusal> {
    match identity {
        Identity::Agent { cluster, key } if cluster == wanted => Ok(key),
        Identity::Agent { cluster, .. } => Err(Refusal::forbidden(format!(
            "forbidden: the certificate is that of cluster {cluster}, the tunnel was asked for cluster {wanted}; \
             an agent can only connect its own cluster"
        ))),
        Identity::User(user) => Err(Refusal::forbidden(format!(
            "forbidden: User {:?} is no agent; only the agent of cluster {wanted} can open its tunnel",
            user.name
        ))),
        Identity::Anonymous(why) => Err(Refusal::new(
            401,
            "Unauthorized",
            format!("Unauthorized: {why}; the agent of cluster {wanted} has to register or to renew its certificate"),
        )),
    }
}

/// When a certificate should be renewed: at two thirds of its life.
pub fn renewal_time(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or(Duration::ZERO);
    not_before + life * 2 / 3
}

#[cfg(test)]
mod tests;
