//! What may become of registrations and tokens: pure decisions over what the state branch holds. Issues no certificate, checks no signature.
//!
//! ```text
//! (unknown id) ─token─► Pending ─approve─► Approved ─other key + token─► Approved, new key waits ─approve --replace-key─► Approved
//!                  └──── automatic, or approved in hub/ ────►┘               Pending ─deny─► Denied
//! ```
//!
//! While a key waits for a person, every other one is refused, so that nobody decides about a key that he has not looked at.

mod change;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::access::{KeyDigest, Refusal};
use crate::core::api::DEDICATED_NAMESPACE_PREFIX;
use crate::core::api::cluster::RegistrationSpec;
use crate::core::ids::{ClusterId, is_dns_name};
use crate::core::index::{ClusterDefinition, Reading};
use crate::core::node_labels::NodeLabels;
use crate::core::schedule::Cluster;
use crate::core::selector::{MAX_LABELS, check_label};
use crate::core::state::ClusterRecord;
use crate::core::state::registrations::{Decision, Registration, Registrations, Token};
use crate::core::taint::Taint;

pub use change::{Basis, ClusterChange, change};

/// The longest cluster name: its dedicated namespace `clusternet-<name>` must be a namespace name.
const MAX_NAME: usize = 63 - DEDICATED_NAMESPACE_PREFIX.len();

/// A change of the durable facts that the hub owns.
#[derive(Debug, Clone)]
pub enum Edit {
    /// An agent with a valid bootstrap token asks to belong to the fleet; without one [`renewal`] answers.
    Register {
        /// What it asks for.
        spec: RegistrationSpec,
        /// Its public key.
        key: KeyDigest,
        /// When it asks, RFC 3339.
        at: String,
    },
    /// A person lets a cluster in with this key: the one that it asked with, or the new one that waits, and no other that may have come
    /// meanwhile. [`approval`] makes one of what a person says.
    Approve {
        /// Which.
        cluster: ClusterId,
        /// The key's digest.
        key: String,
    },
    /// A person refuses a cluster that waits, or the new key of one that belongs to the fleet.
    Deny {
        /// Which.
        cluster: ClusterId,
    },
    /// A person changes labels or taints.
    Change {
        /// Which.
        cluster: ClusterId,
        /// What.
        change: ClusterChange,
        /// What it was made from, where that must not have changed meanwhile.
        basis: Option<Basis>,
    },
    /// A person forgets a cluster. What it runs stays as it is.
    Remove {
        /// Which.
        cluster: ClusterId,
    },
    /// A cluster of the fleet reports the labels that stand below `node.clusternet.io/`.
    ReportLabels {
        /// Which.
        cluster: ClusterId,
        /// All of them.
        labels: NodeLabels,
    },
    /// A new bootstrap token.
    AddToken(Token),
    /// A token that no longer counts.
    RemoveToken {
        /// Its id.
        id: String,
    },
}

impl Edit {
    /// The word for the commit's `Trigger`.
    pub const fn trigger(&self) -> &'static str {
        match self {
            Edit::ReportLabels { .. } => "labels",
            Edit::Change { .. } => "cluster",
            Edit::Remove { .. } => "removal",
            Edit::Register { .. } | Edit::Approve { .. } | Edit::Deny { .. } | Edit::AddToken(_) | Edit::RemoveToken { .. } => {
                "registration"
            }
        }
    }
}

/// What an edit gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edited {
    /// The registration as it stands.
    Registration(Box<Registration>),
    /// A token was added or removed.
    Token,
}

/// Whether unknown clusters with a token belong to the fleet at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approval {
    /// They do.
    Automatic,
    /// A person decides.
    Manual,
}

/// Carries out an edit, or says why not and leaves everything as it was.
pub fn apply(
    registrations: &mut Registrations,
    edit: &Edit,
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
    approval: Approval,
) -> Result<Edited, Refusal> {
    match edit {
        Edit::Register { spec, key, at } => register(registrations, spec, (key, at), stated, approval).map(registered),
        Edit::Approve { cluster, key } => approve(registrations, cluster, key).map(registered),
        Edit::Deny { cluster } => deny(registrations, cluster).map(registered),
        Edit::Change { cluster, change, basis } => {
            change_cluster(registrations, cluster, change, basis.as_ref(), stated).map(registered)
        }
        Edit::Remove { cluster } => remove(registrations, cluster, stated).map(registered),
        Edit::ReportLabels { cluster, labels } => report_labels(registrations, cluster, labels).map(registered),
        Edit::AddToken(token) => {
            registrations.tokens.insert(token.id.clone(), token.clone());
            Ok(Edited::Token)
        }
        Edit::RemoveToken { id } => match registrations.tokens.remove(id) {
            Some(_) => Ok(Edited::Token),
            None => Err(not_found(format!("no token {id:?}; `branchline token list` shows them"))),
        },
    }
}

