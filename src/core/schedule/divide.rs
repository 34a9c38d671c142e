//! Arithmetic of dividing: whole numbers by weights. Knows no cluster; positions decide ties, the first wins.

/// Static shares: floor(weight × total / Σ), then one more for each of the heaviest until nothing is left. `None` where nobody has a weight.
pub(super) fn by_weight(total: i64, weights: &[i64]) -> Option<Vec<i64>> {
    let sum: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    if sum == 0 {
        return None;
    }
    let mut shares: Vec<i64> = weights.iter().map(|weight| share(total, *weight, sum).0).collect();
    let left = total - shares.iter().sum::<i64>();
    let mut heaviest: Vec<usize> = (0..weights.len()).collect();
    heaviest.sort_by_key(|at| std::cmp::Reverse(weights[*at]));
    let left = usize::try_from(left).unwrap_or_default();
    heaviest.iter().take(left).for_each(|at| shares[*at] += 1);
    Some(shares)
}

/// floor(weight × total / Σ) and what the division leaves.
fn share(total: i64, weight: i64, sum: i128) -> (i64, i128) {
    let product = i128::from(total) * i128::from(weight);
    (i64::try_from(product / sum).unwrap_or(i64::MAX), product % sum)
}

/// Divides an amount by weights, nobody above its cap, what is left over to the largest fractions. What does not fit is not given.
pub(super) fn by_room(amount: i64, weights: &[i64], caps: &[i64]) -> Vec<i64> {
    let room: i128 = caps.iter().map(|cap| i128::from(*cap)).sum();
    if i128::from(amount) >= room {
        return caps.to_vec();
    }
    let mut given = vec![0; caps.len()];
    let mut left = amount;
    let mut open: Vec<usize> = (0..caps.len()).filter(|at| caps[*at] > 0).collect();
    while left > 0 {
        // Whoever has room counts, even without a weight.
        let sum: i128 = open.iter().map(|at| i128::from(weights[*at].max(1))).sum();
        let (full, rest): (Vec<usize>, Vec<usize>) = open
            .iter()
            .partition(|at| share(left, weights[**at].max(1), sum).0 > caps[**at]);
        if full.is_empty() {
            return finish(left, weights, caps, &open, given);
        }
        for at in full {
            given[at] = caps[at];
            left -= caps[at];
        }
        open = rest;
    }
    given
}

fn finish(amount: i64, weights: &[i64], caps: &[i64], open: &[usize], mut given: Vec<i64>) -> Vec<i64> {
    let sum: i128 = open.iter().map(|at| i128::from(weights[*at].max(1))).sum();
    let mut left = amount;
    let mut fractions = Vec::with_capacity(open.len());
    for at in open {
        let (whole, fraction) = share(amount, weights[*at].max(1), sum);
        given[*at] = whole;
        left -= whole;
        fractions.push((std::cmp::Reverse(fraction), *at));
    }
    fractions.sort_unstable();
    while left > 0 {
        for (_, at) in &fractions {
            if left > 0 && given[*at] < caps[*at] {
                given[*at] += 1;
                left -= 1;
            }
        }
    }
    given
}

/// Fills in an order, each to its cap.
pub(super) fn in_order(mut amount: i64, order: &[usize], caps: &[i64]) -> Vec<i64> {
    let mut given = vec![0; caps.len()];
    for at in order {
        given[*at] = amount.min(caps[*at]);
        amount -= given[*at];
    }
    given
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn static_shares_are_clusternets() {
        assert_eq!(by_weight(6, &[1, 2]), Some(vec![2, 4]));
        assert_eq!(by_weight(6, &[2, 1]), Some(vec![4, 2]));
        assert_eq!(by_weight(7, &[1, 1, 1]), Some(vec![3, 2, 2]));
        assert_eq!(by_weight(5, &[1, 3, 3]), Some(vec![0, 3, 2]));
        assert_eq!(by_weight(5, &[0, 0]), None);
    }

    #[test]
    fn room_is_divided_by_fractions() {
        assert_eq!(by_room(6, &[10, 20], &[10, 20]), [2, 4]);
        assert_eq!(by_room(5, &[10, 10, 10], &[10, 10, 10]), [2, 2, 1]);
        assert_eq!(by_room(50, &[10, 20], &[10, 20]), [10, 20]);
        assert_eq!(by_room(6, &[10, 20], &[1, 20]), [1, 5]);
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let most = i64::from(i32::MAX);
        assert_eq!(by_room(most, &[most; 4], &[most; 4]).iter().sum::<i64>(), most);
        assert_eq!(by_weight(most, &[most; 4]).map(|shares| shares.iter().sum()), Some(most));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn static_shares_add_up(total in 0..10_000i64, weights in prop::collection::vec(0..50i64, 1..12)) {
            if let Some(shares) = by_weight(total, &weights) {
                prop_assert_eq!(shares.iter().sum::<i64>(), total);
                for (share, weight) in shares.iter().zip(&weights) {
                    prop_assert!(*share >= 0 && (*weight > 0 || *share == 0));
                }
            }
        }

        #[test]
        fn room_is_never_exceeded(
            amount in 0..500i64,
            pairs in prop::collection::vec((0..60i64, 0..60i64), 1..12),
        ) {
            let (weights, caps): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
            let given = by_room(amount, &weights, &caps);
            prop_assert_eq!(given.iter().sum::<i64>(), amount.min(caps.iter().sum()));
            prop_assert!(given.iter().zip(&caps).all(|(given, cap)| 0 <= *given && given <= cap));
        }
    }
}
