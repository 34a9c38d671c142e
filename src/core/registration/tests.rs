//! Registrations, decisions, and what git says about them.
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
    if !token {
        return renewal(all, &spec.cluster_id, &key(k));
    }
    match apply(
        all,
        &Edit::Register {
            spec,
            key: key(k),
            at: "2026-01-01T00:00:00Z".to_owned(),
        },
        &BTreeMap::new(),
        approval,
    )? {
        Edited::Registration(registration) => Ok(*registration),
        Edited::Token => panic!("a registration gives a registration"),
    }
}

fn approve_called(all: &Registrations, word: &str, replace_key: bool, key: Option<&str>) -> Result<Edit, Refusal> {
    approval(called(all, word, |_| true)?, replace_key, key)
}

#[test]
fn whoever_has_neither_token_nor_key_hears_nothing_of_a_cluster() {
    let mut all = Registrations::default();
    ask(&mut all, spec('a', "east"), "k", true, Approval::Automatic).unwrap();
    ask(&mut all, spec('c', "west"), "k", true, Approval::Manual).unwrap();
    let mut heard = ['a', 'b', 'c'].map(|id| {
        let cluster = spec(id, "x").cluster_id;
        let refusal = renewal(&all, &cluster, &key("other")).unwrap_err();
        (refusal.code, refusal.message.replace(cluster.as_str(), "ID"))
    });
    assert_eq!(heard[0].0, 401);
    heard.sort();
    assert_eq!((&heard[0], &heard[1]), (&heard[1], &heard[2]));
    let blind = called(&all, "esat", |_| false).unwrap_err();
    assert!(!blind.message.contains("east"), "{blind}");
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
        401
    );
    let waiting = ask(&mut all, spec('a', "east"), "new", true, Approval::Automatic).unwrap();
    assert_eq!(
        (waiting.key_digest.as_str(), waiting.pending_key_digest.as_deref()),
        (key("k").as_str(), Some(key("new").as_str()))
    );
    let edit = approve_called(&all, "east", true, None).unwrap();
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
    let typo = approve_called(&all, "esat", false, None).unwrap_err();
    assert!(typo.code == 404 && typo.message.contains("east"), "{typo}");
    let edit = approve_called(&all, "east", false, None).unwrap();
    apply(&mut all, &edit, &BTreeMap::new(), Approval::Manual).unwrap();
    assert_eq!(approved(&all).len(), 1);
}

