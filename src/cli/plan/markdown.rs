//! The plan for a pull request: tables, and each distinct change's diff folded, within what a comment may hold.

use super::terminal::summary;
use super::{Plan, delivered_by, share, some_names, texts};
use crate::cli::CliError;
use crate::core::impact::Change;
use crate::core::text::printable;

/// Comments end at 65,536 characters on GitHub; diffs stop before.
const MOST_BYTES: usize = 60_000;

/// The whole comment.
pub(super) fn document(plan: &Plan) -> Result<String, CliError> {
    let (title, summary) = (cell(&plan.title()), cell(&summary(plan, &plan.impact)));
    let mut text = format!("### Branchline plan\n\n**{title}**: {summary}\n");
    add_changes(plan, &mut text);
    add_placement(plan, &mut text);
    add_findings(plan, &mut text);
    add_diffs(plan, &mut text)?;
    Ok(text)
}

fn add_changes(plan: &Plan, text: &mut String) {
    if plan.impact.changes.is_empty() {
        return;
    }
    text.push_str("\n| | action | object | Subscription | clusters |\n| --- | --- | --- | --- | --- |\n");
    for change in &plan.impact.changes {
        let by = match delivered_by(change) {
            (Some(before), Some(after)) if before != after => format!("{before} → {after}"),
            (before, after) => after.or(before).unwrap_or_default(),
        };
        let names = plan.names(change.clusters.iter().map(String::as_str));
        let clusters = format!("{}: {}", names.len(), some_names(&names));
        let mark = if change.is_dangerous() { ":warning:" } else { "" };
        let cells = [&change.object.to_string(), &by, &clusters].map(|text| cell(text));
        text.push_str(&format!("| {mark} | {} | {} |\n", change.action.as_str(), cells.join(" | ")));
    }
}

fn add_placement(plan: &Plan, text: &mut String) {
    if !plan.impact.replicas.is_empty() {
        text.push_str("\n| replicas of | cluster | before | after |\n| --- | --- | --- | --- |\n");
    }
    for moved in &plan.impact.replicas {
        for (cluster, from, to) in moved.clusters.iter().take(MOST_SHARES) {
            let cells = [&*moved.feed, &plan.name(cluster), &share(*from), &share(*to)].map(cell);
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        if moved.clusters.len() > MOST_SHARES {
            text.push_str(&format!(
                "| {} | {} more | | |\n",
                cell(&moved.feed),
                moved.clusters.len() - MOST_SHARES
            ));
        }
    }
    for changed in &plan.impact.bindings {
        for (verb, clusters) in [("joins", &changed.joins), ("leaves", &changed.leaves)] {
            if !clusters.is_empty() {
                let names = some_names(&plan.names(texts(clusters)));
                text.push_str(&format!(
                    "\nSubscription {} {verb} {}\n",
                    cell(&changed.subscription),
                    cell(&names)
                ));
            }
        }
    }
}

/// How many shares of one feed are listed.
const MOST_SHARES: usize = 20;

fn add_findings(plan: &Plan, text: &mut String) {
    let held = plan
        .held
        .iter()
        .map(|subscription| format!("held: Subscription {subscription} keeps its last result"));
    let pending = plan.pending.iter().take(MOST_SHARES);
    let pending = pending.map(|waits| plan.waits(waits));
    let found = plan.findings.iter().map(ToString::to_string);
    let lines: Vec<String> = held.chain(pending).chain(found).collect();
    if !lines.is_empty() {
        text.push('\n');
    }
    for line in lines {
        text.push_str(&format!("- {}\n", cell(&line)));
    }
    if plan.settled > 0 {
        text.push_str(&format!("- {} findings settled\n", plan.settled));
    }
}

fn add_diffs(plan: &Plan, text: &mut String) -> Result<(), CliError> {
    for (position, change) in plan.impact.changes.iter().enumerate() {
        let folded = folded(plan, change)?;
        if text.len() + folded.len() > MOST_BYTES {
            let left = plan.impact.changes.len() - position;
            text.push_str(&format!("\n{left} more diffs: `branchline plan … --cluster NAME`\n"));
            break;
        }
        text.push_str(&folded);
    }
    Ok(())
}

fn folded(plan: &Plan, change: &Change) -> Result<String, CliError> {
    let cluster = change.clusters.first().map(String::as_str).unwrap_or_default();
    let diff = plan.diff(change, cluster)?;
    let fence = "`".repeat(longest_run(&diff).max(2) + 1);
    let (object, name) = (cell(&change.object.to_string()), cell(&plan.name(cluster)));
    Ok(format!(
        "\n<details><summary>{} {object} in {name}</summary>\n\n{fence}diff\n{diff}{fence}\n\n</details>\n",
        change.action.as_str()
    ))
}

/// The longest run of backticks: a fence has to be longer.
fn longest_run(text: &str) -> usize {
    text.split(|letter| letter != '`').map(str::len).max().unwrap_or_default()
}

/// Text that stays text: no markup, no second cell, no second line.
fn cell(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in printable(text).chars() {
        match letter {
            '<' => safe.push_str("&lt;"),
            '&' => safe.push_str("&amp;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' | '@' | '#' => safe.extend(['\\', letter]),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_pushed_is_no_markup() {
        assert_eq!(cell("a|b\n<img> `x` @all"), "a\\|b &lt;img> \\`x\\` \\@all");
        assert_eq!(longest_run("a ``` b `"), 3);
    }
}
