//! Branchline manages many Kubernetes clusters from one git repository.
#![forbid(unsafe_code)]

#[expect(
    clippy::disallowed_methods,
    reason = "dials, waits between tries, keeps credentials in a file"
)]
pub mod agent;
#[expect(
    clippy::disallowed_methods,
    reason = "reads and writes the files that the command line names"
)]
pub mod cli;
#[expect(
    clippy::disallowed_methods,
    reason = "talks to an API server, waits between tries, says when it looked"
)]
pub mod cluster;
pub mod core;
#[expect(
    clippy::disallowed_methods,
    reason = "starts git, in one file, with a thread that reads what it prints"
)]
pub mod git;
#[expect(
    clippy::disallowed_methods,
    reason = "the authority's files, the clock in certificates, one task per connection and session"
)]
pub mod hub;
#[expect(clippy::disallowed_methods, reason = "stamps objects and ends watches by the clock")]
pub mod kubeapi;
#[expect(
    clippy::disallowed_methods,
    reason = "stamps objects by the clock, draws UIDs, keeps its objects in a file"
)]
pub mod sandbox;
#[expect(
    clippy::disallowed_methods,
    reason = "sockets, keep-alive by the clock, one driver task per tunnel, jitter"
)]
pub mod tunnel;
pub mod wire;
