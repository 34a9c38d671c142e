//! Keeps the cluster's status up to date for heartbeats. One task per agent, because an API server that hangs must not hold up anything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::cluster::{Cluster, StatusCollector};
use crate::core::api::cluster::ClusterStatus;

/// While the API server is not well it is asked this often, so that its return is seen soon.
const WHILE_UNWELL: Duration = Duration::from_secs(5);

/// Collects until `stop`. The first status is published as soon as it is there.
pub(super) async fn observe(
    cluster: Cluster,
    status: watch::Sender<Option<ClusterStatus>>,
    mut period: watch::Receiver<Duration>,
    look_now: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut collector = StatusCollector::new(cluster, *period.borrow());
    loop {
        let collected = tokio::select! {
            () = stop.cancelled() => return,
            collected = collector.collect() => collected,
        };
        let well = collected.readyz && collected.message.is_empty();
        status.send_replace(Some(collected));
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
