//! The agent: registers with the hub, keeps the tunnel up, applies what is offered, reports, answers proxied requests.
//! Decides nothing about what should be in the cluster: plans come from [`crate::core::apply`].

mod execute;

pub use execute::{Run, execute};
