//! Keeps the cluster's status and labels up to date for heartbeats. One task per agent, because an API server that hangs must not hold up anything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::StatusCollector;
use crate::core::api::cluster::ClusterStatus;
use crate::core::node_labels::reported;
use crate::core::selector::Labels;

/// While the API server is not well it is asked this often, so that its return is seen soon.
const WHILE_UNWELL: Duration = Duration::from_secs(5);

/// What a hello and a heartbeat say about the cluster.
#[derive(Clone, Default)]
pub(super) struct Observation {
    pub(super) status: ClusterStatus,
    /// `None` while they are not known.
    pub(super) labels: Option<Labels>,
}

/// Collects until `stop`; `own` are the agent's own labels. The first observation is published as soon as it is there.
pub(super) async fn observe(
    mut collector: StatusCollector,
    own: Labels,
    observations: watch::Sender<Option<Observation>>,
    mut period: watch::Receiver<Duration>,
    look_now: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        let status = tokio::select! {
            () = stop.cancelled() => return,
            status = collector.collect() => status,
        };
        let well = status.readyz && status.message.is_empty();
        let labels = reported(collector.node_labels(), &own);
        observations.send_replace(Some(Observation { status, labels }));
        let pause = *period.borrow_and_update();
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if well { pause } else { pause.min(WHILE_UNWELL) }) => {}
            // Somebody else found the API server silent: that is news only while it was taken for well.
            () = look_now.notified(), if well => {}
            changed = period.changed() => {
                if changed.is_err() {
                    return;
                }
                collector.set_period(*period.borrow());
            }
        }
    }
}
