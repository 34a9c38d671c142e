//! The planner against a simulated cluster: any history of offers, killed anywhere, converges and leaks nothing.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::ids::{ObjectId, ObjectKey, ObjectKind};
use crate::core::object::Object;
use crate::core::status::{DescriptionReport, ObjectOutcome, Phase};

/// What a cluster holds: object → (Description that it is marked with, blob).
type Cluster = BTreeMap<ObjectKey, (String, ObjectId)>;

fn id(text: &str) -> ObjectId {
    ObjectId::hash(ObjectKind::Blob, text.as_bytes())
}

fn target(generation: u64) -> Target {
    let tree = id(&format!("tree {generation}"));
    Target {
        epoch: 1,
        generation,
        tree,
    }
}

fn scope(_: &str, kind: &str) -> Scope {
    match kind {
        "Namespace" | "ClusterRole" | "CustomResourceDefinition" => Scope::Cluster,
        "Widget" => Scope::Unknown,
        _ => Scope::Namespaced,
    }
}

fn report(sub: &str, inventory: &Inventory, outcomes: &Outcomes) -> DescriptionReport {
    reports(&BTreeSet::from([sub.to_owned()]), inventory, outcomes).remove(0)
}

/// The truth, which the cluster says only while it knows the kinds.
fn true_scope(_: &str, kind: &str) -> Scope {
    match kind {
        "Namespace" | "ClusterRole" | "CustomResourceDefinition" | "Widget" => Scope::Cluster,
        _ => Scope::Namespaced,
    }
}

/// The live object that the API server takes an identity for.
fn live(key: &ObjectKey) -> ObjectKey {
    super::claims::located(key.clone(), &true_scope)
}

#[test]
fn a_chart_is_never_success_and_holds_nothing_else_back() {
    let mut cluster = Cluster::new();
    let chart = Unrendered {
        sub: "s.a".into(),
        key: ObjectKey {
            group: "apps.clusternet.io".into(),
            kind: "HelmChart".into(),
            namespace: Some("default".into()),
            name: "mysql".into(),
        },
        api_version: "apps.clusternet.io/v1alpha1".into(),
    };
    let with_chart = |objects| Wanted {
        unrendered: vec![chart.clone()],
        ..wanted(objects)
    };
    let (kept, gone) = (
        desired("s.a", "ConfigMap", "kept", "1"),
        desired("s.a", "ConfigMap", "gone", "1"),
    );
    let first = run(with_chart(vec![kept.clone(), gone]), Inventory::default(), &mut cluster, 1);
    assert_eq!(
        (first.complete, cluster.len(), first.inventory.position.applied),
        (false, 2, None)
    );
    let second = run(with_chart(vec![kept.clone()]), first.inventory, &mut cluster, 2);
    assert_eq!(cluster.len(), 1, "what was taken out of the Description is deleted");
    let told = report("s.a", &second.inventory, &second.outcomes);
    let reason = "HelmChart default/mysql: NotApplied: charts are not rendered in this version";
    assert_eq!((told.phase, told.reason.as_str()), (Phase::Failure, reason));
    assert_eq!(told.objects[0].outcome, ObjectOutcome::NotApplied);
    let plan = plan(target(3), with_chart(vec![kept.clone()]), &second.inventory, &scope);
    assert_eq!(
        (plan.steps.len(), plan.record.position.applied),
        (0, None),
        "nothing to do, and still not applied"
    );
    let third = run(wanted(vec![kept]), second.inventory, &mut cluster, 4);
    assert!(third.complete);
    assert_eq!(report("s.a", &third.inventory, &third.outcomes).phase, Phase::Success);
}

/// One file: `sub kind name content`.
fn desired(sub: &str, kind: &str, name: &str, content: &str) -> Desired {
    let api_version = match kind {
        "ClusterRole" => "rbac.authorization.k8s.io/v1",
        "CustomResourceDefinition" => "apiextensions.k8s.io/v1",
        "Deployment" => "apps/v1",
        "Widget" | "Gadget" => "example.org/v1",
        _ => "v1",
    };
    let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, "data": {"content": content}});
    Desired {
        sub: sub.into(),
        path: format!("manifests/{}_{name}.yaml", kind.to_lowercase()),
        blob: id(&format!("{kind} {name} {content}")),
        content: Content::Object(Object::from_value(object).unwrap()),
        order: 0,
    }
}

