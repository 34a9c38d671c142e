//! Branchline manages many Kubernetes clusters from one git repository.
#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
pub mod core;
pub mod git;
pub mod kubeapi;
pub mod sandbox;
#[expect(clippy::disallowed_methods, reason = "stamps objects and ends watches by the clock")]
#[expect(clippy::disallowed_methods, reason = "sockets, keep-alive by the clock, one driver task per tunnel, jitter")]
pub mod tunnel;
pub mod wire;