fn registered(known: Registration) -> Edited {
    Edited::Registration(known.into())
}

fn not_found(message: String) -> Refusal {
    Refusal::new(404, "NotFound", message)
}

/// The registration of who comes with its registered key, which changes nothing and takes no token. Whoever has neither hears no more than that,
/// whatever is known of the cluster.
pub fn renewal(registrations: &Registrations, cluster: &ClusterId, key: &KeyDigest) -> Result<Registration, Refusal> {
    let known = registrations.clusters.get(cluster);
    match known.filter(|known| known.key_digest == key.as_str()) {
        Some(known) if known.decision == Decision::Denied => Err(denied(known)),
        Some(known) => Ok(known.clone()),
        None => Err(Refusal::new(
            401,
            "Unauthorized",
            format!(
                "Unauthorized: no valid token came, and cluster {cluster} is not registered here with this key; \
                 `branchline token create --print-join` prints a new line"
            ),
        )),
    }
}

fn denied(known: &Registration) -> Refusal {
    let name = &known.cluster_name;
    Refusal::forbidden(format!(
        "cluster {name:?} was denied; `branchline approve {name}` lets it in after all"
    ))
}

fn register(
    registrations: &mut Registrations,
    spec: &RegistrationSpec,
    (key, at): (&KeyDigest, &str),
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
    approval: Approval,
) -> Result<Registration, Refusal> {
    if let Some(known) = registrations.clusters.get_mut(&spec.cluster_id) {
        return known_cluster(known, key);
    }
    let registration = Registration {
        registered: Some(at.to_owned()),
        ..new_cluster(registrations, spec, key, stated, approval)?
    };
    registrations.clusters.insert(spec.cluster_id.clone(), registration.clone());
    Ok(registration)
}

/// A cluster that asks again: the registered key changes nothing; another one waits for a person.
fn known_cluster(known: &mut Registration, key: &KeyDigest) -> Result<Registration, Refusal> {
    let name = known.cluster_name.clone();
    if known.decision == Decision::Denied {
        return Err(denied(known));
    }
    if known.key_digest == key.as_str() {
        return Ok(known.clone());
    }
    let waiting = match known.decision {
        Decision::Pending => Some(&known.key_digest),
        Decision::Approved | Decision::Denied => known.pending_key_digest.as_ref(),
    };
    // What a person looks at and decides about must not become another key meanwhile.
    if let Some(other) = waiting.filter(|waiting| *waiting != key.as_str()) {
        return Err(conflict(format!(
            "another key waits for cluster {name:?} already, {other}, this one is {key}; {}",
            match known.decision {
                Decision::Pending =>
                    format!("`branchline cluster remove --keep-objects {name}` forgets that request, and this one can ask"),
                Decision::Approved | Decision::Denied =>
                    format!("`branchline deny {name}` refuses that one, and this one can ask"),
            }
        )));
    }
    known.pending_key_digest = Some(key.as_str().to_owned());
    Ok(known.clone())
}

fn new_cluster(
    registrations: &Registrations,
    spec: &RegistrationSpec,
    key: &KeyDigest,
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
    approval: Approval,
) -> Result<Registration, Refusal> {
    let name = if spec.cluster_name.is_empty() {
        format!("cluster-{}", &spec.cluster_id.as_str()[..8])
    } else {
        spec.cluster_name.clone()
    };
    check_words(&name, spec)?;
    let definition = stated.get(&name).and_then(Reading::valid);
    let stated_id = definition.and_then(|definition| definition.cluster_id.as_ref());
    if let Some(other) = stated_id.filter(|id| **id != spec.cluster_id) {
        let message = format!(
            "the source repository keeps the name {name:?} for cluster {other}, this one is {}; choose another --name",
            spec.cluster_id
        );
        return Err(conflict(message));
    }
    let asked = Some(spec.cluster_namespace.clone()).filter(|namespace| !namespace.is_empty());
    let namespace = definition.and_then(|definition| definition.namespace.clone()).or(asked);
    let namespace = namespace.unwrap_or_else(|| format!("{DEDICATED_NAMESPACE_PREFIX}{name}"));
    check_namespace(registrations, spec, &name, &namespace, stated)?;
    let approved = approval == Approval::Automatic || stated_id.is_some();
    Ok(Registration {
        cluster_id: spec.cluster_id.clone(),
        cluster_name: name,
        dedicated_namespace: namespace,
        cluster_type: spec.cluster_type.clone(),
        labels: spec.cluster_labels.clone(),
        taints: Vec::new(),
        registered: None,
        decision: if approved { Decision::Approved } else { Decision::Pending },
        key_digest: key.as_str().to_owned(),
        pending_key_digest: None,
    })
}

