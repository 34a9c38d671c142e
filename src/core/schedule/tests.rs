//! Placing as people see it: a Subscription's YAML and clusters in, shares and reasons out. Every placement is held against the checker, and
//! placing again must change nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;

use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use serde_json::{Value, json};

use super::*;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{self, ParseCache, Snapshot};
use crate::core::quantity::Quantity;
use crate::core::selector::Labels;
use crate::core::tree::{EntryMode, FileEntry, FileTree};
use crate::core::yaml::Limits;

const WEB: &str = "apps/v1/Deployment/shop/web";

/// A Subscription, a fleet and where it was placed last.
struct Scene {
    snapshot: Snapshot,
    fleet: Fleet,
    bindings: Arc<Bindings>,
    placement: Placement,
}

fn snapshot_of(objects: &[Value]) -> Snapshot {
    let mut cache = ParseCache::default();
    let mut tree = FileTree::default();
    let limits = Limits::default();
    let mut contents = BTreeMap::new();
    for (index, object) in objects.iter().enumerate() {
        let bytes = object.to_string().into_bytes();
        let id = ObjectId::hash(ObjectKind::Blob, &bytes);
        let (mode, size) = (EntryMode::File, bytes.len() as u64);
        tree.files.insert(format!("{index}.json"), FileEntry { mode, id, size });
        contents.insert(id, bytes);
    }
    cache
        .fill(&tree, &limits, |id| Ok::<_, Infallible>(contents[&id].clone()))
        .unwrap();
    let (snapshot, diagnostics) = index::build(&tree, &cache, &limits);
    assert!(diagnostics.iter().all(|found| !found.is_error()), "{diagnostics:?}");
    snapshot
}

fn deployment(replicas: i64) -> Value {
    let container = json!({"name": "web", "resources": {"requests": {"cpu": "1"}}});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"replicas": replicas, "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}},
    })
}

