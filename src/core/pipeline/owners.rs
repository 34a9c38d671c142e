//! One object, one owner: what feeds claim of a cluster, and the words for two that claim the same. Chooses nobody.

use std::sync::Arc;

use super::feed_pointer;
use super::listing::bundle_name;
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{Subscription, is_bundle, is_chart};
use crate::core::render;
use crate::core::state::FeedState;

/// What may be in a cluster once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Claim<S = String> {
    /// An object, by its file.
    File(S),
    /// A Helm release, `<targetNamespace>/<releaseName>`: two charts that install the same one would upgrade it in turns.
    Release(S),
}

impl Claim<&str> {
    pub(super) fn to_owned(self) -> Claim {
        match self {
            Claim::File(file) => Claim::File(file.to_owned()),
            Claim::Release(release) => Claim::Release(release.to_owned()),
        }
    }
}

impl Claim {
    /// Whether a feed claims it.
    pub(super) fn is_of(&self, state: &FeedState) -> bool {
        claims(state).any(|claim| claim.to_owned() == *self)
    }
}

/// What a feed claims; the same chart by another Subscription is one file, so that is said first.
pub(super) fn claims(state: &FeedState) -> impl Iterator<Item = Claim<&str>> {
    let release = state.installs.as_deref().map(Claim::Release);
    [Claim::File(state.path.as_str())].into_iter().chain(release)
}

/// An object that a Subscription may not deliver, because another one has it.
pub(super) struct Conflict {
    pub(super) subscription: Arc<Subscription>,
    pub(super) feed: Feed,
    pub(super) bundle: Option<String>,
    /// What the feed ends as.
    pub(super) claim: Claim,
    /// Name of the Subscription that has it.
    pub(super) winner: String,
}

impl Conflict {
    fn message(&self) -> String {
        let feed = &self.feed;
        let object = match &self.claim {
            Claim::Release(release) => format!("{feed} installs the Helm release {release}, which"),
            Claim::File(file) if is_chart(&feed.key()) || file.ends_with(&format!("/{}", render::file_name(&feed.key()))) => {
                feed.to_string()
            }
            Claim::File(file) => format!("{feed} ends as {file}, which"),
        };
        format!("{object} is delivered by Subscription {} already", self.winner)
    }

    /// What tells it from others.
    pub(super) fn key(&self) -> (&str, &str, &Feed, Option<&String>, &Claim, &str) {
        let subscription = &self.subscription;
        let (claim, winner) = (&self.claim, &self.winner);
        (
            &subscription.namespace,
            &subscription.name,
            &self.feed,
            self.bundle.as_ref(),
            claim,
            winner,
        )
    }
}

/// That a Subscription may not deliver an object in these clusters.
pub(super) fn in_conflict(conflict: &Conflict, clusters: &[String]) -> Diagnostic {
    let shown = clusters.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    let more = match clusters.len().saturating_sub(3) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let message = format!("{}; left out here in {shown}{more}", conflict.message());
    let pointer = pointer_of(&conflict.subscription, &conflict.feed, conflict.bundle.as_ref());
    let hint = match conflict.claim {
        Claim::File(_) => "take the feed out of one of the two, or let their subscribers match different clusters",
        Claim::Release(_) => "give one of the charts another name or another targetNamespace, or take it out of one of the two",
    };
    let diagnostic = Diagnostic::error("object-conflict", message).field(&*pointer).hint(hint);
    conflict.subscription.definition.locate(diagnostic, &pointer)
}

/// Where a Subscription names an object, by itself or with its Bundle.
pub(super) fn pointer_of(subscription: &Subscription, feed: &Feed, bundle: Option<&String>) -> String {
    let named = |listed: &&Feed| is_bundle(&listed.key()) && bundle == Some(&bundle_name(listed));
    feed_pointer(subscription, subscription.feeds.iter().find(named).unwrap_or(feed))
}

/// That two feeds of one Subscription claim the same.
pub(super) fn twice_in_one(feed: &Feed, claim: &Claim) -> Diagnostic {
    let (message, hint) = match claim {
        Claim::File(file) => (
            format!("{feed} ends as {file}, which another feed of this Subscription is already"),
            "let overrides move only one of them there",
        ),
        Claim::Release(release) => (
            format!("{feed} installs the Helm release {release}, which another feed of this Subscription installs already"),
            "give one of the charts another name or another targetNamespace",
        ),
    };
    Diagnostic::error("object-conflict", message).hint(hint)
}
