//! Why an object is in a cluster as it is: which Subscription brought it there and why that chose the cluster, and for each overridden field the
//! way from the source over each override entry to the final value. Decides nothing: it asks [`pipeline`] and [`render`](super::render) again.

mod chain;
mod lookup;
mod query;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::core::api::APPS_GROUP;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;
use crate::core::index::Definition;
use crate::core::pipeline::{self, Inputs, Outcome, Pending, Placed, Recipe, Since};
use crate::core::schedule::{self, Cluster, Explanation};
use crate::core::selector::Labels;
use crate::core::state::Leaf;

pub use chain::{Chain, EntryUse, Step};
pub use lookup::{NotFound, cluster_named, object_named};
pub use query::{ObjectQuery, field_pointer};

/// Gives the texts that a snapshot and a state do not keep.
pub trait Texts {
    /// A source file.
    fn source(&self, file: &str) -> Option<Vec<u8>>;
    /// A file of the state.
    fn state(&self, leaf: &Leaf) -> Option<Vec<u8>>;

    /// Where a field of a source object stands.
    fn place(&self, definition: &Definition, pointer: &str) -> Place {
        let line = match self.source(&definition.file) {
            Some(text) => {
                let pointer = format!("{}{pointer}", definition.inside);
                crate::core::yaml::locate(&text, definition.line, &pointer)
            }
            None => definition.line,
        };
        Place {
            file: definition.file.to_string(),
            line,
        }
    }
}

/// A line of a source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// File below the configured path.
    pub file: String,
    /// Line, counted from 1.
    pub line: u64,
}

impl Place {
    /// Where a field of an object of ours stands.
    fn of(definition: &Definition, pointer: &str) -> Self {
        let found = definition.locate(Diagnostic::warning("", ""), pointer);
        Place {
            file: found.file,
            line: found.line,
        }
    }
}

/// One Subscription that feeds the object, and what became of the cluster in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Feeding {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Where it stands; `None` where it is held whole.
    pub place: Option<Place>,
    /// The Bundle that holds the object.
    pub bundle: Option<String>,
    /// Whether the cluster is bound to it.
    pub bound: bool,
    /// `Chosen`, `Kept`, … or the reason why not: `LabelsDoNotMatch`, ….
    pub outcome: &'static str,
    /// The same in sentences, one each.
    pub because: Vec<String>,
    /// What its subscribers ask for, and whether the cluster has it.
    pub subscribers: Vec<Asking>,
    /// The other clusters that get the object from it.
    pub elsewhere: Elsewhere,
}

/// Other clusters that get the object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// How many.
    pub count: usize,
    /// The names of the first.
    pub names: Vec<String>,
}

/// One subscriber and one cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asking {
    /// Position.
    pub index: usize,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// Whether its selector matches the cluster's labels.
    pub matches: bool,
    /// Its selector as it is written.
    pub cluster_affinity: Value,
    /// Its weight, where replicas are divided by weight.
    pub weight: Option<i64>,
}

/// How the delivered object stands to what the source says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Standing {
    /// It is what the source says.
    Current,
    /// An ApplyLater override waits for the next change.
    Pending,
    /// Something is wrong, so the last result stays.
    Held,
}

/// The object as the cluster gets it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The Subscription that delivers it, `<namespace>/<name>`.
    pub subscription: String,
    /// Its file on the state branch.
    pub path: String,
    /// How it stands to the source.
    pub standing: Standing,
    /// Since when something waits; `None` where nothing does, or nobody looked at the log.
    pub since: Option<Since>,
    /// The entries of all overrides that apply, in order.
    pub entries: Vec<EntryUse>,
    /// The field that was asked for, or every overridden one.
    pub fields: Vec<Chain>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The cluster, `<namespace>/<name>`.
    pub cluster: String,
    /// Its labels.
    pub labels: Labels,
    /// The object as the source names it.
    pub object: ObjectKey,
    /// Where it is defined; `None` where no file that parses defines it.
    pub source: Option<Place>,
    /// The Subscriptions that feed it, those of this cluster first.
    pub subscriptions: Vec<Feeding>,
    /// The object there, if it is there.
    pub delivery: Option<Delivery>,
    /// What is wrong with it.
    pub diagnostics: Vec<Diagnostic>,
}

/// How many clusters are named elsewhere.
const NAMES: usize = 3;