fn subscription(spec: &Value) -> Value {
    let mut spec = spec.clone();
    if spec.get("subscribers").is_none() {
        spec["subscribers"] = json!([{"clusterAffinity": {}}]);
    }
    if spec.get("feeds").is_none() {
        spec["feeds"] = json!([{"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "shop", "name": "web"}]);
    }
    json!({"apiVersion": "apps.clusternet.io/v1alpha1", "kind": "Subscription", "metadata": {"namespace": "apps", "name": "web"}, "spec": spec})
}

fn dynamic(dividing: &Value) -> Value {
    json!({"schedulingStrategy": "Dividing", "dividingScheduling": {"type": "Dynamic", "dynamicDividing": dividing}})
}

impl Scene {
    fn new(spec: &Value, replicas: i64, clusters: &[&str]) -> Self {
        let mut scene = Scene {
            snapshot: snapshot_of(&[subscription(spec), deployment(replicas)]),
            fleet: Fleet::default(),
            bindings: Arc::default(),
            placement: Placement::default(),
        };
        clusters.iter().for_each(|cluster| scene.add(cluster));
        scene
    }

    /// Adds or replaces a cluster: `name [label=value…] [cpu:N] [taint!Effect]`.
    fn add(&mut self, text: &str) {
        let mut words = text.split(' ');
        let name = words.next().unwrap();
        let (mut labels, mut taints, mut live) = (Labels::new(), Vec::new(), Live::default());
        for word in words {
            if let Some((key, value)) = word.split_once('=') {
                labels.insert(key.to_owned(), value.to_owned());
            } else if let Some(cpu) = word.strip_prefix("cpu:") {
                live.allocatable.insert("cpu".to_owned(), Quantity::parse(cpu).unwrap());
            } else if let Some((key, effect)) = word.split_once('!') {
                let spec = serde_json::from_value(json!({"key": key, "effect": effect})).unwrap();
                taints.push(Taint::parse(&spec).unwrap());
            }
        }
        let cluster = Cluster::new(name, None, None, labels).with_taints(taints);
        self.fleet.live.insert(cluster.namespace.clone(), live);
        self.fleet.clusters.insert(cluster.namespace.clone(), cluster.into());
    }

    fn change(&mut self, spec: &Value, replicas: i64) -> &mut Self {
        self.snapshot = snapshot_of(&[subscription(spec), deployment(replicas)]);
        self
    }

    fn with<T>(&self, act: impl FnOnce(&Request<'_>) -> T) -> T {
        let subscription = self.snapshot.subscriptions.values().next().unwrap().valid().unwrap();
        let demands = index::demands(&self.snapshot, subscription, false, &mut Vec::new()).unwrap();
        act(&Request {
            subscription,
            demands: &demands,
            fleet: &self.fleet,
            previous: &self.bindings,
            known: !self.bindings.clusters.is_empty(),
        })
    }

    fn place(&mut self) -> &mut Self {
        let placement = self.with(|request| {
            let placement = place(request);
            assert_eq!(check::check(request, &placement), [], "{placement:#?}");
            let previous = &placement.bound;
            let again = place(&Request { previous, ..*request });
            if placement.kept.is_none() {
                assert_eq!(again, placement, "placing again changes nothing");
            }
            placement
        });
        self.bindings = placement.bound.clone();
        self.placement = placement;
        self
    }

    /// `name:share` of each bound cluster.
    fn shares(&self) -> String {
        let shares = self.bindings.replicas.get(WEB);
        let one = |(namespace, name): (&Arc<str>, &Arc<str>)| match shares.and_then(|shares| shares.get(namespace)) {
            Some(share) => format!("{name}:{share}"),
            None => name.to_string(),
        };
        self.bindings.clusters.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn reasons(&self) -> Vec<(&str, usize)> {
        let excluded = self.placement.excluded.iter();
        excluded
            .map(|exclusion| (exclusion.reason.as_str(), exclusion.count))
            .collect()
    }

    fn explain(&self, name: &str) -> Explanation {
        self.with(|request| explain(request, &format!("clusternet-{name}")).unwrap())
    }
}

#[test]
fn a_taint_keeps_new_things_out_and_leaves_what_is_bound() {
    let mut scene = Scene::new(&json!({}), 1, &["a", "b"]);
    assert!(!scene.place().placement.sticky);
    scene.add("a old!NoSchedule");
    scene.add("c new!NoSchedule");
    scene.place();
    assert_eq!(scene.shares(), "a b");
    assert_eq!(scene.reasons(), [("TaintNotTolerated", 1)]);
    assert!(scene.placement.sticky, "a stays because it was bound before");
    assert_eq!(scene.explain("a").outcome, Outcome::Placed(Placed::StaysDespiteTaint));
    let told = scene.explain("c").to_string();
    assert!(told.contains("was not chosen") && told.contains("new:NoSchedule"), "{told}");
    let tolerant = json!({"clusterTolerations": [{"key": "new", "operator": "Exists"}]});
    assert_eq!(scene.change(&tolerant, 1).place().shares(), "a b c");
}

#[test]
fn no_execute_moves_but_never_empties_the_fleet() {
    let mut scene = Scene::new(&json!({}), 1, &["a", "b"]);
    scene.place().add("a gone!NoExecute");
    assert_eq!(scene.place().shares(), "b");
    scene.add("b gone!NoExecute");
    assert_eq!(scene.place().shares(), "b");
    let unfit = scene.placement.kept.clone().unwrap();
    assert_eq!((unfit[0].reason, unfit[0].count), (Reason::TaintNotTolerated, 1));
    assert_eq!(scene.explain("b").outcome, Outcome::Placed(Placed::Kept));
    scene.add("a");
    assert_eq!(scene.place().shares(), "a", "the replacement is there now");
}

#[test]
fn a_live_taint_is_named_only_where_it_changed_the_placement() {
    let groups = json!({"schedulingBySubGroup": true, "subscribers": [
        {"clusterAffinity": {}, "subGroupStrategy": {"minClusters": 1}}]});
    let mut scene = Scene::new(&groups, 1, &["a", "b"]);
    scene.place();
    let before = scene.placement.clone();
    let not_ready = serde_json::from_value(json!({"key": "unschedulable", "effect": "NoSchedule"})).unwrap();
    let taints = vec![Taint::parse(&not_ready).unwrap()];
    scene.fleet.live.insert(
        "clusternet-b".into(),
        Live {
            taints,
            ..Live::default()
        },
    );
    assert_eq!(scene.place().placement, before, "b was not chosen anyway");
    scene.change(&json!({}), 1).place();
    assert_eq!(
        (scene.shares().as_str(), scene.reasons()),
        ("a", vec![("TaintNotTolerated", 1)])
    );
}

fn returning(scene: &mut Scene, name: &str) {
    let live = scene.fleet.live.get_mut(&*format!("clusternet-{name}")).unwrap();
    live.returning = true;
}

#[test]
fn a_cluster_that_may_come_back_keeps_what_it_has_and_gets_only_what_is_new() {
    let mut scene = Scene::new(&json!({}), 1, &["a", "b"]);
    let not_ready = serde_json::from_value(json!({"key": "unschedulable", "effect": "NoSchedule"})).unwrap();
    let live = scene.fleet.live.get_mut("clusternet-b").unwrap();
    live.taints = vec![Taint::parse(&not_ready).unwrap()];
    scene.place();
    let before = scene.placement.clone();
    assert_eq!(scene.shares(), "a");
    scene.fleet.live.values_mut().for_each(|live| *live = Live::default());
    returning(&mut scene, "a");
    returning(&mut scene, "b");
    assert_eq!(scene.place().placement, before, "a restart changes nothing");
    assert!(scene.placement.sticky, "what is not bound follows from more than git");
    scene.bindings = Arc::default();
    assert_eq!(scene.place().shares(), "a b", "a Subscription that is new waits for nobody");
}

#[test]
fn a_live_taint_writes_no_other_reason_for_what_does_not_fit() {
    let mut scene = Scene::new(&dynamic(&json!({})), 9, &["a cpu:4", "b cpu:0"]);
    scene.place();
    let before = scene.placement.clone();
    assert_eq!((scene.shares().as_str(), scene.reasons()), ("a:4", vec![("NoCapacity", 1)]));
    returning(&mut scene, "b");
    assert_eq!(scene.place().placement, before);
}

#[test]
fn only_replicas_without_a_place_raise_a_question() {
    let mut scene = Scene::new(&dynamic(&json!({})), 6, &["a cpu:4", "b cpu:8", "c cpu:8 gone!NoSchedule"]);
    let asked = |scene: &Scene| {
        scene.with(|request| {
            let question = question(request)?;
            let clusters = question.clusters.iter().map(|cluster| &*cluster.name);
            Some((question.feeds.len(), clusters.collect::<Vec<_>>().join(" ")))
        })
    };
    assert_eq!(asked(&scene), Some((1, "a b".to_owned())));
    scene.place();
    assert_eq!(asked(&scene), None, "all have their place");
    scene.change(&dynamic(&json!({})), 7);
    assert_eq!(asked(&scene), Some((1, "a b".to_owned())));
    scene.change(&dynamic(&json!({})), 5);
    assert_eq!(
        asked(&scene),
        Some((1, "a b".to_owned())),
        "what fits is recorded with every change"
    );
    scene.change(&json!({}), 7);
    assert_eq!(asked(&scene), None, "Replication needs to know nothing");
}

#[test]
fn static_shares_of_the_shipped_examples() {
    let weights = |one: i64, other: i64| {
        json!({"schedulingStrategy": "Dividing", "dividingScheduling": {"type": "Static"}, "subscribers": [
            {"clusterAffinity": {"matchLabels": {"zone": "x"}}, "weight": one},
            {"clusterAffinity": {"matchLabels": {"zone": "y"}}, "weight": other}]})
    };
    let mut scene = Scene::new(&weights(1, 2), 6, &["a zone=x", "b zone=y"]);
    assert_eq!(scene.place().shares(), "a:2 b:4");
    assert_eq!(scene.change(&weights(2, 1), 6).place().shares(), "a:4 b:2");
    assert_eq!(scene.change(&weights(0, 3), 7).place().shares(), "a:0 b:7");
    let unstated = json!({"schedulingStrategy": "Dividing", "subscribers": [{"clusterAffinity": {}}]});
    assert_eq!(scene.change(&unstated, 7).place().shares(), "a:4 b:3");
}

#[test]
fn clusters_without_weight_get_nothing_rather_than_everything() {
    let spec = json!({"schedulingStrategy": "Dividing", "subscribers": [
        {"clusterAffinity": {"matchLabels": {"zone": "x"}}, "weight": 0},
        {"clusterAffinity": {"matchLabels": {"zone": "y"}}, "weight": 1}]});
    let mut scene = Scene::new(&spec, 6, &["a zone=x"]);
    scene.place();
    assert_eq!(scene.reasons(), [("NoWeight", 1)]);
    assert_eq!(scene.placement.remarks, [Remark::NoWeight]);
}

#[test]
fn groups_take_their_number_and_keep_it() {
    let spec = |first: usize| {
        json!({"schedulingStrategy": "Dividing", "schedulingBySubGroup": true, "subscribers": [
            {"clusterAffinity": {"matchLabels": {"region": "sh"}}, "weight": 2, "subGroupStrategy": {"minClusters": first}},
            {"clusterAffinity": {"matchLabels": {"region": "bj"}}, "weight": 1, "subGroupStrategy": {"minClusters": 1}}]})
    };
    let mut scene = Scene::new(&spec(1), 6, &["a region=sh", "b region=sh", "c region=bj", "d region=bj"]);
    assert_eq!(scene.place().shares(), "a:4 c:2");
    assert_eq!(scene.reasons(), [("SubGroupFull", 2)]);
    scene.add("0 region=sh");
    assert_eq!(scene.place().shares(), "a:4 c:2", "a group keeps its clusters");
    scene.add("a region=sh gone!NoExecute");
    assert_eq!(scene.place().shares(), "0:4 c:2", "and replaces one that has to go");
    assert_eq!(scene.change(&spec(3), 6).place().placement.remarks.len(), 1, "one too few");
    scene.add("0 region=sh gone!NoExecute");
    scene.add("b region=sh gone!NoExecute");
    scene.place();
    assert_eq!(scene.explain("0").outcome, Outcome::Placed(Placed::WaitsForReplacement));
}

#[test]
fn groups_prefer_clusters_without_avoided_taints() {
    let spec = json!({"schedulingBySubGroup": true, "subscribers": [
        {"clusterAffinity": {}, "subGroupStrategy": {"minClusters": 1}}]});
    let mut scene = Scene::new(&spec, 1, &["a busy!PreferNoSchedule", "b"]);
    assert_eq!(scene.place().shares(), "b");
    assert_eq!(scene.explain("a").score, -300);
}

#[test]
fn a_cluster_that_gets_nothing_takes_nobodys_place_in_a_group() {
    let mut groups = dynamic(&json!({"strategy": "Spread"}));
    groups["schedulingBySubGroup"] = json!(true);
    groups["subscribers"] = json!([
        {"clusterAffinity": {"matchLabels": {"zone": "x"}}, "subGroupStrategy": {"minClusters": 2}},
        {"clusterAffinity": {}, "subGroupStrategy": {"minClusters": 3}}]);
    let static_dividing = json!({"schedulingStrategy": "Dividing"});
    let mut scene = Scene::new(&static_dividing, 9, &["a zone=y", "b zone=x", "c zone=y"]);
    assert_eq!(scene.place().shares(), "a:3 b:3 c:3");
    scene.add("a zone=y busy!PreferNoSchedule");
    scene.add("d cpu:1 zone=x");
    scene.change(&groups, 0);
    assert_eq!(
        scene.place().shares(),
        "a:0 b:0 c:0",
        "d is in both groups, but nothing is left for it"
    );
}

#[test]
fn spread_divides_the_difference_by_room() {
    let spec = dynamic(&json!({"strategy": "Spread"}));
    let mut scene = Scene::new(&spec, 6, &["a cpu:10", "b cpu:20"]);
    assert_eq!(scene.place().shares(), "a:2 b:4");
    scene.add("c cpu:100");
    assert_eq!(scene.place().shares(), "a:2 b:4", "placed replicas stay");
    assert_eq!(scene.reasons(), [("NotNeeded", 1)]);
    assert_eq!(scene.change(&spec, 19).place().shares(), "a:3 b:6 c:10");
    assert_eq!(scene.change(&spec, 10).place().shares(), "a:2 b:3 c:5");
    assert_eq!(scene.change(&spec, 0).place().shares(), "a:0 b:0 c:0");
}

#[test]
fn what_does_not_fit_is_said() {
    let spec = dynamic(&json!({}));
    let mut scene = Scene::new(&spec, 20, &["a cpu:4", "b cpu:5", "c"]);
    assert_eq!(scene.place().shares(), "a:4 b:5");
    let feed: Arc<str> = WEB.into();
    assert_eq!(
        scene.placement.remarks,
        [Remark::Unplaced {
            feed,
            missing: 11,
            total: 20
        }]
    );
    assert_eq!(scene.reasons(), [("NoCapacity", 1)]);
    scene.add("c cpu:100");
    assert_eq!(scene.place().shares(), "a:4 b:5 c:11");
    assert_eq!(scene.placement.remarks, []);
}

#[test]
fn what_an_agent_says_outranks_the_estimate_and_is_recorded() {
    let mut scene = Scene::new(&dynamic(&json!({})), 6, &["a cpu:10", "b cpu:10"]);
    scene.fleet.live.get_mut("clusternet-b").unwrap().fits.insert(WEB.into(), 2);
    assert_eq!(scene.place().shares(), "a:5 b:1");
    assert_eq!(scene.bindings.capacity[WEB]["clusternet-b"], 2);
    scene.fleet.live.get_mut("clusternet-b").unwrap().fits.insert(WEB.into(), 90);
    assert_eq!(
        scene.place().bindings.capacity[WEB]["clusternet-b"],
        2,
        "what decided stays on record"
    );
}

#[test]
fn replicas_leave_a_cluster_as_far_as_they_fit_elsewhere() {
    let mut scene = Scene::new(&dynamic(&json!({})), 6, &["a cpu:10", "b cpu:10"]);
    assert_eq!(scene.place().shares(), "a:3 b:3");
    scene.add("a cpu:10 gone!NoExecute");
    scene.add("b cpu:5");
    assert_eq!(scene.place().shares(), "a:1 b:5");
    let feed: Arc<str> = WEB.into();
    assert_eq!(scene.placement.remarks, [Remark::Stranded { feed, replicas: 1 }]);
    scene.add("c cpu:5");
    assert_eq!(scene.place().shares(), "b:5 c:1");
}

#[test]
fn a_closed_cluster_gets_no_more() {
    let spec = dynamic(&json!({}));
    let mut scene = Scene::new(&spec, 4, &["a cpu:10", "b cpu:10"]);
    scene.place().add("a cpu:10 full!NoSchedule");
    assert_eq!(scene.change(&spec, 8).place().shares(), "a:2 b:6");
}

#[test]
fn binpack_fills_few_clusters_and_frees_them() {
    let spec = dynamic(&json!({"strategy": "Binpack"}));
    let mut scene = Scene::new(&spec, 6, &["a cpu:4", "b cpu:5", "c cpu:4"]);
    assert_eq!(scene.place().shares(), "a:1 b:5");
    assert_eq!(scene.change(&spec, 9).place().shares(), "a:4 b:5");
    assert_eq!(scene.change(&spec, 5).place().shares(), "b:5");
    assert_eq!(scene.change(&spec, 0).place().shares(), "b:0", "what was bound stays bound");
}

#[test]
fn preferred_clusters_are_filled_first() {
    let term = json!({"weight": 10, "preference": {"matchExpressions": [{"key": "tier", "operator": "Gt", "values": ["1"]}]}});
    let spec = dynamic(&json!({"preferredClusters": [term]}));
    let mut scene = Scene::new(&spec, 6, &["a cpu:10", "b cpu:4 tier=2"]);
    assert_eq!(scene.place().shares(), "a:2 b:4");
    assert_eq!(scene.explain("b").score, 10);
}

#[test]
fn cluster_bounds_hold() {
    let most = dynamic(&json!({"maxClusters": 2}));
    let clusters = ["a cpu:1", "b cpu:20", "c cpu:20", "d cpu:20"];
    let mut scene = Scene::new(&most, 6, &clusters);
    assert_eq!(scene.place().shares(), "b:3 c:3");
    assert_eq!(scene.reasons(), [("MaxClusters", 2)]);
    let one = dynamic(&json!({"maxClusters": 1}));
    assert_eq!(scene.change(&one, 6).place().shares(), "b:6");
    let least = dynamic(&json!({"strategy": "Binpack", "minClusters": 3}));
    assert_eq!(scene.change(&least, 6).place().shares(), "b:4 c:1 d:1");
    assert_eq!(scene.change(&least, 2).place().shares(), "b:1 c:1");
    assert!(matches!(
        scene.placement.remarks[..],
        [Remark::FewClusters { wanted: 3, found: 2, .. }]
    ));
}

#[test]
fn domains_are_used_evenly() {
    let spread = |when: &str| {
        let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when});
        dynamic(&json!({"topologySpreadConstraints": [constraint]}))
    };
    let clusters = ["a cpu:30 zone=x", "b cpu:30 zone=x", "c cpu:10 zone=y", "d cpu:30"];
    let mut scene = Scene::new(&spread("DoNotSchedule"), 8, &clusters);
    assert_eq!(scene.place().shares(), "a:2 b:2 c:4");
    assert_eq!(scene.reasons(), [("NoTopologyDomain", 1)]);
    assert_eq!(scene.change(&spread("DoNotSchedule"), 4).place().shares(), "a:1 b:1 c:2");
    assert_eq!(scene.change(&spread("DoNotSchedule"), 30).place().shares(), "a:6 b:5 c:10");
    let missing = |remark: &Remark| matches!(remark, Remark::Unplaced { missing: 9, .. });
    assert!(scene.placement.remarks.iter().any(missing), "{:?}", scene.placement.remarks);
    assert_eq!(scene.change(&spread("ScheduleAnyway"), 30).place().placement.remarks, []);
}

#[test]
fn nothing_to_divide_binds_nothing_and_says_so() {
    let mut spec = dynamic(&json!({}));
    spec["feeds"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "web"}]);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "shop", "name": "web"}});
    let mut scene = Scene::new(&json!({}), 1, &["a cpu:1"]);
    scene.snapshot = snapshot_of(&[subscription(&spec), config]);
    scene.place();
    assert_eq!(scene.reasons(), [("NothingToDivide", 1)]);
    assert_eq!(scene.placement.remarks, [Remark::NothingToDivide]);
}

