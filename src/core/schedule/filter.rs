//! Which clusters may take a Subscription at all: labels, then taints. Chooses none.

use super::{Cluster, Outcome, Reason, Request, score};
use crate::core::index::Subscription;
use crate::core::selector::Labels;
use crate::core::taint::{Effect, Taint};

/// Effects that keep new things out.
const KEEP_OUT: [Effect; 2] = [Effect::NoSchedule, Effect::NoExecute];

/// How a cluster that matches stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It may take new things.
    Open,
    /// A taint keeps new things out; what is bound stays.
    Closed,
    /// A taint sends away what is bound, as soon as there is a replacement.
    Leaving,
    /// Not bound, and only a live taint keeps it out: that is worth saying only where it changed the placement.
    Barred,
}

/// A cluster that matches.
#[derive(Debug)]
pub(super) struct Candidate<'a> {
    /// Position in the fleet's order.
    pub(super) position: usize,
    pub(super) cluster: &'a Cluster,
    pub(super) standing: Standing,
    pub(super) bound: bool,
    /// Whether a taint that people set is not tolerated.
    pub(super) tainted: bool,
    pub(super) score: i64,
}

impl Candidate<'_> {
    /// Whether only a live taint speaks against it: then it is named only where it made a difference.
    pub(super) fn only_live(&self) -> bool {
        !self.tainted && self.standing != Standing::Open
    }

    /// Whether it may have anything of the Subscription without exception.
    pub(super) fn stays_or_joins(&self) -> bool {
        matches!(self.standing, Standing::Open | Standing::Closed)
    }
}

/// Whether any subscriber wants a cluster with these labels. Depends on nothing else, so that it can be kept by label set.
pub fn wants(subscription: &Subscription, labels: &Labels) -> bool {
    let mut subscribers = subscription.subscribers.iter();
    subscribers.any(|subscriber| subscriber.selector.matches(labels))
}

/// The first taint with one of these effects that the Subscription does not tolerate.
pub(super) fn untolerated<'t>(
    subscription: &Subscription,
    mut taints: impl Iterator<Item = &'t Taint>,
    effects: &[Effect],
) -> Option<&'t Taint> {
    let tolerated = |taint: &Taint| subscription.tolerations.iter().any(|toleration| toleration.tolerates(taint));
    taints.find(|taint| effects.contains(&taint.effect) && !tolerated(taint))
}

/// Judges every cluster of the fleet, in its order: the candidates, and an outcome for each.
pub(super) fn judge<'a>(request: &Request<'a>) -> (Vec<Candidate<'a>>, Vec<Outcome>) {
    let mut candidates = Vec::new();
    let mut outcomes = Vec::with_capacity(request.fleet.clusters.len());
    for (position, cluster) in request.fleet.clusters.values().enumerate() {
        let bound = request.previous.clusters.contains_key(&cluster.namespace);
        let standing = standing(request, cluster, bound);
        outcomes.push(Outcome::Excluded(*standing.as_ref().err().unwrap_or(&Reason::NotNeeded)));
        candidates.extend(standing.ok().map(|standing| Candidate {
            position,
            cluster,
            standing,
            bound,
            tainted: untolerated(request.subscription, cluster.taints.iter(), &KEEP_OUT).is_some(),
            score: score::score(request, cluster),
        }));
    }
    (candidates, outcomes)
}

pub(super) fn standing(request: &Request<'_>, cluster: &Cluster, bound: bool) -> Result<Standing, Reason> {
    let subscription = request.subscription;
    if !wants(subscription, &cluster.labels) {
        return Err(Reason::LabelsDoNotMatch);
    }
    let live = request.live_taints(cluster);
    let waits = !bound && request.waits_for(cluster);
    if cluster.taints.is_empty() && live.is_empty() && !waits {
        return Ok(Standing::Open);
    }
    let all = || cluster.taints.iter().chain(live);
    if bound && untolerated(subscription, all(), &[Effect::NoExecute]).is_some() {
        Ok(Standing::Leaving)
    } else if !waits && untolerated(subscription, all(), &KEEP_OUT).is_none() {
        Ok(Standing::Open)
    } else if bound {
        Ok(Standing::Closed)
    } else if untolerated(subscription, cluster.taints.iter(), &KEEP_OUT).is_some() {
        Err(Reason::TaintNotTolerated)
    } else {
        Ok(Standing::Barred)
    }
}
