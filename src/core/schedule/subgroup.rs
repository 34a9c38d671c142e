//! Subgroups: each subscriber takes as many of its clusters as it asks for. Divides nothing.

use super::filter::{Candidate, Standing};
use super::{Reason, Remark, Request};

/// Which candidates the groups take.
pub(super) struct Groups {
    /// By candidate.
    pub(super) taken: Vec<bool>,
    /// By candidate: all groups that it belongs to have what they ask for.
    pub(super) filled: Vec<bool>,
    /// Groups that found too few.
    pub(super) remarks: Vec<Remark>,
}

impl Groups {
    /// Why a candidate was not taken.
    pub(super) fn reason(&self, at: usize, candidate: &Candidate<'_>) -> Reason {
        match candidate.tainted || candidate.only_live() && !self.filled[at] {
            true => Reason::TaintNotTolerated,
            false => Reason::SubGroupFull,
        }
    }
}

/// Takes for each subscriber, in order, the clusters that are bound already, then the best others that `fits` lets in, and last, where those
/// are too few, clusters that a taint sends away: they go when there is a replacement. A cluster of two groups counts for both.
///
/// What groups share can make a cluster superfluous that was taken for being bound, so it is done again with what was taken until nothing
/// changes; each round takes fewer.
pub(super) fn pick(
    request: &Request<'_>,
    candidates: &[Candidate<'_>],
    keep_leaving: bool,
    fits: &dyn Fn(&Candidate<'_>) -> bool,
) -> Groups {
    let mut bound: Vec<bool> = candidates.iter().map(|candidate| candidate.bound).collect();
    loop {
        let rank = |at: usize| rank(&candidates[at], bound[at], keep_leaving, fits);
        let groups = pick_once(request, candidates, &rank);
        if groups.taken == bound {
            return groups;
        }
        bound.clone_from(&groups.taken);
    }
}

fn pick_once(request: &Request<'_>, candidates: &[Candidate<'_>], rank: &dyn Fn(usize) -> Option<u8>) -> Groups {
    let mut groups = Groups {
        taken: vec![false; candidates.len()],
        filled: vec![true; candidates.len()],
        remarks: Vec::new(),
    };
    for (index, subscriber) in request.subscription.subscribers.iter().enumerate() {
        let matching = |at: &usize| subscriber.selector.matches(&candidates[*at].cluster.labels);
        let members: Vec<usize> = (0..candidates.len()).filter(matching).collect();
        let mut eligible: Vec<usize> = members.clone();
        eligible.retain(|at| rank(*at).is_some());
        eligible.sort_by_key(|at| (rank(*at), std::cmp::Reverse(candidates[*at].score)));
        eligible.truncate(subscriber.clusters);
        if eligible.len() < subscriber.clusters {
            members.iter().for_each(|at| groups.filled[*at] = false);
            groups.remarks.push(Remark::GroupTooSmall {
                subscriber: index,
                wanted: subscriber.clusters,
                found: eligible.len(),
            });
        }
        eligible.into_iter().for_each(|at| groups.taken[at] = true);
    }
    groups
}

/// Who comes first; `None` for who cannot come.
fn rank(candidate: &Candidate<'_>, bound: bool, keep_leaving: bool, fits: &dyn Fn(&Candidate<'_>) -> bool) -> Option<u8> {
    match candidate.standing {
        Standing::Open | Standing::Closed if bound => Some(0),
        Standing::Open if fits(candidate) => Some(1),
        Standing::Leaving if bound && keep_leaving => Some(2),
        _ => None,
    }
}
