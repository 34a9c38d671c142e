//! Whether a cluster can be worked with, by its tunnel, its heartbeat and what its API server answers. Values in, values out.

use jiff::Timestamp;

use super::registry::{Live, seconds};
use crate::core::readiness::Seen;

/// A cluster that was not heard of for this long is not ready; three heartbeats.
const SILENCE: i64 = 90;

/// Whether a cluster can be worked with, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Readiness {
    /// `True`, `False` or `Unknown`.
    pub(super) status: &'static str,
    /// A word for it.
    pub(super) reason: &'static str,
    /// A sentence for it.
    pub(super) message: String,
    /// When it ceased to be ready, in seconds, where that is known.
    since: Option<i64>,
}

impl Readiness {
    /// What counts for the grace.
    pub(super) fn seen(&self) -> Seen {
        match self.status {
            "True" => Seen::Ready,
            _ => Seen::Unready {
                since: self.since,
                reason: self.reason,
            },
        }
    }
}

/// Judges a cluster.
pub(super) fn ready(live: Option<&Live>, now: Timestamp) -> Readiness {
    let unknown = |reason, message, since| Readiness {
        status: "Unknown",
        reason,
        message,
        since,
    };
    let Some(live) = live else {
        let message = "the agent has not connected since this hub started".to_owned();
        return unknown("NeverConnected", message, None);
    };
    if let Some(lost) = live.lost {
        let message = format!("the agent's tunnel ended at {}", seconds(lost));
        return unknown("TunnelClosed", message, Some(lost.as_second()));
    }
    if now.as_second() - live.heard.as_second() > SILENCE {
        let message = format!("nothing was heard since {}", seconds(live.heard));
        return unknown("ClusterStatusUnknown", message, Some(live.heard.as_second()));
    }
    let status = live.status.read();
    if (status.livez && status.readyz) || status.healthz {
        return Readiness {
            status: "True",
            reason: "ManagedClusterReady",
            message: "the agent's API server is ready".to_owned(),
            since: None,
        };
    }
    let why = match status.message.as_str() {
        "" => "the API server does not answer its health checks",
        why => why,
    };
    Readiness {
        status: "False",
        reason: "ManagedClusterNotReady",
        message: why.to_owned(),
        since: None,
    }
}
