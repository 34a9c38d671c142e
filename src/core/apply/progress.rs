//! Carrying a plan out, as a value: which step is next, given what has happened so far. The executor only obeys.
//!
//! ```text
//! Progress::start ─► next ─► Some(step) ─► done(key, …) for each item ─► next ─► … ─► None ─► finish
//!                      └── finish at any time (superseded, shutting down): what was not done stays pending
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::inventory::{Inventory, Position};
use super::plan::{Apply, Plan, Removal, Step, Target};
use super::report::Outcomes;
use crate::core::ids::{ObjectId, ObjectKey};
use crate::core::status::ObjectOutcome;

const KEPT: &str = "is no longer part of the Description, but objects of this kind are never deleted because of the data they hold; \
                    delete it with kubectl if nobody needs it";
const HELD_BACK: &str = "will be deleted once everything else of this Description is applied";
const UNDECIDED: &str = "waits until the cluster knows this kind: whether it lives in namespaces decides whether this is another object of \
                         the same name that is still asked for; feed the CustomResourceDefinition as well, or install what brings it";
const INTERRUPTED: &str = "not done yet; the run was interrupted and goes on";

/// What came of one item of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// The API server took it; a definition is established.
    Well,
    /// It did not work, with the reason.
    Failed(String),
    /// It was not tried, with the reason; it will be.
    NotTried(String),
    /// A removal: the object is there and does not carry our marks (any more), so it was left alone.
    NotOurs,
    /// A removal: the API server took it, and the object is still there until its finalizers or its grace period let it go; with what it says.
    Going(String),
    /// A removal of a kind that is never deleted: the object is still there.
    StillThere,
}

/// A plan under way.
#[derive(Debug)]
pub struct Progress {
    target: Target,
    inventory: Inventory,
    steps: VecDeque<Step>,
    applies: BTreeMap<ObjectKey, (String, String, ObjectId)>,
    removals: BTreeMap<ObjectKey, Removal>,
    failed_subs: BTreeSet<String>,
    incomplete: bool,
    outcomes: Outcomes,
    subs: BTreeSet<String>,
    superseded: Vec<ObjectKey>,
}

/// What a run came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// To be saved.
    pub inventory: Inventory,
    /// What happened to what.
    pub outcomes: Outcomes,
    /// Every Description of the tree.
    pub subs: BTreeSet<String>,
    /// Everything was carried out without a failure.
    pub complete: bool,
}

impl Progress {
    /// Begins with the recorded inventory, which must have been saved.
    pub fn start(plan: Plan) -> Self {
        let mut progress = Progress {
            target: plan.target,
            inventory: plan.record,
            steps: VecDeque::new(),
            applies: BTreeMap::new(),
            removals: BTreeMap::new(),
            failed_subs: BTreeSet::new(),
            incomplete: false,
            outcomes: Outcomes::default(),
            subs: plan.subs,
            superseded: plan.superseded,
        };
        progress.incomplete = !plan.unrendered.is_empty() || !plan.undecided.is_empty();
        plan.undecided.iter().for_each(|removal| progress.wait(removal, UNDECIDED));
        plan.unrendered
            .into_iter()
            .for_each(|chart| progress.outcomes.leave_out(chart));
        for failure in plan.failures {
            progress.failed_subs.insert(failure.sub.clone());
            match failure.object {
                Some((key, version)) => {
                    progress
                        .outcomes
                        .set(&failure.sub, &key, &version, ObjectOutcome::Failed, failure.message);
                }
                None => progress.outcomes.trouble(&failure.sub, failure.message),
            }
        }
        plan.steps.iter().for_each(|step| progress.expect(step));
        progress.steps = plan.steps.into();
        progress
    }

    /// Until its turn comes, every item counts as waiting: an interrupted run then reports the truth.
    fn expect(&mut self, step: &Step) {
        match step {
            Step::Apply(items) => items.iter().for_each(|item| self.expect_apply(item)),
            Step::Establish(_) => {}
            Step::Prune(items) => items.iter().for_each(|item| self.expect_removal(item)),
        }
    }

    fn expect_apply(&mut self, item: &Apply) {
        let version = self
            .inventory
            .entries
            .get(&item.key)
            .map_or(String::new(), |entry| entry.api_version.clone());
        self.outcomes
            .set(&item.sub, &item.key, &version, ObjectOutcome::Waiting, INTERRUPTED.to_owned());
        self.applies.insert(item.key.clone(), (item.sub.clone(), version, item.blob));
    }

