//! Why a cluster was chosen, or what left it out. Decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Cluster, Fleet, Placement, Request, dynamic, filter, score, settle};
use crate::core::index::Strategy;
use crate::core::taint::{Effect, Taint};

/// What became of one cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It has the Subscription.
    Placed(Placed),
    /// It has not.
    Excluded(Reason),
}

/// How a cluster comes to have the Subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Placed {
    /// It was chosen.
    Chosen,
    /// It was bound before a taint that keeps new things out.
    StaysDespiteTaint,
    /// A taint sends it away, but there is no replacement yet.
    WaitsForReplacement,
    /// Nothing fits any more or the Subscription is held, so the last placement stays.
    Kept,
}

/// Why a cluster was not chosen. Reasons name durable inputs; a live one only where it changed the placement.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Reason {
    /// No subscriber's selector matches the cluster's labels.
    LabelsDoNotMatch,
    /// The cluster has a taint that the Subscription does not tolerate.
    TaintNotTolerated,
    /// The cluster lacks the label of a topology spread constraint.
    NoTopologyDomain,
    /// No replica of any feed fits, and some wait for room.
    NoCapacity,
    /// Its subgroups have the number that they ask for.
    SubGroupFull,
    /// `maxClusters` is reached.
    MaxClusters,
    /// All replicas are in other clusters.
    NotNeeded,
    /// The clusters that match have no weight, so nothing can be divided.
    NoWeight,
    /// Dynamic dividing without a feed that has replicas.
    NothingToDivide,
    /// The Subscription is held, and the cluster was not bound before.
    SubscriptionHeld,
}

impl Reason {
    const ALL: [Reason; 10] = [
        Reason::LabelsDoNotMatch,
        Reason::TaintNotTolerated,
        Reason::NoTopologyDomain,
        Reason::NoCapacity,
        Reason::SubGroupFull,
        Reason::MaxClusters,
        Reason::NotNeeded,
        Reason::NoWeight,
        Reason::NothingToDivide,
        Reason::SubscriptionHeld,
    ];

    /// The word for status and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::LabelsDoNotMatch => "LabelsDoNotMatch",
            Reason::TaintNotTolerated => "TaintNotTolerated",
            Reason::NoTopologyDomain => "NoTopologyDomain",
            Reason::NoCapacity => "NoCapacity",
            Reason::SubGroupFull => "SubGroupFull",
            Reason::MaxClusters => "MaxClusters",
            Reason::NotNeeded => "NotNeeded",
            Reason::NoWeight => "NoWeight",
            Reason::NothingToDivide => "NothingToDivide",
            Reason::SubscriptionHeld => "SubscriptionHeld",
        }
    }

    /// From the word.
    pub fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// A sentence for people.
    pub const fn sentence(self) -> &'static str {
        match self {
            Reason::LabelsDoNotMatch => "no subscriber's clusterAffinity matches its labels",
            Reason::TaintNotTolerated => "it has a taint that the Subscription does not tolerate",
            Reason::NoTopologyDomain => "it lacks the label of a topologySpreadConstraint",
            Reason::NoCapacity => "no replica of any feed fits",
            Reason::SubGroupFull => "its subgroups have as many clusters as they ask for",
            Reason::MaxClusters => "maxClusters is reached",
            Reason::NotNeeded => "all replicas are in other clusters",
            Reason::NoWeight => "the clusters that match have no weight",
            Reason::NothingToDivide => "Dynamic dividing has no feed with replicas",
            Reason::SubscriptionHeld => "the Subscription is held, and the cluster did not have it before",
        }
    }
}

/// Clusters that one reason left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exclusion {
    /// Why.
    pub reason: Reason,
    /// How many.
    pub count: usize,
    /// The first ten bindings, in order.
    pub names: Vec<String>,
}

/// How many names a reason lists.
const NAMES_PER_REASON: usize = 10;