fn stated(name: &str, namespace: Option<&str>, id: Option<char>) -> BTreeMap<String, Reading<ClusterDefinition>> {
    let object =
        serde_json::json!({"apiVersion": "clusters.clusternet.io/v1beta1", "kind": "ManagedCluster", "metadata": {"name": name}});
    let definition = ClusterDefinition {
        definition: Definition {
            object: Object::from_value(object).unwrap().into(),
            digest: ObjectId::EMPTY_TREE,
            file: "hub/clusters.yaml".into(),
            inside: "".into(),
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

#[test]
fn a_new_key_is_let_in_by_its_digest_or_refused() {
    let mut all = Registrations::default();
    let east = ask(&mut all, spec('a', "east"), "k", true, Approval::Automatic).unwrap();
    let deny = Edit::Deny {
        cluster: east.cluster_id.clone(),
    };
    let refusal = apply(&mut all, &deny, &BTreeMap::new(), Approval::Manual).unwrap_err();
    assert!(refusal.message.contains("no new key of it waits"), "{refusal}");
    ask(&mut all, spec('a', "east"), "other", true, Approval::Automatic).unwrap();
    apply(&mut all, &deny, &BTreeMap::new(), Approval::Manual).unwrap();
    assert_eq!(all.clusters[&east.cluster_id], east, "the cluster stays, the new key is gone");
    ask(&mut all, spec('a', "east"), "third", true, Approval::Automatic).unwrap();
    let approve = |text: &str| Edit::Approve {
        cluster: east.cluster_id.clone(),
        key: key(text).to_string(),
    };
    let second = ask(&mut all, spec('a', "east"), "fourth", true, Approval::Automatic).unwrap_err();
    assert!(
        second.code == 409 && second.message.contains("branchline deny east"),
        "what waits is not swapped: {second}"
    );
    let refusal = apply(&mut all, &approve("other"), &BTreeMap::new(), Approval::Manual).unwrap_err();
    assert_eq!(refusal.code, 409, "another key came meanwhile");
    apply(&mut all, &approve("third"), &BTreeMap::new(), Approval::Manual).unwrap();
    assert_eq!(all.clusters[&east.cluster_id].key_digest, key("third").to_string());
}

#[test]
fn labels_and_taints_are_changed_where_git_says_nothing() {
    let mut all = Registrations::default();
    let east = ask(&mut all, spec('a', "east"), "k", true, Approval::Automatic).unwrap();
    let change = |key: &str, value: Option<&str>, basis: Option<Basis>| Edit::Change {
        cluster: east.cluster_id.clone(),
        change: ClusterChange {
            labels: BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]),
            taints: None,
        },
        basis,
    };
    let git = stated("east", None, None);
    let mut with_label = git.clone();
    if let Some(Reading::Valid(definition)) = with_label.get_mut("east") {
        std::sync::Arc::make_mut(definition)
            .labels
            .insert("tier".to_owned(), "1".to_owned());
    }
    let old = Basis::of(&east);
    apply(
        &mut all,
        &change("tier", Some("2"), Some(old.clone())),
        &git,
        Approval::Manual,
    )
    .unwrap();
    assert_eq!(all.clusters[&east.cluster_id].labels["tier"], "2");
    let refused = |all: &mut Registrations, edit: &Edit, stated: &BTreeMap<_, _>| {
        let before = all.clone();
        let refusal = apply(all, edit, stated, Approval::Manual).unwrap_err();
        assert_eq!(*all, before, "a refusal changes nothing");
        (refusal.code, refusal.message)
    };
    let (code, message) = refused(&mut all, &change("a", Some("b"), Some(old)), &git);
    assert!(code == 409 && message.contains("has been modified"), "{message}");
    let (code, message) = refused(&mut all, &change("tier", None, None), &with_label);
    assert!(code == 422 && message.contains("hub/clusters.yaml:1 states it"), "{message}");
    for key in ["node.clusternet.io/gpu", "clusters.clusternet.io/cluster-name"] {
        assert_eq!(refused(&mut all, &change(key, Some("x"), None), &git).0, 422, "{key}");
    }
    let remove = Edit::Remove {
        cluster: east.cluster_id.clone(),
    };
    let (code, message) = refused(&mut all, &remove, &git);
    assert!(code == 409 && message.contains("hub/clusters.yaml:1"), "{message}");
    apply(&mut all, &remove, &BTreeMap::new(), Approval::Manual).unwrap();
    assert!(all.clusters.is_empty());
}

#[test]
fn a_cluster_that_calls_itself_by_another_ones_id_is_not_taken_for_it() {
    let mut all = Registrations::default();
    let victim = ask(&mut all, spec('b', "east"), "k", true, Approval::Manual).unwrap();
    for name in [victim.cluster_id.to_string(), spec('c', "").cluster_id.to_string()] {
        let refusal = ask(&mut all, spec('a', &name), "k2", true, Approval::Manual).unwrap_err();
        assert!(
            refusal.code == 422 && refusal.message.contains("looks like an id"),
            "{refusal}"
        );
    }
    // One that an earlier version let in.
    let intruder = Registration {
        cluster_name: victim.cluster_id.to_string(),
        cluster_id: spec('a', "").cluster_id,
        ..victim.clone()
    };
    all.clusters.insert(intruder.cluster_id.clone(), intruder);
    assert_eq!(called(&all, victim.cluster_id.as_str(), |_| true).unwrap(), &victim);
    assert_eq!(called(&all, "east", |_| true).unwrap(), &victim);
    all.clusters.remove(&victim.cluster_id);
    assert_eq!(called(&all, victim.cluster_id.as_str(), |_| true).unwrap_err().code, 404);
}

#[test]
fn the_key_of_a_cluster_that_waits_stays_the_one_that_is_looked_at() {
    let mut all = Registrations::default();
    let east = ask(&mut all, spec('a', "east"), "k", true, Approval::Manual).unwrap();
    let refusal = ask(&mut all, spec('a', "east"), "swapped", true, Approval::Manual).unwrap_err();
    assert!(
        refusal.code == 409 && refusal.message.contains("branchline cluster remove --keep-objects east"),
        "{refusal}"
    );
    assert_eq!(all.clusters[&east.cluster_id], east);
    let (this, other) = (key("k").to_string(), key("swapped").to_string());
    assert_eq!(approve_called(&all, "east", false, Some(&other)).unwrap_err().code, 409);
    assert_eq!(
        approve_called(&all, "east", true, None).unwrap_err().code,
        409,
        "no new key waits"
    );
    let edit = approve_called(&all, "east", false, Some(&this)).unwrap();
    // Forgotten and registered anew before the writer comes to the approval: it is about the key that was looked at.
    all.clusters.remove(&east.cluster_id);
    ask(&mut all, spec('a', "east"), "swapped", true, Approval::Manual).unwrap();
    assert_eq!(
        apply(&mut all, &edit, &BTreeMap::new(), Approval::Manual).unwrap_err().code,
        409
    );
    assert!(approved(&all).is_empty());
}
