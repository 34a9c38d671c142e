//! Since when ApplyLater changes wait: what waited in the last run waits since then, for the others the source's log is read.

use std::sync::Arc;

use tracing::warn;

use super::{Computed, Writer};
use crate::core::pipeline::{self, Inputs, Pending};
use crate::core::registration;
use crate::core::state::ClusterRecord;
use crate::core::text::with_causes;

/// Dates what waits, after it was published: reading a log may take its time, and nobody's commit waits for that. A log that cannot be read
/// leaves it without a date; nothing else depends on it.
pub(super) fn date(writer: &Writer, computed: Computed) {
    let Computed {
        mut outcome,
        fleet,
        previous,
        fan_out,
    } = computed;
    let undated = outcome.pending.iter().any(|change| change.since.is_none());
    let Some(head) = writer.source_commit.filter(|_| undated) else {
        return;
    };
    let registered: Vec<ClusterRecord> = registration::approved(&outcome.state.registrations);
    let (settings, parses) = (&writer.settings, writer.parses.clone());
    let inputs = Inputs {
        snapshot: &writer.snapshot,
        fleet: &fleet,
        previous: &previous,
        settings: settings.render,
        fan_out,
    };
    let log = writer.source.repo.log(head, &settings.path, settings.limits, parses);
    let dated = log.and_then(|log| pipeline::date(&mut outcome.pending, &inputs, &outcome.placed, &registered, log));
    if let Err(error) = dated {
        warn!(error = %with_causes(&error), "the source's log cannot be read, so nobody can tell since when changes wait");
    }
    let before = writer.revisions.borrow().clone();
    if *before.pending != outcome.pending {
        let mut revision = (*before).clone();
        revision.pending = Arc::new(outcome.pending);
        writer.revisions.send_replace(Arc::new(revision));
    }
}

/// What waited in the last run waits since then.
pub(super) fn carry_over(now: &mut [Pending], before: &[Pending]) {
    let key = |change: &Pending| (change.cluster.clone(), change.subscription.clone(), change.feed.clone());
    for change in now {
        if let Ok(known) = before.binary_search_by_key(&key(change), key) {
            change.since.clone_from(&before[known].since);
        }
    }
}
