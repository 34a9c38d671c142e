//! What an agent says about the Descriptions that it applies: bounded in size, equal when nothing changed. Decides nothing about placement.

use serde::{Deserialize, Serialize};

use super::ids::ObjectKey;
use super::text::{bounded, cut};

/// Most objects that one report lists; what is not well comes first.
pub const MAX_REPORTED_OBJECTS: usize = 1000;
/// Longest name, kind or the like that a report may bring.
const MAX_NAME_BYTES: usize = 253;

/// The state of one Description in its cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DescriptionReport {
    /// `<subscription namespace>.<subscription name>`.
    pub name: String,
    /// The whole in one word, as Clusternet names it.
    pub phase: Phase,
    /// Why it is not Success, in one sentence; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Object by object, at most [`MAX_REPORTED_OBJECTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectReport>,
}

/// `Description.status.phase`, in Clusternet's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Phase {
    /// Nothing has been tried yet.
    Pending,
    /// Everything is applied and nothing is left to delete.
    Success,
    /// At least one object is not as it should be; the agent goes on trying.
    Failure,
    /// Applied for the first time just now, or waiting for the API server.
    Installing,
    /// A newer content is being applied.
    Upgrading,
    /// Being removed.
    Uninstalling,
    /// A newer Description took its place.
    Superseded,
    /// Not known, or a word that this version does not have.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// The word that goes into `status.phase`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Success => "Success",
            Phase::Failure => "Failure",
            Phase::Installing => "Installing",
            Phase::Upgrading => "Upgrading",
            Phase::Uninstalling => "Uninstalling",
            Phase::Superseded => "Superseded",
            Phase::Unknown => "Unknown",
        }
    }
}

/// The state of one object.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReport {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// Namespace; absent for cluster-scoped objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// What happened to it last.
    pub outcome: ObjectOutcome,
    /// Why it is not well, and what to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

impl ObjectReport {
    /// A report about the object of this key.
    pub fn about(api_version: &str, key: &ObjectKey, outcome: ObjectOutcome, message: &str) -> Self {
        ObjectReport {
            api_version: api_version.to_owned(),
            kind: key.kind.clone(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            outcome,
            message: bounded(message),
        }
    }

    fn within_limits(self) -> Self {
        ObjectReport {
            api_version: cut(&self.api_version, MAX_NAME_BYTES),
            kind: cut(&self.kind, MAX_NAME_BYTES),
            namespace: self.namespace.map(|namespace| cut(&namespace, MAX_NAME_BYTES)),
            name: cut(&self.name, MAX_NAME_BYTES),
            outcome: self.outcome,
            message: bounded(&self.message),
        }
    }
}

/// What happened to an object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
pub enum ObjectOutcome {
    /// The API server refused it, or it could not be sent.
    Failed,
    /// Not done on purpose: kept instead of deleted, or left alone because it is not ours.
    NotApplied,
    /// Not done yet: something else has to happen first.
    Waiting,
    /// Deleted because nothing asks for it any more.
    Pruned,
    /// Applied, as it stands on the state branch.
    Applied,
    /// As it was applied before; not sent again.
    Unchanged,
    /// A word that this version does not know.
    #[serde(other)]
    Unknown,
}

impl DescriptionReport {
    /// A report within the limits: objects that are not well first, then by kind and name.
    pub fn bounded(name: &str, phase: Phase, reason: &str, mut objects: Vec<ObjectReport>) -> Self {
        objects.sort_by(|a, b| {
            let of = |o: &ObjectReport| (o.outcome, o.kind.clone(), o.namespace.clone(), o.name.clone());
            of(a).cmp(&of(b))
        });
        objects.truncate(MAX_REPORTED_OBJECTS);
        DescriptionReport {
            name: name.to_owned(),
            phase,
            reason: bounded(reason),
            objects,
        }
    }

    /// What a hub keeps of a report, whatever its agent sent: within the limits, and safe to show.
    #[must_use]
    pub fn within_limits(self) -> Self {
        let objects = self.objects.into_iter().take(MAX_REPORTED_OBJECTS);
        DescriptionReport {
            name: self.name,
            phase: self.phase,
            reason: bounded(&self.reason),
            objects: objects.map(ObjectReport::within_limits).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn object(name: &str, outcome: ObjectOutcome) -> ObjectReport {
        let key = ObjectKey {
            group: String::new(),
            kind: "ConfigMap".into(),
            namespace: Some("shop".into()),
            name: name.into(),
        };
        ObjectReport::about("v1", &key, outcome, "")
    }

    #[test]
    fn failures_survive_the_cut() {
        let mut objects: Vec<_> = (0..2000).map(|n| object(&format!("a{n}"), ObjectOutcome::Applied)).collect();
        objects.push(object("z", ObjectOutcome::Failed));
        let report = DescriptionReport::bounded("shop.web", Phase::Failure, "", objects);
        assert_eq!(report.objects.len(), MAX_REPORTED_OBJECTS);
        assert_eq!(report.objects[0].name, "z");
    }

    #[test]
    fn what_an_agent_sends_is_cut_and_made_safe_to_show() {
        let mut report =
            DescriptionReport::bounded("shop.web", Phase::Failure, "", vec![object("a", ObjectOutcome::Failed); 1000]);
        report.objects.extend(vec![object("b", ObjectOutcome::Failed); 5000]);
        report.reason = "x\u{1b}[2Jy\n".repeat(5000);
        report.objects[0].message = "m".repeat(1 << 20);
        report.objects[0].kind = "\u{1b}]0;t".repeat(1 << 10);
        let kept = report.within_limits();
        assert_eq!(kept.objects.len(), MAX_REPORTED_OBJECTS);
        assert!(serde_json::to_string(&kept).unwrap().len() < 200 * 1024);
        assert!(!serde_json::to_string(&kept).unwrap().contains("\\u001b"));
    }

    #[test]
    fn speaks_the_contract() {
        let report = DescriptionReport::bounded("shop.web", Phase::Success, "", vec![object("a", ObjectOutcome::Unchanged)]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"name": "shop.web", "phase": "Success",
                "objects": [{"apiVersion": "v1", "kind": "ConfigMap", "namespace": "shop", "name": "a", "outcome": "Unchanged"}]})
        );
        let newer: Phase = serde_json::from_str("\"Sleeping\"").unwrap();
        assert_eq!(newer, Phase::Unknown);
    }
}