fn wanted(objects: Vec<Desired>) -> Wanted {
    Wanted {
        subs: objects.iter().map(|o| o.sub.clone()).collect(),
        objects,
        ..Wanted::default()
    }
}

/// The content that the agent would fetch, and no more.
fn as_fetched(mut wanted: Wanted, inventory: &Inventory) -> Wanted {
    let by_path = inventory.by_path();
    for object in &mut wanted.objects {
        let known = by_path.get(&(object.sub.as_str(), object.path.as_str()));
        if known.is_some_and(|(_, entry)| entry.has(object.blob)) {
            object.content = Content::NotFetched;
        }
    }
    wanted
}

/// Carries a plan out for at most `budget` items; objects named `bad…` are refused. `None`: killed before the end.
fn execute(plan: Plan, cluster: &mut Cluster, budget: &mut usize) -> Option<Finished> {
    let mut progress = Progress::start(plan);
    while let Some(step) = progress.next_step() {
        for (key, write) in items(step) {
            *budget = budget.checked_sub(1)?;
            let done = carry_out(&key, write, cluster);
            progress.done(&key, done);
        }
    }
    Some(progress.finish())
}

enum Write {
    Apply(String, ObjectId),
    Establish,
    Remove(bool),
}

fn items(step: Step) -> Vec<(ObjectKey, Write)> {
    match step {
        Step::Apply(items) => items.into_iter().map(|i| (i.key, Write::Apply(i.sub, i.blob))).collect(),
        Step::Establish(keys) => keys.into_iter().map(|key| (key, Write::Establish)).collect(),
        Step::Prune(items) => items.into_iter().map(|i| (i.key, Write::Remove(i.keep))).collect(),
    }
}

fn carry_out(key: &ObjectKey, write: Write, cluster: &mut Cluster) -> Done {
    match write {
        Write::Apply(..) if key.name.starts_with("bad") => Done::Failed("refused".into()),
        Write::Apply(sub, blob) => {
            cluster.insert(live(key), (sub, blob));
            Done::Well
        }
        Write::Establish => Done::Well,
        Write::Remove(keep) => match cluster.get(&live(key)) {
            None => Done::Well,
            Some(_) if keep => Done::StillThere,
            Some(_) => {
                cluster.remove(&live(key));
                Done::Well
            }
        },
    }
}

fn run(wanted: Wanted, inventory: Inventory, cluster: &mut Cluster, generation: u64) -> Finished {
    let plan = plan(target(generation), as_fetched(wanted, &inventory), &inventory, &scope);
    execute(plan, cluster, &mut usize::MAX.clone()).unwrap()
}

fn names(step: &Step) -> Vec<String> {
    match step {
        Step::Apply(items) => items.iter().map(|i| format!("+{}", i.key.name)).collect(),
        Step::Establish(keys) => keys.iter().map(|key| format!("?{}", key.name)).collect(),
        Step::Prune(items) => items.iter().map(|i| format!("-{}", i.key.name)).collect(),
    }
}

#[test]
fn definitions_wait_before_their_objects_and_pruning_is_last() {
    let mut cluster = Cluster::new();
    let before = wanted(vec![
        desired("s.a", "Deployment", "old", "1"),
        desired("s.a", "ConfigMap", "older", "1"),
    ]);
    let first = run(before, Inventory::default(), &mut cluster, 1);
    let after = wanted(vec![
        desired("s.a", "Widget", "w", "1"),
        desired("s.a", "CustomResourceDefinition", "widgets", "1"),
        desired("s.a", "Namespace", "shop", "1"),
        desired("s.a", "ConfigMap", "settings", "1"),
    ]);
    let plan = plan(target(2), after, &first.inventory, &scope);
    let steps: Vec<String> = plan.steps.iter().map(|step| names(step).join(" ")).collect();
    assert_eq!(steps, ["+shop +widgets", "?widgets", "+settings", "+w", "-old", "-older"]);
    assert_eq!(plan.record.entries.len(), 6, "old and new");
    assert_eq!(plan.record.position.applied, None);
}

