//! What an inventory and the last outcomes say about a Description. Nothing here is stored: a report can always be made again.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::{Entry, Inventory};
use super::plan::Unrendered;
use crate::core::ids::ObjectKey;
use crate::core::status::{DescriptionReport, ObjectOutcome, ObjectReport, Phase};

/// Why a chart is not applied.
const CHARTS: &str = "charts are not rendered in this version";

/// What happened last to the objects that something happened to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcomes {
    /// By Description, then by object.
    pub objects: BTreeMap<String, BTreeMap<ObjectKey, Standing>>,
    /// What is wrong with a Description, or with a file of it that is no object.
    pub troubles: BTreeMap<String, Vec<String>>,
    /// The charts of the last run's tree, with their `apiVersion`.
    pub charts: BTreeMap<String, BTreeMap<ObjectKey, String>>,
}

/// Where one object stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// `apiVersion`.
    pub api_version: String,
    /// What happened to it last.
    pub outcome: ObjectOutcome,
    /// Why, and what to do.
    pub message: String,
}

impl Outcomes {
    /// The Descriptions that something happened to.
    pub fn subs(&self) -> BTreeSet<String> {
        let all = self.objects.keys().chain(self.troubles.keys());
        all.chain(self.charts.keys()).cloned().collect()
    }

    /// Forgets what went well: the inventory says it too.
    pub fn forget_successes(&mut self) {
        for standings in self.objects.values_mut() {
            standings.retain(|_, standing| !matches!(standing.outcome, ObjectOutcome::Applied | ObjectOutcome::Pruned));
        }
        self.objects.retain(|_, standings| !standings.is_empty());
    }

    pub(super) fn set(&mut self, sub: &str, key: &ObjectKey, api_version: &str, outcome: ObjectOutcome, message: String) {
        let api_version = api_version.to_owned();
        let standing = Standing {
            api_version,
            outcome,
            message,
        };
        self.objects.entry(sub.to_owned()).or_default().insert(key.clone(), standing);
    }

    pub(super) fn leave_out(&mut self, chart: Unrendered) {
        self.charts.entry(chart.sub).or_default().insert(chart.key, chart.api_version);
    }

    pub(super) fn trouble(&mut self, sub: &str, message: String) {
        self.troubles.entry(sub.to_owned()).or_default().push(message);
    }
}

/// The reports about several Descriptions, in one pass over the inventory.
pub fn reports(subs: &BTreeSet<String>, inventory: &Inventory, outcomes: &Outcomes) -> Vec<DescriptionReport> {
    let mut entries: BTreeMap<&str, Vec<(&ObjectKey, &Entry)>> = subs.iter().map(|sub| (sub.as_str(), Vec::new())).collect();
    for (key, entry) in &inventory.entries {
        if let Some(of_sub) = entries.get_mut(entry.sub.as_str()) {
            of_sub.push((key, entry));
        }
    }
    let entries = entries.into_iter();
    entries.map(|(sub, entries)| report_entries(sub, entries, outcomes)).collect()
}

fn report_entries<'a>(
    sub: &str,
    entries: impl IntoIterator<Item = (&'a ObjectKey, &'a Entry)>,
    outcomes: &Outcomes,
) -> DescriptionReport {
    let nothing = BTreeMap::new();
    let standings = outcomes.objects.get(sub).unwrap_or(&nothing);
    let troubles = outcomes.troubles.get(sub).map(Vec::as_slice).unwrap_or_default();
    let mut objects: Vec<ObjectReport> = entries
        .into_iter()
        .filter(|(key, _)| !standings.contains_key(key))
        .map(|(key, entry)| ObjectReport::about(&entry.api_version, key, untouched(entry.applied.is_some(), entry.kept), ""))
        .collect();
    objects.extend(
        standings
            .iter()
            .map(|(key, s)| ObjectReport::about(&s.api_version, key, s.outcome, &s.message)),
    );
    let charts = outcomes.charts.get(sub).into_iter().flatten();
    let charts: Vec<ObjectReport> = charts
        .map(|(key, version)| ObjectReport::about(version, key, ObjectOutcome::NotApplied, CHARTS))
        .collect();
    let (phase, reason) = conclude(&objects, troubles, &charts);
    objects.extend(charts);
    DescriptionReport::bounded(sub, phase, &reason, objects)
}

/// The outcome of an object that this run of the agent has not touched.
fn untouched(applied: bool, kept: bool) -> ObjectOutcome {
    match (applied, kept) {
        (_, true) => ObjectOutcome::NotApplied,
        (true, false) => ObjectOutcome::Unchanged,
        (false, false) => ObjectOutcome::Waiting,
    }
}

fn conclude(objects: &[ObjectReport], troubles: &[String], charts: &[ObjectReport]) -> (Phase, String) {
    let with = |outcome: ObjectOutcome| objects.iter().filter(move |o| o.outcome == outcome);
    if let Some(first) = troubles.first() {
        let more = troubles.len() - 1 + with(ObjectOutcome::Failed).count();
        let rest = if more > 0 {
            format!(" (and {more} more)")
        } else {
            String::new()
        };
        return (Phase::Failure, format!("{first}{rest}"));
    }
    if let Some(first) = with(ObjectOutcome::Failed).next() {
        let count = with(ObjectOutcome::Failed).count();
        let reason = format!(
            "{count} of {} objects failed; {}: {}",
            objects.len(),
            named(first),
            first.message
        );
        return (Phase::Failure, reason);
    }
    if let Some(first) = with(ObjectOutcome::Waiting).next() {
        let count = with(ObjectOutcome::Waiting).count();
        let reason = format!(
            "{count} of {} objects are waiting; {}: {}",
            objects.len(),
            named(first),
            first.message
        );
        return (Phase::Installing, reason);
    }
    if let Some(first) = charts.first() {
        return (Phase::Failure, format!("{}: NotApplied: {CHARTS}", named(first)));
    }
    match with(ObjectOutcome::NotApplied).next() {
        Some(first) => (Phase::Success, format!("{}: {}", named(first), first.message)),
        None => (Phase::Success, String::new()),
    }
}

fn named(object: &ObjectReport) -> String {
    match &object.namespace {
        Some(namespace) => format!("{} {namespace}/{}", object.kind, object.name),
        None => format!("{} {}", object.kind, object.name),
    }
}
