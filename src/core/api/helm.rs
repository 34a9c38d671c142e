//! HelmChart and HelmRelease: which chart goes where, and how it is installed.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `HelmChart.spec`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelmChartSpec {
    /// Where the chart is: `http://`, `https://` or `oci://`.
    pub repo: String,
    /// Credentials for the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart_pull_secret: Option<ChartPullSecret>,
    /// An OCI repository is spoken to over plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "plainHTTP")]
    pub plain_http: Option<bool>,
    /// Name of the chart.
    pub chart: String,
    /// Version of the chart; absent or empty means the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Namespace that the release goes to.
    pub target_namespace: String,
    /// Whether the namespace is created; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_namespace: Option<bool>,
    /// How long an operation may take; 300 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<i32>,
    /// Wait until the release's objects are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<bool>,
    /// Wait until its Jobs are complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_for_job: Option<bool>,
    /// Take over a release name that was used and deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<bool>,
    /// Undo an installation that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atomic: Option<bool>,
    /// Undo an upgrade that fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade_atomic: Option<bool>,
    /// Leave the chart's CRDs out.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "skipCRDs")]
    pub skip_crds: Option<bool>,
    /// Update the chart's CRDs with each operation.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "replaceCRDs")]
    pub replace_crds: Option<bool>,
    /// Leave the chart's hooks out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_hooks: Option<bool>,
    /// Replace objects that cannot be updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// A Secret with `username` and `password`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChartPullSecret {
    /// Name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

/// `HelmRelease.spec` as the state branch has it. Clusternet keeps the values as text in `overrides`; here they can be read.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelmReleaseSpec {
    /// Name of the release in its cluster: that of the HelmChart.
    pub release_name: String,
    /// The chart with its options.
    #[serde(flatten)]
    pub chart: HelmChartSpec,
    /// The values that overrides gave.
    pub values: Map<String, Value>,
}
