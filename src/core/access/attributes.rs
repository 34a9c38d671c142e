//! What a request asks for, as kube-apiserver's `RequestInfo` reads it from method, path and query: the form in which RBAC decides.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::User;
use super::rbac::Policy;
use crate::core::api::{BRANCHLINE_GROUP, PROXIES_GROUP};
use crate::core::ids::ClusterId;
use crate::core::request_query::{FieldSelector, Query};
use crate::core::state::registrations::{Decision, Registration, Registrations};

/// One request: a verb on something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; the method in lower case for other paths.
    pub verb: String,
    /// What it is about.
    pub target: Target,
}

/// What a request is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A resource.
    Resource(ResourceAttributes),
    /// A path that is no resource.
    Path(String),
}

/// A resource as RBAC sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResourceAttributes {
    /// API group, empty for the core group.
    pub group: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Plural name.
    pub resource: String,
    /// For example `status`, `exec`.
    pub subresource: Option<String>,
    /// Object name.
    pub name: Option<String>,
    /// Another name by which rules may call the same object: a cluster has an id and a name.
    pub alias: Option<String>,
}

impl ResourceAttributes {
    /// Whether a rule that lists this name means this object.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) || self.alias.as_deref() == Some(name)
    }

    /// `pods`, `pods/exec`.
    pub fn qualified(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }
}

/// A cluster as rules may name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterNames {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its dedicated namespace, if it has one.
    pub namespace: Option<String>,
}

impl ClusterNames {
    /// Those of a cluster that is registered.
    pub fn of(known: &Registration) -> Self {
        ClusterNames {
            id: known.cluster_id.to_string(),
            name: known.cluster_name.clone(),
            namespace: Some(known.dedicated_namespace.clone()),
        }
    }

    /// A cluster that nobody knows, by the word with which it was asked for.
    pub fn unknown(asked: &str) -> Self {
        ClusterNames {
            id: asked.to_owned(),
            name: asked.to_owned(),
            namespace: None,
        }
    }

    /// A cluster chooses its name itself, so a name that looks like an id names nothing here.
    fn alias(&self) -> Option<String> {
        let is_id = self.name.parse::<ClusterId>().is_ok();
        (!is_id && self.name != self.id).then(|| self.name.clone())
    }

    /// Those of the cluster of the fleet that a word means.
    pub fn find(registrations: &Registrations, word: &str) -> Option<Self> {
        let known = registrations.called(word);
        known
            .filter(|known| known.decision == Decision::Approved)
            .map(ClusterNames::of)
    }

    fn socket_resource(&self) -> ResourceAttributes {
        ResourceAttributes {
            group: PROXIES_GROUP.to_owned(),
            resource: "sockets".to_owned(),
            subresource: Some("proxy".to_owned()),
            name: Some(self.id.clone()),
            alias: self.alias(),
            namespace: None,
        }
    }

    fn virtual_resource(&self) -> ResourceAttributes {
        ResourceAttributes {
            group: BRANCHLINE_GROUP.to_owned(),
            resource: "clusters".to_owned(),
            namespace: self.namespace.clone(),
            ..self.socket_resource()
        }
    }

    /// What stands for this cluster, as requests for it are decided on, in place of what somebody calls so who asks about it.
    pub fn standing_for(&self, asked: &ResourceAttributes) -> Option<ResourceAttributes> {
        let of_same_kind = |own: &ResourceAttributes| own.group == asked.group && own.qualified() == asked.qualified();
        [self.socket_resource(), self.virtual_resource()]
            .into_iter()
            .find(of_same_kind)
    }

    /// The right to send such a request to this cluster, in Clusternet's words: `sockets/proxy`, the verb by the method.
    pub fn socket(&self, request: &ProxiedRequest<'_>) -> Attributes {
        let verb = if request.hands_over() {
            "create"
        } else {
            verb_of_method(request.method)
        };
        Attributes {
            verb: verb.to_owned(),
            target: Target::Resource(self.socket_resource()),
        }
    }

