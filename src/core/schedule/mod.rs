//! Subscription + fleet + previous placement → [`Placement`]: which clusters a Subscription is bound to, what each gets of its replicas, and
//! why others were not chosen. Renders nothing.
//!
//! [`place`] is a function of its [`Request`] alone. Each cluster is judged by itself (`filter`: labels, then taints; `score`), subgroups take
//! their number (`subgroup`), replicas are divided by weight (`divide`) or by room (`dynamic`, over domains `topology`). Placing again what was
//! placed changes nothing. [`check`] holds every placement against the rules, without any code of this module.

mod asking;
pub mod check;
mod divide;
mod dynamic;
mod explain;
mod filter;
mod fleet;
mod score;
mod subgroup;
mod topology;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::core::index::{Demand, Demands, Strategy, Subscription, Workload};
use crate::core::taint::Taint;
use filter::{Candidate, Standing};

pub use asking::{Question, question};
pub use explain::{Exclusion, Explanation, Outcome, Placed, Reason, explain};
pub use filter::wants;
pub use fleet::{Cluster, Fleet, Live};

/// Numbers by feed key and dedicated namespace; a feed without replicas has none.
pub type Divided = BTreeMap<Arc<str>, BTreeMap<Arc<str>, i64>>;

/// Where a Subscription is bound.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bindings {
    /// ManagedCluster names by dedicated namespace.
    pub clusters: BTreeMap<Arc<str>, Arc<str>>,
    /// Replicas, where they are divided.
    pub replicas: Divided,
    /// How many replicas were taken to fit when Dynamic dividing last changed a feed's shares, so that the decision can be repeated.
    pub capacity: Divided,
}

impl Bindings {
    /// Adds those of another part of the fleet.
    pub fn add(&mut self, other: Bindings) {
        self.clusters.extend(other.clusters);
        for (all, more) in [(&mut self.replicas, other.replicas), (&mut self.capacity, other.capacity)] {
            for (feed, numbers) in more {
                all.entry(feed).or_default().extend(numbers);
            }
        }
    }
}

/// What placing one Subscription depends on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The Subscription.
    pub subscription: &'a Subscription,
    /// What its feeds ask for.
    pub demands: &'a Demands,
    /// All clusters.
    pub fleet: &'a Fleet,
    /// Where it was bound before.
    pub previous: &'a Bindings,
    /// Whether it was placed before, on no cluster perhaps.
    pub known: bool,
}

impl<'a> Request<'a> {
    /// Feeds whose replicas are divided.
    fn workloads(&self) -> Vec<(&'a Arc<str>, &'a Workload)> {
        let divided = self.demands.iter().filter_map(|(key, demand)| match demand {
            Demand::Divided(workload) => Some((key, workload.as_ref())),
            Demand::Whole | Demand::Unknown => None,
        });
        divided.collect()
    }

    fn live_taints(&self, cluster: &Cluster) -> &'a [Taint] {
        self.fleet.live.get(&cluster.namespace).map_or(&[], |live| &live.taints)
    }

    /// Whether it is not known yet that a cluster takes new things, and the Subscription did without it before.
    fn waits_for(&self, cluster: &Cluster) -> bool {
        self.known && self.fleet.live.get(&cluster.namespace).is_some_and(|live| live.returning)
    }

    /// A feed's replicas in a cluster before.
    fn share_before(&self, key: &str, cluster: &Cluster) -> i64 {
        let shares = self.previous.replicas.get(key);
        shares.and_then(|shares| shares.get(&cluster.namespace)).copied().unwrap_or(0)
    }
}

/// Where a Subscription goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Placement {
    /// The clusters and what each gets.
    pub bound: Arc<Bindings>,
    /// Why the others were not chosen.
    pub excluded: Vec<Exclusion>,
    /// No cluster fits any more, so the last placement stays: why its clusters do not fit.
    pub kept: Option<Vec<Exclusion>>,
    /// Whether it follows from more than the source and the fleet in git: from where it was bound before, from what fits at the moment, or
    /// from a cluster that is not ready.
    pub sticky: bool,
    /// What people should know.
    pub remarks: Vec<Remark>,
}

/// Something about a placement that people should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Remark {
    /// Replicas of a feed fit nowhere.
    Unplaced {
        /// The feed's key.
        feed: Arc<str>,
        /// How many.
        missing: i64,
        /// Of how many.
        total: i64,
    },
    /// Replicas stay where a taint sends them away, because they fit nowhere else.
    Stranded {
        /// The feed's key.
        feed: Arc<str>,
        /// How many.
        replicas: i64,
    },
    /// A subgroup finds fewer clusters than it asks for.
    GroupTooSmall {
        /// Position of the subscriber.
        subscriber: usize,
        /// How many it asks for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// Replicas of a feed are in fewer clusters than `minClusters`.
    FewClusters {
        /// The feed's key.
        feed: Arc<str>,
        /// How many are asked for.
        wanted: usize,
        /// How many it is in.
        found: usize,
    },
    /// Dynamic dividing without a feed that has replicas.
    NothingToDivide,
    /// The clusters that match have no weight between them.
    NoWeight,
}

