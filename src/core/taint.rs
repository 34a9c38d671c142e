//! Taints of clusters and the tolerations of Subscriptions: checked forms of both, and whether one tolerates the other. Owns no cluster.

use crate::core::api::cluster::Taint as TaintSpec;
use crate::core::api::subscription::Toleration as TolerationSpec;
use crate::core::selector::check_label;

/// What a taint does to a Subscription that does not tolerate it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Effect {
    /// Nothing new comes; what is bound stays.
    NoSchedule,
    /// Others are taken first.
    PreferNoSchedule,
    /// What is bound moves away.
    NoExecute,
}

impl Effect {
    /// From Kubernetes' spelling.
    pub fn of(effect: &str) -> Option<Self> {
        match effect {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }

    /// Kubernetes' spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        }
    }
}

/// A taint of a cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Taint {
    /// Key.
    pub key: String,
    /// Value; may be empty.
    pub value: String,
    /// What it does.
    pub effect: Effect,
    /// When it was set, as people wrote it.
    pub time_added: Option<String>,
}

/// What is wrong with a taint or a toleration, and in which of its fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// The field.
    pub field: &'static str,
    /// What is wrong.
    pub message: String,
}

const EFFECTS: &str = "use NoSchedule, PreferNoSchedule or NoExecute";

impl Taint {
    /// Checks a taint as the API server does.
    pub fn parse(spec: &TaintSpec) -> Result<Self, Invalid> {
        let effect = Effect::of(&spec.effect).ok_or_else(|| Invalid {
            field: "effect",
            message: format!("{:?} is not an effect: {EFFECTS}", spec.effect),
        })?;
        check_label(&spec.key, &spec.value).map_err(|message| Invalid { field: "key", message })?;
        Ok(Taint {
            key: spec.key.clone(),
            value: spec.value.clone(),
            effect,
            time_added: spec.time_added.clone(),
        })
    }

    /// As Kubernetes writes it.
    pub fn spec(&self) -> TaintSpec {
        TaintSpec {
            key: self.key.clone(),
            value: self.value.clone(),
            effect: self.effect.as_str().to_owned(),
            time_added: self.time_added.clone(),
        }
    }
}

impl std::fmt::Display for Taint {
    /// `key=value:Effect`, as kubectl writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.key)?;
        if !self.value.is_empty() {
            write!(f, "={}", self.value)?;
        }
        write!(f, ":{}", self.effect.as_str())
    }
}

/// Taints that do not matter to a Subscription.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Toleration {
    /// The key; `None` means every key.
    key: Option<String>,
    /// The value; `None` means every value.
    value: Option<String>,
    /// The effect; `None` means all.
    effect: Option<Effect>,
}

impl Toleration {
    /// Checks a toleration as the API server does (`ValidateTolerations`).
    pub fn parse(spec: &TolerationSpec) -> Result<Self, Invalid> {
        let invalid = |field, message: String| Err(Invalid { field, message });
        let value = match (spec.operator.as_str(), spec.value.as_str()) {
            ("Exists", "") => None,
            ("Exists", _) => return invalid("value", "operator Exists takes no value".to_owned()),
            ("" | "Equal", value) => Some(value.to_owned()),
            (other, _) => return invalid("operator", format!("unknown operator {other:?}; use Exists or Equal")),
        };
        if spec.key.is_empty() && value.is_some() {
            return invalid("operator", "without a key the operator must be Exists".to_owned());
        }
        let effect = match (spec.effect.as_str(), Effect::of(&spec.effect)) {
            ("", _) => None,
            (_, Some(effect)) => Some(effect),
            (other, None) => return invalid("effect", format!("{other:?} is not an effect: {EFFECTS}")),
        };
        Ok(Toleration {
            key: Some(spec.key.clone()).filter(|key| !key.is_empty()),
            value,
            effect,
        })
    }

    /// Whether a taint does not matter.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn taint(text: &str) -> Taint {
        let (key, effect) = text.rsplit_once(':').unwrap();
        let (key, value) = key.split_once('=').unwrap_or((key, ""));
        Taint::parse(&serde_json::from_value(serde_json::json!({"key": key, "value": value, "effect": effect})).unwrap()).unwrap()
    }

    fn toleration(text: &str) -> Result<Toleration, Invalid> {
        Toleration::parse(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn tolerates_as_kubernetes_does() {
        let cases = [
            (r#"{"operator":"Exists"}"#, "a=1:NoExecute", true),
            (r#"{"key":"a","operator":"Exists"}"#, "a=1:NoSchedule", true),
            (
                r#"{"key":"a","operator":"Exists","effect":"NoSchedule"}"#,
                "a:NoExecute",
                false,
            ),
            (r#"{"key":"a","value":"1"}"#, "a=1:NoSchedule", true),
            (r#"{"key":"a","value":"1"}"#, "a=2:NoSchedule", false),
            (r#"{"key":"a"}"#, "a:NoSchedule", true),
            (r#"{"key":"b","operator":"Exists"}"#, "a:NoSchedule", false),
        ];
        for (text, against, want) in cases {
            assert_eq!(toleration(text).unwrap().tolerates(&taint(against)), want, "{text} {against}");
        }
    }

    #[test]
    fn names_the_bad_field() {
        for (text, field) in [
            (r#"{"key":"a","operator":"In"}"#, "operator"),
            (r#"{"value":"1"}"#, "operator"),
            (r#"{"key":"a","operator":"Exists","value":"1"}"#, "value"),
            (r#"{"key":"a","effect":"Never"}"#, "effect"),
        ] {
            assert_eq!(toleration(text).unwrap_err().field, field, "{text}");
        }
        assert_eq!(taint("node/x=1:NoExecute").to_string(), "node/x=1:NoExecute");
    }
}
