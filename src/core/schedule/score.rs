//! Which of several clusters is the better one. A score depends on one cluster alone; ties are broken by namespace.

use super::{Cluster, Request};
use crate::core::index::Strategy;
use crate::core::taint::Effect;

/// What one untolerated `PreferNoSchedule` taint costs: Clusternet weighs the taint score three times the range of a score.
const TAINT: i64 = 300;

/// The sum of the preferences that hold, less the `PreferNoSchedule` taints that are not tolerated.
pub(super) fn score(request: &Request<'_>, cluster: &Cluster) -> i64 {
    preference(request, cluster) - TAINT * avoided(request, cluster)
}

fn preference(request: &Request<'_>, cluster: &Cluster) -> i64 {
    let Strategy::Dynamic(dynamic) = &request.subscription.strategy else {
        return 0;
    };
    let holding = dynamic.preferred.iter().filter(|(_, term)| term.matches(&cluster.labels));
    holding.map(|(weight, _)| weight).sum()
}

fn avoided(request: &Request<'_>, cluster: &Cluster) -> i64 {
    let taints = cluster.taints.iter().chain(request.live_taints(cluster));
    let tolerations = &request.subscription.tolerations;
    let disliked = taints
        .filter(|taint| taint.effect == Effect::PreferNoSchedule)
        .filter(|taint| !tolerations.iter().any(|toleration| toleration.tolerates(taint)));
    i64::try_from(disliked.count()).unwrap_or(i64::MAX / TAINT)
}
