//! Branchline manages many Kubernetes clusters from one git repository: this page is the architecture.
//!
//! ```text
//! git push ─► hub: fetch ─► index ─► schedule ─► render ─► state branch (one commit) ─► offer over the tunnel
//!                                                                                         │
//! kubectl ──► hub API ──► tunnel ──► agent ──► cluster API     agent: fetch what is missing ─► plan ─► apply
//!                                                                  └── status ──► hub ──► API, CLI
//! ```
//!
//! # A pure core in thin shells
//!
//! [`core`] decides: functions from values to values, without IO, clock, randomness or async. The shells around it fetch the inputs and
//! carry out the outputs. One push runs through these values:
//!
//! - [`git`] reads a commit into a [`core::tree::FileTree`] and the contents that [`core::index::ParseCache`] lacks;
//! - [`core::index::build`] makes a [`core::index::Snapshot`] and diagnostics of them;
//! - [`core::pipeline::run`] places Subscriptions, renders feeds with their overrides, holds what git cannot say at the moment, and gives
//!   the next [`core::state::State`]; it calls [`core::schedule`] and [`core::render`];
//! - [`core::state::build`] turns that into git objects, and [`hub::writer`] commits them by compare-and-swap and publishes a
//!   [`hub::revision::Revision`];
//! - [`hub::session`] offers each agent the tree of its cluster with the objects that changed; [`wire`] has the messages, [`tunnel`]
//!   carries them;
//! - the [`agent`] reads the tree, plans with [`core::apply`] and carries the plan out against its API server with [`cluster`];
//! - what it reports ends in [`hub::registry`], and [`hub::projection`] shows it through [`kubeapi`];
//! - [`hub::live_facts`] brings readiness and room into the next run, asks agents for the latter ([`core::room`] is what they answer by), and
//!   wakes the writer when a placement depends on what changed.
//!
//! A request of a user comes in at [`hub::listener`] and passes three values: who it is ([`hub::auth`]: certificate, token, OIDC, a cluster's own
//! account), what it asks for ([`core::access::attributes`]) and what the repository allows ([`core::access::rbac`], the objects below `hub/`).
//! [`hub::gate`] puts them together and gives a [`hub::lease`] that ends with the right. What is about a cluster goes through its tunnel
//! ([`hub::proxy`]), in the user's name as far as the agent's owner lets it; what is about the hub is read from [`hub::projection`], or becomes an
//! edit ([`hub::editing`], [`core::registration`]) that the writer commits in the user's name.
//!
//! Offline, [`core::why`] asks the same functions again and follows a field from its source line to a cluster, and [`core::impact`] compares two
//! states: what a push would do. [`core::conceal`] keeps the values of Secrets out of both.
//!
//! [`sandbox`] is an API server in memory behind the same [`kubeapi`] front; `branchline demo` runs agents against it. [`cli`] has one
//! command per file and is the only place that knows all of the above.
//!
//! # Who may import whom
//!
//! ```text
//! main ─► cli ─► hub, agent, sandbox ─► git, tunnel, kubeapi, cluster ─► wire, net ─► core      nothing points the other way;
//!                                                                                               hub, agent and sandbox not at each other
//! ```
//!
//! A test (`tests/it/architecture.rs`) reads every `crate::…` path and holds it against this. What touches the world (files, sockets,
//! processes, clocks, tasks, randomness) is banned in `.clippy.toml`; the `mod` lines below are the list of who may, and why.
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
pub mod net;
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
