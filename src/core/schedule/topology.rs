//! Topology spread constraints over clusters: which domain gets the next replica, or gives one back. Knows no room but its members'.
//!
//! Members with the same domains and score form a group. Replicas go one at a time to the group that keeps every hard constraint, breaks the
//! soft ones least, has the best score and is filled least; within a group they are divided as without constraints.

use std::collections::BTreeMap;

use super::dynamic::{Member, fill, release};
use crate::core::index::{Dynamic, SpreadConstraint};

/// The most replicas of a feed that are spread one by one; what is above stays unplaced.
pub(super) const MOST_STEPS: i64 = 1_000_000;

/// Members that are alike to all constraints.
struct Group {
    members: Vec<usize>,
    domains: Vec<Option<usize>>,
    score: i64,
    /// Replicas now.
    count: i64,
    /// How many it may still get or give.
    left: i64,
    weight: i64,
    moved: i64,
}

/// One constraint's domains and the replicas in each.
struct Spread<'a> {
    constraint: &'a SpreadConstraint,
    counts: Vec<i64>,
}

impl Spread<'_> {
    fn least(&self) -> i64 {
        if self.counts.len() < self.constraint.min_domains {
            return 0;
        }
        self.counts.iter().min().copied().unwrap_or(0)
    }

    /// By how much one replica more in a domain breaks the constraint. Outside every domain it does so by all there is.
    fn excess(&self, domain: Option<usize>) -> i64 {
        match domain {
            Some(domain) => (self.counts[domain] + 1 - self.least() - self.constraint.max_skew).max(0),
            None => i64::MAX / 4,
        }
    }
}

struct Plan<'a> {
    groups: Vec<Group>,
    spreads: Vec<Spread<'a>>,
}

/// The constraints that count for a feed.
pub(super) fn applying<'d>(dynamic: &'d Dynamic, pods: &crate::core::selector::Labels) -> Vec<&'d SpreadConstraint> {
    let constraints = dynamic.constraints.iter();
    constraints
        .filter(|constraint| constraint.pods.as_ref().is_none_or(|selector| selector.matches(pods)))
        .collect()
}

fn plan<'a>(
    constraints: &[&'a SpreadConstraint],
    members: &[Member<'_>],
    feed: usize,
    left: fn(&Member<'_>, usize) -> i64,
) -> Plan<'a> {
    let mut names: Vec<BTreeMap<&str, usize>> = vec![BTreeMap::new(); constraints.len()];
    let mut spreads: Vec<Spread<'a>> = Vec::new();
    for constraint in constraints {
        let counts = Vec::new();
        spreads.push(Spread { constraint, counts });
    }
    let mut groups: BTreeMap<(Vec<Option<usize>>, i64), Group> = BTreeMap::new();
    // A cluster that has nothing and can get nothing is no domain.
    let usable = |member: &Member<'_>| member.shares[feed].current > 0 || member.shares[feed].room > 0;
    for (at, member) in members.iter().enumerate().filter(|(_, member)| usable(member)) {
        let mut domains = Vec::with_capacity(constraints.len());
        for (index, spread) in spreads.iter_mut().enumerate() {
            let domain = member.cluster.labels.get(&spread.constraint.key);
            let next = names[index].len();
            let domain = domain.map(|name| *names[index].entry(name).or_insert(next));
            if let Some(domain) = domain {
                spread.counts.resize(spread.counts.len().max(domain + 1), 0);
                spread.counts[domain] += member.shares[feed].current;
            }
            domains.push(domain);
        }
        let group = groups.entry((domains.clone(), member.score)).or_insert_with(|| Group {
            members: Vec::new(),
            domains,
            score: member.score,
            count: 0,
            left: 0,
            weight: 0,
            moved: 0,
        });
        group.members.push(at);
        group.count += member.shares[feed].current;
        group.left += left(member, feed);
        group.weight = group.weight.saturating_add(member.shares[feed].weight);
    }
    // Groups in the order of their first member, so that ties are broken as everywhere.
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| group.members.first().copied());
    Plan { groups, spreads }
}