#[test]
fn reasons_list_ten_names() {
    let spec = json!({"subscribers": [{"clusterAffinity": {"matchLabels": {"env": "prod"}}}]});
    let names: Vec<String> = (10..35).map(|n| format!("c{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut scene = Scene::new(&spec, 1, &names);
    scene.place();
    let [exclusion] = &scene.placement.excluded[..] else {
        panic!()
    };
    assert_eq!((exclusion.count, exclusion.names.len()), (25, 10));
    assert_eq!(exclusion.names[0], "clusternet-c10/c10");
}

#[test]
fn the_checker_sees_what_is_wrong() {
    let mut scene = Scene::new(&dynamic(&json!({})), 6, &["a cpu:10", "b cpu:10 x!NoSchedule"]);
    scene.place();
    let mut bound = Bindings::clone(&scene.bindings);
    bound.clusters.insert("clusternet-b".into(), "b".into());
    bound.replicas.get_mut(WEB).unwrap().insert("clusternet-b".into(), 1);
    scene.placement.bound = bound.into();
    let found = scene.with(|request| check::check(request, &scene.placement));
    let tainted = |violation: &check::Violation| matches!(violation, check::Violation::TaintNotTolerated(_));
    // It was not bound before this placement.
    let previous = Bindings::default();
    let again = scene.with(|request| {
        check::check(
            &Request {
                previous: &previous,
                ..*request
            },
            &scene.placement,
        )
    });
    assert!(again.iter().any(tainted), "{again:?}");
    assert!(
        found
            .iter()
            .any(|violation| matches!(violation, check::Violation::SumDiffers { sum: 7, total: 6, .. }))
    );
    scene.placement.bound = Arc::default();
    let emptied = scene.with(|request| check::check(request, &scene.placement));
    assert!(emptied.contains(&check::Violation::FleetEmptied));
}

fn cluster_text() -> impl Strategy<Value = String> {
    let taint = prop::sample::select(vec!["", "", "", " t!NoSchedule", " t!NoExecute", " t!PreferNoSchedule"]);
    let zone = prop::sample::select(vec!["x", "y", "z"]);
    (0..30u8, zone, taint).prop_map(|(cpu, zone, taint)| format!("cpu:{cpu} zone={zone}{taint}"))
}

fn strategies() -> impl Strategy<Value = Value> {
    let constraint = |when: &str, skew: i64| json!({"maxSkew": skew, "topologyKey": "zone", "whenUnsatisfiable": when});
    let constraints = prop::sample::select(vec![
        json!([]),
        json!([]),
        json!([constraint("DoNotSchedule", 1)]),
        json!([constraint("DoNotSchedule", 3)]),
        json!([constraint("ScheduleAnyway", 1)]),
    ]);
    let preferred = prop::sample::select(vec![
        json!([]),
        json!([{"weight": 5, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]}}]),
    ]);
    let packing = prop::sample::select(vec!["Spread", "Binpack"]);
    (packing, constraints, preferred, 0..3i64, 3..6i64, any::<bool>()).prop_map(|(packing, constraints, preferred, min, max, bounded)| {
        let mut dividing = json!({"strategy": packing, "topologySpreadConstraints": constraints, "preferredClusters": preferred, "minClusters": min});
        if bounded {
            dividing["maxClusters"] = json!(max);
        }
        dynamic(&dividing)
    })
}