#[test]
fn what_is_unchanged_is_not_sent_again() {
    let mut cluster = Cluster::new();
    let all = vec![desired("s.a", "ConfigMap", "a", "1"), desired("s.b", "ConfigMap", "b", "1")];
    let first = run(wanted(all.clone()), Inventory::default(), &mut cluster, 1);
    assert_eq!(first.inventory.position.applied, Some(target(1).tree));
    let again = plan(target(2), as_fetched(wanted(all), &first.inventory), &first.inventory, &scope);
    assert_eq!(again.steps, []);
    assert_eq!(again.record.position.applied, Some(target(2).tree));
}

#[test]
fn a_failure_holds_back_its_own_prune_only() {
    let mut cluster = Cluster::new();
    let before = vec![desired("s.a", "ConfigMap", "a", "1"), desired("s.b", "ConfigMap", "b", "1")];
    let first = run(wanted(before), Inventory::default(), &mut cluster, 1);
    let after = vec![
        desired("s.a", "ConfigMap", "bad", "1"),
        desired("s.b", "ConfigMap", "b2", "1"),
    ];
    let second = run(wanted(after), first.inventory, &mut cluster, 2);
    let left: Vec<&str> = cluster.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(left, ["a", "b2"]);
    assert!(!second.complete);
    let report = report("s.a", &second.inventory, &second.outcomes);
    assert_eq!(report.phase, Phase::Failure);
    assert_eq!(report.reason, "1 of 2 objects failed; ConfigMap default/bad: refused");
    assert_eq!(report.objects[1].outcome, ObjectOutcome::Waiting);
}

#[test]
fn reports_of_many_are_those_of_each() {
    let mut cluster = Cluster::new();
    let all = vec![desired("s.a", "ConfigMap", "a", "1"), desired("s.b", "ConfigMap", "bad", "1")];
    let mut finished = run(wanted(all), Inventory::default(), &mut cluster, 1);
    let subs = finished.outcomes.subs();
    let each: Vec<_> = subs
        .iter()
        .map(|sub| report(sub, &finished.inventory, &finished.outcomes))
        .collect();
    assert_eq!(reports(&subs, &finished.inventory, &finished.outcomes), each);
    finished.outcomes.forget_successes();
    let later = reports(&subs, &finished.inventory, &finished.outcomes);
    assert_eq!(
        (later[0].phase, later[0].objects[0].outcome),
        (Phase::Success, ObjectOutcome::Unchanged)
    );
    assert_eq!(later[1], each[1], "failures stay");
}

#[test]
fn an_object_that_moved_is_taken_over_not_deleted() {
    let mut cluster = Cluster::new();
    let first = run(
        wanted(vec![desired("s.a", "ConfigMap", "x", "1")]),
        Inventory::default(),
        &mut cluster,
        1,
    );
    let second = run(
        wanted(vec![desired("s.b", "ConfigMap", "x", "1")]),
        first.inventory,
        &mut cluster,
        2,
    );
    assert!(second.complete);
    assert_eq!(cluster.values().next().unwrap().0, "s.b");
    assert_eq!(second.inventory.subs(), BTreeSet::from(["s.b".to_owned()]));
}

#[test]
fn namespaces_are_kept_reported_and_forgotten_when_gone() {
    let mut cluster = Cluster::new();
    let first = run(
        wanted(vec![desired("s.a", "Namespace", "shop", "1")]),
        Inventory::default(),
        &mut cluster,
        1,
    );
    let second = run(wanted(vec![]), first.inventory, &mut cluster, 2);
    assert!(second.complete && cluster.len() == 1);
    let kept = report("s.a", &second.inventory, &second.outcomes);
    assert_eq!(
        (kept.phase, kept.objects[0].outcome),
        (Phase::Success, ObjectOutcome::NotApplied)
    );
    assert!(kept.reason.contains("never deleted"), "{}", kept.reason);
    cluster.clear();
    let third = run(wanted(vec![]), second.inventory, &mut cluster, 3);
    assert_eq!(third.inventory.entries, BTreeMap::new());
}

