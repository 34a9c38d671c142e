//! Labels below `node.clusternet.io/`: from a cluster's nodes and its agent's `--labels` to what its ManagedCluster carries.
//! Reads no node and keeps nothing.

use std::collections::BTreeMap;

use crate::core::selector::{Labels, MAX_LABELS, check_label};

/// Where the labels begin that agents go on reporting after their approval.
pub const PREFIX: &str = "node.clusternet.io/";
/// A value wins when at least this many of that many nodes carry it: 0.8, as in Clusternet.
const THRESHOLD: (usize, usize) = (4, 5);
/// What marks the nodes that do not count.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// Counts what the nodes carry, one after the other, so that nobody has to hold them all.
#[derive(Debug, Default)]
pub struct NodeLabelCount {
    nodes: usize,
    values: BTreeMap<String, BTreeMap<String, usize>>,
}

impl NodeLabelCount {
    /// Counts a node by its labels, unless it is one of the control plane.
    pub fn add(&mut self, labels: &Labels) {
        if CONTROL_PLANE.iter().any(|role| labels.contains_key(*role)) {
            return;
        }
        self.nodes += 1;
        for (key, value) in below(labels) {
            let values = self.values.entry(key.clone()).or_default();
            *values.entry(value.clone()).or_default() += 1;
        }
    }

    /// The values that enough nodes carry; `None` when no node counted, which says nothing about the labels of those that may come.
    pub fn winners(self) -> Option<Labels> {
        let (of_these, of_all) = THRESHOLD;
        let wins = |count: usize| count * of_all >= self.nodes * of_these;
        let winner = |(key, values): (String, BTreeMap<String, usize>)| {
            let (value, _) = values.into_iter().find(|(_, count)| wins(*count))?;
            Some((key, value))
        };
        (self.nodes > 0).then(|| self.values.into_iter().filter_map(winner).collect())
    }
}

/// What an agent reports. Its own labels win: a person stated them about the whole cluster, and they do not change with the next node.
/// `None`, which changes nothing on the hub, while there is neither a node that counts nor a label of its own.
pub fn reported(of_nodes: Option<&Labels>, own: &Labels) -> Option<Labels> {
    let own: Labels = below(own).map(|(key, value)| (key.clone(), value.clone())).collect();
    match of_nodes {
        None if own.is_empty() => None,
        of_nodes => {
            let mut labels = of_nodes.cloned().unwrap_or_default();
            labels.extend(own);
            Some(labels)
        }
    }
}

fn below(labels: &Labels) -> impl Iterator<Item = (&String, &String)> {
    labels.iter().filter(|(key, _)| key.starts_with(PREFIX))
}

/// Labels that a hub takes from an agent: below [`PREFIX`], valid, and not too many.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeLabels(Labels);

impl NodeLabels {
    /// What can be taken of a report, and what is wrong with the rest: its first mistake and how many there are.
    pub fn admit(reported: Labels) -> (Self, Option<String>) {
        let mut taken = Labels::new();
        let mut mistakes: Vec<String> = Vec::new();
        for (key, value) in reported {
            match check(&key, &value, taken.len()) {
                Ok(()) => drop(taken.insert(key, value)),
                Err(mistake) => mistakes.push(mistake),
            }
        }
        let more = mistakes.len().saturating_sub(1);
        let problem = mistakes.into_iter().next().map(|first| match more {
            0 => first,
            more => format!("{first} (and {more} more)"),
        });
        (NodeLabels(taken), problem)
    }

    /// Whether a cluster carries exactly these below the prefix.
    pub fn stand_in(&self, labels: &Labels) -> bool {
        below(labels).eq(&self.0)
    }

    /// Puts these in the place of what a cluster carries below the prefix.
    pub fn replace_in(&self, labels: &mut Labels) {
        labels.retain(|key, _| !key.starts_with(PREFIX));
        labels.extend(self.0.clone());
    }
}

