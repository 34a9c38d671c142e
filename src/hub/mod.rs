//! The hub: certificates, the one TLS port, tunnels and proxied requests.

pub mod acceptor;
pub mod answer;
pub mod auth;
pub mod ca;
pub mod listener;
pub mod proxy;
pub mod socket_path;
pub mod tls;
pub mod revision;
pub mod source;
pub mod writer;
pub mod registry;
pub mod delivery;
pub mod session;
pub mod metrics;