    /// What lets a request for this cluster in; any of it is enough. Who may read there may also ask there about itself.
    pub fn rights(&self, request: &ProxiedRequest<'_>) -> Vec<Attributes> {
        let mut rights = vec![self.socket(request), self.virtual_cluster(request)];
        if request.asks_about_its_sender() {
            rights.extend([self.socket_resource(), self.virtual_resource()].map(|resource| Attributes {
                verb: "get".to_owned(),
                target: Target::Resource(resource),
            }));
        }
        rights
    }

    /// Whether anything at all that could be sent to this cluster is let through.
    pub fn reachable_by(&self, user: &User, policy: &Policy) -> bool {
        const POD: &str = "/api/v1/namespaces/x/pods/x";
        const PODS: &str = "/api/v1/pods";
        let anything = [
            ("GET", POD),
            ("GET", PODS),
            ("GET", "/api/v1/pods?watch=1"),
            ("POST", PODS),
            ("PUT", POD),
            ("PATCH", POD),
            ("DELETE", POD),
            ("DELETE", PODS),
        ];
        anything.iter().any(|&(method, target)| {
            let upgrade = false;
            let request = ProxiedRequest { method, target, upgrade };
            let rights = [self.socket(&request), self.virtual_cluster(&request)];
            rights.iter().any(|right| policy.decide(user, right).is_some())
        })
    }

    /// The same right as a virtual resource, `clusters/proxy` of group `branchline.io`: the verb is what the request does in the cluster. It
    /// is in the cluster's dedicated namespace, so that a RoleBinding there can grant it.
    pub fn virtual_cluster(&self, request: &ProxiedRequest<'_>) -> Attributes {
        let verb = match request.attributes() {
            _ if request.hands_over() => "create".to_owned(),
            Attributes {
                verb,
                target: Target::Resource(_),
            } => verb,
            Attributes {
                target: Target::Path(_), ..
            } => verb_of_method(request.method).to_owned(),
        };
        Attributes {
            verb,
            target: Target::Resource(self.virtual_resource()),
        }
    }
}

/// A request for a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProxiedRequest<'a> {
    /// Its method.
    pub method: &'a str,
    /// Path and query at the cluster.
    pub target: &'a str,
    /// Whether it asks to take the connection over.
    pub upgrade: bool,
}

impl ProxiedRequest<'_> {
    /// What it asks of the cluster.
    pub fn attributes(&self) -> Attributes {
        let (path, query) = self.target.split_once('?').unwrap_or((self.target, ""));
        Attributes::of_request(self.method, path, query)
    }

    /// Whether it asks the cluster who its sender is or what that one may do there. It changes nothing although it is a POST, and a cluster lets
    /// everybody ask (its ClusterRole `system:basic-user`); k9s shows nothing without the answer.
    fn asks_about_its_sender(&self) -> bool {
        const QUESTIONS: [(&str, &str); 3] = [
            ("authentication.k8s.io", "selfsubjectreviews"),
            ("authorization.k8s.io", "selfsubjectaccessreviews"),
            ("authorization.k8s.io", "selfsubjectrulesreviews"),
        ];
        let attributes = self.attributes();
        let Target::Resource(about) = &attributes.target else {
            return false;
        };
        let is_whole = about.namespace.is_none() && about.name.is_none() && about.subresource.is_none();
        let is_question = QUESTIONS.contains(&(about.group.as_str(), about.resource.as_str()));
        attributes.verb == "create" && !self.upgrade && is_whole && is_question
    }

    /// exec, attach and port-forward may do anything, though websocket clients ask with GET; a watch over a websocket may not.
    fn hands_over(&self) -> bool {
        self.upgrade && self.attributes().verb != "watch"
    }
}

