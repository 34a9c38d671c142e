//! The owner of the inventory: takes offers, asks for what is missing, plans, executes, remembers, reports. One task per agent, which
//! outlives every tunnel.
//!
//! ```text
//! Offer ─► content at hand? ─no─► Want ─► Content ─┐
//!              ▲ yes                               │
//!              └───────────────────────────────────┘
//!          plan ─► save old ∪ new ─► execute ─► save ─► Report ─► (failed: again after a while)
//!                                       ▲ a newer Offer ends it between two requests
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::execute::{Run, execute};
use super::until;
use crate::cluster::{ApiError, Cluster, InventoryStore, StoreError};
use crate::core::apply::{Contents, Inventory, Laid, Outcomes, Plan, Target, Wanted, lay_out, plan, reports};
use crate::core::ids::{ObjectId, ObjectKind};
use crate::core::status::{DescriptionReport, Phase};
use crate::core::text::bounded;
use crate::tunnel::backoff::Backoff;
use crate::wire::content::ContentObject;
use crate::wire::control::{Report, ToHub};

/// Ids in one request for content.
const WANT_AT_ONCE: usize = 16_384;
/// JSON of one report; a message may have four times as much.
const REPORT_BYTES: usize = 1 << 20;
/// Pauses before what failed is tried again. Long in the end, because what an API server refuses it mostly goes on refusing.
const AFTER_FAILURE: Backoff = Backoff {
    first: Duration::from_secs(4),
    steady: 0,
    longest: Duration::from_secs(300),
};
/// Pauses before an API server that does not answer is asked again.
const WHILE_DOWN: Backoff = Backoff {
    first: Duration::from_secs(1),
    steady: 0,
    longest: Duration::from_secs(10),
};

/// Pauses before content that the hub did not have is asked for again. Mostly its next offer comes first.
const MISSING_CONTENT: Backoff = Backoff {
    first: Duration::from_millis(500),
    steady: 0,
    longest: Duration::from_secs(60),
};

/// What the tunnel brings.
#[derive(Debug)]
pub(super) enum Delivery {
    /// A tunnel is up; reports go here.
    Connected(mpsc::Sender<ToHub>),
    /// The hub offers a tree.
    Offer(Target, Vec<ContentObject>),
    /// The hub answers a request for content.
    Content(Vec<ContentObject>, Vec<ObjectId>),
}

/// What the agent says about itself in its hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    pub(super) held: Option<ObjectId>,
    pub(super) applied: Option<ObjectId>,
    pub(super) epoch: u64,
    pub(super) generation: u64,
}

/// Why a run could not begin or end.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{}", .0.explain())]
    Api(#[from] ApiError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RunError {
    fn is_unreachable(&self) -> bool {
        match self {
            RunError::Api(error) | RunError::Store(StoreError::Api(error)) => error.is_unreachable(),
            RunError::Store(_) => false,
        }
    }
}

/// The task's state.
pub(super) struct Deliverer {
    cluster: Cluster,
    store: Option<InventoryStore>,
    inventory: Inventory,
    contents: Contents,
    outcomes: Outcomes,
    target: Option<Target>,
    /// The target's whole content is at hand.
    held: bool,
    /// Content that the hub was asked for and has not sent yet.
    asked: BTreeSet<ObjectId>,
    retry: Option<Instant>,
    attempts: u32,
    outbox: Option<mpsc::Sender<ToHub>>,
    /// What was reported on this tunnel, by digest.
    reported: BTreeMap<String, ObjectId>,
    /// Descriptions whose report may have changed since.
    unreported: BTreeSet<String>,
    /// The head of the last report on this tunnel.
    reported_head: Option<Report>,
    standing: watch::Sender<Option<Standing>>,
    /// Wakes whoever observes the API server: it did not answer.
    look_now: Arc<Notify>,
}

