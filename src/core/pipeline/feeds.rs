//! A Subscription's feeds, looked up once for all clusters: objects, and the objects of Bundles. Renders nothing.

use std::collections::{BTreeSet, HashMap};

use super::listing::bundle_name;
use super::strays::near_feed;
use super::{Findings, Placed, feed_pointer};
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;
use crate::core::index::{Bundle, Definition, Demand, Snapshot, Subscription, feed_of, is_bundle};
use crate::core::state::DescriptionState;

/// A Subscription with its feeds; one that is held whole has none.
pub(super) struct Resolved<'a> {
    pub(super) placed: &'a Placed,
    items: Vec<Item<'a>>,
    /// Every object among the items.
    listed: BTreeSet<ObjectKey>,
    /// The places of the demands.
    demands: HashMap<&'a str, usize>,
}

enum Item<'a> {
    Object(Wanted<'a>),
    /// What was delivered of a Bundle and is not among its objects now. Held whole where the Bundle itself is missing or wrong.
    Rest {
        bundle: String,
        whole: bool,
    },
}

/// An object that a cluster is to get.
struct Wanted<'a> {
    feed: Feed,
    /// Without a definition it is held.
    source: Option<&'a Definition>,
    /// The Bundle that it comes from.
    bundle: Option<String>,
    /// Its place among the Subscription's demands.
    demand: Option<usize>,
}

/// Looks the feeds up and reports those that are missing or twice there.
pub(super) fn resolve<'a>(snapshot: &'a Snapshot, placed: &'a Placed, findings: &mut Findings) -> Resolved<'a> {
    let mut resolved = Resolved {
        placed,
        items: Vec::new(),
        listed: BTreeSet::new(),
        demands: demand_places(placed),
    };
    let Some(subscription) = &placed.subscription else {
        return resolved;
    };
    let feeds = || subscription.feeds.iter();
    resolved.listed = feeds().map(Feed::key).filter(|key| !is_bundle(key)).collect();
    for feed in feeds() {
        if is_bundle(&feed.key()) {
            resolved.add_bundle(snapshot, subscription, feed, findings);
        } else {
            resolved.add_object(snapshot, subscription, feed, findings);
        }
    }
    resolved
}

/// A feed that stands there twice has its first place.
fn demand_places(placed: &Placed) -> HashMap<&str, usize> {
    let demands = placed.demands.iter().enumerate().rev();
    demands.map(|(place, (feed, _))| (&**feed, place)).collect()
}

impl<'a> Resolved<'a> {
    fn add_object(&mut self, snapshot: &'a Snapshot, subscription: &Subscription, feed: &Feed, findings: &mut Findings) {
        let source = definition_of(snapshot, feed);
        if source.is_none() {
            findings.add(missing_feed(snapshot, subscription, feed));
        }
        self.push(feed.clone(), source, None);
    }

    fn push(&mut self, feed: Feed, source: Option<&'a Definition>, bundle: Option<String>) {
        let key = feed.status_key();
        let demand = self.demands.get(&*key).copied();
        let is_known = demand.is_none_or(|place| self.placed.demands[place].1 != Demand::Unknown);
        self.items.push(Item::Object(Wanted {
            feed,
            // A feed whose replicas cannot be told is held, so that nobody gets all of them.
            source: source.filter(|_| is_known),
            bundle,
            demand,
        }));
    }

    fn add_bundle(&mut self, snapshot: &'a Snapshot, subscription: &Subscription, feed: &Feed, findings: &mut Findings) {
        let name = bundle_name(feed);
        let bundle = bundle_of(snapshot, feed);
        if bundle.is_none() {
            findings.add(missing_feed(snapshot, subscription, feed));
        }
        for key in bundle.iter().flat_map(|bundle| &bundle.members) {
            if !self.listed.insert(key.clone()) {
                findings.add(listed_twice(subscription, feed, key));
            } else if let Some(source) = snapshot.feeds.get(key) {
                self.push(feed_of(key, source), Some(source), Some(name.clone()));
            }
        }
        self.items.push(Item::Rest {
            bundle: name,
            whole: bundle.is_none(),
        });
    }

