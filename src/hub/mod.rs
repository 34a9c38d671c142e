//! The hub: certificates, the one TLS port, tunnels and proxied requests.

pub mod acceptor;
pub mod answer;
pub mod api;
pub mod audit;
pub mod auth;
mod body;
pub mod ca;
mod client_stream;
pub mod data;
pub mod delivery;
pub mod editing;
pub mod endpoints;
pub mod gate;
mod kinds;
pub mod lease;
pub mod listener;
pub mod live_facts;
pub mod metrics;
mod node_labels;
pub mod projection;
pub mod proxy;
mod readiness;
pub mod registry;
pub mod revision;
mod rooms;
pub mod router;
pub mod run;
mod self_reviews;
pub mod session;
pub mod socket_path;
pub mod source;
pub mod tls;
pub mod user_access;
pub mod writer;
mod writes;

pub use run::{Hub, HubConfig, HubError, UserCredentials};
