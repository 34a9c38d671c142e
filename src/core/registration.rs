//! What may become of registrations and tokens: pure decisions over what the state branch holds. Issues no certificate, checks no signature.
//!
//! ```text
//! (unknown id) ─token─► Pending ─approve─► Approved ─other key + token─► Approved, new key waits ─approve --replace-key─► Approved
//!                  └──── automatic, or approved in hub/ ────►┘               Pending ─deny─► Denied
//! ```

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

/// The longest cluster name: its dedicated namespace `clusternet-<name>` must be a namespace name.
const MAX_NAME: usize = 63 - DEDICATED_NAMESPACE_PREFIX.len();

/// A change of the durable facts that the hub owns.
#[derive(Debug, Clone)]
pub enum Edit {
    /// An agent asks to belong to the fleet.
    Register {
        /// What it asks for.
        spec: RegistrationSpec,
        /// Its public key.
        key: KeyDigest,
        /// Whether it showed a valid bootstrap token.
        token: bool,
        /// When it asks, RFC 3339.
        at: String,
    },
    /// A person approves a cluster that waits, or its new key.
    Approve {
        /// Name or id.
        cluster: String,
        /// Whether the new key that waits becomes the registered one.
        replace_key: bool,
    },
    /// A person refuses a cluster that waits.
    Deny {
        /// Name or id.
        cluster: String,
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
        Edit::Register { spec, key, token, at } => {
            register(registrations, spec, (key, at), *token, stated, approval).map(registered)
        }
        Edit::Approve { cluster, replace_key } => approve(registrations, cluster, *replace_key).map(registered),
        Edit::Deny { cluster } => deny(registrations, cluster).map(registered),
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

fn register(
    registrations: &mut Registrations,
    spec: &RegistrationSpec,
    (key, at): (&KeyDigest, &str),
    token: bool,
    stated: &BTreeMap<String, Reading<ClusterDefinition>>,
    approval: Approval,
) -> Result<Registration, Refusal> {
    if let Some(known) = registrations.clusters.get_mut(&spec.cluster_id) {
        return known_cluster(known, key, token);
    }
    if !token {
        return Err(Refusal::new(
            401,
            "Unauthorized",
            format!(
                "Unauthorized: cluster {} is not registered here and no valid token came; `branchline token create --print-join` prints a new line",
                spec.cluster_id
            ),
        ));
    }
    let registration = Registration {
        registered: Some(at.to_owned()),
        ..new_cluster(registrations, spec, key, stated, approval)?
    };
    registrations.clusters.insert(spec.cluster_id.clone(), registration.clone());
    Ok(registration)
}

/// A cluster that asks again: the registered key changes nothing; another one waits for a person.
fn known_cluster(known: &mut Registration, key: &KeyDigest, token: bool) -> Result<Registration, Refusal> {
    let name = known.cluster_name.clone();
    if known.decision == Decision::Denied {
        return Err(Refusal::forbidden(format!(
            "cluster {name:?} was denied; `branchline approve {name}` lets it in after all"
        )));
    }
    if known.key_digest == key.as_str() {
        return Ok(known.clone());
    }
    if !token {
        return Err(Refusal::forbidden(format!(
            "the key is not the one that is registered for cluster {name:?}; a new key needs a token and `branchline approve --replace-key {name}`"
        )));
    }
    if known.decision == Decision::Pending {
        key.as_str().clone_into(&mut known.key_digest);
    } else {
        known.pending_key_digest = Some(key.as_str().to_owned());
    }
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
        return Err(Refusal::new(409, "Conflict", message));
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
        return Err(Refusal::new(409, "Conflict", message));
    }
    if let Some(holder) = registrations.holder(name, namespace) {
        let message = format!(
            "the name {:?} and the namespace {:?} belong to cluster {}; this one is {}; choose another --name",
            holder.cluster_name, holder.dedicated_namespace, holder.cluster_id, spec.cluster_id
        );
        return Err(Refusal::new(409, "Conflict", message));
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

fn find<'r>(registrations: &'r mut Registrations, cluster: &str) -> Result<&'r mut Registration, Refusal> {
    let is_meant = |known: &&Registration| known.cluster_name == cluster || known.cluster_id.as_str() == cluster;
    let id = registrations
        .clusters
        .values()
        .find(is_meant)
        .map(|known| known.cluster_id.clone());
    if id.is_none() {
        let names = registrations.clusters.values().map(|known| known.cluster_name.as_str());
        let near = crate::core::pipeline::nearest(cluster, names).join(", ");
        return Err(not_found(format!(
            "no cluster {cluster:?} has asked to register; near names: {}",
            if near.is_empty() { "none" } else { &near }
        )));
    }
    let known = id.and_then(|id| registrations.clusters.get_mut(&id));
    known.ok_or_else(|| not_found(format!("no cluster {cluster:?} has asked to register")))
}

fn approve(registrations: &mut Registrations, cluster: &str, replace_key: bool) -> Result<Registration, Refusal> {
    let known = find(registrations, cluster)?;
    match (replace_key, known.pending_key_digest.take()) {
        (true, Some(key)) => known.key_digest = key,
        (true, None) => {
            return Err(Refusal::new(
                409,
                "Conflict",
                format!("no new key waits for cluster {:?}", known.cluster_name),
            ));
        }
        (false, waiting) => known.pending_key_digest = waiting,
    }
    known.decision = Decision::Approved;
    Ok(known.clone())
}

fn deny(registrations: &mut Registrations, cluster: &str) -> Result<Registration, Refusal> {
    let known = find(registrations, cluster)?;
    if known.decision == Decision::Approved {
        let message = format!(
            "cluster {:?} belongs to the fleet already; deny refuses clusters that wait",
            known.cluster_name
        );
        return Err(Refusal::new(409, "Conflict", message));
    }
    known.decision = Decision::Denied;
    Ok(known.clone())
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
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::core::ids::ObjectId;
    use crate::core::index::Definition;
    use crate::core::object::Object;

    fn spec(id: char, name: &str) -> RegistrationSpec {
        let id = format!("{id}d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b");
        serde_json::from_value(serde_json::json!({"clusterId": id, "clusterName": name})).unwrap()
    }

    fn key(text: &str) -> KeyDigest {
        KeyDigest::of_public_key(text.as_bytes())
    }

    fn ask(
        all: &mut Registrations,
        spec: RegistrationSpec,
        k: &str,
        token: bool,
        approval: Approval,
    ) -> Result<Registration, Refusal> {
        match apply(
            all,
            &Edit::Register {
                spec,
                key: key(k),
                token,
                at: "2026-01-01T00:00:00Z".to_owned(),
            },
            &BTreeMap::new(),
            approval,
        )? {
            Edited::Registration(registration) => Ok(*registration),
            Edited::Token => panic!("a registration gives a registration"),
        }
    }

    #[test]
    fn a_token_lets_a_cluster_in_and_its_key_renews() {
        let mut all = Registrations::default();
        assert_eq!(
            ask(&mut all, spec('a', "east"), "k", false, Approval::Automatic)
                .unwrap_err()
                .code,
            401
        );
        let registration = ask(&mut all, spec('a', "east"), "k", true, Approval::Automatic).unwrap();
        assert_eq!(
            (registration.decision, registration.dedicated_namespace.as_str()),
            (Decision::Approved, "clusternet-east")
        );
        let before = all.clone();
        ask(&mut all, spec('a', "other"), "k", false, Approval::Automatic).unwrap();
        assert_eq!(all, before, "renewal with the same key writes nothing");
    }

    #[test]
    fn a_taken_name_says_by_whom() {
        let mut all = Registrations::default();
        ask(&mut all, spec('a', "east"), "k", true, Approval::Automatic).unwrap();
        let refusal = ask(&mut all, spec('b', "east"), "k2", true, Approval::Automatic).unwrap_err();
        assert!(
            refusal.code == 409 && refusal.message.contains("belong to cluster ad0c9d5f"),
            "{refusal}"
        );
    }

    #[test]
    fn a_new_key_waits_for_a_person() {
        let mut all = Registrations::default();
        ask(&mut all, spec('a', "east"), "k", true, Approval::Automatic).unwrap();
        assert_eq!(
            ask(&mut all, spec('a', "east"), "new", false, Approval::Automatic)
                .unwrap_err()
                .code,
            403
        );
        let waiting = ask(&mut all, spec('a', "east"), "new", true, Approval::Automatic).unwrap();
        assert_eq!(
            (waiting.key_digest.as_str(), waiting.pending_key_digest.as_deref()),
            (key("k").as_str(), Some(key("new").as_str()))
        );
        let edit = Edit::Approve {
            cluster: "east".to_owned(),
            replace_key: true,
        };
        apply(&mut all, &edit, &BTreeMap::new(), Approval::Manual).unwrap();
        assert_eq!(all.clusters.values().next().unwrap().key_digest, key("new").as_str());
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn report(all: &mut Registrations, id: char, reported: &[(&str, &str)]) -> Result<Edited, Refusal> {
        let edit = Edit::ReportLabels {
            cluster: spec(id, "").cluster_id,
            labels: NodeLabels::admit(labels(reported)).0,
        };
        apply(all, &edit, &BTreeMap::new(), Approval::Manual)
    }

    #[test]
    fn a_cluster_of_the_fleet_reports_the_labels_of_its_nodes() {
        let mut all = Registrations::default();
        let mut asked = spec('a', "east");
        asked.cluster_labels = labels(&[("region", "eu"), ("node.clusternet.io/zone", "a")]);
        ask(&mut all, asked, "k", true, Approval::Automatic).unwrap();
        report(&mut all, 'a', &[("node.clusternet.io/gpu", "yes"), ("region", "us")]).unwrap();
        let fleet = approved(&all);
        let has = &fleet[0].cluster.labels;
        assert_eq!(
            (has["region"].as_str(), has["node.clusternet.io/gpu"].as_str()),
            ("eu", "yes")
        );
        assert!(!has.contains_key("node.clusternet.io/zone"), "{has:?}");
        let before = all.clone();
        report(&mut all, 'a', &[("node.clusternet.io/gpu", "yes")]).unwrap();
        assert_eq!(all, before, "the same again writes nothing");
    }

    #[test]
    fn whoever_is_not_of_the_fleet_reports_in_vain() {
        let mut all = Registrations::default();
        ask(&mut all, spec('a', "east"), "k", true, Approval::Manual).unwrap();
        let before = all.clone();
        for id in ['a', 'b'] {
            assert_eq!(
                report(&mut all, id, &[("node.clusternet.io/gpu", "yes")]).unwrap_err().code,
                404
            );
        }
        assert_eq!(all, before);
    }

    #[test]
    fn by_hand_a_cluster_waits() {
        let mut all = Registrations::default();
        assert_eq!(
            ask(&mut all, spec('a', "east"), "k", true, Approval::Manual)
                .unwrap()
                .decision,
            Decision::Pending
        );
        assert!(approved(&all).is_empty());
        let typo = Edit::Approve {
            cluster: "esat".to_owned(),
            replace_key: false,
        };
        assert!(
            apply(&mut all, &typo, &BTreeMap::new(), Approval::Manual)
                .unwrap_err()
                .message
                .contains("east")
        );
        let edit = Edit::Approve {
            cluster: "east".to_owned(),
            replace_key: false,
        };
        apply(&mut all, &edit, &BTreeMap::new(), Approval::Manual).unwrap();
        assert_eq!(approved(&all).len(), 1);
    }

    fn stated(name: &str, namespace: Option<&str>, id: Option<char>) -> BTreeMap<String, Reading<ClusterDefinition>> {
        let object = serde_json::json!({"apiVersion": "clusters.clusternet.io/v1beta1", "kind": "ManagedCluster", "metadata": {"name": name}});
        let definition = ClusterDefinition {
            definition: Definition {
                object: Object::from_value(object).unwrap().into(),
                digest: ObjectId::EMPTY_TREE,
                file: "hub/clusters.yaml".into(),
                line: 1,
                text: None,
            },
            name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
            cluster_id: id.map(|id| spec(id, "").cluster_id),
            labels: BTreeMap::new(),
            taints: None,
        };
        BTreeMap::from([(name.to_owned(), Reading::Valid(definition.into()))])
    }

    fn register(spec: RegistrationSpec, stated: &BTreeMap<String, Reading<ClusterDefinition>>) -> Result<Edited, Refusal> {
        let edit = Edit::Register {
            spec,
            key: key("k"),
            token: true,
            at: "2026-01-01T00:00:00Z".to_owned(),
        };
        apply(&mut Registrations::default(), &edit, stated, Approval::Automatic)
    }

    #[test]
    fn what_cannot_be_a_label_or_type_is_refused_by_name() {
        let mut asked = spec('a', "east");
        asked.cluster_labels = BTreeMap::from([("region".to_owned(), "no spaces".to_owned())]);
        let refusal = register(asked.clone(), &BTreeMap::new()).unwrap_err();
        assert!(refusal.code == 422 && refusal.message.contains("\"region\""), "{refusal}");
        asked.cluster_labels.clear();
        asked.cluster_type = "\u{1b}[31m".to_owned();
        assert_eq!(register(asked.clone(), &BTreeMap::new()).unwrap_err().code, 422);
        asked.cluster_type = "EdgeCluster".to_owned();
        asked.cluster_namespace = "../../x".to_owned();
        assert_eq!(register(asked, &BTreeMap::new()).unwrap_err().code, 422);
    }

    #[test]
    fn nobody_gets_the_namespace_that_git_keeps_for_another_cluster() {
        let mut asked = spec('a', "east");
        asked.cluster_namespace = "prod".to_owned();
        let refusal = register(asked.clone(), &stated("west", Some("prod"), None)).unwrap_err();
        assert!(refusal.code == 409 && refusal.message.contains("west"), "{refusal}");
        asked.cluster_namespace = "clusternet-west".to_owned();
        assert_eq!(register(asked.clone(), &stated("west", None, None)).unwrap_err().code, 409);
        assert!(
            register(asked, &stated("east", Some("prod"), None)).is_ok(),
            "what git says of this cluster counts"
        );
    }

    #[test]
    fn a_later_commit_approves_who_waits() {
        let mut all = Registrations::default();
        ask(&mut all, spec('a', "east"), "k", true, Approval::Manual).unwrap();
        approve_stated(&mut all, &stated("east", None, Some('b')));
        assert!(approved(&all).is_empty(), "the id is another cluster's");
        approve_stated(&mut all, &stated("east", None, Some('a')));
        assert_eq!(approved(&all).len(), 1);
    }
}
