//! Comparing states: nothing between equal ones, each changed manifest once, what is dangerous first, nothing of a Secret.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::core::ids::ObjectKind;
use crate::core::render::file_name;
use crate::core::schedule::Bindings;
use crate::core::state::{self, ClusterState, describe};

/// Per cluster, per object: the Subscription that delivers it and its content.
type Fleet = BTreeMap<u8, BTreeMap<u8, (u8, u8)>>;

fn key(object: u8) -> ObjectKey {
    let (group, kind, namespaced) = match object % 4 {
        0 => ("", "Namespace", false),
        1 => ("apps", "Deployment", true),
        2 => ("apiextensions.k8s.io", "CustomResourceDefinition", false),
        _ => ("", "ConfigMap", true),
    };
    ObjectKey {
        group: group.into(),
        kind: kind.into(),
        namespace: namespaced.then(|| "shop".to_owned()),
        name: format!("o{object}"),
    }
}

fn feed(key: &ObjectKey) -> Feed {
    Feed {
        api_version: if key.group.is_empty() {
            "v1".to_owned()
        } else {
            format!("{}/v1", key.group)
        },
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// A state with these objects and nothing else.
fn state(fleet: &Fleet) -> State {
    let mut state = State::default();
    for (cluster, objects) in fleet {
        let mut parts: BTreeMap<String, (Vec<FeedState>, BTreeMap<String, Leaf>)> = BTreeMap::new();
        for (object, (subscription, content)) in objects {
            let (key, part) = (key(*object), parts.entry(format!("apps.s{subscription}")).or_default());
            let path = format!("manifests/{}", file_name(&key));
            part.1
                .insert(path.clone(), Leaf::new(format!("content: {content}\n").into_bytes().into()));
            part.0.push(FeedState {
                feed: feed(&key),
                digest: ObjectId::hash(ObjectKind::Blob, &[*content]),
                path,
                bundle: None,
                installs: None,
            });
        }
        let described = parts.into_iter().map(|(directory, (feeds, files))| {
            let digest = ObjectId::hash(ObjectKind::Blob, format!("{files:?}").as_bytes());
            (directory, Arc::new(describe(digest, feeds, files)))
        });
        state.clusters.insert(
            format!("clusternet-c{cluster}").into(),
            ClusterState::new(described.collect()).into(),
        );
    }
    state
}

/// Every manifest by its path, with its content's id.
fn manifests(state: &State) -> BTreeMap<String, ObjectId> {
    let paths = state::paths(state).into_iter();
    paths
        .filter(|(path, _)| path.contains("/manifests/"))
        .map(|(path, leaf)| (path, leaf.id))
        .collect()
}

fn fleet() -> impl Strategy<Value = Fleet> {
    let objects = prop::collection::btree_map(0..6u8, (0..2u8, 0..3u8), 0..5);
    prop::collection::btree_map(0..5u8, objects, 0..5)
}

proptest! {
    #[test]
    fn between_equal_states_is_nothing(fleet in fleet()) {
        prop_assert_eq!(compare(&state(&fleet), &state(&fleet)), Impact::default());
    }

    /// Every changed path of the two trees is named by exactly one change, in the cluster where it changed, and no other path is.
    #[test]
    fn every_changed_manifest_is_named_once(before in fleet(), after in fleet(), fan_out in 0..3u8) {
        let [before, after] = [before, after].map(|fleet| State { fan_out, ..state(&fleet) });
        let (old, new) = (manifests(&before), manifests(&after));
        let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let changed: Vec<&String> = all.into_iter().filter(|path| old.get(*path) != new.get(*path)).collect();
        let mut named = Vec::new();
        for change in compare(&before, &after).changes {
            let sides: BTreeSet<String> = [&change.before, &change.after].into_iter().flatten()
                .map(|side| format!("{}/{}", side.directory, side.file)).collect();
            for cluster in &change.clusters {
                named.extend(sides.iter().map(|side| format!("{}/{side}", after.cluster_path(cluster))));
            }
        }
        named.sort();
        prop_assert_eq!(named.iter().collect::<Vec<_>>(), changed);
    }

    /// The way back undoes the way there.
    #[test]
    fn back_is_the_opposite(before in fleet(), after in fleet()) {
        let (before, after) = (state(&before), state(&after));
        let count = |impact: &Impact, action| -> usize {
            impact.changes.iter().filter(|change| change.action == action).map(|change| change.clusters.len()).sum()
        };
        let (there, back) = (compare(&before, &after), compare(&after, &before));
        prop_assert_eq!(count(&there, Action::Create), count(&back, Action::Delete));
        prop_assert_eq!(count(&there, Action::Change), count(&back, Action::Change));
        prop_assert_eq!(count(&there, Action::Move), count(&back, Action::Move));
    }

    /// What happens in one cluster is what a comparison of that cluster alone finds.
    #[test]
    fn one_cluster_is_a_part_of_the_whole(before in fleet(), after in fleet()) {
        let alone = |fleet: &Fleet| state(&fleet.iter().filter(|(cluster, _)| **cluster == 1).map(|(c, o)| (*c, o.clone())).collect());
        let part = compare(&state(&before), &state(&after)).only("clusternet-c1");
        prop_assert_eq!(part, compare(&alone(&before), &alone(&after)));
    }
}

#[test]
fn equal_changes_are_listed_once_and_the_dangerous_ones_first() {
    let all = |objects: &[(u8, (u8, u8))]| -> State {
        state(&(0..200).map(|cluster| (cluster, objects.iter().copied().collect())).collect())
    };
    let impact = compare(
        &all(&[(0, (0, 0)), (1, (0, 0)), (2, (0, 0)), (3, (0, 0)), (5, (0, 0))]),
        &all(&[(1, (0, 1)), (2, (0, 1)), (5, (1, 0)), (7, (0, 0))]),
    );
    let seen: Vec<_> = impact
        .changes
        .iter()
        .map(|change| {
            (
                change.action.as_str(),
                change.object.to_string(),
                change.is_dangerous(),
                change.clusters.len(),
            )
        })
        .collect();
    let want = [
        ("delete", "Namespace o0", true, 200),
        ("delete", "ConfigMap shop/o3", true, 200),
        ("change", "CustomResourceDefinition.apiextensions.k8s.io o2", true, 200),
        ("change", "Deployment.apps shop/o1", false, 200),
        ("move", "Deployment.apps shop/o5", false, 200),
        ("create", "ConfigMap shop/o7", false, 200),
    ];
    assert_eq!(
        seen,
        want.map(|(action, object, danger, count)| (action, object.to_owned(), danger, count))
    );
}

#[test]
fn replicas_and_bindings_are_compared_cluster_by_cluster() {
    let bound = |shares: &[(&str, i64)]| {
        let mut bindings = Bindings::default();
        for (cluster, share) in shares {
            bindings.clusters.insert((*cluster).into(), (*cluster).into());
            bindings
                .replicas
                .entry("apps/v1/Deployment/shop/web".into())
                .or_default()
                .insert((*cluster).into(), *share);
        }
        let state = SubscriptionState {
            bindings: bindings.into(),
            ..SubscriptionState::default()
        };
        State {
            subscriptions: BTreeMap::from([(("apps".to_owned(), "web".to_owned()), state)]),
            ..State::default()
        }
    };
    let impact = compare(
        &bound(&[("a", 2), ("b", 4), ("c", 1)]),
        &bound(&[("b", 3), ("c", 1), ("d", 3)]),
    );
    let moved: Vec<_> = impact.replicas[0]
        .clusters
        .iter()
        .map(|(cluster, from, to)| (&**cluster, *from, *to))
        .collect();
    assert_eq!(moved, [("a", Some(2), None), ("b", Some(4), Some(3)), ("d", None, Some(3))]);
    let binding = &impact.bindings[0];
    assert_eq!(
        (binding.subscription.as_str(), &*binding.joins[0], &*binding.leaves[0]),
        ("apps/web", "d", "a")
    );
    assert_eq!(impact.clusters(), BTreeSet::from(["a", "b", "d"]));
}

#[test]
fn a_diff_is_what_diff_writes() {
    let diff = unified(Some(("m.yaml", b"a: 1\nb: 2\n")), Some(("m.yaml", b"a: 1\nb: 3\n")));
    assert_eq!(diff, "--- a/m.yaml\n+++ b/m.yaml\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n");
    let created = unified(None, Some(("m.yaml", b"a: 1\n")));
    assert_eq!(created, "--- /dev/null\n+++ b/m.yaml\n@@ -0,0 +1 @@\n+a: 1\n");
    let lines = |first: &str, last: &str| format!("{first}\n2\n3\n4\n5\n6\n7\n8\n{last}");
    let far = unified(
        Some(("m", lines("a", "z").as_bytes())),
        Some(("m", lines("b", "y\n").as_bytes())),
    );
    let hunks = "@@ -1,4 +1,4 @@\n-a\n+b\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-z\n\\ No newline at end of file\n+y\n";
    assert_eq!(far, format!("--- a/m\n+++ b/m\n{hunks}"));
    let fifth = unified(Some(("m", b"1\n2\n3\n4\n5\n")), Some(("m", b"1\n2\n3\n4\nfive\n")));
    assert_eq!(fifth, "--- a/m\n+++ b/m\n@@ -2,4 +2,4 @@\n 2\n 3\n 4\n-5\n+five\n");
}

#[test]
fn a_diff_of_a_secret_says_that_it_differs() {
    let secret = |value: &str| format!("apiVersion: v1\ndata:\n  password: {value}\nkind: Secret\nmetadata:\n  name: s\n");
    let (old, new) = (secret("aHVudGVyMg=="), secret("c3dvcmRmaXNo"));
    let diff = unified(Some(("s.yaml", old.as_bytes())), Some(("s.yaml", new.as_bytes())));
    assert!(
        diff.contains("-  password: '*** (before)'") || diff.contains("-  password: \"*** (before)\""),
        "{diff}"
    );
    for side in [unified(Some(("s", old.as_bytes())), None), diff] {
        assert!(!side.contains("aHVudGVy") && !side.contains("c3dvcmRm"), "{side}");
    }
    let broken = unified(Some(("s", b"kind: [Secret\npassword: hunter2")), Some(("s", b"kind: [\n")));
    assert!(!broken.contains("hunter2"), "{broken}");
    // The namespace of a name says where an override moved it.
    let feed = feed(&key(3));
    assert_eq!(
        final_key(&feed, "manifests/configmap_moved_o3.yaml").namespace.unwrap(),
        "moved"
    );
}
