//! What a Subscription's feeds ask for: how many replicas there are to divide, where the number stands, what one replica needs. Known for
//! Deployments, ReplicaSets and StatefulSets; a FeedInventory says it for any other kind. Divides nothing.
//!
//! The total is that of the source object, before any override, as in Clusternet.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::bundle::{feed_of, is_bundle};
use super::kinds::{invalid, read_spec};
use super::{Definition, Reading, Snapshot, Subscription};
use crate::core::api::subscription::{Feed, FeedInventorySpec, FeedOrder};
use crate::core::conceal::is_secret;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;
use crate::core::object::Object;
use crate::core::quantity::Quantity;
use crate::core::room::NodeRules;
use crate::core::selector::Labels;

/// Replicas of one feed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Workload {
    /// How many are divided.
    pub total: i64,
    /// JSON pointer at which a cluster's share is written.
    pub pointer: String,
    /// What one replica requests.
    pub requests: BTreeMap<String, Quantity>,
    /// What one replica asks of its node, in the source object as everything here.
    pub nodes: NodeRules,
    /// Labels of its pods.
    pub pod_labels: Labels,
}

/// What a feed asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Every cluster gets it as it is.
    Whole,
    /// Its replicas are divided.
    Divided(Arc<Workload>),
    /// It cannot be seen at the moment, so what was decided stays.
    Unknown,
}

/// A Subscription's feeds, in order, by their key in `status.replicas`.
pub type Demands = Vec<(Arc<str>, Demand)>;

/// What people say about feeds whose kind is not known by itself.
#[derive(Debug, Clone)]
pub struct FeedInventory {
    orders: BTreeMap<ObjectKey, Order>,
    definition: Definition,
}

#[derive(Debug, Clone)]
struct Order {
    index: usize,
    total: Option<i64>,
    pointer: String,
    requests: BTreeMap<String, Quantity>,
    nodes: NodeRules,
}

/// Reads a FeedInventory; one that cannot be carried out holds its Subscription.
pub(super) fn read(definition: &Definition, out: &mut Vec<Diagnostic>) -> Reading<FeedInventory> {
    let before = out.len();
    let read = read_spec::<FeedInventorySpec>(definition, out).map(|spec| {
        let orders = spec.feeds.iter().enumerate();
        let orders = orders.filter_map(|(index, order)| read_order(index, order, definition, out));
        orders.collect()
    });
    let orders = read.filter(|_| out.len() == before);
    orders.map_or(Reading::Unreadable, |orders| {
        let definition = definition.clone();
        Reading::Valid(FeedInventory { orders, definition }.into())
    })
}