fn invalid(message: String) -> Refusal {
    Refusal::new(422, "Invalid", message)
}

/// Name, type and labels become files, labels and columns, so they follow Kubernetes' rules.
fn check_words(name: &str, spec: &RegistrationSpec) -> Result<(), Refusal> {
    if !is_dns_name(name, MAX_NAME, false) {
        return Err(invalid(format!(
            "{name:?} is not a cluster name: at most {MAX_NAME} lower-case letters, digits and dashes (RFC 1123); choose another --name"
        )));
    }
    if name.parse::<ClusterId>().is_ok() {
        return Err(invalid(format!(
            "{name:?} is no cluster name: it looks like an id, and would be taken for another cluster's; choose another --name"
        )));
    }
    check_label("clusterType", &spec.cluster_type).map_err(|_| {
        invalid(format!(
            "{:?} is not a cluster type: at most 63 letters and digits",
            spec.cluster_type
        ))
    })?;
    if spec.cluster_labels.len() > MAX_LABELS {
        return Err(invalid(format!(
            "{} labels are too many; at most {MAX_LABELS}",
            spec.cluster_labels.len()
        )));
    }
    for (key, value) in &spec.cluster_labels {
        check_label(key, value).map_err(|problem| invalid(format!("{problem}; correct --labels")))?;
    }
    Ok(())
}

/// A namespace holds one cluster's Localizations, so nobody gets one that belongs to another cluster or that git keeps for one.
fn check_namespace(
    registrations: &Registrations,
    spec: &RegistrationSpec,
    name: &str,
    namespace: &str,
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
) -> Result<(), Refusal> {
    if !is_dns_name(namespace, 63, false) {
        return Err(invalid(format!("{namespace:?} is not a namespace name (RFC 1123)")));
    }
    let keeps = |other: &&ClusterDefinition| match &other.namespace {
        Some(kept) => kept == namespace,
        None => namespace.strip_prefix(DEDICATED_NAMESPACE_PREFIX) == Some(&*other.name),
    };
    let others = stated.values().filter_map(Reading::valid).map(AsRef::as_ref);
    if let Some(other) = others.filter(|other| other.name != name).find(keeps) {
        let message = format!(
            "the source repository keeps the namespace {namespace:?} for cluster {:?}, this one is {name:?}; choose another namespace",
            other.name
        );
        return Err(conflict(message));
    }
    if let Some(holder) = registrations.holder(name, namespace) {
        let message = format!(
            "the name {:?} and the namespace {:?} belong to cluster {}; this one is {}; choose another --name",
            holder.cluster_name, holder.dedicated_namespace, holder.cluster_id, spec.cluster_id
        );
        return Err(conflict(message));
    }
    Ok(())
}

/// Approves the clusters whose name and id a commit states: git decides also about a cluster that asked before, or that a person refused.
pub fn approve_stated(registrations: &mut Registrations, stated: &BTreeMap<String, Reading<ClusterDefinition>>) {
    for definition in stated.values().filter_map(Reading::valid) {
        let waits = |known: &&Registration| known.cluster_name == definition.name && known.decision != Decision::Approved;
        let Some(id) = &definition.cluster_id else { continue };
        // Looked at first: a map that shares its parts copies some of them where it is written.
        if registrations.clusters.get(id).filter(waits).is_some()
            && let Some(known) = registrations.clusters.get_mut(id)
        {
            known.decision = Decision::Approved;
        }
    }
}

/// The registration that a person means by a word. A refusal names those alike that `may_see` lets through.
pub fn called<'r>(
    registrations: &'r Registrations,
    word: &str,
    may_see: impl Fn(&Registration) -> bool,
) -> Result<&'r Registration, Refusal> {
    registrations.called(word).ok_or_else(|| {
        let names = registrations.clusters.values().map(|known| known.cluster_name.as_str());
        // Alike first: what somebody may see takes many rules to tell.
        let near = crate::core::text::nearest(word, names).into_iter();
        let near: Vec<_> = near.filter(|name| registrations.called(name).is_some_and(&may_see)).collect();
        let near = near.join(", ");
        not_found(format!(
            "no cluster {word:?} has asked to register; near names: {}",
            if near.is_empty() { "none" } else { &near }
        ))
    })
}

