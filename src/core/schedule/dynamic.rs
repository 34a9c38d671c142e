//! Dynamic dividing: replicas go where they fit, and stay there. Only the difference to the previous placement is divided: a scale-up shrinks
//! nobody, a scale-down grows nobody. What does not fit is not placed and said.
//!
//! Better scores are filled first. Within equal scores Spread divides by room, remainders by largest fraction; Binpack fills clusters that are
//! in use, then the roomiest. A cluster that a taint sends away keeps only what fits nowhere else.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::filter::{Candidate, Standing};
use super::{Cluster, Draft, Outcome, Placed, Reason, Remark, Request, divide, subgroup, topology};
use crate::core::index::{Demand, Dynamic, SpreadConstraint, Workload};

/// One feed in one cluster.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// Replicas before.
    pub(super) current: i64,
    /// How many fit, as far as it decides about shares.
    pub(super) weight: i64,
    /// How many more it may get.
    pub(super) room: i64,
}

/// A cluster that takes part.
#[derive(Clone, Debug)]
pub(super) struct Member<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) candidate: usize,
    pub(super) bound: bool,
    pub(super) score: i64,
    /// By workload.
    pub(super) shares: Vec<Share>,
}

impl Member<'_> {
    fn current(&self) -> i64 {
        self.shares.iter().map(|share| share.current).sum()
    }

    fn room(&self) -> i64 {
        self.shares.iter().fold(0, |room, share| room.saturating_add(share.room))
    }
}

/// How many replicas are taken to fit into a cluster: what its agent said, else the estimate; `None` where nothing is known of it.
pub(super) fn fits(request: &Request<'_>, key: &str, workload: &Workload, cluster: &Cluster) -> Option<i64> {
    let live = request.fleet.live.get(&cluster.namespace)?;
    Some(live.fits.get(key).copied().unwrap_or_else(|| live.estimate(workload)))
}

/// What the strategy works on.
struct Divider<'r, 'a> {
    request: &'r Request<'a>,
    dynamic: &'r Dynamic,
    workloads: Vec<(&'a Arc<str>, &'a Workload)>,
    /// By workload.
    constraints: Vec<Vec<&'r SpreadConstraint>>,
}

/// Divides the replicas of every workload.
pub(super) fn divide(request: &Request<'_>, dynamic: &Dynamic, candidates: &[Candidate<'_>]) -> Draft {
    let divider = Divider::new(request, dynamic);
    let unseen = request.demands.iter().any(|(_, demand)| *demand == Demand::Unknown);
    if divider.workloads.is_empty() && !unseen {
        return nothing_to_divide(candidates);
    }
    divider.run(candidates)
}

/// The feeds whose shares are about to change, and the clusters that may get something of them.
pub(super) fn undecided<'a>(
    request: &Request<'a>,
    dynamic: &Dynamic,
    candidates: &[Candidate<'a>],
) -> (Vec<(&'a Arc<str>, &'a Workload)>, Vec<&'a Cluster>) {
    let divider = Divider::new(request, dynamic);
    let members = candidates.iter().enumerate();
    let members = members.filter_map(|(at, it)| divider.member(at, it));
    let stay = divider.kept(members.filter(|member| member.bound).collect());
    let feeds = (0..divider.workloads.len()).filter(|feed| divider.waits(*feed, &stay) || divider.shrinks(*feed, &stay));
    let feeds: Vec<_> = feeds.map(|feed| divider.workloads[feed]).collect();
    let open = candidates.iter().filter(|candidate| candidate.standing == Standing::Open);
    let useful = open.filter(|candidate| !divider.lacks_domain(candidate.cluster));
    (feeds, useful.map(|candidate| candidate.cluster).collect())
}