/// What choosing gives, before the rule that an empty result keeps the last placement.
#[derive(Default)]
struct Draft {
    /// By candidate: how it was placed, or why not.
    outcomes: Vec<Outcome>,
    replicas: Divided,
    capacity: Divided,
    remarks: Vec<Remark>,
}

/// Places a Subscription. Where no cluster fits, the last placement stays: absence never deletes.
pub fn place(request: &Request<'_>) -> Placement {
    settle(request).0
}

/// Whether a placement stays as it is although what is known of one cluster changed: in git, or live since `was`. Only where each cluster is
/// judged by itself can that be told without placing anew.
pub fn is_unmoved(request: &Request<'_>, placement: &Placement, was: &Fleet, before: &Cluster, now: &Cluster) -> bool {
    let by_itself = request.subscription.strategy == Strategy::Replication && !request.subscription.by_sub_group;
    let same_name = before.namespace == now.namespace && before.name == now.name;
    if !by_itself || !same_name || placement.kept.is_some() {
        return false;
    }
    let bound = placement.bound.clusters.contains_key(&now.namespace);
    let earlier = Request { fleet: was, ..*request };
    let standing = filter::standing(request, now, bound);
    let joins = !bound && standing == Ok(Standing::Open);
    !joins && standing == filter::standing(&earlier, before, bound)
}

/// The placement, and an outcome for every cluster in the fleet's order.
fn settle(request: &Request<'_>) -> (Placement, Vec<Outcome>) {
    let (candidates, mut outcomes) = filter::judge(request);
    let draft = match &request.subscription.strategy {
        Strategy::Replication => choose(request, &candidates),
        Strategy::Static => divide_statically(request, &candidates),
        Strategy::Dynamic(dynamic) => dynamic::divide(request, dynamic, &candidates),
    };
    for (candidate, outcome) in candidates.iter().zip(&draft.outcomes) {
        outcomes[candidate.position] = *outcome;
    }
    let nothing_fits = !outcomes.iter().any(|outcome| matches!(outcome, Outcome::Placed(_)));
    let mut placement = if nothing_fits && is_anywhere(request.fleet, request.previous) {
        keep(request, &mut outcomes, draft.remarks)
    } else {
        bind(request, &outcomes, draft)
    };
    placement.sticky |= candidates.iter().any(|candidate| candidate.standing == Standing::Barred);
    (placement, outcomes)
}

fn is_anywhere(fleet: &Fleet, previous: &Bindings) -> bool {
    previous
        .clusters
        .keys()
        .any(|namespace| fleet.clusters.contains_key(namespace))
}

fn keep(request: &Request<'_>, outcomes: &mut [Outcome], mut remarks: Vec<Remark>) -> Placement {
    // What would have been placed does not matter any more.
    remarks.retain(|remark| {
        !matches!(
            remark,
            Remark::Unplaced { .. } | Remark::Stranded { .. } | Remark::FewClusters { .. }
        )
    });
    let mut unfit = vec![Outcome::Placed(Placed::Kept); outcomes.len()];
    for (at, namespace) in request.fleet.clusters.keys().enumerate() {
        if request.previous.clusters.contains_key(namespace) {
            std::mem::swap(&mut outcomes[at], &mut unfit[at]);
        }
    }
    Placement {
        bound: still_there(request.fleet, request.previous).into(),
        excluded: explain::tally(request.fleet, outcomes),
        kept: Some(explain::tally(request.fleet, &unfit)),
        sticky: true,
        remarks,
    }
}

/// The placement of a held Subscription: where it was, as far as the clusters still exist.
pub fn hold(fleet: &Fleet, previous: &Bindings) -> Placement {
    let outcome = |namespace| match previous.clusters.contains_key(namespace) {
        true => Outcome::Placed(Placed::Kept),
        false => Outcome::Excluded(Reason::SubscriptionHeld),
    };
    let outcomes: Vec<Outcome> = fleet.clusters.keys().map(outcome).collect();
    Placement {
        bound: still_there(fleet, previous).into(),
        excluded: explain::tally(fleet, &outcomes),
        kept: None,
        sticky: true,
        remarks: Vec::new(),
    }
}

/// Bindings to clusters that exist.
fn still_there(fleet: &Fleet, previous: &Bindings) -> Bindings {
    let exists = |namespace: &Arc<str>| fleet.clusters.contains_key(namespace);
    let mut bindings = previous.clone();
    bindings.clusters.retain(|namespace, _| exists(namespace));
    for numbers in bindings.replicas.values_mut().chain(bindings.capacity.values_mut()) {
        numbers.retain(|namespace, _| exists(namespace));
    }
    bindings
}

