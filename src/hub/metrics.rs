//! Counters and gauges for `/metrics`, OpenMetrics text. Labels never come from a peer's text.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The hub's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Tunnels that stand.
    pub tunnels: Gauge,
    /// Clusters of the fleet.
    pub clusters: Gauge,
    /// Clusters whose agent has applied the desired tree.
    pub in_sync: Gauge,
    /// Errors of the last run.
    pub errors: Gauge,
    /// Generation of the state branch.
    pub generation: Gauge,
    /// Offers sent.
    pub offers: Counter,
    /// Git objects sent to agents.
    pub objects_sent: Counter,
    /// Reports of a tree that was applied without a failure.
    pub applied: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("branchline"),
            tunnels: Gauge::default(),
            clusters: Gauge::default(),
            in_sync: Gauge::default(),
            errors: Gauge::default(),
            generation: Gauge::default(),
            offers: Counter::default(),
            objects_sent: Counter::default(),
            applied: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("tunnels", "Tunnels that stand", metrics.tunnels.clone());
        registry.register("clusters", "Clusters of the fleet", metrics.clusters.clone());
        registry.register(
            "clusters_in_sync",
            "Clusters that have applied their desired state",
            metrics.in_sync.clone(),
        );
        registry.register("source_errors", "Errors in the source repository", metrics.errors.clone());
        registry.register("generation", "Generation of the state branch", metrics.generation.clone());
        registry.register("offers", "Offers sent to agents", metrics.offers.clone());
        registry.register("objects_sent", "Git objects sent to agents", metrics.objects_sent.clone());
        registry.register(
            "trees_applied",
            "Reports of a tree applied without a failure",
            metrics.applied.clone(),
        );
        metrics
    }
}

impl Metrics {
    /// All metrics as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
