//! Holds a placement against the rules: sums add up, selectors and tolerations hold, limits are kept, no fleet is emptied. An independent
//! checker: it knows the API and nothing of how the scheduler decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Bindings, Cluster, Placement, Remark, Request};
use crate::core::index::{Demand, Dynamic, SpreadConstraint, Strategy, Workload};
use crate::core::taint::Effect;

/// A rule that a placement breaks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Violation {
    /// It is bound to a cluster that the fleet does not have.
    UnknownCluster(Arc<str>),
    /// No selector matches a cluster that it is bound to.
    SelectorDoesNotHold(Arc<str>),
    /// It came to a cluster whose taint it does not tolerate.
    TaintNotTolerated(Arc<str>),
    /// It was bound before and is bound nowhere now.
    FleetEmptied,
    /// The shares of a feed do not add up to its total, or to what is said to be missing.
    SumDiffers {
        /// The feed's key.
        feed: Arc<str>,
        /// What the shares and the missing add up to.
        sum: i64,
        /// What they should.
        total: i64,
    },
    /// A share is negative, or of a cluster that it is not bound to.
    StrayShare(Arc<str>, Arc<str>),
    /// A subgroup has fewer clusters than it asks for although there are more.
    GroupTooSmall(usize),
    /// There are more clusters than `maxClusters`.
    TooManyClusters(usize),
    /// A domain that got replicas has too many more than the emptiest.
    SkewTooLarge {
        /// The feed's key.
        feed: Arc<str>,
        /// The constraint's label.
        key: String,
    },
    /// Bound and left out together are not the fleet.
    FleetNotCovered {
        /// How many are bound or left out.
        counted: usize,
        /// How many there are.
        fleet: usize,
    },
    /// One cluster gets one object twice.
    ObjectTwice {
        /// Dedicated namespace.
        cluster: String,
        /// The manifest's file name.
        manifest: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::UnknownCluster(cluster) => write!(f, "bound to {cluster}, which is no cluster of the fleet"),
            Violation::SelectorDoesNotHold(cluster) => write!(f, "bound to {cluster}, which no selector matches"),
            Violation::TaintNotTolerated(cluster) => write!(f, "came to {cluster} in spite of a taint"),
            Violation::FleetEmptied => f.write_str("bound before and bound nowhere now"),
            Violation::SumDiffers { feed, sum, total } => write!(f, "the shares of {feed} add up to {sum} instead of {total}"),
            Violation::StrayShare(feed, cluster) => write!(f, "{feed} has an impossible share in {cluster}"),
            Violation::GroupTooSmall(index) => write!(f, "subscriber {index} has fewer clusters than it could have"),
            Violation::TooManyClusters(count) => write!(f, "bound to {count} clusters, more than maxClusters"),
            Violation::SkewTooLarge { feed, key } => write!(f, "{feed} is spread too unevenly over {key}"),
            Violation::FleetNotCovered { counted, fleet } => write!(f, "{counted} clusters are accounted for instead of {fleet}"),
            Violation::ObjectTwice { cluster, manifest } => write!(f, "{cluster} gets {manifest} twice"),
        }
    }
}

/// Every rule that a placement breaks.
pub fn check(request: &Request<'_>, placement: &Placement) -> Vec<Violation> {
    let mut found = BTreeSet::new();
    check_coverage(request, placement, &mut found);
    check_not_emptied(request, placement, &mut found);
    if placement.kept.is_some() {
        let stays = |namespace: &&Arc<str>| !request.previous.clusters.contains_key(*namespace);
        let strangers = placement.bound.clusters.keys().filter(stays);
        found.extend(strangers.cloned().map(Violation::SelectorDoesNotHold));
        return found.into_iter().collect();
    }
    for namespace in placement.bound.clusters.keys() {
        if let Some(cluster) = request.fleet.clusters.get(namespace) {
            found.extend(check_cluster(request, cluster));
        }
    }
    check_shares(request, placement, &mut found);
    check_groups(request, placement, &mut found);
    if let Strategy::Dynamic(dynamic) = &request.subscription.strategy {
        check_limits(request, dynamic, placement, &mut found);
    }
    found.into_iter().collect()
}