#[test]
fn two_descriptions_cannot_own_one_object() {
    let mut cluster = Cluster::new();
    let first = run(
        wanted(vec![desired("s.b", "ConfigMap", "x", "1")]),
        Inventory::default(),
        &mut cluster,
        1,
    );
    let both = vec![desired("s.a", "ConfigMap", "x", "2"), desired("s.b", "ConfigMap", "x", "1")];
    let second = run(wanted(both), first.inventory, &mut cluster, 2);
    assert_eq!(cluster.values().next().unwrap().0, "s.b");
    let report = report("s.a", &second.inventory, &second.outcomes);
    assert_eq!(report.phase, Phase::Failure);
    assert!(report.reason.contains("another Description"), "{}", report.reason);
}

#[test]
fn a_refused_description_keeps_what_it_has() {
    let mut cluster = Cluster::new();
    let before = vec![
        desired("s.a", "ConfigMap", "a", "1"),
        desired("s.a", "ConfigMap", "gone", "1"),
    ];
    let first = run(wanted(before), Inventory::default(), &mut cluster, 1);
    let mut after = wanted(vec![desired("s.a", "ConfigMap", "a", "2")]);
    after
        .refused
        .insert("s.a".into(), "deployer Helm is not carried out by this version".into());
    let second = run(after, first.inventory, &mut cluster, 2);
    assert_eq!(cluster.len(), 2);
    assert_eq!(report("s.a", &second.inventory, &second.outcomes).phase, Phase::Failure);
}

#[test]
fn an_added_namespace_field_does_not_delete_the_object() {
    let mut cluster = Cluster::new();
    let mut entry = plan(
        target(1),
        wanted(vec![desired("s.a", "Widget", "w", "1")]),
        &Inventory::default(),
        &scope,
    )
    .record;
    entry.entries.values_mut().for_each(|e| e.applied = Some(id("1")));
    let mut with_namespace = desired("s.a", "ConfigMap", "w", "1");
    let object = json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": "w", "namespace": "default"}});
    with_namespace.content = Content::Object(Object::from_value(object).unwrap());
    let second = run(wanted(vec![with_namespace]), entry, &mut cluster, 2);
    assert_eq!(cluster.len(), 1);
    assert!(second.complete);
}

#[test]
fn five_thousand_objects_fill_bounded_shards() {
    let objects = (0..5000).map(|n| desired(&format!("team.sub-{}", n % 7), "ConfigMap", &format!("settings-{n}"), "1"));
    let record = plan(target(1), wanted(objects.collect()), &Inventory::default(), &scope).record;
    let shards = encode_shards(&record, 1).unwrap();
    assert!(
        shards.iter().all(|shard| shard.len() <= SHARD_LIMIT) && shards.len() >= 4,
        "{}",
        shards.len()
    );
    assert_eq!(decode_shards(shards.iter().map(String::as_str)).unwrap(), record);
    assert_eq!(encode_shards(&record, shards.len()).unwrap(), shards);
    assert_eq!(encode_shards(&Inventory::default(), shards.len()).unwrap().len(), 1);
}

