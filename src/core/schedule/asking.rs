//! What has to be known of clusters before Dynamic dividing can decide: how many more replicas of which feeds fit into which of them. Asks
//! nobody, and wants to know nothing while every replica has its place.

use std::sync::Arc;

use super::{Cluster, Request, dynamic, filter};
use crate::core::index::{Strategy, Workload};

/// What one Subscription waits to know.
#[derive(Debug)]
pub struct Question<'a> {
    /// Feeds whose shares are about to change.
    pub feeds: Vec<(&'a Arc<str>, &'a Workload)>,
    /// Clusters that may get something of them.
    pub clusters: Vec<&'a Cluster>,
}

/// `None` for a Subscription that can be placed without asking.
pub fn question<'a>(request: &Request<'a>) -> Option<Question<'a>> {
    let Strategy::Dynamic(dynamic) = &request.subscription.strategy else {
        return None;
    };
    let (candidates, _) = filter::judge(request);
    let (feeds, clusters) = dynamic::undecided(request, dynamic, &candidates);
    let asks = !feeds.is_empty() && !clusters.is_empty();
    asks.then_some(Question { feeds, clusters })
}
