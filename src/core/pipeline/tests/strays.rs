//! Overrides for nobody, and the names that are told for them.

use super::*;

#[test]
fn near_names_follow_the_clusters() {
    let mut world = web();
    let stray = localization("l", "ApplyNow", 1, "MergePatch", "{}").replace("clusternet-east", "clusternet-wst");
    world.write("l.yaml", &stray).run();
    assert_eq!(world.codes(), [("localization-for-no-cluster", "l.yaml", 3)]);
    assert_eq!(world.diagnostics[0].hint, "near names: clusternet-west, clusternet-east");
    world.clusters.insert("wet".to_owned(), Vec::new());
    world.run();
    assert_eq!(
        world.diagnostics[0].hint,
        "near names: clusternet-west, clusternet-wet, clusternet-east"
    );
    for number in 0..20 {
        let path = format!("l{number}.yaml");
        world.write(&path, &stray.replace("-wst", &format!("-new-{number}")));
    }
    world.run();
    let told = |found: &&Diagnostic| found.hint.starts_with("near names: ");
    assert_eq!(
        (world.diagnostics.len(), world.diagnostics.iter().filter(told).count()),
        (21, 10)
    );
}