fn nothing_to_divide(candidates: &[Candidate<'_>]) -> Draft {
    Draft {
        outcomes: vec![Outcome::Excluded(Reason::NothingToDivide); candidates.len()],
        remarks: vec![Remark::NothingToDivide],
        ..Draft::default()
    }
}

/// What was divided.
struct Division<'a> {
    members: Vec<Member<'a>>,
    /// By workload and member.
    shares: Vec<Vec<i64>>,
    /// By member: whether it is bound.
    used: Vec<bool>,
    /// Whether replicas of some workload are not placed.
    short: bool,
}

impl<'r, 'a> Divider<'r, 'a> {
    fn new(request: &'r Request<'a>, dynamic: &'r Dynamic) -> Self {
        let workloads = request.workloads();
        let constraints = workloads.iter();
        let constraints = constraints.map(|(_, workload)| topology::applying(dynamic, &workload.pod_labels));
        Divider {
            constraints: constraints.collect(),
            request,
            dynamic,
            workloads,
        }
    }

    fn run(&self, candidates: &[Candidate<'a>]) -> Draft {
        let members = candidates.iter().enumerate();
        let members: Vec<Member<'a>> = members.filter_map(|(at, it)| self.member(at, it)).collect();
        let members = match self.request.subscription.by_sub_group {
            true => self.select_by_groups(candidates, &members),
            false => self.select(members),
        };
        let mut draft = Draft::default();
        let division = self.divide(members, &mut draft);
        draft.outcomes = self.outcomes(candidates, &division, &mut draft.remarks);
        self.write_shares(&division, &mut draft);
        self.strand(candidates, &division, &mut draft);
        draft
    }

    /// What a candidate has and may get; none for one that may have nothing.
    fn member(&self, at: usize, candidate: &Candidate<'a>) -> Option<Member<'a>> {
        let shares = self.workloads.iter().enumerate().map(|(feed, (key, workload))| {
            let current = self.request.share_before(key, candidate.cluster);
            let more = self.request.fleet.live.get(&candidate.cluster.namespace);
            let more = more.and_then(|live| live.fits.get(*key)).copied();
            let weight = fits(self.request, key, workload, candidate.cluster).unwrap_or(0).max(0);
            let blocked = candidate.standing != Standing::Open || !self.has_domains(feed, candidate.cluster);
            // The estimate counts a cluster's whole room: what the feed has there already is part of it.
            let room = if blocked { 0 } else { more.unwrap_or(weight - current).max(0) };
            Share { current, weight, room }
        });
        candidate.stays_or_joins().then(|| Member {
            cluster: candidate.cluster,
            candidate: at,
            bound: candidate.bound,
            score: candidate.score,
            shares: shares.collect(),
        })
    }

    fn has_domains(&self, feed: usize, cluster: &Cluster) -> bool {
        let mut hard = self.constraints[feed].iter().filter(|constraint| constraint.hard);
        hard.all(|constraint| cluster.labels.contains_key(&constraint.key))
    }

    /// What the groups take and replicas need. While nothing waits, nobody comes and takes the place of another; and a cluster that a group takes
    /// and that then gets nothing has taken nobody's place either: the groups choose again without it.
    fn select_by_groups(&self, candidates: &[Candidate<'_>], members: &[Member<'a>]) -> Vec<Member<'a>> {
        let (settled, _) = self.select_among(candidates, members, &BTreeSet::new());
        if !(0..self.workloads.len()).any(|feed| self.waits(feed, &settled)) {
            return settled;
        }
        let with_room = members.iter().filter(|member| member.room() > 0);
        let mut newcomers: BTreeSet<usize> = with_room.map(|member| candidates[member.candidate].position).collect();
        loop {
            let (selected, idle) = self.select_among(candidates, members, &newcomers);
            if idle.is_empty() {
                return selected;
            }
            newcomers.retain(|position| !idle.contains(position));
        }
    }

    /// What the groups take of the clusters that are bound and of newcomers (positions in the fleet), as far as it is needed; and the newcomers
    /// that took a place from one that is bound, although they are not needed.
    fn select_among(
        &self,
        candidates: &[Candidate<'_>],
        members: &[Member<'a>],
        newcomers: &BTreeSet<usize>,
    ) -> (Vec<Member<'a>>, BTreeSet<usize>) {
        let fits = |candidate: &Candidate<'_>| newcomers.contains(&candidate.position);
        let groups = subgroup::pick(self.request, candidates, false, &fits);
        let (taken, left): (Vec<Member<'a>>, Vec<Member<'a>>) =
            members.iter().cloned().partition(|member| groups.taken[member.candidate]);
        let came = taken.iter().filter(|member| !member.bound);
        let mut idle: BTreeSet<usize> = came.map(|member| candidates[member.candidate].position).collect();
        let selected = self.select(taken);
        for member in &selected {
            idle.remove(&candidates[member.candidate].position);
        }
        if !left.iter().any(|member| member.bound) {
            idle.clear();
        }
        (selected, idle)
    }

    /// The members that are bound and those that join: only where replicas wait for room or clusters are too few.
    fn select(&self, members: Vec<Member<'a>>) -> Vec<Member<'a>> {
        let (mut stay, mut join): (Vec<Member<'a>>, Vec<Member<'a>>) = members.into_iter().partition(|member| member.bound);
        let most = self.dynamic.max_clusters.unwrap_or(usize::MAX);
        let useful = |member: &Member<'_>| member.current() > 0 || member.room() > 0 || self.holds_unseen(member);
        let wanted = self.waited_for(&stay, &join);
        let waits = (0..self.workloads.len()).any(|feed| self.waits(feed, &stay));
        if self.dynamic.binpack && waits && (!wanted.is_empty() || stay.iter().any(useful)) {
            // What has nothing and can get nothing takes no place from others.
            stay.retain(useful);
        }
        stay = self.kept(stay);
        let wanted = self.waited_for(&stay, &join);
        join.retain(|member| wanted.contains(&member.candidate));
        let open = most - stay.len();
        if join.len() > open {
            self.sort_by_use(&stay, &mut join);
            join.truncate(open);
        }
        stay.append(&mut join);
        stay.sort_by_key(|member| member.candidate);
        stay
    }

    /// As many of those that are bound as may stay, the best first.
    fn kept(&self, mut stay: Vec<Member<'a>>) -> Vec<Member<'a>> {
        stay.sort_by_key(|member| (Reverse(member.score), Reverse(member.current()), member.candidate));
        stay.truncate(self.dynamic.max_clusters.unwrap_or(usize::MAX));
        stay
    }

    /// Whether a workload has more replicas than are wanted.
    fn shrinks(&self, feed: usize, stay: &[Member<'_>]) -> bool {
        let placed: i64 = stay.iter().map(|member| member.shares[feed].current).sum();
        placed > self.workloads[feed].1.total
    }

    /// The new ones that have room for replicas that wait.
    fn waited_for(&self, stay: &[Member<'_>], join: &[Member<'_>]) -> BTreeSet<usize> {
        let waiting: Vec<bool> = (0..self.workloads.len()).map(|feed| self.waits(feed, stay)).collect();
        let has_room = |member: &&Member<'_>| {
            let mut shares = member.shares.iter().zip(&waiting);
            shares.any(|(share, waits)| *waits && share.room > 0)
        };
        join.iter().filter(has_room).map(|member| member.candidate).collect()
    }

    /// Whether a cluster has replicas of feeds that cannot be seen at the moment.
    fn holds_unseen(&self, member: &Member<'_>) -> bool {
        let unseen = self.request.demands.iter().filter(|(_, demand)| *demand == Demand::Unknown);
        unseen
            .map(|(key, _)| self.request.share_before(key, member.cluster))
            .any(|share| share > 0)
    }

    /// Whether a workload is placed for the first time, has replicas left to place, or is in too few of these clusters.
    fn waits(&self, feed: usize, stay: &[Member<'_>]) -> bool {
        let (key, workload) = self.workloads[feed];
        let placed: i64 = stay.iter().map(|member| member.shares[feed].current).sum();
        let holders = stay.iter().filter(|member| member.shares[feed].current > 0).count();
        placed < workload.total || !self.request.previous.replicas.contains_key(key) || holders < self.fewest(workload.total)
    }

    fn fewest(&self, total: i64) -> usize {
        self.dynamic.min_clusters.min(usize::try_from(total).unwrap_or(0))
    }

    /// The best first; with topology constraints one of each domain before the second of any.
    fn sort_by_use(&self, stay: &[Member<'_>], join: &mut Vec<Member<'a>>) {
        join.sort_by_key(|member| (Reverse(member.score), Reverse(member.room()), member.candidate));
        let Some(constraint) = self.dynamic.constraints.first() else {
            return;
        };
        let domain = |member: &Member<'a>| member.cluster.labels.get(&constraint.key);
        let mut seen: BTreeMap<Option<&String>, usize> = BTreeMap::new();
        for member in stay {
            *seen.entry(member.cluster.labels.get(&constraint.key)).or_default() += 1;
        }
        let ranks: BTreeMap<usize, usize> = join
            .iter()
            .map(|member| {
                let rank = seen.entry(domain(member)).or_default();
                *rank += 1;
                (member.candidate, *rank)
            })
            .collect();
        join.sort_by_key(|member| ranks.get(&member.candidate).copied());
    }

    fn divide(&self, members: Vec<Member<'a>>, draft: &mut Draft) -> Division<'a> {
        let shares: Vec<Vec<i64>> = (0..self.workloads.len())
            .map(|feed| self.divide_feed(feed, &members, draft))
            .collect();
        let totals = self.workloads.iter().map(|(_, workload)| workload.total);
        let short = shares
            .iter()
            .zip(totals)
            .any(|(shares, total)| shares.iter().sum::<i64>() < total);
        let used = self.used(&members, &shares);
        Division {
            members,
            shares,
            used,
            short,
        }
    }

    fn divide_feed(&self, feed: usize, members: &[Member<'a>], draft: &mut Draft) -> Vec<i64> {
        let (key, workload) = self.workloads[feed];
        let placed: i64 = members.iter().map(|member| member.shares[feed].current).sum();
        let deviation = workload.total - placed;
        let changes = match deviation {
            1.. => self.add(feed, members, deviation),
            0 => vec![0; members.len()],
            _ => self.remove(feed, members, -deviation),
        };
        let mut shares: Vec<i64> = members
            .iter()
            .zip(changes)
            .map(|(member, change)| member.shares[feed].current + change)
            .collect();
        let wanted = self.fewest(workload.total);
        self.reach(wanted, feed, members, deviation, &mut shares);
        // Clusters that came or a number that was raised: now what was placed moves too.
        self.reach(wanted, feed, members, 0, &mut shares);
        let found = shares.iter().filter(|share| **share > 0).count();
        if found < self.dynamic.min_clusters {
            let wanted = self.dynamic.min_clusters;
            let feed = key.clone();
            draft.remarks.push(Remark::FewClusters { feed, wanted, found });
        }
        shares
    }

    fn add(&self, feed: usize, members: &[Member<'_>], amount: i64) -> Vec<i64> {
        if !self.constraints[feed].is_empty() {
            return topology::add(self.dynamic, &self.constraints[feed], members, feed, amount);
        }
        let mut tiers: BTreeMap<Reverse<i64>, Vec<usize>> = BTreeMap::new();
        for (at, member) in members.iter().enumerate() {
            tiers.entry(Reverse(member.score)).or_default().push(at);
        }
        let (mut given, mut left) = (vec![0; members.len()], amount);
        for tier in tiers.into_values() {
            for (at, share) in fill(self.dynamic, members, &tier, feed, left) {
                given[at] = share;
                left -= share;
            }
        }
        given
    }

    fn remove(&self, feed: usize, members: &[Member<'_>], amount: i64) -> Vec<i64> {
        let all: Vec<usize> = (0..members.len()).collect();
        let taken = if self.constraints[feed].is_empty() {
            release(self.dynamic, members, &all, feed, amount)
                .into_iter()
                .map(|(_, share)| share)
                .collect()
        } else {
            topology::remove(self.dynamic, &self.constraints[feed], members, feed, amount)
        };
        taken.into_iter().map(|share: i64| -share).collect()
    }

    /// Moves single replicas until enough clusters have one. Of a scale-up only what is new moves, of a scale-down only what is taken away.
    fn reach(&self, wanted: usize, feed: usize, members: &[Member<'_>], deviation: i64, shares: &mut [i64]) {
        let holders = shares.iter().filter(|share| **share > 0).count();
        let may_take = |at: usize| {
            let share = members[at].shares[feed];
            shares[at] == 0 && if deviation < 0 { share.current > 0 } else { share.room > 0 }
        };
        let mut takers: Vec<usize> = (0..members.len()).filter(|at| may_take(*at)).collect();
        takers.sort_by_key(|at| (Reverse(members[*at].score), Reverse(members[*at].shares[feed].weight), *at));
        let may_give = |at: usize, share: i64| share > 1 && (deviation <= 0 || share > members[at].shares[feed].current);
        let givers = shares.iter().enumerate().filter(|(at, share)| may_give(*at, **share));
        let mut givers: BinaryHeap<(i64, Reverse<usize>)> = givers.map(|(at, share)| (*share, Reverse(at))).collect();
        for taker in takers.into_iter().take(wanted.saturating_sub(holders)) {
            let mut passed = Vec::new();
            while let Some((share, Reverse(giver))) = givers.pop() {
                if !self.may_move(feed, members[giver].cluster, members[taker].cluster) {
                    passed.push((share, Reverse(giver)));
                    continue;
                }
                shares[giver] -= 1;
                shares[taker] += 1;
                passed.extend(may_give(giver, share - 1).then_some((share - 1, Reverse(giver))));
                break;
            }
            givers.extend(passed);
        }
    }

    /// A replica may be moved as long as no hard constraint counts it elsewhere.
    fn may_move(&self, feed: usize, from: &Cluster, to: &Cluster) -> bool {
        let mut hard = self.constraints[feed].iter().filter(|constraint| constraint.hard);
        hard.all(|constraint| from.labels.get(&constraint.key) == to.labels.get(&constraint.key))
    }

    /// Spread binds every member, as Clusternet does; Binpack those with replicas and those that only a constraint keeps empty, or where there
    /// are none those that were bound, or one.
    fn used(&self, members: &[Member<'_>], shares: &[Vec<i64>]) -> Vec<bool> {
        if !self.dynamic.binpack {
            return vec![true; members.len()];
        }
        let totals = self.workloads.iter().map(|(_, workload)| workload.total);
        let short: Vec<bool> = shares
            .iter()
            .zip(totals)
            .map(|(shares, total)| shares.iter().sum::<i64>() < total)
            .collect();
        let holds = |at: usize| {
            let member = &members[at];
            let waits = member
                .shares
                .iter()
                .zip(&short)
                .any(|(share, short)| *short && share.room > 0);
            waits || self.holds_unseen(member) || shares.iter().any(|shares| shares[at] > 0)
        };
        let used: Vec<bool> = (0..members.len()).map(holds).collect();
        if used.contains(&true) {
            return used;
        }
        let bound: Vec<bool> = members.iter().map(|member| member.bound).collect();
        if bound.contains(&true) {
            return bound;
        }
        let first = (0..members.len()).min_by_key(|at| (Reverse(members[*at].score), Reverse(members[*at].room()), *at));
        (0..members.len()).map(|at| Some(at) == first).collect()
    }

    /// Reasons follow from the result, not from the way there, so that placing again gives the same.
    fn outcomes(&self, candidates: &[Candidate<'_>], division: &Division<'_>, remarks: &mut Vec<Remark>) -> Vec<Outcome> {
        let mut used = vec![false; candidates.len()];
        let members = division.members.iter().zip(&division.used);
        members.for_each(|(member, is_used)| used[member.candidate] = *is_used);
        let count = used.iter().filter(|used| **used).count();
        let full = self.dynamic.max_clusters.is_some_and(|most| count >= most);
        let open_group = self.open_groups(candidates, &used, remarks);
        let outcome = |at: usize, candidate: &Candidate<'_>| match used[at] {
            true if candidate.standing == Standing::Closed => Outcome::Placed(Placed::StaysDespiteTaint),
            true => Outcome::Placed(Placed::Chosen),
            false if candidate.tainted => Outcome::Excluded(Reason::TaintNotTolerated),
            false if self.lacks_domain(candidate.cluster) => Outcome::Excluded(Reason::NoTopologyDomain),
            false if !open_group[at] => Outcome::Excluded(Reason::SubGroupFull),
            false if full && (division.short || !self.dynamic.binpack) => Outcome::Excluded(Reason::MaxClusters),
            false if division.short => Outcome::Excluded(Reason::NoCapacity),
            false => Outcome::Excluded(Reason::NotNeeded),
        };
        candidates
            .iter()
            .enumerate()
            .map(|(at, candidate)| outcome(at, candidate))
            .collect()
    }

    /// By candidate: whether a group of it has fewer clusters than it asks for. Without subgroups, all are open.
    fn open_groups(&self, candidates: &[Candidate<'_>], used: &[bool], remarks: &mut Vec<Remark>) -> Vec<bool> {
        let by_sub_group = self.request.subscription.by_sub_group;
        let mut open = vec![!by_sub_group; candidates.len()];
        for (index, subscriber) in self
            .request
            .subscription
            .subscribers
            .iter()
            .enumerate()
            .filter(|_| by_sub_group)
        {
            let matching = |at: &usize| subscriber.selector.matches(&candidates[*at].cluster.labels);
            let members: Vec<usize> = (0..candidates.len()).filter(matching).collect();
            let (wanted, has) = (subscriber.clusters, members.iter().filter(|at| used[**at]).count());
            if has < wanted {
                members.iter().for_each(|at| open[*at] = true);
            }
            let could = |at: &&usize| used[**at] || candidates[**at].standing == Standing::Open;
            let found = members.iter().filter(could).count();
            let subscriber = index;
            remarks.extend((found < wanted).then_some(Remark::GroupTooSmall {
                subscriber,
                wanted,
                found,
            }));
        }
        open
    }

    fn lacks_domain(&self, cluster: &Cluster) -> bool {
        !self.workloads.is_empty() && (0..self.workloads.len()).all(|feed| !self.has_domains(feed, cluster))
    }

    /// Shares of the clusters that are bound, and how many were taken to fit wherever a feed's shares changed.
    fn write_shares(&self, division: &Division<'_>, draft: &mut Draft) {
        let bound = || division.members.iter().enumerate().filter(|(at, _)| division.used[*at]);
        for (feed, (key, _)) in self.workloads.iter().enumerate() {
            let shares = bound().map(|(at, member)| (member.cluster.namespace.clone(), division.shares[feed][at]));
            let shares: BTreeMap<Arc<str>, i64> = shares.collect();
            let before = self.request.previous.capacity.get(*key);
            let shares_before = self.request.previous.replicas.get(*key);
            let stays =
                shares_before.is_some_and(|before| shares.iter().all(|(namespace, share)| before.get(namespace) == Some(share)));
            let taken = bound().map(|(_, member)| {
                let namespace = &member.cluster.namespace;
                let known = before.filter(|_| stays).and_then(|before| before.get(namespace)).copied();
                (namespace.clone(), known.unwrap_or(member.shares[feed].weight))
            });
            draft.capacity.insert((*key).clone(), taken.collect());
            draft.replicas.insert((*key).clone(), shares);
        }
    }

    /// What fits nowhere stays where a taint sends it away: the replacement comes first.
    fn strand(&self, candidates: &[Candidate<'_>], division: &Division<'_>, draft: &mut Draft) {
        let leaving = || {
            candidates
                .iter()
                .enumerate()
                .filter(|(_, it)| it.standing == Standing::Leaving)
        };
        let mut staying: BTreeSet<usize> = BTreeSet::new();
        for (feed, (key, workload)) in self.workloads.iter().enumerate() {
            let mut missing = workload.total - division.shares[feed].iter().sum::<i64>();
            let mut stranded = 0;
            for (at, candidate) in leaving() {
                let share = self.request.share_before(key, candidate.cluster).min(missing);
                if share > 0 {
                    let shares = draft.replicas.entry((*key).clone()).or_default();
                    shares.insert(candidate.cluster.namespace.clone(), share);
                    staying.insert(at);
                    (missing, stranded) = (missing - share, stranded + share);
                }
            }
            let feed = (*key).clone();
            draft.remarks.extend((stranded > 0).then(|| Remark::Stranded {
                feed: feed.clone(),
                replicas: stranded,
            }));
            let total = workload.total;
            draft
                .remarks
                .extend((missing > 0).then_some(Remark::Unplaced { feed, missing, total }));
        }
        let unseen = self.request.demands.iter().filter(|(_, demand)| *demand == Demand::Unknown);
        for (key, _) in unseen {
            let held = leaving().filter(|(_, candidate)| self.request.share_before(key, candidate.cluster) > 0);
            staying.extend(held.map(|(at, _)| at));
        }
        self.bind_leaving(candidates, &staying, draft);
    }

    fn bind_leaving(&self, candidates: &[Candidate<'_>], staying: &BTreeSet<usize>, draft: &mut Draft) {
        for at in staying {
            let namespace = &candidates[*at].cluster.namespace;
            draft.outcomes[*at] = Outcome::Placed(Placed::WaitsForReplacement);
            for (key, _) in &self.workloads {
                let shares = draft.replicas.entry((*key).clone()).or_default();
                shares.entry(namespace.clone()).or_insert(0);
            }
        }
    }
}

/// Gives an amount to some members by the strategy, as far as it fits.
pub(super) fn fill(dynamic: &Dynamic, members: &[Member<'_>], of: &[usize], feed: usize, amount: i64) -> Vec<(usize, i64)> {
    let share = |at: &usize| members[*at].shares[feed];
    let rooms: Vec<i64> = of.iter().map(|at| share(at).room).collect();
    let given = if dynamic.binpack {
        let mut order: Vec<usize> = (0..of.len()).collect();
        order.sort_by_key(|at| {
            let member = &members[of[*at]];
            (
                Reverse(member.score),
                Reverse(member.shares[feed].current > 0),
                Reverse(rooms[*at]),
                *at,
            )
        });
        divide::in_order(amount, &order, &rooms)
    } else {
        let weights: Vec<i64> = of.iter().map(|at| share(at).weight).collect();
        divide::by_room(amount, &weights, &rooms)
    };
    of.iter().copied().zip(given).collect()
}

/// Takes an amount away from some members: Spread from all by what they have, Binpack from the emptiest, so that clusters come free.
pub(super) fn release(dynamic: &Dynamic, members: &[Member<'_>], of: &[usize], feed: usize, amount: i64) -> Vec<(usize, i64)> {
    let current: Vec<i64> = of.iter().map(|at| members[*at].shares[feed].current).collect();
    let taken = if dynamic.binpack {
        let mut order: Vec<usize> = (0..of.len()).collect();
        order.sort_by_key(|at| (members[of[*at]].score, current[*at], Reverse(*at)));
        divide::in_order(amount, &order, &current)
    } else {
        divide::by_room(amount, &current, &current)
    };
    of.iter().copied().zip(taken).collect()
}
