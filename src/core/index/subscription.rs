//! Subscriptions from source objects: typed and checked. Places nothing.

use std::collections::HashMap;

use super::bundle::is_bundle;
use super::helm::is_chart;
use super::kinds::{DNS_HINT, invalid, placed, read_spec, unsupported};
use super::{Definition, Reading};
use crate::core::api::subscription::{
    DividingScheduling, DynamicDividing, Feed, PreferredSchedulingTerm, SubscriptionSpec, TopologySpreadConstraint,
};
use crate::core::api::{APPS_GROUP, BRANCHLINE_GROUP, CLUSTERS_GROUP};
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectKey, is_dns_name};
use crate::core::selector::{CLUSTER_NAME_LABEL, Selector};
use crate::core::taint::Toleration;

/// A Subscription that can be carried out.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Order among Subscriptions: higher is placed first.
    pub priority: i32,
    /// A cluster is chosen when any of these matches.
    pub subscribers: Vec<Subscriber>,
    /// Whether each subscriber is a group that takes as many clusters as it asks for.
    pub by_sub_group: bool,
    /// What each cluster gets of the replicas.
    pub strategy: Strategy,
    /// Taints that do not matter.
    pub tolerations: Vec<Toleration>,
    /// Feeds in order, each once.
    pub feeds: Vec<Feed>,
    /// Where it is defined.
    pub definition: Definition,
}

/// Some clusters and their share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Which clusters.
    pub selector: Selector,
    /// Share in Static dividing; where no subscriber states one all are 1, else a missing one is 0.
    pub weight: i64,
    /// With subgroups, how many clusters.
    pub clusters: usize,
}

/// What each cluster gets of the replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// All of them.
    Replication,
    /// A share by weight.
    Static,
    /// What fits.
    Dynamic(Dynamic),
}

/// How Dynamic dividing goes about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dynamic {
    /// Whether few clusters are filled instead of all by their room.
    pub binpack: bool,
    /// How evenly domains are used.
    pub constraints: Vec<SpreadConstraint>,
    /// Clusters that are filled first: weight and selector.
    pub preferred: Vec<(i64, Selector)>,
    /// Fewest clusters with a replica.
    pub min_clusters: usize,
    /// Most clusters.
    pub max_clusters: Option<usize>,
}

/// How evenly replicas are spread over the values of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConstraint {
    /// Largest difference between two domains.
    pub max_skew: i64,
    /// The label.
    pub key: String,
    /// Whether replicas that would break it are not placed at all.
    pub hard: bool,
    /// The pods that count; `None` means all.
    pub pods: Option<Selector>,
    /// With fewer domains the emptiest counts as empty.
    pub min_domains: usize,
}

impl Subscription {
    /// Whether replicas are divided.
    pub fn divides(&self) -> bool {
        self.strategy != Strategy::Replication
    }
}

/// A Subscription's checks: its definition, and what was found.
struct Reader<'a> {
    definition: &'a Definition,
    out: &'a mut Vec<Diagnostic>,
}

/// Reads a Subscription; one that cannot be carried out is held whole.
pub(super) fn read(key: &ObjectKey, definition: &Definition, out: &mut Vec<Diagnostic>) -> Reading<Subscription> {
    let before = out.len();
    let namespace = key.namespace.clone().unwrap_or_default();
    check_names(definition, &namespace, out);
    let read = read_spec::<SubscriptionSpec>(definition, out).and_then(|spec| {
        let mut reader = Reader { definition, out };
        reader.check_profile(&spec);
        let strategy = reader.strategy(&spec);
        let subscribers = reader.subscribers(&spec, &strategy);
        let tolerations = reader.tolerations(&spec);
        let feeds = read_feeds(&spec, definition, out);
        let clean = out[before..].iter().all(|diagnostic| !diagnostic.is_error());
        clean.then(|| Subscription {
            namespace: namespace.clone(),
            name: key.name.clone(),
            priority: spec.priority.unwrap_or_default(),
            subscribers,
            by_sub_group: spec.scheduling_by_sub_group == Some(true),
            strategy,
            tolerations,
            feeds,
            definition: definition.clone(),
        })
    });
    read.map_or(Reading::Unreadable, |subscription| Reading::Valid(subscription.into()))
}

/// Names become paths on the state branch and namespaces in clusters, so they follow Kubernetes' rules for both.
fn check_names(definition: &Definition, namespace: &str, out: &mut Vec<Diagnostic>) {
    if !is_dns_name(namespace, 63, false) {
        out.push(invalid(
            definition,
            "/metadata/namespace",
            format!("{namespace:?} is not a namespace name"),
            DNS_HINT,
        ));
    }
    // The state branch has a file `<name>.yaml` and may have a directory `<name>/` side by side.
    let name = definition.object.name();
    if !is_dns_name(name, 253, true) || name.ends_with(".yaml") {
        out.push(invalid(
            definition,
            "/metadata/name",
            format!("{name:?} is not a Subscription name"),
            DNS_HINT,
        ));
    }
}