#[test]
fn a_save_cut_between_shards_never_claims_too_much() {
    let mut cluster = Cluster::new();
    let objects = |count: u32, content: &str| {
        let objects = (0..count).map(|n| desired("s.a", "ConfigMap", &format!("c{n}"), content));
        wanted(objects.collect())
    };
    let first = run(objects(800, "1"), Inventory::default(), &mut cluster, 1);
    let old = encode_shards(&first.inventory, 1).unwrap();
    let record = plan(target(2), objects(3000, "2"), &first.inventory, &scope).record;
    let new = encode_shards(&record, old.len()).unwrap();
    assert!(new.len() > old.len() && old.len() > 1);
    for cut in 0..=old.len() {
        let mixed = old.iter().take(cut).chain(new.iter().skip(cut)).map(String::as_str);
        let read = decode_shards(mixed).unwrap();
        assert!(first.inventory.entries.keys().all(|key| read.entries.contains_key(key)));
        assert_eq!(read.position.applied, None);
    }
    let newer = r#"{"format":2,"epoch":1,"generation":1}"#;
    assert!(decode_shards([newer]).unwrap_err().to_string().contains("newer agent"));
}

/// The same file with a namespace in its object.
fn with_namespace(mut desired: Desired, namespace: &str) -> Desired {
    let Content::Object(object) = desired.content else {
        panic!("has no object");
    };
    let mut object = object.into_value();
    object["metadata"]["namespace"] = namespace.into();
    desired.path = format!("{namespace}_{}", desired.path);
    desired.blob = id(&object.to_string());
    desired.content = Content::Object(Object::from_value(object).unwrap());
    desired
}

#[test]
fn an_object_recorded_before_its_scope_was_known_is_not_deleted_when_it_changes() {
    let widget = |content: &str| wanted(vec![with_namespace(desired("s.a", "Widget", "w", content), "shop")]);
    let mut cluster = Cluster::new();
    let first = run(widget("1"), Inventory::default(), &mut cluster, 1);
    let plan = plan(target(2), widget("2"), &first.inventory, &true_scope);
    let second = execute(plan, &mut cluster, &mut usize::MAX.clone()).unwrap();
    assert!(second.complete && cluster.len() == 1, "{cluster:?}");
    assert_eq!(second.inventory.entries.len(), 1, "under its present identity alone");
    assert_eq!(report("s.a", &second.inventory, &second.outcomes).phase, Phase::Success);
}

#[test]
fn what_only_the_scope_can_tell_apart_waits_for_it() {
    let widget = |namespace: &str| wanted(vec![with_namespace(desired("s.a", "Widget", "w", "1"), namespace)]);
    let mut cluster = Cluster::new();
    let first = run(widget("shop"), Inventory::default(), &mut cluster, 1);
    let second = run(widget("depot"), first.inventory, &mut cluster, 2);
    assert!(!second.complete && cluster.len() == 1, "{cluster:?}");
    let told = report("s.a", &second.inventory, &second.outcomes);
    assert!(told.reason.contains("until the cluster knows this kind"), "{}", told.reason);
    let plan = plan(target(3), widget("depot"), &second.inventory, &true_scope);
    let third = execute(plan, &mut cluster, &mut usize::MAX.clone()).unwrap();
    assert!(third.complete && third.inventory.entries.len() == 1 && cluster.len() == 1);
}

#[test]
fn what_is_going_is_known_until_it_is_gone_and_holds_up_nothing_else() {
    let mut cluster = Cluster::new();
    let before = vec![
        desired("s.a", "Deployment", "held", "1"),
        desired("s.a", "ConfigMap", "other", "1"),
    ];
    let first = run(wanted(before), Inventory::default(), &mut cluster, 1);
    let mut progress = Progress::start(plan(target(2), wanted(vec![]), &first.inventory, &scope));
    let mut order = Vec::new();
    while let Some(step) = progress.next_step() {
        for (key, _) in items(step) {
            order.push(key.name.clone());
            let is_held = key.name == "held";
            progress.done(&key, if is_held { Done::Going("is held".into()) } else { Done::Well });
        }
    }
    let second = progress.finish();
    assert_eq!(order, ["held", "other"]);
    assert!(!second.complete);
    let left: Vec<&str> = second.inventory.entries.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(left, ["held"]);
    let told = report("s.a", &second.inventory, &second.outcomes);
    assert_eq!(told.phase, Phase::Installing);
    assert!(told.reason.ends_with("this Deployment is held"), "{}", told.reason);
}