/// Every object that a cluster gets twice: `manifests` are the file names of each Subscription for one cluster, and the Helm releases.
pub fn check_owners(cluster: &str, manifests: impl Iterator<Item = String>) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    let twice = manifests.filter(|manifest| !seen.insert(manifest.clone()));
    let violation = |manifest: String| Violation::ObjectTwice {
        cluster: cluster.to_owned(),
        manifest,
    };
    twice.map(violation).collect()
}

fn check_coverage(request: &Request<'_>, placement: &Placement, found: &mut BTreeSet<Violation>) {
    let fleet = &request.fleet.clusters;
    let strangers = placement
        .bound
        .clusters
        .keys()
        .filter(|namespace| !fleet.contains_key(*namespace));
    found.extend(strangers.cloned().map(Violation::UnknownCluster));
    let excluded: usize = placement.excluded.iter().map(|exclusion| exclusion.count).sum();
    let counted = placement.bound.clusters.len() + excluded;
    if counted != fleet.len() {
        let fleet = fleet.len();
        found.insert(Violation::FleetNotCovered { counted, fleet });
    }
}

fn check_not_emptied(request: &Request<'_>, placement: &Placement, found: &mut BTreeSet<Violation>) {
    let mut before = request.previous.clusters.keys();
    if placement.bound.clusters.is_empty() && before.any(|namespace| request.fleet.clusters.contains_key(namespace)) {
        found.insert(Violation::FleetEmptied);
    }
}

fn check_cluster(request: &Request<'_>, cluster: &Cluster) -> Option<Violation> {
    let subscription = request.subscription;
    if !subscription.subscribers.iter().any(|it| it.selector.matches(&cluster.labels)) {
        return Some(Violation::SelectorDoesNotHold(cluster.namespace.clone()));
    }
    if request.previous.clusters.contains_key(&cluster.namespace) {
        return None;
    }
    is_tainted(request, cluster, &[Effect::NoSchedule, Effect::NoExecute])
        .then(|| Violation::TaintNotTolerated(cluster.namespace.clone()))
}

fn is_tainted(request: &Request<'_>, cluster: &Cluster, effects: &[Effect]) -> bool {
    let live = request.fleet.live.get(&cluster.namespace);
    let taints = cluster.taints.iter().chain(live.iter().flat_map(|live| &live.taints));
    let mut counting = taints.filter(|taint| effects.contains(&taint.effect));
    counting.any(|taint| request.subscription.tolerations.iter().all(|it| !it.tolerates(taint)))
}

fn check_shares(request: &Request<'_>, placement: &Placement, found: &mut BTreeSet<Violation>) {
    for (feed, shares) in &placement.bound.replicas {
        for (namespace, share) in shares {
            if *share < 0 || !placement.bound.clusters.contains_key(namespace) {
                found.insert(Violation::StrayShare(feed.clone(), namespace.clone()));
            }
        }
    }
    if !request.subscription.divides() || placement.bound.clusters.is_empty() {
        return;
    }
    for (feed, demand) in request.demands {
        let Demand::Divided(workload) = demand else { continue };
        let shares = placement.bound.replicas.get(feed);
        let sum = shares.map_or(0, |shares| shares.values().sum()) + said_to_be_missing(placement, feed);
        if sum != workload.total {
            let (feed, total) = (feed.clone(), workload.total);
            found.insert(Violation::SumDiffers { feed, sum, total });
        }
    }
}

fn said_to_be_missing(placement: &Placement, feed: &Arc<str>) -> i64 {
    let missing = placement.remarks.iter().map(|remark| match remark {
        Remark::Unplaced { feed: of, missing, .. } if of == feed => *missing,
        _ => 0,
    });
    missing.sum()
}

