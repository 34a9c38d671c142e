//! What files below `hub/` grant, and what they keep granting when they break.

#![expect(clippy::unwrap_used, reason = "tests")]
use crate::core::access::User;
use crate::core::access::attributes::Attributes;
use crate::core::access::rbac::Policy;
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::index::{Access, ParseCache, Snapshot, access_objects, build, follow_access};
use crate::core::tree::{EntryMode, FileEntry, FileTree};
use crate::core::yaml::Limits;

const READERS: &str = "\
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules: [{apiGroups: [apps.clusternet.io], resources: [subscriptions], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{kind: User, name: alice, apiGroup: rbac.authorization.k8s.io}, {kind: ServiceAccount, name: web, namespace: shop}]
";

fn index(files: &[(&str, &str)]) -> (Snapshot, Vec<String>) {
    let entry = |text: &str| FileEntry {
        id: ObjectId::hash(ObjectKind::Blob, text.as_bytes()),
        mode: EntryMode::File,
        size: text.len() as u64,
    };
    let tree = FileTree {
        files: files.iter().map(|(path, text)| ((*path).to_owned(), entry(text))).collect(),
        ..FileTree::default()
    };
    let mut cache = ParseCache::default();
    let load = |id: ObjectId| {
        let found = files.iter().find(|(_, text)| entry(text).id == id).unwrap();
        Ok::<_, std::convert::Infallible>(found.1.as_bytes().to_vec())
    };
    cache.fill(&tree, &Limits::default(), load).unwrap();
    let (snapshot, diagnostics) = build(&tree, &cache, &Limits::default());
    (snapshot, diagnostics.iter().map(ToString::to_string).collect())
}

fn may_list(access: &Access, user: &str) -> bool {
    let list = Attributes::of_request("GET", "/apis/apps.clusternet.io/v1alpha1/subscriptions", "");
    let user = User {
        name: user.to_owned(),
        ..User::default()
    };
    Policy::new(&access_objects(access)).decide(&user, &list).is_some()
}

fn after(previous: &Access, files: &[(&str, &str)]) -> (Access, Vec<String>) {
    let (snapshot, mut found) = index(files);
    let (access, kept) = follow_access(previous, &snapshot.access);
    found.extend(kept.iter().map(ToString::to_string));
    (access, found)
}

#[test]
fn roles_and_bindings_grant_and_their_removal_takes_away() {
    let (access, found) = after(&Access::new(), &[("hub/access.yaml", READERS)]);
    assert_eq!(found, [""; 0]);
    assert!(may_list(&access, "alice") && may_list(&access, "system:serviceaccount:shop:web") && !may_list(&access, "bob"));
    let (access, _) = after(&access, &[("hub/other.yaml", ""), ("broken-feed.yaml", "a: [")]);
    assert!(
        !may_list(&access, "alice"),
        "a feed that does not parse keeps nobody's rights"
    );
}

#[test]
fn a_file_that_does_not_parse_neither_takes_nor_gives() {
    let (access, _) = after(&Access::new(), &[("hub/access.yaml", READERS)]);
    for broken in ["kind: [", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n"] {
        let (kept, found) = after(&access, &[("hub/access.yaml", broken)]);
        assert!(may_list(&kept, "alice"), "{broken}");
        assert!(
            found.iter().any(|line| line.contains("ClusterRoleBinding readers")),
            "{found:?}"
        );
    }
    let wider = READERS.replace(
        "resources: [subscriptions]",
        "resources: [subscriptions], resourceName: [one]",
    );
    let (kept, found) = after(&access, &[("hub/access.yaml", &wider.replace("get, list", "'*'"))]);
    assert!(
        access_objects(&kept) == access_objects(&access),
        "what is misspelt is not taken for what it was not meant to say"
    );
    assert!(
        found[0].starts_with("hub/access.yaml:4: error: ") && found[0].contains("\"resourceName\""),
        "{found:?}"
    );
    let (fresh, _) = after(&Access::new(), &[("hub/access.yaml", &wider)]);
    assert!(!may_list(&fresh, "alice"));
}

#[test]
fn two_definitions_of_one_object_keep_what_was() {
    let (access, _) = after(&Access::new(), &[("hub/access.yaml", READERS)]);
    let (kept, found) = after(&access, &[("hub/access.yaml", READERS), ("hub/more.yaml", READERS)]);
    assert!(access_objects(&kept) == access_objects(&access));
    assert!(found[0].contains("more than once"), "{found:?}");
}

#[test]
fn what_kubernetes_would_refuse_is_refused_with_its_place() {
    let role =
        |rest: &str| format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {{name: a, namespace: b}}\n{rest}");
    let binding =
        |rest: &str| format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {{name: a}}\n{rest}");
    for (text, wanted) in [
        (role("rules: [{apiGroups: [''], resources: [pods]}]"), "/rules/0/verbs"),
        (role("rules: [{verbs: [get], resources: [pods]}]"), "/rules/0/apiGroups"),
        (role("rules: [{verbs: [get], apiGroups: ['']}]"), "/rules/0/resources"),
        (role("rules: [{verbs: [get], nonResourceURLs: ['/x']}]"), "use a ClusterRole"),
        (role("rules: {verbs: [get]}"), "/rules"),
        (role("aggregationRule: {}"), "aggregates nothing"),
        (role("").replace(", namespace: b", ""), "names none"),
        (role("").replace("/v1", "/v1beta1"), "/apiVersion"),
        (role("").replace("kind: Role", "kind: ClusterRole"), "has no namespace"),
        (binding("subjects: []"), "roleRef"),
        (binding("roleRef: {kind: Role, name: x}"), "/roleRef/kind"),
        (
            binding("roleRef: {kind: ClusterRole, name: x, apiGroup: apps}"),
            "/roleRef/apiGroup",
        ),
        (
            binding("roleRef: {kind: ClusterRole, name: x}\nsubjects: [{kind: Robot, name: a}]"),
            "/subjects/0/kind",
        ),
        (
            binding("roleRef: {kind: ClusterRole, name: x}\nsubjects: [{kind: ServiceAccount, name: a}]"),
            "/subjects/0/namespace",
        ),
        (
            binding("roleRef: {kind: ClusterRole, name: x}\nsubjects: [{kind: User, name: ''}]"),
            "/subjects/0/name",
        ),
        (binding("roleRef: {kind: ClusterRole, name: x}\nsubject: []"), "\"subject\""),
        (binding("roleRef: {kind: ClusterRole, name: x}"), "grants nothing"),
    ] {
        let (_, found) = index(&[("hub/a.yaml", &text)]);
        assert_eq!(found.len(), 1, "{text}\n{found:?}");
        assert!(
            found[0].starts_with("hub/a.yaml:") && found[0].contains(wanted),
            "{wanted}: {found:?}"
        );
    }
}