/// Explains one object in one cluster; `field` is a JSON pointer.
pub fn explain(
    inputs: &Inputs<'_>,
    outcome: &Outcome,
    cluster: &Cluster,
    object: &ObjectKey,
    field: Option<&str>,
    texts: &dyn Texts,
) -> Result<Answer, NotFound> {
    let mut answer = Answer {
        cluster: cluster.binding(),
        labels: cluster.labels.clone(),
        object: object.clone(),
        source: inputs
            .snapshot
            .feeds
            .get(object)
            .map(|definition| texts.place(definition, "")),
        subscriptions: Vec::new(),
        delivery: None,
        diagnostics: Vec::new(),
    };
    for placed in &outcome.placed {
        let recipes = pipeline::recipes(inputs, placed, &cluster.namespace);
        let Some(recipe) = recipes.iter().find(|recipe| recipe.feed.key() == *object) else {
            continue;
        };
        answer.subscriptions.push(feeding(inputs, outcome, placed, recipe, cluster));
        if let Some(delivered) = deliver(inputs, outcome, placed, recipe, cluster, texts) {
            answer
                .diagnostics
                .extend(delivered.replay.iter().flat_map(|replay| replay.diagnostics.iter().cloned()));
            if delivered.standing == Standing::Held {
                answer.diagnostics.extend(holding(inputs, outcome, placed, recipe, cluster));
            }
            answer.delivery = Some(delivered.finish(field, texts)?);
        }
    }
    answer.subscriptions.sort_by_key(|feeding| !feeding.bound);
    answer.diagnostics.extend(about(outcome, object));
    answer.diagnostics.sort();
    answer.diagnostics.dedup();
    Ok(answer)
}

/// Findings whose object it is.
fn about<'o>(outcome: &'o Outcome, object: &ObjectKey) -> impl Iterator<Item = Diagnostic> + 'o {
    let name = object.to_string();
    outcome.diagnostics.iter().filter(move |found| found.object == name).cloned()
}

/// The errors that may hold an object back: those of its Subscription, of the overrides that are for it or were, and of files that do not parse.
fn holding<'o>(
    inputs: &Inputs<'_>,
    outcome: &'o Outcome,
    placed: &Placed,
    recipe: &Recipe,
    cluster: &Cluster,
) -> impl Iterator<Item = Diagnostic> + 'o {
    let named = |kind: &str, namespace: &str, name: &str| {
        let key = ObjectKey {
            group: APPS_GROUP.to_owned(),
            kind: kind.to_owned(),
            namespace: Some(namespace.to_owned()).filter(|namespace| !namespace.is_empty()),
            name: name.to_owned(),
        };
        key.to_string()
    };
    let broken = inputs.snapshot.broken_overrides.iter();
    let broken = broken.filter(|broken| broken.feed == recipe.feed.key());
    let broken = broken.map(|broken| named(broken.kind.as_str(), &broken.namespace, &broken.name));
    let before = inputs.previous.provenance_of(&cluster.namespace, &placed.directory);
    let before = before.into_iter().flat_map(|provenance| provenance.of(&recipe.feed));
    let before = before.map(|applied| named(applied.kind, &applied.namespace, &applied.name));
    let objects: BTreeSet<String> = [named("Subscription", &placed.key.0, &placed.key.1)]
        .into_iter()
        .chain(broken)
        .chain(before)
        .collect();
    let incomplete = inputs.snapshot.incomplete;
    let holds = move |found: &&Diagnostic| objects.contains(&found.object) || (incomplete && found.object.is_empty());
    outcome
        .diagnostics
        .iter()
        .filter(|found| found.is_error())
        .filter(holds)
        .cloned()
}

/// A delivered object on its way into the answer.
struct Delivered {
    subscription: String,
    path: String,
    standing: Standing,
    since: Option<Since>,
    object: Option<Value>,
    replay: Option<chain::Replay>,
}

fn deliver(
    inputs: &Inputs<'_>,
    outcome: &Outcome,
    placed: &Placed,
    recipe: &Recipe,
    cluster: &Cluster,
    texts: &dyn Texts,
) -> Option<Delivered> {
    let description = outcome.state.description(&cluster.namespace, &placed.directory)?;
    let state = description.feeds.iter().find(|state| state.feed.key() == recipe.feed.key())?;
    let leaf = description.files.get(&state.path)?;
    let replay = chain::Replay::of(recipe, inputs.settings, texts);
    let standing = match replay.as_ref().and_then(|replay| replay.id) {
        _ if recipe.held => Standing::Held,
        None => Standing::Held,
        Some(id) if id == leaf.id => Standing::Current,
        Some(_) => Standing::Pending,
    };
    let subscription = format!("{}/{}", placed.key.0, placed.key.1);
    let waits = |pending: &&Pending| {
        let of_feed = pending.subscription == subscription && pending.feed == recipe.feed.to_string();
        of_feed && *pending.cluster == *cluster.namespace
    };
    Some(Delivered {
        since: outcome.pending.iter().find(waits).and_then(|pending| pending.since.clone()),
        path: format!(
            "{}/{}/{}",
            outcome.state.cluster_path(&cluster.namespace),
            placed.directory,
            state.path
        ),
        subscription,
        standing,
        object: texts.state(leaf).and_then(|bytes| chain::read_manifest(&bytes)),
        replay,
    })
}