/// Only Replication and Static dividing promise a group its number: with Dynamic dividing a cluster without room is of no use to it.
fn check_groups(request: &Request<'_>, placement: &Placement, found: &mut BTreeSet<Violation>) {
    let dynamic = matches!(request.subscription.strategy, Strategy::Dynamic(_));
    if !request.subscription.by_sub_group || dynamic || placement.bound.clusters.is_empty() {
        return;
    }
    for (index, subscriber) in request.subscription.subscribers.iter().enumerate() {
        let members = || {
            request
                .fleet
                .clusters
                .values()
                .filter(|cluster| subscriber.selector.matches(&cluster.labels))
        };
        let open = members().filter(|cluster| !is_tainted(request, cluster, &[Effect::NoSchedule, Effect::NoExecute]));
        let has = members()
            .filter(|cluster| placement.bound.clusters.contains_key(&cluster.namespace))
            .count();
        if has < subscriber.clusters.min(open.count()) {
            found.insert(Violation::GroupTooSmall(index));
        }
    }
}

fn check_limits(request: &Request<'_>, dynamic: &Dynamic, placement: &Placement, found: &mut BTreeSet<Violation>) {
    // Replicas that wait for a replacement do not count.
    let staying = placement
        .bound
        .clusters
        .keys()
        .filter_map(|namespace| request.fleet.clusters.get(namespace));
    let staying: Vec<&Cluster> = staying
        .map(|cluster| &**cluster)
        .filter(|cluster| !is_tainted(request, cluster, &[Effect::NoExecute]))
        .collect();
    if dynamic.max_clusters.is_some_and(|most| staying.len() > most) {
        found.insert(Violation::TooManyClusters(staying.len()));
    }
    for (feed, demand) in request.demands {
        let Demand::Divided(workload) = demand else { continue };
        for constraint in dynamic.constraints.iter().filter(|constraint| counts(constraint, workload)) {
            let usable = |cluster: &&&Cluster| {
                let share = placement
                    .bound
                    .replicas
                    .get(feed)
                    .and_then(|shares| shares.get(&cluster.namespace));
                share.is_some_and(|share| *share > 0) || has_room(request, feed, workload, cluster)
            };
            let usable: Vec<&Cluster> = staying.iter().filter(usable).copied().collect();
            if is_uneven(constraint, feed, &usable, &placement.bound, request.previous) {
                let (feed, key) = (feed.clone(), constraint.key.clone());
                found.insert(Violation::SkewTooLarge { feed, key });
            }
        }
    }
}

/// Whether a cluster that has no replica of a feed could get one.
fn has_room(request: &Request<'_>, feed: &Arc<str>, workload: &Workload, cluster: &Cluster) -> bool {
    let live = request.fleet.live.get(&cluster.namespace);
    let fits = live.map(|live| live.fits.get(feed).copied().unwrap_or_else(|| live.estimate(workload)));
    fits.is_some_and(|fits| fits > 0) && !is_tainted(request, cluster, &[Effect::NoSchedule])
}

fn counts(constraint: &SpreadConstraint, workload: &Workload) -> bool {
    constraint.hard && constraint.pods.as_ref().is_none_or(|pods| pods.matches(&workload.pod_labels))
}

/// Whether a domain that got something has more than the emptiest one and the skew allow.
fn is_uneven(constraint: &SpreadConstraint, feed: &Arc<str>, clusters: &[&Cluster], now: &Bindings, before: &Bindings) -> bool {
    let share = |bindings: &Bindings, cluster: &Cluster| {
        let shares = bindings.replicas.get(feed);
        shares.and_then(|shares| shares.get(&cluster.namespace)).copied().unwrap_or(0)
    };
    let mut domains: BTreeMap<&String, (i64, i64)> = BTreeMap::new();
    for cluster in clusters {
        let Some(domain) = cluster.labels.get(&constraint.key) else {
            continue;
        };
        let count = domains.entry(domain).or_default();
        *count = (count.0 + share(now, cluster), count.1 + share(before, cluster));
    }
    let least = domains.values().map(|(now, _)| *now).min().unwrap_or(0);
    let least = if domains.len() < constraint.min_domains { 0 } else { least };
    domains
        .values()
        .any(|(now, before)| now > before && now - least > constraint.max_skew)
}
