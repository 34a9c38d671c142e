//! A cluster's share of a feed's replicas as an override: a JSON Patch with the priority 1000 that Clusternet gives its own, after all others.
//! Its source is the Subscription.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::placing::Placed;
use crate::core::api::subscription::Feed;
use crate::core::ids::{ObjectId, ObjectKey, ObjectKind};
use crate::core::index::{Demand, Entry, Override, OverrideKind, PatchKind, Policy, Subscription, Workload};
use crate::core::schedule::Cluster;

/// Shares as overrides: clusters with the same share have the same one.
#[derive(Default)]
pub(super) struct ShareOverrides<'a> {
    /// By the Subscription's directory, the demand's position and the share.
    known: HashMap<(&'a str, usize, i64), Arc<Override>>,
}

impl<'a> ShareOverrides<'a> {
    /// The override that writes a cluster's share of a feed; none where the feed is not divided.
    pub(super) fn of(
        &mut self,
        placed: &'a Placed,
        feed: &Feed,
        demand: Option<usize>,
        cluster: &Cluster,
    ) -> Option<Arc<Override>> {
        let subscription = placed.subscription.as_ref()?;
        let (key, Demand::Divided(workload)) = placed.demands.get(demand?)? else {
            return None;
        };
        // Without a share the cluster keeps no replicas: the total must add up.
        let shares = placed.placement.bound.replicas.get(key);
        let share = shares.and_then(|shares| shares.get(&cluster.namespace)).copied().unwrap_or(0);
        let made = self.known.entry((&placed.directory, demand?, share));
        Some(
            made.or_insert_with(|| Arc::new(write_share(subscription, feed.key(), workload, share)))
                .clone(),
        )
    }
}

/// Whether nobody ever said what each cluster gets of a feed: the last placement stays, and it is from before the feed was divided. No share
/// would mean no replicas.
pub(super) fn is_undecided(placed: &Placed, demand: Option<usize>) -> bool {
    let demand = demand.and_then(|place| placed.demands.get(place));
    let divided = demand.filter(|(_, demand)| matches!(demand, Demand::Divided(_)));
    placed.placement.kept.is_some() && divided.is_some_and(|(key, _)| !placed.placement.bound.replicas.contains_key(key))
}

fn write_share(subscription: &Subscription, feed: ObjectKey, workload: &Workload, share: i64) -> Override {
    let value = json!([{"op": "replace", "path": workload.pointer, "value": share}]);
    let text = format!("{}/{} {feed} {value}", subscription.namespace, subscription.name);
    Override {
        kind: OverrideKind::Dividing,
        namespace: subscription.namespace.clone(),
        name: subscription.name.clone(),
        priority: 1000,
        policy: Policy::ApplyNow,
        feed,
        selector: None,
        entries: vec![Entry {
            index: 0,
            name: "dividingScheduling".to_owned(),
            kind: PatchKind::JsonPatch,
            chart: false,
            value,
        }],
        digest: ObjectId::hash(ObjectKind::Blob, text.as_bytes()),
        definition: subscription.definition.clone(),
    }
}