const DYNAMIC: &str = "/spec/dividingScheduling/dynamicDividing";

impl Reader<'_> {
    fn refuse(&mut self, pointer: &str, message: impl Into<String>, hint: &str) {
        self.out.push(invalid(self.definition, pointer, message, hint));
    }

    /// A field that is right by itself and changes nothing.
    fn note(&mut self, code: &str, pointer: &str, message: &str) {
        let diagnostic = Diagnostic::warning(code, message).field(pointer).hint("take it out");
        self.out.push(self.definition.locate(diagnostic, pointer));
    }

    fn check_profile(&mut self, spec: &SubscriptionSpec) {
        if !matches!(spec.scheduler_name.as_deref(), None | Some("" | "default")) {
            let what = "a schedulerName other than default";
            self.out.push(unsupported(self.definition, "/spec/schedulerName", what));
        }
        let policy = spec.preemption_policy.as_deref();
        if !matches!(policy, None | Some("" | "PreemptLowerPriority" | "PreemptNever" | "Never")) {
            let message = format!("unknown preemptionPolicy {:?}", policy.unwrap_or_default());
            self.refuse("/spec/preemptionPolicy", message, "use PreemptLowerPriority or PreemptNever");
        }
    }

    fn strategy(&mut self, spec: &SubscriptionSpec) -> Strategy {
        let dividing = spec.dividing_scheduling.as_ref();
        match spec.scheduling_strategy.as_deref() {
            None | Some("" | "Replication") => {
                if dividing.is_some() {
                    let message = "dividingScheduling has no effect with Replication";
                    self.note("no-effect", "/spec/dividingScheduling", message);
                }
                Strategy::Replication
            }
            Some("Dividing") => dividing.map_or(Strategy::Static, |dividing| self.dividing(dividing)),
            Some(other) => {
                let message = format!("unknown schedulingStrategy {other:?}");
                self.refuse("/spec/schedulingStrategy", message, "use Replication or Dividing");
                Strategy::Replication
            }
        }
    }

    fn dividing(&mut self, dividing: &DividingScheduling) -> Strategy {
        match dividing.dividing_type.as_str() {
            "" | "Static" => {
                if dividing.dynamic_dividing.is_some() {
                    self.note("no-effect", DYNAMIC, "dynamicDividing has no effect with type Static");
                }
                Strategy::Static
            }
            "Dynamic" => Strategy::Dynamic(self.dynamic(&dividing.dynamic_dividing.clone().unwrap_or_default())),
            other => {
                let message = format!("unknown type {other:?}");
                self.refuse("/spec/dividingScheduling/type", message, "use Static or Dynamic");
                Strategy::Static
            }
        }
    }

    fn dynamic(&mut self, dynamic: &DynamicDividing) -> Dynamic {
        if !matches!(dynamic.strategy.as_str(), "" | "Spread" | "Binpack") {
            let message = format!("unknown strategy {:?}", dynamic.strategy);
            self.refuse(&format!("{DYNAMIC}/strategy"), message, "use Spread or Binpack");
        }
        let (min_clusters, max_clusters) = self.cluster_bounds(dynamic);
        let constraints = dynamic.topology_spread_constraints.iter().enumerate();
        let preferred = dynamic.preferred_clusters.iter().enumerate();
        Dynamic {
            binpack: dynamic.strategy == "Binpack",
            constraints: constraints.filter_map(|(index, spec)| self.constraint(index, spec)).collect(),
            preferred: preferred.filter_map(|(index, spec)| self.preference(index, spec)).collect(),
            min_clusters,
            max_clusters,
        }
    }

    fn cluster_bounds(&mut self, dynamic: &DynamicDividing) -> (usize, Option<usize>) {
        let min = usize::try_from(dynamic.min_clusters.unwrap_or_default());
        if min.is_err() {
            self.refuse(&format!("{DYNAMIC}/minClusters"), "minClusters is negative", "use 0 or more");
        }
        let max = dynamic.max_clusters.map(|max| usize::try_from(max).unwrap_or_default());
        let min = min.unwrap_or_default();
        if max == Some(0) {
            self.refuse(&format!("{DYNAMIC}/maxClusters"), "maxClusters is below 1", "use 1 or more");
        } else if max.is_some_and(|max| max < min) {
            let message = format!("minClusters {min} is above maxClusters {}", max.unwrap_or_default());
            self.refuse(&format!("{DYNAMIC}/minClusters"), message, "lower one or raise the other");
        }
        (min, max)
    }

    fn constraint(&mut self, index: usize, spec: &TopologySpreadConstraint) -> Option<SpreadConstraint> {
        let pointer = format!("{DYNAMIC}/topologySpreadConstraints/{index}");
        let before = self.out.len();
        if spec.max_skew < 1 {
            self.refuse(&format!("{pointer}/maxSkew"), "maxSkew is below 1", "use 1 or more");
        }
        if spec.topology_key.is_empty() {
            let hint = "name a label of the ManagedClusters";
            self.refuse(&format!("{pointer}/topologyKey"), "topologyKey is empty", hint);
        }
        if !matches!(spec.when_unsatisfiable.as_str(), "DoNotSchedule" | "ScheduleAnyway") {
            let message = format!("unknown whenUnsatisfiable {:?}", spec.when_unsatisfiable);
            let hint = "use DoNotSchedule or ScheduleAnyway";
            self.refuse(&format!("{pointer}/whenUnsatisfiable"), message, hint);
        }
        let hard = spec.when_unsatisfiable == "DoNotSchedule";
        if spec.min_domains.is_some_and(|domains| domains < 1 || !hard) {
            let message = "minDomains is 1 or more, and only with DoNotSchedule";
            self.refuse(&format!("{pointer}/minDomains"), message, "correct or remove it");
        }
        let pods = self.selector(
            &format!("{pointer}/labelSelector"),
            spec.label_selector.as_ref().map(Selector::parse),
        );
        if self.out.len() > before {
            return None;
        }
        self.note_node_fields(&pointer, spec);
        Some(SpreadConstraint {
            max_skew: i64::from(spec.max_skew),
            key: spec.topology_key.clone(),
            hard,
            pods,
            min_domains: usize::try_from(spec.min_domains.unwrap_or(1)).unwrap_or(1),
        })
    }

    fn note_node_fields(&mut self, pointer: &str, spec: &TopologySpreadConstraint) {
        for (field, stated) in [
            ("nodeAffinityPolicy", spec.node_affinity_policy.is_some()),
            ("nodeTaintsPolicy", spec.node_taints_policy.is_some()),
            ("matchLabelKeys", !spec.match_label_keys.is_empty()),
        ] {
            if stated {
                let message = format!("{field} is about nodes and has no effect on clusters");
                self.note("no-effect", &format!("{pointer}/{field}"), &message);
            }
        }
    }

    fn selector(
        &mut self,
        pointer: &str,
        read: Option<Result<Selector, crate::core::selector::InvalidSelector>>,
    ) -> Option<Selector> {
        read.transpose().unwrap_or_else(|error| {
            self.refuse(&format!("{pointer}{}", error.pointer), error.message, "correct the selector");
            None
        })
    }

    fn preference(&mut self, index: usize, spec: &PreferredSchedulingTerm) -> Option<(i64, Selector)> {
        let pointer = format!("{DYNAMIC}/preferredClusters/{index}");
        if !(1..=100).contains(&spec.weight) {
            let message = format!("weight {} is out of range", spec.weight);
            self.refuse(&format!("{pointer}/weight"), message, "use 1 to 100");
        }
        let term = Selector::parse_term(&spec.preference, CLUSTER_NAME_LABEL);
        let selector = self.selector(&format!("{pointer}/preference"), Some(term))?;
        Some((i64::from(spec.weight), selector))
    }

    fn subscribers(&mut self, spec: &SubscriptionSpec, strategy: &Strategy) -> Vec<Subscriber> {
        if spec.subscribers.is_empty() {
            let message = "no subscribers, so no cluster can be chosen";
            self.refuse("/spec/subscribers", message, "add one with a clusterAffinity");
        }
        self.check_weights(spec, strategy);
        let missing = i64::from(spec.subscribers.iter().all(|subscriber| subscriber.weight.is_none()));
        let mut subscribers = Vec::new();
        for (index, subscriber) in spec.subscribers.iter().enumerate() {
            let pointer = format!("/spec/subscribers/{index}");
            let clusters = self.group_size(spec, index);
            let parsed = Selector::parse(&subscriber.cluster_affinity);
            let selector = self.selector(&format!("{pointer}/clusterAffinity"), Some(parsed));
            subscribers.extend(selector.map(|selector| Subscriber {
                selector,
                weight: subscriber.weight.map_or(missing, i64::from),
                clusters,
            }));
        }
        subscribers
    }

    fn check_weights(&mut self, spec: &SubscriptionSpec, strategy: &Strategy) {
        let mut stated = Vec::new();
        for (index, subscriber) in spec.subscribers.iter().enumerate() {
            let pointer = format!("/spec/subscribers/{index}/weight");
            match subscriber.weight {
                Some(weight) if weight < 0 => {
                    self.refuse(&pointer, format!("weight {weight} is negative"), "use 0 or more");
                }
                Some(_) if *strategy == Strategy::Replication => {
                    self.note("weight-without-dividing", &pointer, "a weight has no effect with Replication");
                }
                Some(_) if *strategy != Strategy::Static => {
                    self.note("no-effect", &pointer, "a weight has no effect with Dynamic dividing");
                }
                Some(weight) => stated.push((pointer, weight)),
                None => {}
            }
        }
        if let Some((pointer, _)) = stated.first().filter(|_| stated.iter().all(|(_, weight)| *weight == 0)) {
            let message = "all weights are 0, so nothing can be divided";
            self.refuse(
                pointer,
                message,
                "give one subscriber a weight, or state none: then all are 1",
            );
        }
    }

    fn group_size(&mut self, spec: &SubscriptionSpec, index: usize) -> usize {
        let pointer = format!("/spec/subscribers/{index}/subGroupStrategy");
        match (
            &spec.subscribers[index].sub_group_strategy,
            spec.scheduling_by_sub_group == Some(true),
        ) {
            (None, true) => {
                let message = "schedulingBySubGroup needs a subGroupStrategy in every subscriber";
                self.refuse(&pointer, message, "add subGroupStrategy: {minClusters: N}");
                0
            }
            (Some(_), false) => {
                self.note(
                    "no-effect",
                    &pointer,
                    "subGroupStrategy has no effect without schedulingBySubGroup: true",
                );
                0
            }
            (Some(group), true) => usize::try_from(group.min_clusters).unwrap_or_else(|_| {
                self.refuse(&format!("{pointer}/minClusters"), "minClusters is negative", "use 0 or more");
                0
            }),
            (None, false) => 0,
        }
    }

    fn tolerations(&mut self, spec: &SubscriptionSpec) -> Vec<Toleration> {
        let mut tolerations = Vec::new();
        for (index, toleration) in spec.cluster_tolerations.iter().enumerate() {
            let pointer = format!("/spec/clusterTolerations/{index}");
            if toleration.toleration_seconds.is_some() {
                let message = "tolerationSeconds has no effect: the taint is tolerated for as long as it stands";
                self.note("no-effect", &format!("{pointer}/tolerationSeconds"), message);
            }
            match Toleration::parse(toleration) {
                Ok(toleration) => tolerations.push(toleration),
                Err(error) => self.refuse(&format!("{pointer}/{}", error.field), error.message, "correct the toleration"),
            }
        }
        tolerations
    }
}