/// `get` for GET and HEAD, `create` for POST and so on; empty for methods that Kubernetes has no verb for.
fn verb_of_method(method: &str) -> &'static str {
    match method {
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

impl Attributes {
    /// Reads a request (k8s.io/apiserver, `RequestInfoFactory.NewRequestInfo`).
    pub fn of_request(method: &str, path: &str, query: &str) -> Self {
        let decoded = percent_decode_str(path).decode_utf8_lossy().into_owned();
        let parts: Vec<&str> = decoded.split('/').filter(|part| !part.is_empty()).collect();
        let resource = match parts.as_slice() {
            ["api", _, rest @ ..] if !rest.is_empty() => of_resource("", rest, method, query),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => of_resource(group, rest, method, query),
            _ => None,
        };
        resource.unwrap_or_else(|| Attributes {
            verb: method.to_ascii_lowercase(),
            target: Target::Path(decoded),
        })
    }

    /// A verb on a resource of the whole server.
    pub fn cluster_scoped(verb: &str, group: &str, resource: &str, name: &str) -> Self {
        Attributes {
            verb: verb.to_owned(),
            target: Target::Resource(ResourceAttributes {
                group: group.to_owned(),
                resource: resource.to_owned(),
                name: Some(name.to_owned()),
                ..ResourceAttributes::default()
            }),
        }
    }

    /// The namespace in which it is, if it is in one.
    pub fn namespace(&self) -> Option<&str> {
        match &self.target {
            Target::Resource(resource) => resource.namespace.as_deref(),
            Target::Path(_) => None,
        }
    }

    /// In kube-apiserver's words, for a 403: `sockets.proxies.clusternet.io "x" is forbidden: User "alice" cannot get …`.
    pub fn forbidden_to(&self, user: &str) -> String {
        let Target::Resource(resource) = &self.target else {
            return format!("forbidden: User {user:?} cannot {self}");
        };
        let qualified = match resource.group.as_str() {
            "" => resource.resource.clone(),
            group => format!("{}.{group}", resource.resource),
        };
        match &resource.name {
            Some(name) => format!("{qualified} {name:?} is forbidden: User {user:?} cannot {self}"),
            None => format!("{qualified} is forbidden: User {user:?} cannot {self}"),
        }
    }
}

impl Attributes {
    /// A rule of a role that would grant this and nothing else, as YAML in one line.
    pub fn rule_that_grants(&self) -> String {
        match &self.target {
            Target::Path(path) => format!("{{nonResourceURLs: [{path:?}], verbs: [{:?}]}}", self.verb),
            Target::Resource(resource) => {
                let name = resource.alias.as_ref().or(resource.name.as_ref());
                let names = name.filter(|_| self.verb != "create" || resource.subresource.is_some());
                let names = names.map_or(String::new(), |name| format!("resourceNames: [{name:?}], "));
                let (group, what, verb) = (&resource.group, resource.qualified(), &self.verb);
                format!("{{apiGroups: [{group:?}], resources: [{what:?}], {names}verbs: [{verb:?}]}}")
            }
        }
    }
}

impl fmt::Display for Attributes {
    /// `get resource "sockets/proxy" in API group "proxies.clusternet.io" at the cluster scope`, `get path "/metrics"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Path(path) => write!(f, "{} path {path:?}", self.verb),
            Target::Resource(resource) => {
                let (what, group) = (resource.qualified(), &resource.group);
                write!(f, "{} resource {what:?} in API group {group:?} ", self.verb)?;
                match &resource.namespace {
                    Some(namespace) => write!(f, "in the namespace {namespace:?}"),
                    None => f.write_str("at the cluster scope"),
                }
            }
        }
    }
}

/// What follows group and version; `None` where only the deprecated prefixes stand.
fn of_resource(group: &str, parts: &[&str], method: &str, query: &str) -> Option<Attributes> {
    let (mut verb, parts) = match parts {
        // The old forms of watch and proxy, which kube-apiserver still reads.
        [special @ ("watch" | "proxy"), rest @ ..] => (Some(*special), rest),
        parts => (None, parts),
    };
    let (namespace, parts) = match parts {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() && !["status", "finalize"].contains(&rest[0]) => {
            (Some(*namespace), rest)
        }
        ["namespaces", namespace, ..] => (Some(*namespace), parts),
        parts => (None, parts),
    };
    let (resource, rest) = parts.split_first()?;
    let mut name = rest.first().map(|name| (*name).to_owned());
    let subresource = rest.get(1).filter(|_| verb != Some("proxy"));
    if verb.is_none() {
        let query = Query::parse(query);
        let on = verb_on(method, name.is_some(), &query);
        // A write is about what its path and body name, whatever it selects.
        name = name.or_else(|| ["list", "watch"].contains(&on).then(|| selected_name(&query)).flatten());
        verb = Some(on);
    }
    Some(Attributes {
        verb: verb.unwrap_or_default().to_owned(),
        target: Target::Resource(ResourceAttributes {
            group: group.to_owned(),
            namespace: namespace.map(str::to_owned),
            resource: (*resource).to_owned(),
            subresource: subresource.map(|subresource| (*subresource).to_owned()),
            name,
            alias: None,
        }),
    })
}

