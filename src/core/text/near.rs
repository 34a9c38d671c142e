//! Names that resemble a text: what somebody may have meant.

use std::collections::BTreeSet;

/// How many near names are told.
const TOLD: usize = 3;

/// Up to three names that resemble a text most.
pub fn nearest<'n>(text: &str, names: impl Iterator<Item = &'n str>) -> Vec<String> {
    let mut ranked: BTreeSet<(usize, &str)> = BTreeSet::new();
    for name in names {
        let worst = ranked.last().map_or(0, |(distance, _)| *distance);
        // As many letters as one is longer than the other differ at least.
        if ranked.len() == TOLD && compared(text).len().abs_diff(compared(name).len()) > worst {
            continue;
        }
        ranked.insert((edit_distance(text, name), name));
        if ranked.len() > TOLD {
            ranked.pop_last();
        }
    }
    ranked.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// How much of a name is compared.
const COMPARED: usize = 64;

fn compared(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(COMPARED)]
}

/// Levenshtein's distance over bytes, of at most the first 64 of each.
pub fn edit_distance(a: &str, b: &str) -> usize {
    // What both begin and end with does not count: the names of a fleet differ in little.
    let (mut a, mut b) = (compared(a), compared(b));
    let begins = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    (a, b) = (&a[begins..], &b[begins..]);
    let ends = a.iter().rev().zip(b.iter().rev()).take_while(|(x, y)| x == y).count();
    (a, b) = (&a[..a.len() - ends], &b[..b.len() - ends]);
    let mut row: [usize; COMPARED + 1] = std::array::from_fn(|at| at);
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(text: &str, names: &[&str]) -> Vec<String> {
        nearest(text, names.iter().copied())
    }

    #[test]
    fn the_nearest_names_are_told() {
        assert_eq!(
            near("berln", &["tokyo", "berlin", "paris", "bern", "merlin"]),
            ["berlin", "bern", "merlin"]
        );
        assert_eq!(
            near("edge-17", &["edge-1", "edge-171", "edge-7"]),
            ["edge-1", "edge-171", "edge-7"]
        );
        assert_eq!(near("x", &[]), [""; 0]);
        let long = "a".repeat(100);
        assert_eq!(near(&long, &["b", &long]), [long.as_str(), "b"]);
    }

    /// By the definition, letter by letter.
    fn plain_distance(a: &[u8], b: &[u8]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) => {
                let substituted = plain_distance(a_rest, b_rest) + usize::from(x != y);
                substituted
                    .min(1 + plain_distance(a, b_rest))
                    .min(1 + plain_distance(a_rest, b))
            }
        }
    }

    proptest! {
        #[test]
        fn distances_are_levenshteins(a in "[ab-]{0,6}", b in "[ab-]{0,6}") {
            prop_assert_eq!(edit_distance(&a, &b), plain_distance(a.as_bytes(), b.as_bytes()));
        }

        #[test]
        fn nobody_nearer_is_passed_over(text in "[ab]{0,8}", names in prop::collection::btree_set("[ab]{0,8}", 0..9)) {
            let mut ranked: Vec<(usize, &str)> = names.iter().map(|name| (edit_distance(&text, name), name.as_str())).collect();
            ranked.sort_unstable();
            let want: Vec<String> = ranked.iter().take(TOLD).map(|(_, name)| (*name).to_owned()).collect();
            prop_assert_eq!(nearest(&text, names.iter().map(String::as_str)), want);
        }
    }
}