/// The approval of a cluster, or with `replace_key` of its new key that waits, as it is known now; with `key` only if it is that one.
pub fn approval(known: &Registration, replace_key: bool, key: Option<&str>) -> Result<Edit, Refusal> {
    let waiting = match replace_key {
        true => known.pending_key_digest.as_ref(),
        false => Some(&known.key_digest),
    };
    let Some(waiting) = waiting else {
        return Err(conflict(format!("no new key waits for cluster {:?}", known.cluster_name)));
    };
    if let Some(other) = key.filter(|key| key != waiting) {
        return Err(other_key(known, waiting, other));
    }
    Ok(Edit::Approve {
        cluster: known.cluster_id.clone(),
        key: waiting.clone(),
    })
}

fn conflict(message: String) -> Refusal {
    Refusal::new(409, "Conflict", message)
}

fn other_key(known: &Registration, waiting: &str, key: &str) -> Refusal {
    conflict(format!(
        "the key that waits for cluster {:?} is {waiting}, not {key}; look at it again",
        known.cluster_name
    ))
}

fn known<'r>(registrations: &'r mut Registrations, cluster: &ClusterId) -> Result<&'r mut Registration, Refusal> {
    let known = registrations.clusters.get_mut(cluster);
    known.ok_or_else(|| not_found(format!("cluster {cluster} is not registered here any more")))
}

fn approve(registrations: &mut Registrations, cluster: &ClusterId, key: &str) -> Result<Registration, Refusal> {
    let known = known(registrations, cluster)?;
    if known.pending_key_digest.as_deref() == Some(key) {
        known.pending_key_digest = None;
        key.clone_into(&mut known.key_digest);
    }
    if known.key_digest != key {
        let waiting = known.pending_key_digest.as_deref().unwrap_or("none");
        return Err(other_key(known, waiting, key));
    }
    known.decision = Decision::Approved;
    Ok(known.clone())
}

fn deny(registrations: &mut Registrations, cluster: &ClusterId) -> Result<Registration, Refusal> {
    let known = known(registrations, cluster)?;
    if known.decision == Decision::Approved && known.pending_key_digest.is_none() {
        let message = format!(
            "cluster {:?} belongs to the fleet already and no new key of it waits; `branchline cluster remove` forgets a cluster",
            known.cluster_name
        );
        return Err(conflict(message));
    }
    known.pending_key_digest = None;
    if known.decision != Decision::Approved {
        known.decision = Decision::Denied;
    }
    Ok(known.clone())
}

fn change_cluster(
    registrations: &mut Registrations,
    cluster: &ClusterId,
    change: &ClusterChange,
    basis: Option<&Basis>,
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
) -> Result<Registration, Refusal> {
    let known = known(registrations, cluster)?;
    let definition = stated.get(&known.cluster_name).and_then(Reading::valid);
    change::apply(known, change, basis, definition.map(AsRef::as_ref))?;
    Ok(known.clone())
}

/// Forgets a cluster, unless git goes on speaking about it: it would let the agent in again.
fn remove(
    registrations: &mut Registrations,
    cluster: &ClusterId,
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
) -> Result<Registration, Refusal> {
    let known = known(registrations, cluster)?.clone();
    if let Some(definition) = stated.get(&known.cluster_name).and_then(Reading::valid) {
        let place = &definition.definition;
        let message = format!(
            "{}:{} states cluster {:?}; remove it there first, commit and push, or its agent is let in again",
            place.file, place.line, known.cluster_name
        );
        return Err(conflict(message));
    }
    registrations.clusters.remove(&known.cluster_id);
    Ok(known)
}

/// The labels of its nodes change with a cluster; what else it asked for stays as it was approved.
fn report_labels(registrations: &mut Registrations, cluster: &ClusterId, labels: &NodeLabels) -> Result<Registration, Refusal> {
    let known = registrations.clusters.get_mut(cluster);
    let known = known.filter(|known| known.decision == Decision::Approved).ok_or_else(|| {
        not_found(format!(
            "cluster {cluster} does not belong to the fleet; its labels are not kept"
        ))
    })?;
    labels.replace_in(&mut known.labels);
    Ok(known.clone())
}

/// The clusters of the fleet.
pub fn approved(registrations: &Registrations) -> Vec<ClusterRecord> {
    registrations.clusters.values().filter_map(record).collect()
}

/// What an approved registration says about its cluster.
pub fn record(known: &Registration) -> Option<ClusterRecord> {
    let cluster = || {
        let namespace = Some(&*known.dedicated_namespace);
        let cluster = Cluster::new(
            &known.cluster_name,
            namespace,
            Some(known.cluster_id.clone()),
            known.labels.clone(),
        );
        // What cannot be read was not written here.
        cluster.with_taints(known.taints.iter().filter_map(|taint| Taint::parse(taint).ok()).collect())
    };
    (known.decision == Decision::Approved).then(|| ClusterRecord {
        cluster: Arc::new(cluster()),
        cluster_type: known.cluster_type.clone(),
    })
}

#[cfg(test)]
mod tests;