fn any_spec() -> impl Strategy<Value = Value> {
    let static_groups = json!({"schedulingStrategy": "Dividing", "schedulingBySubGroup": true, "subscribers": [
        {"clusterAffinity": {"matchLabels": {"zone": "x"}}, "weight": 2, "subGroupStrategy": {"minClusters": 2}},
        {"clusterAffinity": {}, "weight": 1, "subGroupStrategy": {"minClusters": 3}}]});
    let mut dynamic_groups = static_groups.clone();
    dynamic_groups["dividingScheduling"] = json!({"type": "Dynamic", "dynamicDividing": {"strategy": "Spread"}});
    for subscriber in dynamic_groups["subscribers"].as_array_mut().unwrap() {
        subscriber.as_object_mut().unwrap().remove("weight");
    }
    let mut replicated_groups = dynamic_groups.clone();
    replicated_groups["schedulingStrategy"] = json!("Replication");
    replicated_groups.as_object_mut().unwrap().remove("dividingScheduling");
    let fixed = prop::sample::select(vec![
        json!({}),
        json!({"subscribers": [{"clusterAffinity": {"matchLabels": {"zone": "x"}}}]}),
        json!({"schedulingStrategy": "Dividing"}),
        json!({"schedulingStrategy": "Dividing", "clusterTolerations": [{"operator": "Exists"}]}),
        static_groups,
        dynamic_groups,
        replicated_groups,
    ]);
    prop_oneof![2 => fixed, 3 => strategies()]
}