#[derive(Clone, Debug)]
struct Round {
    objects: Vec<(u8, u8, u8, u8, u8)>,
    budget: usize,
    /// The cluster knows all kinds.
    is_all_known: bool,
}

impl Round {
    fn scope(&self, group: &str, kind: &str) -> Scope {
        match kind {
            "Widget" | "Gadget" if !self.is_all_known => Scope::Unknown,
            _ => true_scope(group, kind),
        }
    }
}

fn rounds() -> impl Strategy<Value = Vec<Round>> {
    let object = (0..3u8, 0..6u8, 0..4u8, 0..3u8, 0..4u8);
    let round = (prop::collection::vec(object, 0..12), 0..20usize, any::<bool>());
    let round = round.prop_map(|(objects, budget, is_all_known)| Round {
        objects,
        budget,
        is_all_known,
    });
    prop::collection::vec(round, 1..8)
}

fn wanted_of(round: &Round, with_bad: bool) -> Wanted {
    let kinds = ["ConfigMap", "Deployment", "Namespace", "ClusterRole", "Widget", "Gadget"];
    let mut unique = BTreeMap::new();
    for (sub, kind, name, content, namespace) in &round.objects {
        let bad = with_bad && *name == 3;
        let name = if bad { format!("bad{name}") } else { format!("n{name}") };
        let object = desired(&format!("s.{sub}"), kinds[*kind as usize], &name, &content.to_string());
        let object = match *namespace {
            0 => object,
            other => with_namespace(object, ["default", "shop", "depot"][other as usize - 1]),
        };
        unique.insert((*kind, name), object);
    }
    wanted(unique.into_values().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn killed_anywhere_it_converges_and_leaks_nothing(rounds in rounds()) {
        let mut cluster = Cluster::new();
        let mut saved = Inventory::default();
        for (n, round) in rounds.iter().enumerate() {
            let asked_for = wanted_of(round, true);
            let wanted = as_fetched(asked_for.clone(), &saved);
            let plan = plan(target(n as u64), wanted, &saved, &|group, kind| round.scope(group, kind));
            saved = through_shards(&plan.record);
            if let Some(finished) = execute(plan, &mut cluster, &mut round.budget.clone()) {
                saved = through_shards(&finished.inventory);
                for object in asked_for.objects.iter().filter(|object| !object.path.contains("bad")) {
                    prop_assert_eq!(cluster.get(&key_of(object)), Some(&(object.sub.clone(), object.blob)));
                }
            }
            let known: BTreeSet<ObjectKey> = saved.entries.keys().map(live).collect();
            let leaked: Vec<_> = cluster.keys().filter(|key| !known.contains(key)).collect();
            prop_assert!(leaked.is_empty(), "leaked {leaked:?}");
            let lies = saved.entries.iter().filter(|(key, entry)| {
                entry.applied.is_some() && cluster.get(&live(key)) != Some(&(entry.sub.clone(), entry.applied.unwrap()))
            });
            prop_assert_eq!(lies.count(), 0);
        }
        let last = wanted_of(rounds.last().unwrap(), false);
        let expected: Cluster = last.objects.iter().map(|o| (key_of(o), (o.sub.clone(), o.blob))).collect();
        let plan = plan(target(99), as_fetched(last, &saved), &saved, &true_scope);
        let finished = execute(plan, &mut cluster, &mut usize::MAX.clone()).unwrap();
        prop_assert!(finished.complete);
        cluster.retain(|key, _| key.kind != "Namespace" || expected.contains_key(key));
        prop_assert_eq!(cluster, expected);
    }
}

fn through_shards(inventory: &Inventory) -> Inventory {
    let shards = encode_shards(inventory, 1).unwrap();
    let read = decode_shards(shards.iter().map(String::as_str)).unwrap();
    assert_eq!(read.entries, inventory.entries);
    read
}

fn key_of(desired: &Desired) -> ObjectKey {
    match &desired.content {
        Content::Object(object) => live(&object.key()),
        _ => panic!("has no object"),
    }
}