impl Delivered {
    fn finish(self, field: Option<&str>, texts: &dyn Texts) -> Result<Delivery, NotFound> {
        let object = self.object.as_ref();
        let last = self.replay.as_ref().and_then(chain::Replay::last);
        let fields = match (field, &self.replay) {
            (Some(field), _) => vec![field.to_owned()],
            (None, Some(replay)) => replay.overridden().into_iter().collect(),
            (None, None) => Vec::new(),
        };
        let of = |field: &String| match &self.replay {
            Some(replay) => replay.chain(field, object, texts),
            None => Chain {
                field: field.clone(),
                steps: Vec::new(),
                value: object.and_then(|object| crate::core::conceal::conceal(object).pointer(field).cloned()),
            },
        };
        let fields: Vec<Chain> = fields.iter().map(of).collect();
        let absent = |chain: &Chain| chain.value.is_none() && chain.steps.iter().all(|step| step.value.is_none());
        if let (Some(asked), true) = (field, fields.iter().all(absent)) {
            return Err(lookup::no_field(asked, object.or(last)));
        }
        Ok(Delivery {
            subscription: self.subscription,
            path: self.path,
            standing: self.standing,
            since: self.since,
            entries: self.replay.map(|replay| replay.entries).unwrap_or_default(),
            fields,
        })
    }
}

fn feeding(inputs: &Inputs<'_>, outcome: &Outcome, placed: &Placed, recipe: &Recipe, cluster: &Cluster) -> Feeding {
    let explanation = pipeline::explain_cluster(inputs, placed, &cluster.namespace);
    let bound = placed.placement.bound.clusters.contains_key(&cluster.namespace);
    let has = |namespace: &Arc<str>| {
        let description = outcome.state.description(namespace, &placed.directory);
        description.is_some_and(|description| description.feeds.iter().any(|state| state.feed.key() == recipe.feed.key()))
    };
    let others = placed.placement.bound.clusters.iter();
    let others: Vec<&Arc<str>> = others
        .filter(|(namespace, _)| **namespace != cluster.namespace && has(namespace))
        .map(|(_, name)| name)
        .collect();
    Feeding {
        namespace: placed.key.0.clone(),
        name: placed.key.1.clone(),
        place: placed
            .subscription
            .as_ref()
            .map(|subscription| Place::of(&subscription.definition, "")),
        bundle: recipe.bundle.clone(),
        bound,
        outcome: word(explanation.as_ref(), bound),
        because: sentences(explanation.as_ref(), cluster, bound),
        subscribers: asking(placed, explanation.as_ref()),
        elsewhere: Elsewhere {
            count: others.len(),
            names: others.iter().take(NAMES).map(ToString::to_string).collect(),
        },
    }
}

fn word(explanation: Option<&Explanation>, bound: bool) -> &'static str {
    match explanation.map(|explanation| explanation.outcome) {
        Some(schedule::Outcome::Excluded(reason)) => reason.as_str(),
        Some(schedule::Outcome::Placed(schedule::Placed::Chosen)) => "Chosen",
        Some(schedule::Outcome::Placed(schedule::Placed::StaysDespiteTaint)) => "StaysDespiteTaint",
        Some(schedule::Outcome::Placed(schedule::Placed::WaitsForReplacement)) => "WaitsForReplacement",
        Some(schedule::Outcome::Placed(schedule::Placed::Kept)) => "Kept",
        None if bound => "Kept",
        None => schedule::Reason::SubscriptionHeld.as_str(),
    }
}

/// The explanation line by line, less the lines about subscribers: those have places of their own in the answer.
fn sentences(explanation: Option<&Explanation>, cluster: &Cluster, bound: bool) -> Vec<String> {
    let text = match (explanation, bound) {
        (Some(explanation), _) => explanation.to_string(),
        (None, true) => format!("{} stays: the Subscription is held", cluster.binding()),
        (None, false) => {
            let sentence = schedule::Reason::SubscriptionHeld.sentence();
            format!("{} was not chosen: {sentence}", cluster.binding())
        }
    };
    let excluded = matches!(
        explanation.map(|explanation| explanation.outcome),
        Some(schedule::Outcome::Excluded(_))
    );
    // That an excluded cluster gets nothing goes without saying, unless it is about room.
    let says_more =
        |line: &&str| !line.starts_with("subscribers/") && (!excluded || !line.starts_with("it gets 0 ") || line.contains(';'));
    text.lines().filter(says_more).map(str::to_owned).collect()
}

fn asking(placed: &Placed, explanation: Option<&Explanation>) -> Vec<Asking> {
    let Some(subscription) = &placed.subscription else {
        return Vec::new();
    };
    let by_weight = subscription.strategy == crate::core::index::Strategy::Static;
    let subscribers = subscription.subscribers.iter().enumerate();
    let of = |(index, subscriber): (usize, &crate::core::index::Subscriber)| {
        let pointer = format!("/spec/subscribers/{index}");
        let affinity = subscription.definition.object.pointer(&format!("{pointer}/clusterAffinity"));
        Asking {
            index,
            place: Place::of(&subscription.definition, &pointer),
            matches: explanation.is_some_and(|explanation| explanation.subscribers.contains(&index)),
            cluster_affinity: affinity.cloned().unwrap_or_default(),
            weight: by_weight.then_some(subscriber.weight),
        }
    };
    subscribers.map(of).collect()
}

#[cfg(test)]
mod tests;
