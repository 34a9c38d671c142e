//! The plan for people: a summary, or one cluster's diff.

use super::{Args, Plan, delivered_by, share, some_names, texts, totals};
use crate::cli::CliError;
use crate::cli::output::{Output, count, table};
use crate::core::impact::{Action, Change, Impact};
use crate::core::text::printable;

/// Prints the result to stdout and what stands beside it to stderr.
pub(super) fn print(plan: &Plan, args: &Args, out: &mut Output) -> Result<(), CliError> {
    match &plan.only {
        Some(cluster) => {
            for change in &plan.impact.changes {
                out.diff(&plan.diff(change, &cluster.namespace)?);
            }
            out.note(&headline(plan));
        }
        None => print_summary(plan, out),
    }
    for subscription in &plan.held {
        out.note(&format!("held: Subscription {subscription} keeps its last result"));
    }
    for pending in &plan.pending {
        out.note(&printable(&plan.waits(pending)));
    }
    out.diagnostics(&plan.findings);
    if plan.settled > 0 {
        out.note(&format!("{} of {} settled", count(plan.settled, "finding"), plan.range.0));
    }
    out.note(&format!("next: {}", next(plan, args)));
    Ok(())
}

fn print_summary(plan: &Plan, out: &mut Output) {
    out.line(&headline(plan));
    let (dangerous, others): (Vec<&Change>, Vec<&Change>) = plan.impact.changes.iter().partition(|change| change.is_dangerous());
    for (title, changes) in [("look twice", dangerous), ("changes", others)] {
        if !changes.is_empty() {
            let rows = changes.iter().map(|change| row(plan, change)).collect();
            let listed = table(&["ACTION", "OBJECT", "SUBSCRIPTION", "CLUSTERS"], rows);
            out.text(&format!("\n{title}:\n{listed}"));
            if changes
                .iter()
                .any(|change| change.action == Action::Delete && change.is_protected())
            {
                out.line("agents do not delete Namespaces, CustomResourceDefinitions and PersistentVolumeClaims: they stay and are reported");
            }
        }
    }
    print_placement(plan, out);
}

fn print_placement(plan: &Plan, out: &mut Output) {
    if !plan.impact.replicas.is_empty() {
        out.line("\nreplicas:");
    }
    for moved in &plan.impact.replicas {
        let shares = moved.clusters.iter();
        let shares = shares.map(|(cluster, from, to)| format!("{} {} -> {}", plan.name(cluster), share(*from), share(*to)));
        let line = format!(
            "{} of {}: {}",
            moved.feed,
            moved.subscription,
            some_names(&shares.collect::<Vec<_>>())
        );
        out.line(&printable(&line));
    }
    if !plan.impact.bindings.is_empty() {
        out.line("\nplacement:");
    }
    for changed in &plan.impact.bindings {
        let side = |what: &str, clusters| match plan.names(texts(clusters)) {
            names if names.is_empty() => String::new(),
            names => format!("; {what} {}", some_names(&names)),
        };
        let (joins, leaves) = (side("joins", &changed.joins), side("leaves", &changed.leaves));
        let line = format!("Subscription {}{joins}{leaves}", changed.subscription);
        out.line(&printable(&line.replacen("; ", ": ", 1)));
    }
}

fn row(plan: &Plan, change: &Change) -> Vec<String> {
    let by = match delivered_by(change) {
        (Some(before), Some(after)) if before != after => format!("{before} -> {after}"),
        (before, after) => after.or(before).unwrap_or_default(),
    };
    let names = plan.names(change.clusters.iter().map(String::as_str));
    let clusters = format!("{}: {}", names.len(), some_names(&names));
    let cells = [change.action.as_str().to_owned(), change.object.to_string(), by, clusters];
    cells.iter().map(|cell| printable(cell).into_owned()).collect()
}

/// `main..HEAD: 2 of 3 clusters: 1 to delete, 4 to change (12 objects in all)`.
fn headline(plan: &Plan) -> String {
    printable(&format!("{}: {}", plan.title(), summary(plan, &plan.impact))).into_owned()
}

/// The plan in one sentence.
pub(super) fn summary(plan: &Plan, impact: &Impact) -> String {
    let whom = match &plan.only {
        Some(cluster) => format!("cluster {}", cluster.name),
        None => format!(
            "{} of {}",
            impact.clusters().len(),
            count(plan.fleet.clusters.len(), "cluster")
        ),
    };
    if impact.is_empty() {
        return format!(
            "nothing to do in {}",
            plan.only.as_ref().map_or("any cluster".to_owned(), |_| whom)
        );
    }
    let totals = totals(impact);
    let parts = [
        (totals.delete, "to delete"),
        (totals.change, "to change"),
        (totals.hand_over, "to hand over"),
        (totals.create, "to create"),
    ];
    if impact.changes.is_empty() {
        return format!("{whom}: no object changes, placements do");
    }
    let parts: Vec<String> = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, what)| format!("{number} {what}"))
        .collect();
    format!("{whom}: {} ({} in all)", parts.join(", "), count(totals.objects, "object"))
}

fn next(plan: &Plan, args: &Args) -> String {
    let flags = flags(args);
    let changes = &plan.impact.changes;
    let stays = changes.iter().find(|change| change.after.is_some());
    match (&plan.only, changes.first()) {
        (None, Some(change)) => {
            let cluster = change
                .clusters
                .first()
                .map(|namespace| plan.name(namespace))
                .unwrap_or_default();
            format!("branchline plan {}{flags} --cluster {cluster}", args.range)
        }
        (Some(cluster), Some(first)) => {
            let change = stays.unwrap_or(first);
            let kind = change.object.kind.to_ascii_lowercase();
            let namespace = change.object.namespace.as_ref().map(|namespace| format!(" -n {namespace}"));
            let namespace = namespace.unwrap_or_default();
            format!(
                "branchline why {} {kind}/{}{namespace}{flags}",
                cluster.name, change.object.name
            )
        }
        (_, None) => format!("branchline check {}", args.source),
    }
}

/// The flags that the next command needs as well.
fn flags(args: &Args) -> String {
    let clusters = args.clusters.as_ref().map(|file| file.display().to_string());
    let source = Some(args.source.clone()).filter(|source| source != ".");
    let path = Some(args.reading.path.clone()).filter(|path| !path.is_empty());
    let stated = [
        ("source", source),
        ("path", path),
        ("clusters", clusters),
        ("previous", args.reading.previous.clone()),
    ];
    let stated = stated
        .into_iter()
        .filter_map(|(name, value)| Some(format!(" --{name} {}", value?)));
    stated.collect()
}
