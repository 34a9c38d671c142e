//! Branchline manages many Kubernetes clusters from one git repository.
#![forbid(unsafe_code)]

pub mod cli;
pub mod core;
pub mod git;
pub mod kubeapi;
pub mod sandbox;
pub mod tunnel;
pub mod wire;
