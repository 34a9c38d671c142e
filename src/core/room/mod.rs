//! Nodes and pods of one cluster → how many more replicas fit. Fetches nothing, and keeps of a pod only what it takes from its node.
//!
//! For each node that is ready and takes new pods: allocatable less the requests of its pods, floor(min(free / request)), capped by free pod
//! slots; summed over the nodes that the pod may be on. Pods that wait for a node take their room first, wherever they fit.

mod facts;
mod nodes;

use std::collections::BTreeMap;

pub use facts::{NodeFacts, PodFacts};
pub use nodes::NodeRules;

use crate::core::quantity::Quantity;
use crate::core::selector::Labels;
use crate::core::taint::Taint;

/// What one pod takes, by resource.
pub type Requests = BTreeMap<String, Quantity>;

/// Different requests of pods without a node that are told apart; what is beyond counts as if it needed nothing.
const WAITING_SHAPES: usize = 1_000;
/// As many replicas as a workload can have.
const MOST: i64 = i32::MAX as i64;

/// What is free in one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    nodes: BTreeMap<String, Node>,
    /// Pods without a node, by what they request and ask of it.
    waiting: BTreeMap<(Vec<(String, Quantity)>, NodeRules), i64>,
}

/// What is free on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Node {
    free: Requests,
    pods: i64,
    labels: Labels,
    taints: Vec<Taint>,
}

impl Node {
    fn holds(&self, requests: &Requests) -> i64 {
        let asked = requests.iter().filter(|(_, request)| !request.is_zero());
        let times = asked.map(|(resource, request)| {
            let free = self.free.get(resource).copied().unwrap_or_default();
            free.holds(*request).unwrap_or(0)
        });
        times.chain([self.pods]).min().unwrap_or(0).clamp(0, MOST)
    }

    fn take(&mut self, requests: &Requests, count: i64) {
        self.pods = self.pods.saturating_sub(count);
        for (resource, request) in requests {
            if let Some(free) = self.free.get_mut(resource) {
                *free = *free - request.times(count);
            }
        }
    }
}

impl Room {
    /// Adds a node, before its pods. One that is not ready has no room.
    pub fn add_node(&mut self, facts: &NodeFacts) {
        if facts.is_ready() {
            let mut free = facts.allocatable();
            let one = Quantity::parse("1").unwrap_or_default();
            let node = Node {
                pods: free.remove("pods").and_then(|pods| pods.holds(one)).unwrap_or(0),
                free,
                labels: facts.labels(),
                taints: facts.taints(),
            };
            self.nodes.insert(facts.name().to_owned(), node);
        }
    }

    /// Takes what a pod requests. One that has ended takes nothing.
    pub fn add_pod(&mut self, facts: &PodFacts) {
        if facts.has_ended() {
            return;
        }
        let requests = facts.requests();
        if let Some(name) = facts.node() {
            if let Some(node) = self.nodes.get_mut(name) {
                node.take(&requests, 1);
            }
            return;
        }
        let shape = (requests.into_iter().collect(), facts.rules());
        if self.waiting.contains_key(&shape) || self.waiting.len() < WAITING_SHAPES {
            *self.waiting.entry(shape).or_default() += 1;
        }
    }

    /// Gives pods that wait for a node their room, once all nodes and pods are known. Those that fit nowhere take none.
    #[must_use]
    pub fn settle(mut self) -> Self {
        for ((shape, rules), mut count) in std::mem::take(&mut self.waiting) {
            let requests: Requests = shape.into_iter().collect();
            let filter = rules.prepare();
            let admitting = self
                .nodes
                .values_mut()
                .filter(|node| filter.admits(&node.labels, &node.taints));
            for node in admitting {
                let taken = node.holds(&requests).min(count);
                node.take(&requests, taken);
                count -= taken;
            }
        }
        self
    }

    /// How many pods with these requests fit on the nodes that they may be on, besides those that are there.
    pub fn fits(&self, requests: &Requests, rules: &NodeRules) -> i64 {
        let filter = rules.prepare();
        let admitting = self.nodes.values().filter(|node| filter.admits(&node.labels, &node.taints));
        let of_nodes = admitting.map(|node| node.holds(requests));
        of_nodes.fold(0i64, i64::saturating_add).min(MOST)
    }
}

/// How many more replicas of a feed fit: `fits`, less those that were `promised` to the cluster and do not exist there yet. What a cluster
/// cannot say about its replicas counts as existing.
pub fn more(fits: i64, running: Option<i64>, promised: i64) -> i64 {
    let coming = running.map_or(0, |running| promised.saturating_sub(running.max(0)));
    fits.clamp(0, MOST).saturating_sub(coming.max(0)).max(0)
}

#[cfg(test)]
mod tests;