    /// Every object for a cluster that has this Description now, in order: its feed, its definition with its place among the demands, and its
    /// Bundle.
    pub(super) fn for_each_wanted(
        &self,
        snapshot: &Snapshot,
        previous: Option<&DescriptionState>,
        mut visit: impl FnMut(&Feed, Option<(&'a Definition, Option<usize>)>, Option<&String>),
    ) {
        for item in &self.items {
            match item {
                Item::Object(wanted) => {
                    let source = wanted.source.map(|source| (source, wanted.demand));
                    visit(&wanted.feed, source, wanted.bundle.as_ref());
                }
                Item::Rest { bundle, whole } => {
                    let states = previous.into_iter().flat_map(|previous| &previous.feeds);
                    let delivered = states
                        .filter(|state| state.bundle.as_ref() == Some(bundle))
                        .map(|state| &state.feed);
                    let stays = |feed: &&Feed| self.stays(snapshot, &feed.key(), *whole);
                    delivered.filter(stays).for_each(|feed| visit(feed, None, Some(bundle)));
                }
            }
        }
        let unlisted = &self.placed.unlisted;
        let states = previous
            .filter(|_| !unlisted.is_empty())
            .into_iter()
            .flat_map(|previous| &previous.feeds);
        let stay = states.filter(|state| unlisted.contains(state.feed.status_key().as_str()));
        stay.for_each(|state| visit(&state.feed, None, state.bundle.as_ref()));
    }

    /// The objects that a file defines, each with its digest, its Bundle and its place among the demands.
    pub(super) fn defined(&self) -> impl Iterator<Item = (&Feed, &'a Definition, Option<usize>)> {
        self.items.iter().filter_map(|item| match item {
            Item::Object(wanted) => Some((&wanted.feed, wanted.source?, wanted.demand)),
            Item::Rest { .. } => None,
        })
    }

    /// Everything about the feeds that is the same for all clusters, as text.
    pub(super) fn describe(&self, text: &mut String) {
        for item in &self.items {
            let described = match item {
                Item::Object(wanted) => {
                    let source = wanted.source.map(|source| source.digest);
                    format!(
                        "{} {} {source:?} {:?} {:?}\n",
                        wanted.feed, wanted.feed.api_version, wanted.bundle, wanted.demand
                    )
                }
                Item::Rest { bundle, whole } => format!("rest of {bundle} {whole}\n"),
            };
            text.push_str(&described);
        }
        text.push_str(&format!("{:?}\n", self.placed.unlisted));
    }

    /// Whether an object that was delivered of a Bundle is held.
    fn stays(&self, snapshot: &Snapshot, key: &ObjectKey, whole: bool) -> bool {
        !self.listed.contains(key) && (whole || is_undecided(snapshot, key))
    }
}

/// Whether a file defines a feed, in the version that it names.
pub(super) fn is_defined(snapshot: &Snapshot, feed: &Feed) -> bool {
    match is_bundle(&feed.key()) {
        true => bundle_of(snapshot, feed).is_some(),
        false => definition_of(snapshot, feed).is_some(),
    }
}

fn definition_of<'s>(snapshot: &'s Snapshot, feed: &Feed) -> Option<&'s Definition> {
    let source = snapshot.feeds.get(&feed.key());
    source.filter(|definition| definition.object.api_version() == feed.api_version)
}

fn bundle_of<'s>(snapshot: &'s Snapshot, feed: &Feed) -> Option<&'s Bundle> {
    let bundle = snapshot.bundles.get(&feed.key());
    bundle.filter(|bundle| bundle.definition.object.api_version() == feed.api_version)
}

/// Whether git cannot say at the moment that an object is gone from its folder.
fn is_undecided(snapshot: &Snapshot, key: &ObjectKey) -> bool {
    let undefined = !snapshot.feeds.contains_key(key);
    snapshot.duplicates.contains(key) || snapshot.unusable.contains(key) || (snapshot.incomplete && undefined)
}

fn listed_twice(subscription: &Subscription, bundle: &Feed, object: &ObjectKey) -> Diagnostic {
    let pointer = feed_pointer(subscription, bundle);
    let message = format!("{object} is in {bundle} and in another feed; it is delivered once");
    let diagnostic = Diagnostic::warning("duplicate-feed", message).field(&*pointer);
    let hint = "take it out of the other feed, or out of the folder";
    subscription.definition.locate(diagnostic.hint(hint), &pointer)
}

fn missing_feed(snapshot: &Snapshot, subscription: &Subscription, feed: &Feed) -> Diagnostic {
    let key = feed.key();
    let (message, hint) = if snapshot.duplicates.contains(&key) {
        (
            format!("{feed} is defined more than once, so none of the definitions counts"),
            "keep one of them".to_owned(),
        )
    } else if snapshot.unusable.contains(&key) {
        (
            format!("{feed} cannot be carried out; clusters that have it keep it"),
            "its own errors say why".to_owned(),
        )
    } else if let Some(other) = snapshot
        .feeds
        .get(&key)
        .or(snapshot.bundles.get(&key).map(|bundle| &bundle.definition))
    {
        let stated = other.object.api_version();
        (
            format!("{feed} is defined with apiVersion {stated}, not {}", feed.api_version),
            format!("write apiVersion: {stated} in the feed"),
        )
    } else {
        let hint = match near_feed(snapshot, &key) {
            Some(near) => format!("there is {near}; check the feed's name, namespace and group"),
            None => "add the object, or take it out of feeds".to_owned(),
        };
        (
            format!("no file defines the feed {feed}; clusters that have it keep it"),
            hint,
        )
    };
    let pointer = feed_pointer(subscription, feed);
    subscription.definition.locate(
        Diagnostic::error("missing-feed", message).field(&*pointer).hint(hint),
        &pointer,
    )
}