fn read_feeds(spec: &SubscriptionSpec, definition: &Definition, out: &mut Vec<Diagnostic>) -> Vec<Feed> {
    let mut feeds: Vec<Feed> = Vec::new();
    let mut first: HashMap<ObjectKey, usize> = HashMap::new();
    for (index, feed) in spec.feeds.iter().enumerate() {
        let pointer = format!("/spec/feeds/{index}");
        let feed = placed(feed);
        if let Some((message, hint)) = feed_problem(&feed, definition) {
            out.push(invalid(definition, &pointer, message, hint));
        } else if let Some(before) = first.get(&feed.key()) {
            let message = format!("{feed} is listed twice, first at /spec/feeds/{before}; it is delivered once");
            let diagnostic = Diagnostic::warning("duplicate-feed", message).field(&*pointer);
            out.push(definition.locate(diagnostic.hint("list it once"), &pointer));
        } else {
            first.insert(feed.key(), index);
            feeds.push(feed);
        }
    }
    feeds
}

/// Why something cannot be a feed at all, and what to do.
fn feed_problem(feed: &Feed, definition: &Definition) -> Option<(String, &'static str)> {
    let parts = [("apiVersion", &feed.api_version), ("kind", &feed.kind), ("name", &feed.name)];
    if let Some((field, _)) = parts.iter().find(|(_, text)| text.is_empty()) {
        return Some((
            format!("{field} of the feed is empty"),
            "name one object by apiVersion, kind and name",
        ));
    }
    let key = feed.key();
    let of_fleet = [APPS_GROUP, CLUSTERS_GROUP, BRANCHLINE_GROUP].contains(&key.group.as_str());
    if !of_fleet || is_chart(&key) || is_bundle(&key) {
        return None;
    }
    let hint = "take it out; feeds are the objects that clusters get, HelmCharts and Bundles";
    Some(match key == super::identity(&definition.object) {
        true => ("a Subscription cannot deliver itself".to_owned(), hint),
        false => (format!("a {} configures the hub and cannot be a feed", key.kind), hint),
    })
}