fn bind(request: &Request<'_>, outcomes: &[Outcome], draft: Draft) -> Placement {
    let clusters = request.fleet.clusters.values().zip(outcomes);
    let placed = clusters.filter(|(_, outcome)| matches!(outcome, Outcome::Placed(_)));
    let mut bound = Bindings {
        clusters: placed
            .map(|(cluster, _)| (cluster.namespace.clone(), cluster.name.clone()))
            .collect(),
        replicas: draft.replicas,
        capacity: draft.capacity,
    };
    if request.subscription.divides() {
        add_undivided(request, &mut bound);
    }
    Placement {
        bound: bound.into(),
        excluded: explain::tally(request.fleet, outcomes),
        kept: None,
        sticky: is_sticky(request, outcomes),
        remarks: draft.remarks,
    }
}

fn is_sticky(request: &Request<'_>, outcomes: &[Outcome]) -> bool {
    let chosen = |outcome: &Outcome| matches!(outcome, Outcome::Placed(Placed::Chosen) | Outcome::Excluded(_));
    let dynamic = matches!(request.subscription.strategy, Strategy::Dynamic(_));
    dynamic || request.subscription.by_sub_group || !outcomes.iter().all(chosen)
}

/// Feeds without replicas have an empty list, as in Clusternet; what cannot be seen keeps its shares.
fn add_undivided(request: &Request<'_>, bound: &mut Bindings) {
    for (key, demand) in request.demands {
        let mut shares = BTreeMap::new();
        match demand {
            Demand::Divided(_) => continue,
            Demand::Whole => {}
            Demand::Unknown => {
                let before = request.previous.replicas.get(key).into_iter().flatten();
                let stays = before.filter(|(namespace, _)| bound.clusters.contains_key(*namespace));
                shares.extend(stays.map(|(namespace, share)| (namespace.clone(), *share)));
            }
        }
        bound.replicas.insert(key.clone(), shares);
    }
}

/// Every cluster that fits, or with subgroups as many as each asks for.
fn choose(request: &Request<'_>, candidates: &[Candidate<'_>]) -> Draft {
    let mut draft = Draft::default();
    let fits = |candidate: &Candidate<'_>| candidate.stays_or_joins();
    if !request.subscription.by_sub_group {
        draft.outcomes = candidates
            .iter()
            .map(|candidate| outcome(candidate, candidate.stays_or_joins(), Reason::TaintNotTolerated))
            .collect();
        return draft;
    }
    let groups = subgroup::pick(request, candidates, true, &fits);
    for (at, candidate) in candidates.iter().enumerate() {
        draft
            .outcomes
            .push(outcome(candidate, groups.taken[at], groups.reason(at, candidate)));
    }
    draft.remarks = groups.remarks;
    draft
}

fn outcome(candidate: &Candidate<'_>, taken: bool, otherwise: Reason) -> Outcome {
    match (taken, candidate.standing) {
        (false, _) => Outcome::Excluded(otherwise),
        (true, Standing::Open | Standing::Barred) => Outcome::Placed(Placed::Chosen),
        (true, Standing::Closed) => Outcome::Placed(Placed::StaysDespiteTaint),
        (true, Standing::Leaving) => Outcome::Placed(Placed::WaitsForReplacement),
    }
}

fn divide_statically(request: &Request<'_>, candidates: &[Candidate<'_>]) -> Draft {
    let mut draft = choose(request, candidates);
    let taken: Vec<&Candidate<'_>> = candidates
        .iter()
        .zip(&draft.outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Placed(_)))
        .map(|(candidate, _)| candidate)
        .collect();
    let weights: Vec<i64> = taken
        .iter()
        .map(|candidate| weight(request.subscription, candidate))
        .collect();
    for (key, workload) in request.workloads() {
        let Some(shares) = divide::by_weight(workload.total, &weights) else {
            return without_weight(draft, !taken.is_empty());
        };
        let namespaces = taken.iter().map(|candidate| candidate.cluster.namespace.clone());
        draft.replicas.insert(key.clone(), namespaces.zip(shares).collect());
    }
    draft
}

/// A total that cannot be divided is given to nobody.
fn without_weight(mut draft: Draft, any: bool) -> Draft {
    for outcome in &mut draft.outcomes {
        if matches!(outcome, Outcome::Placed(_)) {
            *outcome = Outcome::Excluded(Reason::NoWeight);
        }
    }
    draft.replicas.clear();
    draft.remarks.extend(any.then_some(Remark::NoWeight));
    draft
}

/// The sum of the weights of the subscribers that match.
fn weight(subscription: &Subscription, candidate: &Candidate<'_>) -> i64 {
    let matching = subscription.subscribers.iter();
    let matching = matching.filter(|subscriber| subscriber.selector.matches(&candidate.cluster.labels));
    matching.map(|subscriber| subscriber.weight).sum()
}

#[cfg(test)]
mod tests;