impl Deliverer {
    /// A deliverer that has read nothing yet, and where its standing can be seen.
    pub(super) fn new(cluster: Cluster, look_now: Arc<Notify>) -> (Self, watch::Receiver<Option<Standing>>) {
        let (standing, seen) = watch::channel(None);
        let deliverer = Deliverer {
            cluster,
            store: None,
            inventory: Inventory::default(),
            contents: Contents::default(),
            outcomes: Outcomes::default(),
            target: None,
            held: false,
            asked: BTreeSet::new(),
            retry: None,
            attempts: 0,
            outbox: None,
            reported: BTreeMap::new(),
            unreported: BTreeSet::new(),
            reported_head: None,
            standing,
            look_now,
        };
        (deliverer, seen)
    }

    /// Works until `stop`, or until nobody can bring anything any more.
    pub(super) async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        if let Err(error) = self.open().await {
            self.postpone(&error);
        }
        loop {
            let retry = self.retry;
            tokio::select! {
                () = stop.cancelled() => return,
                delivery = deliveries.recv() => match delivery {
                    Some(delivery) => self.take(delivery).await,
                    None => return,
                },
                () = until(retry) => self.retry = None,
            }
            if self.retry.is_none() {
                self.work(&mut deliveries, &stop).await;
            }
        }
    }

    /// Reads the inventory, once.
    async fn open(&mut self) -> Result<(), RunError> {
        if self.store.is_none() {
            let (store, inventory) = InventoryStore::load(&self.cluster).await?;
            let objects = inventory.entries.len();
            tracing::info!(objects, generation = inventory.position.generation, "inventory read");
            (self.store, self.inventory) = (Some(store), inventory);
        }
        self.publish();
        Ok(())
    }

    async fn take(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Connected(outbox) => {
                self.outbox = Some(outbox);
                self.reported.clear();
                self.reported_head = None;
                self.unreported = self.inventory.subs();
                self.unreported.extend(self.outcomes.subs());
                if !self.held {
                    // The hub offers anew what is still wanted, and answers nothing that belongs to an offer of another tunnel.
                    self.target = None;
                }
                self.report_all().await;
            }
            Delivery::Offer(target, objects) => self.take_offer(target, objects),
            Delivery::Content(objects, missing) => {
                for object in objects {
                    self.asked.remove(&object.id);
                    self.contents.add(object.id, &object.content);
                }
                if let Some(id) = missing.iter().find(|id| self.asked.contains(id)) {
                    tracing::warn!(%id, "the hub does not have content of the tree that it offered; asking again, or a newer offer comes");
                    self.asked.clear();
                    self.postpone_for(MISSING_CONTENT);
                }
            }
        }
    }

    /// A newer offer takes the place of whatever is under way. An older one comes from a hub that has lost its memory.
    fn take_offer(&mut self, target: Target, objects: Vec<ContentObject>) {
        let position = &self.inventory.position;
        let taken = self
            .target
            .map_or((position.epoch, position.generation), |t| (t.epoch, t.generation));
        if (target.epoch, target.generation) < taken {
            tracing::error!(
                offered = ?(target.epoch, target.generation), taken = ?taken,
                "refused an offer that is older than the one taken; if the hub was restored from a backup, raise its epoch"
            );
            return;
        }
        objects
            .iter()
            .for_each(|object| self.contents.add(object.id, &object.content));
        tracing::info!(generation = target.generation, tree = %target.tree, objects = objects.len(), "offer");
        self.target = Some(target);
        self.held = false;
        self.asked.clear();
        (self.retry, self.attempts) = (None, 0);
    }

    /// Goes as far as it can with the present target.
    async fn work(&mut self, deliveries: &mut mpsc::Receiver<Delivery>, stop: &CancellationToken) {
        if let Err(error) = self.open().await {
            return self.postpone(&error);
        }
        while let Some(target) = self.target.filter(|_| self.retry.is_none() && !stop.is_cancelled()) {
            let wanted = match lay_out(target.tree, &self.contents, &self.inventory) {
                Laid::Complete(wanted) => wanted,
                Laid::Missing(ids) => return self.ask_for(target, &ids).await,
            };
            self.held = true;
            if self.is_done(target) {
                self.publish();
                return self.report_all().await;
            }
            match self.carry_out(target, wanted, deliveries, stop).await {
                Ok(()) => {}
                Err(error) => self.postpone(&error),
            }
            self.report_all().await;
        }
    }

    fn is_done(&self, target: Target) -> bool {
        let position = &self.inventory.position;
        position.applied == Some(target.tree) && (position.epoch, position.generation) == (target.epoch, target.generation)
    }

    async fn carry_out(
        &mut self,
        target: Target,
        wanted: Wanted,
        deliveries: &mut mpsc::Receiver<Delivery>,
        stop: &CancellationToken,
    ) -> Result<(), RunError> {
        let plan = self.plan(target, wanted).await?;
        self.save(&plan.record).await?;
        self.inventory = plan.record.clone();
        self.publish();
        let started = Instant::now();
        let Run { finished, unreachable } = self.execute(plan, deliveries, stop).await;
        self.inventory = finished.inventory;
        self.keep_outcomes(finished.outcomes, &finished.subs);
        let saved = self.save(&self.inventory.clone()).await;
        self.contents.keep_for(target.tree, &self.inventory);
        self.publish();
        let (complete, milliseconds) = (finished.complete, started.elapsed().as_millis());
        tracing::info!(generation = target.generation, complete, milliseconds, "applied");
        match unreachable {
            Some(message) => {
                tracing::warn!(%message, "applying goes on when the API server answers again");
                self.postpone_for(WHILE_DOWN);
            }
            None if complete => self.attempts = 0,
            None if self.target == Some(target) => {
                self.say_what_failed();
                self.postpone_for(AFTER_FAILURE);
            }
            None => {}
        }
        saved
    }

    fn say_what_failed(&self) {
        let reports = reports(&self.outcomes.subs(), &self.inventory, &self.outcomes);
        let failed: Vec<_> = reports.iter().filter(|report| report.phase == Phase::Failure).collect();
        if let Some(first) = failed.first() {
            let (description, reason, more) = (&first.name, &first.reason, failed.len() - 1);
            tracing::warn!(%description, %reason, more, "not everything could be applied; trying again");
        }
    }

    async fn plan(&self, target: Target, wanted: Wanted) -> Result<Plan, RunError> {
        let mut kinds = wanted.kinds();
        kinds.extend(self.inventory.kinds());
        self.cluster.discover(kinds).await?;
        let catalog = self.cluster.catalog();
        Ok(plan(target, wanted, &self.inventory, &|group, kind| {
            catalog.scope(group, kind)
        }))
    }

    /// Executes while listening: what comes meanwhile is taken at once, and a newer offer ends the run.
    async fn execute(&mut self, plan: Plan, deliveries: &mut mpsc::Receiver<Delivery>, stop: &CancellationToken) -> Run {
        let superseded = stop.child_token();
        let cluster = self.cluster.clone();
        let mut run = std::pin::pin!(execute(&cluster, plan, &superseded));
        loop {
            tokio::select! {
                run = &mut run => return run,
                Some(delivery) = deliveries.recv() => {
                    let before = self.target;
                    self.take(delivery).await;
                    if self.target != before {
                        superseded.cancel();
                    }
                }
            }
        }
    }

    async fn save(&mut self, inventory: &Inventory) -> Result<(), RunError> {
        let Some(store) = &mut self.store else {
            return Ok(());
        };
        let saved = store.save(inventory).await;
        if matches!(saved, Err(StoreError::Conflict)) {
            // Whatever the other one wrote has to be read before anything else is done.
            self.store = None;
        }
        Ok(saved?)
    }

    /// What did not go well stays until something newer happens to its Description; Descriptions that are gone for good are forgotten.
    fn keep_outcomes(&mut self, fresh: Outcomes, subs: &BTreeSet<String>) {
        let touched = fresh.subs();
        let known = self.inventory.subs();
        let stays = |sub: &String| !touched.contains(sub) && (subs.contains(sub) || known.contains(sub));
        let mut old = std::mem::take(&mut self.outcomes);
        self.unreported.extend(old.subs());
        self.unreported.extend(touched.iter().cloned());
        self.unreported.extend(self.inventory.empty.iter().cloned());
        old.forget_successes();
        old.objects.retain(|sub, _| stays(sub));
        self.outcomes = fresh;
        self.outcomes.objects.append(&mut old.objects);
    }

    async fn ask_for(&mut self, target: Target, ids: &[ObjectId]) {
        let unasked: Vec<ObjectId> = ids.iter().copied().filter(|id| self.asked.insert(*id)).collect();
        for ids in unasked.chunks(WANT_AT_ONCE) {
            let ids = ids.to_vec();
            self.send(ToHub::Want { tree: target.tree, ids }).await;
        }
    }

    /// Tells the hub what has changed since the last report on this tunnel.
    async fn report_all(&mut self) {
        let position = &self.inventory.position;
        let tree = self.target.map(|target| target.tree).or(position.applied);
        let (Some(tree), true) = (tree, self.outbox.is_some()) else {
            return;
        };
        let applied = position.applied == Some(tree);
        let head = Report {
            epoch: position.epoch,
            generation: position.generation,
            tree,
            held: self.held || applied,
            applied,
            descriptions: Vec::new(),
        };
        let known = self.reported_head.replace(head.clone()).as_ref() == Some(&head);
        for descriptions in self.changed_reports() {
            if known && descriptions.is_empty() {
                continue;
            }
            let report = Report {
                descriptions,
                ..head.clone()
            };
            self.send(ToHub::Report(report)).await;
        }
        self.outcomes.forget_successes();
    }

    /// Changed Descriptions in portions that fit a message; an empty one if there are none.
    fn changed_reports(&mut self) -> Vec<Vec<DescriptionReport>> {
        let mut portions = vec![Vec::new()];
        let mut size = 0;
        let unreported = std::mem::take(&mut self.unreported);
        for report in reports(&unreported, &self.inventory, &self.outcomes) {
            let bytes = serde_json::to_vec(&report).unwrap_or_default();
            let digest = ObjectId::hash(ObjectKind::Blob, &bytes);
            if self.reported.insert(report.name.clone(), digest) == Some(digest) {
                continue;
            }
            if size > 0 && size + bytes.len() > REPORT_BYTES {
                portions.push(Vec::new());
                size = 0;
            }
            size += bytes.len();
            if let Some(portion) = portions.last_mut() {
                portion.push(report);
            }
        }
        portions
    }

    /// A tunnel that has gone takes its outbox along; the next one begins with everything.
    async fn send(&mut self, message: ToHub) {
        if let Some(outbox) = &self.outbox
            && outbox.send(message).await.is_err()
        {
            self.outbox = None;
        }
    }

    fn postpone(&mut self, error: &RunError) {
        let message = bounded(&error.to_string());
        tracing::warn!(%message, "nothing can be applied now; trying again");
        if error.is_unreachable() {
            self.look_now.notify_one();
        }
        if let Some(target) = self.target {
            // Offers go on coming while nothing can be applied; only the last one's content is of use.
            self.contents.keep_for(target.tree, &self.inventory);
        }
        self.postpone_for(if error.is_unreachable() { WHILE_DOWN } else { AFTER_FAILURE });
    }

    fn postpone_for(&mut self, backoff: Backoff) {
        // Half fixed, half random: never at once, never all agents together.
        let delay = backoff.delay(self.attempts, 0.5 + rand::random::<f64>() / 2.0);
        self.attempts = self.attempts.saturating_add(1);
        self.retry = Some(Instant::now() + delay);
    }

    fn publish(&self) {
        let position = self.inventory.position;
        let held = self.target.filter(|_| self.held).map(|target| target.tree);
        let standing = Standing {
            held: held.or(position.applied),
            applied: position.applied,
            epoch: position.epoch,
            generation: position.generation,
        };
        self.standing.send_replace(Some(standing));
    }
}

#[cfg(test)]
mod tests;
