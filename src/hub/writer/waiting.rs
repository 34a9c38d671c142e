//! Since when ApplyLater changes wait: what waited in the last run waits since then, for the others the source's log is read.

use tracing::warn;

use super::Writer;
use crate::core::pipeline::{self, Inputs, Outcome, Pending};
use crate::core::registration;
use crate::core::state::ClusterRecord;
use crate::core::state::registrations::Registrations;
use crate::core::text::with_causes;

/// Dates what waits. A log that cannot be read leaves it without a date; nothing else depends on it.
pub(super) fn date(writer: &Writer, outcome: &mut Outcome, inputs: &Inputs<'_>, registrations: &Registrations) {
    carry_over(&mut outcome.pending, &writer.revisions.borrow().pending);
    let undated = outcome.pending.iter().any(|change| change.since.is_none());
    let Some(head) = writer.source_commit.filter(|_| undated) else {
        return;
    };
    let registered: Vec<ClusterRecord> = registration::approved(registrations);
    let (settings, parses) = (&writer.settings, writer.parses.clone());
    let log = writer.source.repo.log(head, &settings.path, settings.limits, parses);
    let dated = log.and_then(|log| pipeline::date(&mut outcome.pending, inputs, &outcome.placed, &registered, log));
    if let Err(error) = dated {
        warn!(error = %with_causes(&error), "the source's log cannot be read, so nobody can tell since when changes wait");
    }
}

fn carry_over(now: &mut [Pending], before: &[Pending]) {
    let key = |change: &Pending| (change.cluster.clone(), change.subscription.clone(), change.feed.clone());
    for change in now {
        if let Ok(known) = before.binary_search_by_key(&key(change), key) {
            change.since.clone_from(&before[known].since);
        }
    }
}