fn scene(spec: &Value, replicas: i64, clusters: &[String]) -> Scene {
    let texts: Vec<String> = clusters.iter().enumerate().map(|(n, text)| format!("c{n} {text}")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Scene::new(spec, replicas, &texts)
}

fn share(bindings: &Bindings, namespace: &str) -> i64 {
    let shares = bindings.replicas.get(WEB);
    shares.and_then(|shares| shares.get(namespace)).copied().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever changes, the checker agrees, placing again changes nothing and the order in which clusters are named does not matter.
    #[test]
    fn every_placement_keeps_the_rules(
        first in any_spec(), second in any_spec(), replicas in (0..60i64, 0..60i64),
        clusters in prop::collection::vec(cluster_text(), 1..8), later in prop::collection::vec(cluster_text(), 1..8),
    ) {
        let mut one = scene(&first, replicas.0, &clusters);
        one.place();
        one.change(&second, replicas.1);
        for (n, text) in later.iter().enumerate() {
            one.add(&format!("c{n} {text}"));
        }
        let mut other = Scene { snapshot: snapshot_of(&[]), fleet: Fleet::default(), bindings: one.bindings.clone(), placement: Placement::default() };
        other.change(&second, replicas.1);
        one.place();
        let reversed: Vec<(Arc<str>, Arc<Cluster>)> = one.fleet.clusters.clone().into_iter().rev().collect();
        other.fleet.clusters.extend(reversed);
        other.fleet.live = one.fleet.live.clone();
        prop_assert_eq!(&other.place().placement, &one.placement);
    }

    /// In Dynamic a scale-up shrinks nobody and a scale-down grows nobody.
    #[test]
    fn scaling_only_moves_one_way(
        spec in strategies(), before in 0..80i64, after in 0..80i64,
        clusters in prop::collection::vec((0..30u8, prop::sample::select(vec!["x", "y", "z"])), 1..8),
    ) {
        let clusters: Vec<String> = clusters.iter().map(|(cpu, zone)| format!("cpu:{cpu} zone={zone}")).collect();
        let mut scene = scene(&spec, before, &clusters);
        let first = scene.place().bindings.clone();
        let second = scene.change(&spec, after).place().bindings.clone();
        for namespace in scene.fleet.clusters.keys() {
            let (was, is) = (share(&first, namespace), share(&second, namespace));
            prop_assert!(if after >= before { is >= was } else { is <= was }, "{} from {} to {}", namespace, was, is);
        }
    }

    /// A cluster more, or a new label nobody asks for, moves no replica that is placed.
    #[test]
    fn placements_are_sticky(
        spec in strategies(), replicas in 0..60i64, joins in 1..40u8,
        clusters in prop::collection::vec((1..30u8, prop::sample::select(vec!["x", "y", "z"])), 3..8),
    ) {
        let clusters: Vec<String> = clusters.iter().map(|(cpu, zone)| format!("cpu:{cpu} zone={zone}")).collect();
        let mut scene = scene(&spec, replicas, &clusters);
        let first = scene.place().bindings.clone();
        let satisfied = scene.placement.remarks.is_empty();
        scene.add(&format!("d cpu:{joins} zone=x"));
        scene.place();
        for namespace in first.clusters.keys().filter(|_| satisfied) {
            prop_assert_eq!(share(&scene.bindings, namespace), share(&first, namespace));
        }
    }
}
