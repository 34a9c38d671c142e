//! One line in the log for each request to a cluster, written when its answer or its upgraded connection has ended: who, where, what, how it
//! went and how much came. Never bodies, queries, tokens or keys.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use super::gate::Admitted;
use crate::core::access::attributes::{Attributes, ProxiedRequest, Target};
use crate::core::text::cut;

/// The target of the lines in the log: `RUST_LOG=warn,audit=info` leaves little else.
const TARGET: &str = "audit";
/// The longest text of a request in a line, in bytes; a path may have 128 KiB.
const LONGEST: usize = 253;

/// What is known of a request; the line is written when the last holder lets go.
#[derive(Debug)]
pub struct AuditRecord {
    begun: Instant,
    cluster: String,
    asked: Attributes,
    sender: OnceLock<Sender>,
    code: AtomicU16,
    bytes: AtomicU64,
}

#[derive(Debug)]
struct Sender {
    user: String,
    acting_as: Option<String>,
    credential: Option<&'static str>,
}

impl AuditRecord {
    /// A request that has just come.
    pub fn new(cluster: &str, request: &ProxiedRequest<'_>) -> Self {
        AuditRecord {
            begun: Instant::now(),
            cluster: cut(cluster, LONGEST),
            asked: request.attributes(),
            sender: OnceLock::new(),
            code: AtomicU16::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// It was authenticated: by whom it was sent.
    pub fn sent_by(&self, user: &str) {
        self.note(user, None, None);
    }

    /// It was let in.
    pub fn admitted(&self, admitted: &Admitted) {
        let user = &admitted.caller.user.name;
        // A cluster's own credential may impersonate in the cluster itself.
        let inside = admitted
            .credential
            .as_ref()
            .and_then(|credential| credential.impersonated_user());
        self.note(
            user,
            inside
                .map(str::to_owned)
                .or(admitted.actor().sender.map(|_| admitted.user.name.clone())),
            admitted.credential.as_ref().map(|credential| credential.kind()),
        );
    }

    fn note(&self, user: &str, acting_as: Option<String>, credential: Option<&'static str>) {
        // The first note counts: each request is sent by one.
        let _ = self.sender.set(Sender {
            user: user.to_owned(),
            acting_as,
            credential,
        });
    }

    /// The answer's HTTP status.
    pub fn answered(&self, code: u16) {
        self.code.store(code, Ordering::Relaxed);
    }

    /// Bytes that came from the cluster.
    pub fn count(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for AuditRecord {
    fn drop(&mut self) {
        let (resource, namespace, name) = words(&self.asked.target);
        let sender = self.sender.get();
        let code = self.code.load(Ordering::Relaxed);
        tracing::info!(
            target: TARGET,
            user = sender.map(|sender| sender.user.as_str()),
            impersonated = sender.and_then(|sender| sender.acting_as.as_deref()),
            credential = sender.and_then(|sender| sender.credential),
            cluster = self.cluster,
            verb = cut(&self.asked.verb, LONGEST),
            resource,
            namespace,
            name,
            // Nothing where the client was gone before there was an answer.
            code = (code > 0).then_some(code),
            bytes = self.bytes.load(Ordering::Relaxed),
            ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            "audit"
        );
    }
}

/// Resource with its group or path, namespace and name.
fn words(target: &Target) -> (String, Option<String>, Option<String>) {
    let asked = match target {
        Target::Path(path) => return (cut(path, LONGEST), None, None),
        Target::Resource(asked) => asked,
    };
    let short = |text: &String| cut(text, LONGEST);
    let resource = match asked.group.as_str() {
        "" => asked.qualified(),
        group => format!("{}.{group}", asked.qualified()),
    };
    (
        short(&resource),
        asked.namespace.as_ref().map(short),
        asked.name.as_ref().map(short),
    )
}