/// Divides an amount among members. What would break a hard constraint is not given.
pub(super) fn add(
    dynamic: &Dynamic,
    constraints: &[&SpreadConstraint],
    members: &[Member<'_>],
    feed: usize,
    amount: i64,
) -> Vec<i64> {
    let mut plan = plan(constraints, members, feed, |member, feed| member.shares[feed].room);
    for _ in 0..amount.min(MOST_STEPS) {
        let Some(best) = plan.next_to_take(dynamic.binpack) else {
            break;
        };
        plan.step(best, 1);
    }
    let mut given = vec![0; members.len()];
    for group in &plan.groups {
        let part = fill(dynamic, members, &group.members, feed, group.moved);
        part.into_iter().for_each(|(at, share)| given[at] = share);
    }
    given
}

/// Takes an amount away from members, the fullest domains first.
pub(super) fn remove(
    dynamic: &Dynamic,
    constraints: &[&SpreadConstraint],
    members: &[Member<'_>],
    feed: usize,
    amount: i64,
) -> Vec<i64> {
    let mut plan = plan(constraints, members, feed, |member, feed| member.shares[feed].current);
    let all: Vec<usize> = (0..members.len()).collect();
    if amount > MOST_STEPS {
        return release(dynamic, members, &all, feed, amount)
            .into_iter()
            .map(|(_, share)| share)
            .collect();
    }
    for _ in 0..amount {
        let Some(best) = plan.next_to_give() else { break };
        plan.step(best, -1);
    }
    let mut taken = vec![0; members.len()];
    for group in &plan.groups {
        let part = release(dynamic, members, &group.members, feed, -group.moved);
        part.into_iter().for_each(|(at, share)| taken[at] = share);
    }
    taken
}

impl Plan<'_> {
    fn next_to_take(&self, binpack: bool) -> Option<usize> {
        let open = self.groups.iter().enumerate().filter(|(_, group)| group.left > 0);
        let allowed = open.filter(|(_, group)| self.excess(group, true) == 0);
        let ranked = allowed.map(|(at, group)| {
            let filled = if binpack { 0 } else { group.filled() };
            let used = i64::from(binpack && group.count == 0);
            ((self.excess(group, false), -group.score, used, filled), at)
        });
        ranked.min().map(|(_, at)| at)
    }

    fn next_to_give(&self) -> Option<usize> {
        let giving = self.groups.iter().enumerate().filter(|(_, group)| group.left > 0);
        let ranked = giving.map(|(at, group)| {
            let above: i64 = group
                .domains
                .iter()
                .zip(&self.spreads)
                .map(|(domain, spread)| domain.map_or(0, |domain| spread.counts[domain] - spread.least()))
                .sum();
            ((-above, group.score, -group.filled()), at)
        });
        ranked.min().map(|(_, at)| at)
    }

    fn excess(&self, group: &Group, hard: bool) -> i64 {
        let spreads = group.domains.iter().zip(&self.spreads);
        let counting = spreads.filter(|(_, spread)| spread.constraint.hard == hard);
        counting.map(|(domain, spread)| spread.excess(*domain)).max().unwrap_or(0)
    }

    fn step(&mut self, at: usize, by: i64) {
        let group = &mut self.groups[at];
        group.count += by;
        group.moved += by;
        group.left -= 1;
        for (domain, spread) in group.domains.iter().zip(&mut self.spreads) {
            domain.iter().for_each(|domain| spread.counts[*domain] += by);
        }
    }
}

impl Group {
    /// How full it is, in millionths of its weight.
    fn filled(&self) -> i64 {
        let filled = i128::from(self.count) * 1_000_000 / i128::from(self.weight.max(1));
        i64::try_from(filled).unwrap_or(i64::MAX)
    }
}
