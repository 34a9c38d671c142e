//! Branchline manages many Kubernetes clusters from one git repository.
#![forbid(unsafe_code)]

#[expect(clippy::disallowed_methods, reason = "dials, waits between tries, keeps credentials in a file")]
pub mod agent;
pub mod cli;
#[expect(clippy::disallowed_methods, reason = "talks to an API server, waits between tries, says when it looked")]
pub mod cluster;
pub mod core;
pub mod git;
pub mod kubeapi;
#[expect(clippy::disallowed_methods, reason = "stamps objects and ends watches by the clock")]
pub mod sandbox;
#[expect(clippy::disallowed_methods, reason = "sockets, keep-alive by the clock, one driver task per tunnel, jitter")]
pub mod tunnel;
pub mod wire;
