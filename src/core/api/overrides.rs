//! Localization and Globalization: per-cluster overrides.

use serde::{Deserialize, Serialize};

use super::subscription::{Feed, LabelSelector};

/// `Localization.spec` and `Globalization.spec`; `clusterAffinity` belongs to the latter alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverrideSpec {
    /// `ApplyNow` or `ApplyLater`; absent means `ApplyNow` here (Clusternet: `ApplyLater`), because in git the push is the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_policy: Option<String>,
    /// Patches in the order in which they apply.
    #[serde(default)]
    pub overrides: Vec<OverrideConfig>,
    /// 0 to 1000, 500 when absent; higher applies later and wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// The object that is overridden.
    pub feed: Feed,
    /// Globalization only: the clusters it is for; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_affinity: Option<LabelSelector>,
}

/// One patch of an override.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OverrideConfig {
    /// A name for messages; need not be unique.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The patch as YAML or JSON text; a blank one is skipped.
    pub value: String,
    /// `Helm`, `JSONPatch`, `MergePatch`, `FieldJSONPatch` or `FieldMergePatch`.
    #[serde(rename = "type")]
    pub patch_type: String,
    /// Whether the HelmChart itself is patched instead of its values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub override_chart: bool,
    /// Where the text to patch is, for the Field types.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field_path: String,
    /// `YAML` or `JSON`, for the Field types.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field_format: String,
}