fn read_order(index: usize, order: &FeedOrder, definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<(ObjectKey, Order)> {
    let pointer = format!("/spec/feeds/{index}");
    let mut refuse = |field: &str, message: String, hint: &str| {
        out.push(invalid(definition, &format!("{pointer}/{field}"), message, hint));
    };
    let total = order.desired_replicas.map(i64::from);
    if total.is_some_and(|total| total < 0) {
        refuse("desiredReplicas", "desiredReplicas is negative".to_owned(), "use 0 or more");
    }
    let path = &order.replica_json_path;
    if total.is_some() && path.is_empty() {
        let message = "desiredReplicas without replicaJsonPath: nobody knows where the share is written";
        refuse("replicaJsonPath", message.to_owned(), "for example /spec/replicas");
    } else if !path.is_empty() && !path.starts_with('/') {
        refuse(
            "replicaJsonPath",
            format!("{path:?} is not a JSON pointer"),
            "for example /spec/replicas",
        );
    }
    let resources = &order.replica_requirements.resources;
    let stated = resources.limits.iter().chain(&resources.requests);
    let mut requests = BTreeMap::new();
    for (name, value) in stated {
        match quantity(value) {
            Some(amount) => drop(requests.insert(name.clone(), amount)),
            None => refuse(
                "replicaRequirements/resources",
                format!("{value} is not a quantity"),
                "for example 500m or 1Gi",
            ),
        }
    }
    let affinity = order.replica_requirements.affinity.clone().unwrap_or_default();
    let affinity = NodeRules::read(&serde_json::json!({"affinity": affinity}));
    let affinity = affinity.unwrap_or_else(|(_, message)| {
        refuse("replicaRequirements/affinity", message, "write it as in a pod's spec");
        NodeRules::default()
    });
    let feed = Feed {
        api_version: order.api_version.clone(),
        kind: order.kind.clone(),
        namespace: order.namespace.clone(),
        name: order.name.clone(),
    };
    let pointer = path.clone();
    Some((
        feed.key(),
        Order {
            index,
            total,
            pointer,
            requests,
            nodes: NodeRules {
                node_selector: order.replica_requirements.node_selector.clone(),
                tolerations: order.replica_requirements.tolerations.clone(),
                ..affinity
            },
        },
    ))
}

/// Reports FeedInventories that belong to no Subscription.
pub(super) fn check_owners(snapshot: &Snapshot, out: &mut Vec<Diagnostic>) {
    let orphans = snapshot
        .inventories
        .iter()
        .filter(|(key, _)| !snapshot.subscriptions.contains_key(*key));
    for inventory in orphans.filter_map(|(_, reading)| reading.valid()) {
        let message = "no Subscription has this namespace and name, so the FeedInventory says nothing";
        let diagnostic = Diagnostic::warning("inventory-without-subscription", message).field("/metadata/name");
        let hint = "give it the namespace and name of its Subscription";
        out.push(inventory.definition.locate(diagnostic.hint(hint), "/metadata/name"));
    }
}

/// What a Subscription's feeds ask for; `None` where its FeedInventory cannot be read, so that the Subscription has to be held. While some
/// file does not parse, one that was there `before` may stand in that file.
pub fn demands(snapshot: &Snapshot, subscription: &Subscription, before: bool, out: &mut Vec<Diagnostic>) -> Option<Demands> {
    let inventory = match (inventory_of(snapshot, subscription), subscription.divides()) {
        (Some(Reading::Unreadable), true) => return None,
        (None, true) if before && snapshot.incomplete => return None,
        (reading, _) => reading.and_then(Reading::valid),
    };
    if let Some(inventory) = inventory {
        report_strangers(inventory, snapshot, subscription, out);
    }
    let demand = |feed: &Feed| match subscription.divides() {
        true => demand(snapshot, feed, inventory.map(Arc::as_ref), out),
        false => Demand::Whole,
    };
    let feeds = delivered(snapshot, subscription);
    let keys = feeds.iter().map(|feed| feed.status_key().into());
    Some(keys.zip(feeds.iter().map(AsRef::as_ref).map(demand)).collect())
}

/// The FeedInventory of a Subscription.
pub fn inventory_of<'s>(snapshot: &'s Snapshot, subscription: &Subscription) -> Option<&'s Reading<FeedInventory>> {
    snapshot
        .inventories
        .get(&(subscription.namespace.clone(), subscription.name.clone()))
}

/// The feeds with the objects of Bundles in their place. A Bundle whose objects cannot all be seen stands for itself too: nobody knows what it
/// asks for.
pub fn delivered<'a>(snapshot: &'a Snapshot, subscription: &'a Subscription) -> Vec<Cow<'a, Feed>> {
    let mut all = Vec::with_capacity(subscription.feeds.len());
    for feed in &subscription.feeds {
        let members = snapshot.bundles.get(&feed.key()).map(|bundle| bundle.members.as_slice());
        let seen = !is_bundle(&feed.key()) || (members.is_some() && !snapshot.incomplete);
        let definitions = members
            .into_iter()
            .flatten()
            .filter_map(|key| Some((key, snapshot.feeds.get(key)?)));
        all.extend(definitions.map(|(key, definition)| Cow::Owned(feed_of(key, definition))));
        if members.is_none() || !seen {
            all.push(Cow::Borrowed(feed));
        }
    }
    all
}

fn report_strangers(inventory: &FeedInventory, snapshot: &Snapshot, subscription: &Subscription, out: &mut Vec<Diagnostic>) {
    for (key, order) in &inventory.orders {
        if !delivered(snapshot, subscription).iter().any(|feed| feed.key() == *key) {
            let pointer = format!("/spec/feeds/{}", order.index);
            let message = format!("{key} is no feed of the Subscription");
            let diagnostic = Diagnostic::warning("inventory-without-feed", message).field(&*pointer);
            out.push(
                inventory
                    .definition
                    .locate(diagnostic.hint("add the feed, or take the entry out"), &pointer),
            );
        }
    }
}

fn demand(snapshot: &Snapshot, feed: &Feed, inventory: Option<&FeedInventory>, out: &mut Vec<Diagnostic>) -> Demand {
    let key = feed.key();
    let found = snapshot.feeds.get(&key);
    let Some(definition) = found.filter(|definition| definition.object.api_version() == feed.api_version) else {
        return Demand::Unknown;
    };
    let order = inventory.and_then(|inventory| inventory.orders.get(&key));
    let read = match order.filter(|order| !order.pointer.is_empty()) {
        Some(order) => by_order(&definition.object, order).map(Some),
        None if is_known(&definition.object) => by_kind(&definition.object).map(Some),
        None => Ok(None),
    };
    match read {
        Ok(workload) => workload.map_or(Demand::Whole, |workload| Demand::Divided(workload.into())),
        Err((pointer, message)) => {
            out.push(invalid(
                definition,
                &pointer,
                message,
                "correct it; until then the feed keeps its last result",
            ));
            Demand::Unknown
        }
    }
}

