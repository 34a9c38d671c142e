//! The source repository of the bench: two Subscriptions of five objects each for all clusters, five sets of overrides by label, and many files
//! that are in nobody's way.

use serde_json::{Value, json};

use crate::support::repository::GitRepo;
use crate::support::samples::{config_map, config_map_feed, document, localization, subscription};

/// Values of the label `set`, each with a Globalization of its own.
pub(crate) const SETS: [&str; 5] = ["a", "b", "c", "d", "e"];
const SUBSCRIPTIONS: usize = 2;
const OBJECTS: usize = 5;
const MANY: usize = 10_000;

/// The repository that people push to.
pub(crate) struct Source {
    pub(crate) git: GitRepo,
    many: bool,
}

impl Source {
    pub(crate) fn new() -> Source {
        let mut files: Vec<(String, String)> = (0..SUBSCRIPTIONS).map(app).collect();
        files.extend(SETS.iter().map(|set| overrides(set)));
        files.push(shared("hello"));
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        Source {
            git: GitRepo::with(&files),
            many: false,
        }
    }

    pub(crate) fn push(&mut self, path: &str, text: &str) {
        self.git.push("one change", &[(path, text)]);
    }

    pub(crate) fn localize(&mut self, cluster: usize, round: usize) {
        let patch = json!({"data": {"round": round.to_string()}}).to_string();
        let text = localization(&format!("clusternet-edge-{cluster}"), "own", "app-0-1", "MergePatch", &patch);
        self.push("local.yaml", &text);
    }

    pub(crate) fn feed_of_all(&mut self, round: usize) {
        let (path, text) = shared(&format!("round-{round}"));
        self.push(&path, &text);
    }

    /// The first time they are added, all of them; then one changes at a time.
    pub(crate) fn one_of_many(&mut self, round: usize) {
        if !std::mem::replace(&mut self.many, true) {
            let files: Vec<(String, String)> = (0..MANY).map(|at| bystander(at, 0)).collect();
            let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
            self.git.push("many", &files);
        } else {
            let (path, text) = bystander(MANY / 2, round);
            self.push(&path, &text);
        }
    }
}

/// A Subscription with its objects; the first object of the first one stands alone, because it changes.
fn app(number: usize) -> (String, String) {
    let names: Vec<String> = (0..OBJECTS).map(|at| format!("app-{number}-{at}")).collect();
    let feeds: Vec<Value> = names.iter().map(|name| config_map_feed(name)).collect();
    let objects = names.iter().map(|name| format!("---\n{}", config_map(name, "hello")));
    let alone = usize::from(number == 0);
    let text: String = objects.skip(alone).collect();
    (
        format!("apps/app-{number}.yaml"),
        format!("{}{text}", subscription(&format!("app-{number}"), &[], &feeds)),
    )
}

fn shared(greeting: &str) -> (String, String) {
    ("apps/shared.yaml".to_owned(), config_map("app-0-0", greeting))
}

/// A Globalization for the clusters of a set.
fn overrides(set: &str) -> (String, String) {
    let globalization = |name: &str| {
        document(&json!({
            "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "Globalization", "metadata": {"name": format!("{name}-{set}")},
            "spec": {
                "priority": 100, "clusterAffinity": {"matchLabels": {"set": set}}, "feed": config_map_feed(name),
                "overrides": [{"name": "set", "type": "MergePatch", "value": json!({"data": {"set": set}}).to_string()}],
            },
        }))
    };
    let texts: Vec<String> = (0..SUBSCRIPTIONS)
        .map(|number| globalization(&format!("app-{number}-1")))
        .collect();
    (format!("overrides/{set}.yaml"), texts.join("---\n"))
}

fn bystander(at: usize, round: usize) -> (String, String) {
    let text = config_map(&format!("bystander-{at}"), &format!("round-{round}"));
    (format!("many/{}/{at}.yaml", at % 100), text)
}
