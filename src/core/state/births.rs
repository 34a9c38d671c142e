//! Reads the log of the state branch as `git log --diff-filter=A --format="t %ct" --name-only` prints it: which files came with which commit.

/// The files that commits added, newest first: the parts of their path, and the seconds since 1970 of the commit.
pub fn first_commits(log: &str) -> Vec<(Vec<&str>, i64)> {
    let mut time = None;
    let mut found = Vec::new();
    for line in log.lines().filter(|line| !line.is_empty()) {
        match (line.strip_prefix("t "), time) {
            (Some(seconds), _) => time = seconds.parse().ok(),
            (None, Some(time)) => found.push((line.split('/').collect(), time)),
            (None, None) => {}
        }
    }
    found
}
