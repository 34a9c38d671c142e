//! The plan for scripts: one document, every cluster named.

use serde_json::{Value, json};

use super::{Plan, delivered_by, texts, totals};
use crate::cli::CliError;
use crate::core::impact::Change;

/// The whole plan. Diffs are there only for one cluster.
pub(super) fn document(plan: &Plan) -> Result<Value, CliError> {
    let impact = &plan.impact;
    let totals = totals(impact);
    let changes = impact.changes.iter().map(|change| entry(plan, change));
    Ok(json!({
        "base": plan.range.0,
        "head": plan.range.1,
        "clusters": {"total": plan.fleet.clusters.len(), "hit": plan.names(impact.clusters())},
        "summary": {
            "delete": totals.delete, "change": totals.change, "move": totals.hand_over, "create": totals.create, "objects": totals.objects,
        },
        "changes": changes.collect::<Result<Vec<Value>, CliError>>()?,
        "replicas": replicas(plan),
        "placement": placement(plan),
        "held": plan.held,
        "pending": pending(plan),
        "diagnostics": plan.findings,
        "settled": plan.settled,
    }))
}

fn entry(plan: &Plan, change: &Change) -> Result<Value, CliError> {
    let (before, after) = delivered_by(change);
    let file = change.side().map(|side| side.file.as_str());
    let mut entry = json!({
        "action": change.action, "object": change.object, "dangerous": change.is_dangerous(),
        "before": before, "after": after, "file": file,
        "count": change.clusters.len(), "clusters": plan.names(change.clusters.iter().map(String::as_str)),
    });
    if let Some(cluster) = &plan.only {
        entry["diff"] = plan.diff(change, &cluster.namespace)?.into();
    }
    Ok(entry)
}

fn replicas(plan: &Plan) -> Value {
    let moved = plan.impact.replicas.iter().map(|moved| {
        let clusters = moved.clusters.iter();
        let clusters = clusters.map(|(cluster, from, to)| json!({"cluster": plan.name(cluster), "from": from, "to": to}));
        json!({"subscription": moved.subscription, "feed": moved.feed, "clusters": clusters.collect::<Vec<_>>()})
    });
    moved.collect()
}

fn placement(plan: &Plan) -> Value {
    let changed = plan.impact.bindings.iter().map(|changed| {
        let (joins, leaves) = (plan.names(texts(&changed.joins)), plan.names(texts(&changed.leaves)));
        json!({"subscription": changed.subscription, "joins": joins, "leaves": leaves})
    });
    changed.collect()
}

fn pending(plan: &Plan) -> Value {
    let waits = plan.pending.iter();
    let waits = waits.map(|waits| {
        let cluster = plan.name(&waits.cluster);
        json!({"cluster": cluster, "subscription": waits.subscription, "feed": waits.feed, "since": waits.since})
    });
    waits.collect()
}
