//! Asks the writer to keep the labels that a cluster reports, where they are not what its registration has. Never waits: what cannot be asked
//! for now, and what was refused, is asked for again at a later heartbeat.

use std::time::{Duration, Instant};

use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use super::writer::Wake;
use crate::core::access::Refusal;
use crate::core::ids::ClusterId;
use crate::core::node_labels::NodeLabels;
use crate::core::registration::{Edit, Edited};
use crate::core::selector::Labels;
use crate::core::text::bounded;

/// Each change is a commit: an agent that reports another one every moment is heard this often.
const AT_LEAST_BETWEEN: Duration = Duration::from_secs(5);

/// One session's reports.
#[derive(Debug, Default)]
pub(super) struct LabelReports {
    under_way: Option<oneshot::Receiver<Result<Edited, Refusal>>>,
    asked: Option<Instant>,
    /// Whether the log has said that something of a report cannot be taken; it says so once.
    complained: bool,
}

impl LabelReports {
    /// Takes a report of a cluster that is `known` with these labels.
    pub(super) fn hear(
        &mut self,
        cluster: &ClusterId,
        known: &Labels,
        reported: Labels,
        wakes: &mpsc::Sender<Wake>,
        now: Instant,
    ) {
        let (labels, problem) = NodeLabels::admit(reported);
        self.complain(cluster, problem);
        self.see_answer(cluster);
        let waits = self.asked.is_some_and(|asked| now < asked + AT_LEAST_BETWEEN);
        if self.under_way.is_some() || waits || labels.stand_in(known) {
            return;
        }
        let (reply, answer) = oneshot::channel();
        let cluster = cluster.clone();
        match wakes.try_send(Wake::Edit(Edit::ReportLabels { cluster, labels }, reply)) {
            Ok(()) => (self.under_way, self.asked) = (Some(answer), Some(now)),
            Err(error) => debug!(%error, "the writer takes no labels now; they are tried again at the next heartbeat"),
        }
    }

    fn complain(&mut self, cluster: &ClusterId, problem: Option<String>) {
        if let Some(problem) = problem.as_deref().map(bounded).filter(|_| !self.complained) {
            warn!(cluster = %cluster, problem, "labels that the agent reports are left out; correct its --labels or those of its nodes");
            self.complained = true;
        }
    }

    fn see_answer(&mut self, cluster: &ClusterId) {
        let Some(answer) = &mut self.under_way else { return };
        match answer.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Err(refusal)) => {
                warn!(cluster = %cluster, refusal = %refusal, "the labels that the agent reports were not kept; they are tried again");
            }
            // The writer threw the request away with a run that broke off; the comparison that follows shows what is missing.
            Ok(Ok(_)) | Err(TryRecvError::Closed) => {}
        }
        self.under_way = None;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LATER: Duration = AT_LEAST_BETWEEN;

    /// A session, and the writer's end of the queue.
    struct World {
        reports: LabelReports,
        wakes: mpsc::Sender<Wake>,
        queue: mpsc::Receiver<Wake>,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let (wakes, queue) = mpsc::channel(1);
            World {
                reports: LabelReports::default(),
                wakes,
                queue,
                now: Instant::now(),
            }
        }

        fn hear(&mut self, gpu: &str) {
            let cluster = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b".parse().unwrap();
            let known = labels("no");
            self.reports.hear(&cluster, &known, labels(gpu), &self.wakes, self.now);
        }

        fn asked(&mut self) -> Option<oneshot::Sender<Result<Edited, Refusal>>> {
            match self.queue.try_recv() {
                Ok(Wake::Edit(Edit::ReportLabels { .. }, reply)) => Some(reply),
                Ok(other) => panic!("{other:?}"),
                Err(_) => None,
            }
        }
    }

    fn labels(gpu: &str) -> Labels {
        Labels::from([("node.clusternet.io/gpu".to_owned(), gpu.to_owned())])
    }

    #[test]
    fn only_what_differs_is_asked_for_once() {
        let mut world = World::new();
        world.hear("no");
        assert!(world.asked().is_none(), "it stands already");
        world.hear("yes");
        let reply = world.asked().unwrap();
        world.now += LATER;
        world.hear("yes");
        assert!(world.asked().is_none(), "one request is under way");
        reply.send(Ok(Edited::Token)).unwrap();
        world.hear("no");
        assert!(world.asked().is_none(), "it is as it should be");
    }

    #[test]
    fn what_was_refused_or_lost_is_asked_for_again() {
        let mut world = World::new();
        world.hear("yes");
        world.asked().unwrap().send(Err(Refusal::forbidden("no"))).unwrap();
        world.hear("yes");
        assert!(world.asked().is_none(), "not at once");
        world.now += LATER;
        world.hear("yes");
        drop(world.asked().unwrap());
        world.now += LATER;
        world.hear("yes");
        assert!(world.asked().is_some());
    }

    #[test]
    fn a_full_queue_stops_nobody() {
        let mut world = World::new();
        world.wakes.try_send(Wake::Source("watch")).unwrap();
        world.hear("yes");
        assert!(matches!(world.queue.try_recv(), Ok(Wake::Source(_))));
        world.hear("yes");
        assert!(
            world.asked().is_some(),
            "nothing was asked before, so nothing has to be waited for"
        );
    }
}
