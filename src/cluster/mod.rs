//! One real API server: how to reach it, what kinds it knows, writing and deleting objects, the inventory's home, what to say about it;
//! and the way to services beside it.
//! Decides nothing about what should be in the cluster, and knows nothing of hub or tunnel.

mod access;
mod client;
mod clusternet;
mod discovery;
mod error;
mod inventory;
mod objects;
mod read_ahead;
mod room;
mod services;
mod status;

pub use access::{Access, AccessError};
pub use client::{Body, BoxError, Cluster, full};
pub use clusternet::{ClusternetLayer, ClusternetService};
pub use discovery::{Catalog, Resource};
pub use error::{ApiError, Status};
pub use inventory::{InventoryStore, StoreError};
pub use objects::{Deleted, FIELD_MANAGER};
pub use services::Services;
pub use status::{SURVEY_INTERVAL, StatusCollector};

/// Namespace in every cluster that holds what the agent keeps there.
pub const SYSTEM_NAMESPACE: &str = "branchline-system";

/// Makes `ring` the TLS provider of this process; a second call changes nothing.
pub fn install_tls_provider() {
    // The only error is that a provider is installed already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