fn check(key: &str, value: &str, taken: usize) -> Result<(), String> {
    if !key.starts_with(PREFIX) {
        return Err(format!("{key:?} is not below {PREFIX}"));
    }
    check_label(key, value)?;
    if taken == MAX_LABELS {
        return Err(format!("{key:?} is one too many; at most {MAX_LABELS} count"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn check_winners(nodes: &[&[(&str, &str)]], want: Option<&[(&str, &str)]>) {
        let mut count = NodeLabelCount::default();
        nodes.iter().for_each(|node| count.add(&labels(node)));
        assert_eq!(count.winners(), want.map(labels), "{nodes:?}");
    }

    #[test]
    fn a_value_wins_with_four_nodes_of_five() {
        let (yes, no, other): (&[_], &[_], &[_]) = (
            &[("node.clusternet.io/gpu", "yes"), ("zone", "eu")],
            &[("node.clusternet.io/gpu", "no")],
            &[("zone", "eu")],
        );
        check_winners(&[yes], Some(&yes[..1]));
        check_winners(&[yes, yes, yes, yes, no], Some(&yes[..1]));
        check_winners(&[yes, yes, yes, yes, other], Some(&yes[..1]));
        check_winners(&[yes, yes, yes, no], Some(&[]));
        check_winners(&[yes, yes, yes, yes, yes, yes, yes, no, no], Some(&[]));
        check_winners(&[no, other], Some(&[]));
        check_winners(&[other], Some(&[]));
    }

    #[test]
    fn control_planes_do_not_count() {
        let worker: &[_] = &[("node.clusternet.io/gpu", "yes")];
        for role in CONTROL_PLANE {
            let plane: &[_] = &[(role, ""), ("node.clusternet.io/gpu", "no")];
            check_winners(&[plane, plane, worker], Some(worker));
            check_winners(&[plane], None);
        }
        check_winners(&[], None);
    }

    #[test]
    fn an_agents_own_labels_win() {
        let nodes = labels(&[("node.clusternet.io/gpu", "yes"), ("node.clusternet.io/zone", "a")]);
        let own = labels(&[("node.clusternet.io/gpu", "no"), ("region", "eu")]);
        let both = labels(&[("node.clusternet.io/gpu", "no"), ("node.clusternet.io/zone", "a")]);
        assert_eq!(reported(Some(&nodes), &own), Some(both));
        assert_eq!(reported(None, &own), Some(labels(&[("node.clusternet.io/gpu", "no")])));
        let outside = labels(&[("region", "eu")]);
        assert_eq!(reported(None, &outside), None, "nothing is known");
        let none = Labels::new();
        assert_eq!(reported(Some(&none), &outside), Some(none), "it is known that there are none");
    }

    #[test]
    fn what_is_no_label_below_the_prefix_is_left_out() {
        let good = labels(&[("node.clusternet.io/gpu", "yes")]);
        assert_eq!(NodeLabels::admit(good.clone()), (NodeLabels(good.clone()), None));
        for (key, value) in [
            ("region", "eu"),
            ("clusters.clusternet.io/cluster-id", "x"),
            ("node.clusternet.io/", "x"),
            ("node.clusternet.io/a/b", "x"),
            ("node.clusternet.io/a", "no spaces"),
        ] {
            let mut report = good.clone();
            report.insert(key.to_owned(), value.to_owned());
            let (taken, problem) = NodeLabels::admit(report);
            assert_eq!(taken.0, good, "{key:?} {value:?}");
            assert!(problem.is_some_and(|problem| problem.contains(key)), "{key:?} {value:?}");
        }
    }

    #[test]
    fn a_report_is_bounded() {
        let many: Labels = (0..100_u32).map(|n| (format!("{PREFIX}{n:03}"), String::new())).collect();
        let (taken, problem) = NodeLabels::admit(many);
        assert_eq!(taken.0.len(), MAX_LABELS);
        let problem = problem.unwrap_or_default();
        assert!(problem.contains("064") && problem.ends_with("(and 35 more)"), "{problem}");
    }

    #[test]
    fn only_labels_below_the_prefix_are_replaced() {
        let (taken, _) = NodeLabels::admit(labels(&[("node.clusternet.io/gpu", "yes")]));
        let mut of_cluster = labels(&[("node.clusternet.io/zone", "a"), ("region", "eu")]);
        assert!(!taken.stand_in(&of_cluster));
        taken.replace_in(&mut of_cluster);
        assert_eq!(of_cluster, labels(&[("node.clusternet.io/gpu", "yes"), ("region", "eu")]));
        assert!(taken.stand_in(&of_cluster));
        NodeLabels::default().replace_in(&mut of_cluster);
        assert_eq!(of_cluster, labels(&[("region", "eu")]));
    }
}
