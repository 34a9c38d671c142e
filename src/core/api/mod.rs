//! Clusternet's kinds as serde types, field for field. Decides nothing.
//!
//! Source: `clusternet/clusternet` main @ `19245ba`, package `pkg/apis`.

pub mod bundle;
pub mod cluster;
pub mod helm;
pub mod overrides;
pub mod paths;
pub mod subscription;

/// The API group of Subscriptions, overrides, Bases, Descriptions and charts.
pub const APPS_GROUP: &str = "apps.clusternet.io";
/// `apiVersion` of the kinds in [`APPS_GROUP`].
pub const APPS_VERSION: &str = "apps.clusternet.io/v1alpha1";
/// The API group of ManagedClusters and registration requests.
pub const CLUSTERS_GROUP: &str = "clusters.clusternet.io";
/// `apiVersion` of the kinds in [`CLUSTERS_GROUP`].
pub const CLUSTERS_VERSION: &str = "clusters.clusternet.io/v1beta1";
/// The API group of the tunnel's sockets.
pub const PROXIES_GROUP: &str = "proxies.clusternet.io";
/// Our own API group.
pub const BRANCHLINE_GROUP: &str = "branchline.io";
/// `apiVersion` of the kinds in [`BRANCHLINE_GROUP`].
pub const BRANCHLINE_VERSION: &str = "branchline.io/v1alpha1";
/// Prefix of the dedicated namespace that the hub gives to a new cluster: `clusternet-<cluster name>`.
pub const DEDICATED_NAMESPACE_PREFIX: &str = "clusternet-";