    fn expect_removal(&mut self, item: &Removal) {
        self.wait(item, HELD_BACK);
        self.removals.insert(item.key.clone(), item.clone());
    }

    fn wait(&mut self, item: &Removal, why: &str) {
        let waiting = ObjectOutcome::Waiting;
        self.outcomes
            .set(&item.sub, &item.key, &item.api_version, waiting, why.to_owned());
    }

    /// The next step, without what earlier failures hold back. Empty steps are skipped.
    pub fn next_step(&mut self) -> Option<Step> {
        while let Some(step) = self.steps.pop_front() {
            let step = match step {
                Step::Establish(mut keys) => {
                    keys.retain(|key| self.inventory.entries.get(key).is_some_and(|entry| entry.applied.is_some()));
                    Step::Establish(keys)
                }
                Step::Prune(mut items) => {
                    items.retain(|item| !self.failed_subs.contains(&item.sub));
                    Step::Prune(items)
                }
                apply @ Step::Apply(_) => apply,
            };
            if !step.is_empty() {
                return Some(step);
            }
        }
        None
    }

    /// Notes what came of one item of the step that is under way.
    pub fn done(&mut self, key: &ObjectKey, done: Done) {
        if let Some((sub, version, blob)) = self.applies.get(key).cloned() {
            self.applied(key, &sub, &version, blob, done);
        } else if let Some(removal) = self.removals.get(key).cloned() {
            self.removed(&removal, done);
        }
    }

    fn applied(&mut self, key: &ObjectKey, sub: &str, version: &str, blob: ObjectId, done: Done) {
        let (outcome, message) = match done {
            Done::Well => (ObjectOutcome::Applied, String::new()),
            Done::Failed(why) => (ObjectOutcome::Failed, why),
            Done::NotTried(why) => (ObjectOutcome::Waiting, why),
            Done::Going(why) => (ObjectOutcome::Waiting, why),
            Done::NotOurs | Done::StillThere => (ObjectOutcome::NotApplied, String::new()),
        };
        let well = outcome == ObjectOutcome::Applied;
        if !well {
            self.failed_subs.insert(sub.to_owned());
        }
        if let Some(entry) = self.inventory.entries.get_mut(key) {
            entry.applied = well.then_some(blob);
        }
        self.outcomes.set(sub, key, version, outcome, message);
    }

    fn removed(&mut self, removal: &Removal, done: Done) {
        let kind = &removal.key.kind;
        let (outcome, forget, message) = match done {
            Done::Well => (ObjectOutcome::Pruned, true, String::new()),
            Done::Failed(why) => (ObjectOutcome::Failed, false, format!("could not be deleted: {why}")),
            Done::NotTried(why) => (ObjectOutcome::Waiting, false, why),
            Done::Going(why) => (ObjectOutcome::Waiting, false, format!("this {kind} {why}")),
            Done::NotOurs => {
                let why = format!("left alone: this {kind} does not carry Branchline's marks any more");
                (ObjectOutcome::NotApplied, true, why)
            }
            Done::StillThere => (ObjectOutcome::NotApplied, false, format!("this {kind} {KEPT}")),
        };
        if forget {
            self.inventory.entries.remove(&removal.key);
        }
        if matches!(outcome, ObjectOutcome::Failed | ObjectOutcome::Waiting) {
            self.incomplete = true;
        }
        let (sub, version) = (&removal.sub, &removal.api_version);
        self.outcomes.set(sub, &removal.key, version, outcome, message);
    }

    /// The end of the run, complete or not.
    pub fn finish(mut self) -> Finished {
        // Their objects are recorded under the present identity since before the first write.
        for key in &self.superseded {
            self.inventory.entries.remove(key);
        }
        let complete = self.steps.is_empty() && self.failed_subs.is_empty() && !self.incomplete;
        self.inventory.position = Position {
            epoch: self.target.epoch,
            generation: self.target.generation,
            applied: complete.then_some(self.target.tree),
        };
        Finished {
            inventory: self.inventory,
            outcomes: self.outcomes,
            subs: self.subs,
            complete,
        }
    }
}

impl Step {
    fn is_empty(&self) -> bool {
        match self {
            Step::Apply(items) => items.is_empty(),
            Step::Establish(keys) => keys.is_empty(),
            Step::Prune(items) => items.is_empty(),
        }
    }
}