/// The kinds whose replicas Clusternet knows how to divide.
fn is_known(object: &Object) -> bool {
    let versions: &[&str] = match object.kind() {
        "Deployment" | "StatefulSet" => &["apps/v1", "apps/v1beta1", "apps/v1beta2", "extensions/v1beta1"],
        "ReplicaSet" => &["apps/v1", "extensions/v1beta1"],
        _ => &[],
    };
    versions.contains(&object.api_version())
}

type Problem = (String, String);

fn by_kind(object: &Object) -> Result<Workload, Problem> {
    Ok(Workload {
        // An API server fills in 1.
        total: replicas(object, "/spec/replicas")?.unwrap_or(1),
        pointer: "/spec/replicas".to_owned(),
        requests: pod_requests(object)?,
        nodes: node_rules(object)?,
        pod_labels: pod_labels(object),
    })
}

fn by_order(object: &Object, order: &Order) -> Result<Workload, Problem> {
    let stated = match order.total {
        Some(total) => Some(total),
        None => replicas(object, &order.pointer)?,
    };
    let missing = || {
        let message = "the FeedInventory states no desiredReplicas, and there is no number at its replicaJsonPath";
        (order.pointer.clone(), message.to_owned())
    };
    Ok(Workload {
        total: stated.ok_or_else(missing)?,
        pointer: order.pointer.clone(),
        requests: order.requests.clone(),
        nodes: order.nodes.clone(),
        pod_labels: pod_labels(object),
    })
}

fn replicas(object: &Object, pointer: &str) -> Result<Option<i64>, Problem> {
    match object.pointer(pointer) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64().filter(|count| (0..=i64::from(i32::MAX)).contains(count)) {
            Some(count) => Ok(Some(count)),
            None if is_secret(object.as_value()) => Err((pointer.to_owned(), "this is not a number of replicas".to_owned())),
            None => Err((pointer.to_owned(), format!("{value} is not a number of replicas"))),
        },
    }
}

fn node_rules(object: &Object) -> Result<NodeRules, Problem> {
    const POD: &str = "/spec/template/spec";
    let spec = object.pointer(POD).map(NodeRules::read);
    let place = |(pointer, message): (&str, String)| (format!("{POD}{pointer}"), message);
    Ok(spec.transpose().map_err(place)?.unwrap_or_default())
}

fn pod_labels(object: &Object) -> Labels {
    let labels = object.pointer("/spec/template/metadata/labels").and_then(Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The requests of a pod as Clusternet counts them: a container's request defaults to its limit; containers add up; each init container runs
/// alone.
fn pod_requests(object: &Object) -> Result<BTreeMap<String, Quantity>, Problem> {
    let mut sum: BTreeMap<String, Quantity> = BTreeMap::new();
    for (name, amount) in container_requests(object, "containers")? {
        let of = sum.entry(name).or_default();
        *of = *of + amount;
    }
    for (name, amount) in container_requests(object, "initContainers")? {
        let of = sum.entry(name).or_default();
        *of = amount.max(*of);
    }
    Ok(sum)
}

fn container_requests(object: &Object, list: &str) -> Result<Vec<(String, Quantity)>, Problem> {
    let base = format!("/spec/template/spec/{list}");
    let mut requests = Vec::new();
    let containers = object.pointer(&base).and_then(Value::as_array);
    for (index, container) in containers.into_iter().flatten().enumerate() {
        let mut stated = BTreeMap::new();
        for kind in ["limits", "requests"] {
            let pointer = format!("{base}/{index}/resources/{kind}");
            let resources = container.pointer(&format!("/resources/{kind}")).and_then(Value::as_object);
            for (name, value) in resources.into_iter().flatten() {
                let amount =
                    quantity(value).ok_or_else(|| (format!("{pointer}/{name}"), format!("{value} is not a quantity")))?;
                stated.insert(name.clone(), amount);
            }
        }
        requests.extend(stated);
    }
    Ok(requests)
}

/// A quantity may be written as a number.
fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text),
        Value::Number(number) => Quantity::parse(&number.to_string()),
        _ => None,
    }
}
