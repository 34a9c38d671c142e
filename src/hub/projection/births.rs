//! When Subscriptions and Descriptions came: from the log of the state branch for what was there before this hub started, by the clock for what
//! came since. A creation time that the log cannot tell stays unknown until it is read, and is that of the start where the log does not know.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::core::state::first_commits;

/// When things came, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Births {
    subscriptions: HashMap<(String, String), Option<Timestamp>>,
    descriptions: HashMap<(String, String), Option<Timestamp>>,
}

impl Births {
    /// Since when a Subscription is there; one that is new came `now`, if that is known.
    pub(super) fn subscription(&mut self, key: &(String, String), now: Option<Timestamp>) -> Option<Timestamp> {
        *self.subscriptions.entry(key.clone()).or_insert(now)
    }

    /// Since when a Description is there; one that is new came `now`, if that is known.
    pub(super) fn description(&mut self, namespace: &str, name: &str, now: Option<Timestamp>) -> Option<Timestamp> {
        let key = (namespace.to_owned(), name.to_owned());
        *self.descriptions.entry(key).or_insert(now)
    }

    /// A Subscription is gone.
    pub(super) fn forget_subscription(&mut self, key: &(String, String)) {
        self.subscriptions.remove(key);
    }

    /// A Description is gone.
    pub(super) fn forget_description(&mut self, namespace: &str, name: &str) {
        self.descriptions.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Takes the log of the state branch; what it does not know came at the start.
    pub(super) fn learn(&mut self, log: &str, start: Timestamp) {
        for (path, seconds) in first_commits(log) {
            let born = Timestamp::from_second(seconds).ok();
            let of = match path.as_slice() {
                ["subscriptions", namespace, file] => file
                    .strip_suffix(".yaml")
                    .and_then(|name| self.subscriptions.get_mut(&((*namespace).to_owned(), name.to_owned()))),
                ["clusters", .., namespace, name, "description.yaml"] => {
                    self.descriptions.get_mut(&((*namespace).to_owned(), (*name).to_owned()))
                }
                _ => None,
            };
            // The newest comes first: what was removed and came again is as old as its return.
            if let Some(unknown @ None) = of {
                *unknown = born;
            }
        }
        for unknown in self.subscriptions.values_mut().chain(self.descriptions.values_mut()) {
            unknown.get_or_insert(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_when_what_was_there_came() {
        let (mut births, start) = (Births::default(), Timestamp::from_second(1_000).unwrap_or_default());
        let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        births.subscription(&key("shop", "web"), None);
        births.subscription(&key("shop", "new"), Some(start));
        births.subscription(&key("shop", "lost"), None);
        births.description("clusternet-a", "shop.web", None);
        let log = "t 300\n\nsubscriptions/shop/web.yaml\nsubscriptions/shop/new.yaml\nt 200\n\nclusters/0/a/clusternet-a/shop.web/description.yaml\n\
                   subscriptions/shop/web.yaml\nt 100\n\nclusters/0/a/clusternet-a/shop.web/description.yaml\n";
        births.learn(log, start);
        let second = |born: Option<Timestamp>| born.map(Timestamp::as_second);
        assert_eq!(second(births.subscription(&key("shop", "web"), None)), Some(300));
        assert_eq!(second(births.subscription(&key("shop", "new"), None)), Some(1_000));
        assert_eq!(second(births.subscription(&key("shop", "lost"), None)), Some(1_000));
        assert_eq!(second(births.description("clusternet-a", "shop.web", None)), Some(200));
        births.forget_subscription(&key("shop", "web"));
        assert_eq!(births.subscription(&key("shop", "web"), None), None);
    }
}