/// Counts the clusters that were left out by reason.
pub(super) fn tally(fleet: &Fleet, outcomes: &[Outcome]) -> Vec<Exclusion> {
    let mut by_reason: BTreeMap<Reason, Exclusion> = BTreeMap::new();
    for (cluster, outcome) in fleet.clusters.values().zip(outcomes) {
        let Outcome::Excluded(reason) = *outcome else { continue };
        let exclusion = by_reason.entry(reason).or_insert_with(|| Exclusion {
            reason,
            count: 0,
            names: Vec::new(),
        });
        exclusion.count += 1;
        if exclusion.names.len() < NAMES_PER_REASON {
            exclusion.names.push(cluster.binding());
        }
    }
    by_reason.into_values().collect()
}

/// Everything that decided about one cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// `<namespace>/<name>` of the cluster.
    pub cluster: String,
    /// What became of it.
    pub outcome: Outcome,
    /// Positions of the subscribers whose selector matches.
    pub subscribers: Vec<usize>,
    /// The first taint that is not tolerated.
    pub taint: Option<Taint>,
    /// Its score among those that fit.
    pub score: i64,
    /// For each feed with replicas: its key, the cluster's share and, with Dynamic dividing, how many were taken to fit.
    pub shares: Vec<(Arc<str>, i64, Option<i64>)>,
}

/// Explains one cluster by dedicated namespace; `None` where there is no such cluster.
pub fn explain(request: &Request<'_>, namespace: &str) -> Option<Explanation> {
    let position = request.fleet.clusters.keys().position(|known| &**known == namespace)?;
    let cluster = request.fleet.clusters.get(namespace)?;
    let (placement, outcomes) = settle(request);
    let subscribers = request.subscription.subscribers.iter().enumerate();
    let matching = subscribers.filter(|(_, subscriber)| subscriber.selector.matches(&cluster.labels));
    let taints = cluster.taints.iter().chain(request.live_taints(cluster));
    let effects = [Effect::NoSchedule, Effect::PreferNoSchedule, Effect::NoExecute];
    Some(Explanation {
        cluster: cluster.binding(),
        outcome: outcomes.get(position).copied()?,
        subscribers: matching.map(|(index, _)| index).collect(),
        taint: filter::untolerated(request.subscription, taints, &effects).cloned(),
        score: score::score(request, cluster),
        shares: shares(request, &placement, cluster),
    })
}

fn shares(request: &Request<'_>, placement: &Placement, cluster: &Cluster) -> Vec<(Arc<str>, i64, Option<i64>)> {
    let workloads = request.workloads().into_iter();
    let explained = workloads.map(|(key, workload)| {
        let share = placement
            .bound
            .replicas
            .get(key)
            .and_then(|shares| shares.get(&cluster.namespace));
        let used = placement
            .bound
            .capacity
            .get(key)
            .and_then(|fits| fits.get(&cluster.namespace));
        let divides_by_room = matches!(request.subscription.strategy, Strategy::Dynamic(_));
        let estimate = || dynamic::fits(request, key, workload, cluster).filter(|_| divides_by_room);
        let fits = used.copied().or_else(estimate);
        (key.clone(), share.copied().unwrap_or(0), fits)
    });
    explained.collect()
}

impl fmt::Display for Explanation {
    /// One sentence a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Excluded(reason) => writeln!(f, "{} was not chosen: {}", self.cluster, reason.sentence())?,
            Outcome::Placed(Placed::Chosen) => writeln!(f, "{} was chosen", self.cluster)?,
            Outcome::Placed(Placed::StaysDespiteTaint) => writeln!(f, "{} stays: it was bound before its taint", self.cluster)?,
            Outcome::Placed(Placed::WaitsForReplacement) => {
                writeln!(f, "{} stays until there is a replacement", self.cluster)?;
            }
            Outcome::Placed(Placed::Kept) => writeln!(f, "{} stays: nothing fits any more", self.cluster)?,
        }
        for index in &self.subscribers {
            writeln!(f, "subscribers/{index} matches its labels")?;
        }
        if let Some(taint) = &self.taint {
            writeln!(f, "it has the taint {taint}, which is not tolerated")?;
        }
        if self.score != 0 {
            writeln!(f, "its score is {}", self.score)?;
        }
        for (feed, share, fits) in &self.shares {
            let replicas = if *share == 1 { "replica" } else { "replicas" };
            write!(f, "it gets {share} {replicas} of {feed}")?;
            match fits {
                Some(fits) => writeln!(f, "; {fits} were taken to fit")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}
