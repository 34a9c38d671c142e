//! What can go wrong between us and an API server, told apart by what helps: waiting, another request, or a person.

use serde::Deserialize;

/// Kubernetes' `Status`, as much of it as is needed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// One word, `NotFound`.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// What it is about.
    pub details: Option<StatusDetails>,
}

/// `Status.details`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    /// Resource, `namespaces`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Seconds after which another try makes sense.
    pub retry_after_seconds: Option<u64>,
}

/// Why a request to the API server did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, or it broke.
    #[error("API server {server} does not answer: {message}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What the connection said.
        message: String,
    },
    /// No answer in time.
    #[error("API server {server} did not answer within {seconds} s")]
    Timeout {
        /// Its address.
        server: String,
        /// How long it was given.
        seconds: u64,
    },
    /// A credential that came with a request cannot be read.
    #[error("the {kind} that came with the request cannot be used: {message}")]
    Credential {
        /// `token` or `certificate`.
        kind: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// It answered with an error.
    #[error("{}", .0.message)]
    Refused(Status),
    /// It does not serve this kind.
    #[error(
        "the cluster has no kind {kind} in {api_version}; feed its CustomResourceDefinition as well, or install what brings it"
    )]
    NoSuchKind {
        /// `apiVersion`.
        api_version: String,
        /// `kind`.
        kind: String,
    },
    /// The object is there until its finalizers are done; whatever is written to it goes with it.
    #[error("is being deleted since {since}{}", held_by(finalizers))]
    BeingDeleted {
        /// Its `metadata.deletionTimestamp`.
        since: String,
        /// What keeps it.
        finalizers: Vec<String>,
    },
    /// A definition that the API server does not take into service.
    #[error("{0}")]
    NotEstablished(String),
    /// An answer that makes no sense.
    #[error("API server {server} answered {path} with something else than expected: {message}")]
    Unexpected {
        /// Its address.
        server: String,
        /// What was asked.
        path: String,
        /// What is wrong with the answer.
        message: String,
    },
}

impl ApiError {
    /// The API server cannot be reached at all: everything else would fail too.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, ApiError::Unreachable { .. } | ApiError::Timeout { .. })
    }

    /// The object, or its whole resource, is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Somebody else changed the object in between, or a precondition did not hold.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// The very same request may work in a moment. 500 is left out: it is also what a field of the wrong type gets.
    pub fn is_transient(&self) -> bool {
        matches!(self, ApiError::Unreachable { .. }) || matches!(self.code(), Some(409 | 429 | 502 | 503 | 504))
    }

    /// The path itself is not served: a definition that is not in service yet, or not any more.
    pub fn is_no_such_path(&self) -> bool {
        match self {
            ApiError::Refused(status) => status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()),
            _ => false,
        }
    }

    /// How long the API server asks us to wait.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            ApiError::Refused(status) => status
                .details
                .as_ref()?
                .retry_after_seconds
                .map(std::time::Duration::from_secs),
            _ => None,
        }
    }

    /// HTTP status code, if it answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            ApiError::Refused(status) => Some(status.code),
            _ => None,
        }
    }

    /// The message with what to do about it, where that is known.
    pub fn explain(&self) -> String {
        let text = self.to_string();
        match self {
            ApiError::Refused(status) if is_missing_namespace(status) => {
                format!("{text}; feed the Namespace too, or create it in the cluster")
            }
            ApiError::Refused(status) if status.code == 403 => {
                format!("{text}; give the agent's user that right in the cluster")
            }
            ApiError::BeingDeleted { .. } => format!("{text}; it is applied anew once it is gone"),
            _ => text,
        }
    }
}

fn held_by(finalizers: &[String]) -> String {
    match finalizers {
        [] => String::new(),
        some => format!(
            " and kept by its finalizers {}; if nothing works on them any more, remove them with kubectl",
            some.join(", ")
        ),
    }
}

fn is_missing_namespace(status: &Status) -> bool {
    status.code == 404 && status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, kind: &str, name: &str) -> ApiError {
        let details = Some(StatusDetails {
            kind: kind.into(),
            name: name.into(),
            retry_after_seconds: None,
        });
        ApiError::Refused(Status {
            code,
            reason: String::new(),
            message: format!("{kind} \"{name}\" not found"),
            details,
        })
    }

    #[test]
    fn tells_a_missing_namespace_from_a_missing_path() {
        let namespace = refused(404, "namespaces", "shop");
        assert!(!namespace.is_no_such_path() && namespace.explain().contains("feed the Namespace"));
        assert!(refused(404, "", "").is_no_such_path());
        assert!(refused(503, "", "").is_transient() && !refused(500, "", "").is_transient());
    }
}