fn verb_on(method: &str, named: bool, query: &Query) -> &'static str {
    match verb_of_method(method) {
        "get" if !named && query.flag("watch") => "watch",
        "get" if !named => "list",
        "delete" if !named => "deletecollection",
        verb => verb,
    }
}

/// A list that selects one name is about that name.
fn selected_name(query: &Query) -> Option<String> {
    let selector = FieldSelector::parse(query.get("fieldSelector")?).ok()?;
    selector
        .exact("metadata.name")
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: &str) -> String {
        let (method, target) = request.split_once(' ').unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let attributes = Attributes::of_request(method, path, query);
        match &attributes.target {
            Target::Path(path) => format!("{} {path}", attributes.verb),
            Target::Resource(resource) => format!(
                "{} {}|{}|{}|{}",
                attributes.verb,
                resource.group,
                resource.namespace.as_deref().unwrap_or_default(),
                resource.qualified(),
                resource.name.as_deref().unwrap_or_default()
            ),
        }
    }

    /// Cases of k8s.io/apiserver/pkg/endpoints/request/requestinfo_test.go among them.
    #[test]
    fn requests_are_read_as_kube_apiserver_reads_them() {
        for (request, wanted) in [
            ("GET /api/v1/namespaces", "list ||namespaces|"),
            ("GET /api/v1/namespaces/other", "get |other|namespaces|other"),
            ("GET /api/v1/namespaces/other/pods", "list |other|pods|"),
            ("GET /api/v1/namespaces/other/pods/foo", "get |other|pods|foo"),
            ("HEAD /api/v1/namespaces/other/pods/foo", "get |other|pods|foo"),
            ("GET /api/v1/pods", "list ||pods|"),
            ("GET /api/v1/pods?watch=true", "watch ||pods|"),
            ("GET /api/v1/pods?watch=False", "list ||pods|"),
            ("GET /api/v1/pods?fieldSelector=metadata.name%3Dx&watch=1", "watch ||pods|x"),
            (
                "GET /api/v1/pods?fieldSelector=&fieldSelector=metadata.name%3Dx",
                "list ||pods|",
            ),
            (
                "GET /api/v1/pods?%66ieldSelector=a%3Db&fieldSelector=metadata.name%3Dx",
                "list ||pods|",
            ),
            ("GET /api/v1/pods?fieldSelector=a!%3Db%5C,metadata.name%3Dx", "list ||pods|"),
            ("POST /api/v1/pods?fieldSelector=metadata.name%3Dx", "create ||pods|"),
            (
                "DELETE /api/v1/pods?fieldSelector=metadata.name%3Dx",
                "deletecollection ||pods|",
            ),
            ("GET /api/v1/pods?w%61tch=1&watch=0", "watch ||pods|"),
            (
                "POST /api/v1/namespaces/other/pods/foo/exec?command=x",
                "create |other|pods/exec|foo",
            ),
            ("GET /api/v1/namespaces/other/pods/foo/proxy/a/b", "get |other|pods/proxy|foo"),
            (
                "PUT /api/v1/namespaces/other/finalize",
                "update |other|namespaces/finalize|other",
            ),
            ("DELETE /api/v1/namespaces/other/pods", "deletecollection |other|pods|"),
            ("DELETE /api/v1/namespaces/other/pods/foo", "delete |other|pods|foo"),
            (
                "PATCH /apis/apps/v1/namespaces/a/deployments/b/scale",
                "patch apps|a|deployments/scale|b",
            ),
            ("GET /api/v1/watch/namespaces/other/pods", "watch |other|pods|"),
            ("GET /apis/apps/v1", "get /apis/apps/v1"),
            ("GET /api/v1", "get /api/v1"),
            ("POST /version", "post /version"),
            ("GET /", "get /"),
            ("GET /apis/branchline.io/v1alpha1/status", "list branchline.io||status|"),
            (
                "POST /apis/branchline.io/v1alpha1/clusters/a/approve",
                "create branchline.io||clusters/approve|a",
            ),
        ] {
            assert_eq!(read(request), wanted, "{request}");
        }
    }

    #[test]
    fn a_request_for_a_cluster_is_a_right_on_its_socket_and_on_the_cluster() {
        let cluster = ClusterNames {
            id: "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".to_owned(),
            name: "edge-1".to_owned(),
            namespace: Some("clusternet-edge-1".to_owned()),
        };
        for (method, target, upgrade, socket, virtual_verb) in [
            ("GET", "/api/v1/pods", false, "get", "list"),
            ("GET", "/api/v1/pods?watch=1", true, "get", "watch"),
            ("GET", "/api/v1/namespaces/a/pods/b/exec?command=sh", true, "create", "create"),
            (
                "POST",
                "/api/v1/namespaces/a/pods/b/exec?command=sh",
                true,
                "create",
                "create",
            ),
            ("DELETE", "/api/v1/pods", false, "delete", "deletecollection"),
            ("GET", "/version", false, "get", "get"),
            ("TRACE", "/version", false, "", ""),
        ] {
            let request = ProxiedRequest { method, target, upgrade };
            assert_eq!(cluster.socket(&request).verb, socket, "{method} {target}");
            assert_eq!(cluster.virtual_cluster(&request).verb, virtual_verb, "{method} {target}");
        }
    }

    #[test]
    fn who_may_read_may_ask_about_itself() {
        let cluster = ClusterNames::unknown("edge-1");
        let verbs = |method, target, upgrade| {
            let rights = cluster.rights(&ProxiedRequest { method, target, upgrade });
            rights.into_iter().map(|right| right.verb).collect::<Vec<_>>().join(" ")
        };
        let question = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        assert_eq!(verbs("POST", question, false), "create create get get");
        for (method, target, upgrade) in [
            ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", false),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews/x", false),
            (
                "POST",
                "/apis/authorization.k8s.io/v1/namespaces/a/selfsubjectaccessreviews",
                false,
            ),
            ("POST", "/apis/example.com/v1/selfsubjectaccessreviews", false),
            ("POST", "/api/v1/selfsubjectaccessreviews", false),
            ("POST", question, true),
            ("DELETE", question, false),
        ] {
            assert!(!verbs(method, target, upgrade).contains("get"), "{method} {target}");
        }
    }

    #[test]
    fn refusals_read_as_kubernetes_says_them() {
        let request = ProxiedRequest {
            method: "GET",
            target: "/api",
            upgrade: false,
        };
        let socket = ClusterNames::unknown("edge-1").socket(&request);
        assert_eq!(
            socket.forbidden_to("alice"),
            "sockets.proxies.clusternet.io \"edge-1\" is forbidden: User \"alice\" cannot get resource \"sockets/proxy\" in API group \
             \"proxies.clusternet.io\" at the cluster scope"
        );
        let pods = Attributes::of_request("GET", "/api/v1/namespaces/a/pods", "");
        assert_eq!(
            pods.forbidden_to("bob"),
            "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"a\""
        );
        let path = Attributes::of_request("GET", "/metrics", "");
        assert_eq!(
            path.forbidden_to("bob"),
            "forbidden: User \"bob\" cannot get path \"/metrics\""
        );
    }

    #[test]
    fn a_cluster_that_calls_itself_by_an_id_gets_no_rights_by_it() {
        let id = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";
        let cluster = ClusterNames {
            id: "other".to_owned(),
            name: id.to_owned(),
            namespace: None,
        };
        assert_eq!(cluster.alias(), None);
    }
}
