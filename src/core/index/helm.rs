//! HelmCharts from source objects: checked where they stand, and again after overrides. Fetches no chart.

use serde_json::Value;

use super::Definition;
use super::kinds::{DNS_HINT, invalid, parse_spec, read_spec};
use crate::core::api::APPS_GROUP;
use crate::core::api::helm::HelmChartSpec;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectKey, is_dns_name};

/// The kind that becomes a HelmRelease.
const HELM_CHART: &str = "HelmChart";

/// What is wrong with a field of a chart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChartProblem {
    /// JSON pointer.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

/// Whether an object is a HelmChart of ours.
pub fn is_chart(key: &ObjectKey) -> bool {
    (key.group.as_str(), key.kind.as_str()) == (APPS_GROUP, HELM_CHART)
}

/// Whether a HelmChart can be carried out.
pub(super) fn is_usable(definition: &Definition, out: &mut Vec<Diagnostic>) -> bool {
    let before = out.len();
    if let Some(spec) = read_spec::<HelmChartSpec>(definition, out) {
        let problems = problems(&spec);
        out.extend(
            problems
                .into_iter()
                .map(|(pointer, message)| invalid(definition, pointer, message, hint(pointer))),
        );
    }
    out.len() == before
}

/// Reads the spec of a chart that overrides have changed.
pub fn read_chart(spec: &Value) -> Result<HelmChartSpec, ChartProblem> {
    let (result, unknown) = parse_spec::<HelmChartSpec>(spec.clone());
    let problem = |pointer: &str, message: String| ChartProblem {
        pointer: pointer.to_owned(),
        message,
    };
    if let Some(pointer) = unknown.first() {
        return Err(problem(pointer, "a HelmChart has no such field".to_owned()));
    }
    let spec = result.map_err(|(pointer, message)| problem(&pointer, message))?;
    match problems(&spec).pop() {
        Some((pointer, message)) => Err(problem(pointer, message)),
        None => Ok(spec),
    }
}

fn problems(spec: &HelmChartSpec) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    if !["http://", "https://", "oci://"]
        .iter()
        .any(|scheme| spec.repo.starts_with(scheme))
    {
        found.push(("/spec/repo", format!("{:?} is no chart repository", spec.repo)));
    }
    if spec.chart.is_empty() {
        found.push(("/spec/chart", "the chart has no name".to_owned()));
    }
    if !is_dns_name(&spec.target_namespace, 63, false) {
        found.push((
            "/spec/targetNamespace",
            format!("{:?} is not a namespace name", spec.target_namespace),
        ));
    }
    if let Some(seconds) = spec.timeout_seconds.filter(|seconds| *seconds < 0) {
        found.push(("/spec/timeoutSeconds", format!("timeoutSeconds {seconds} is negative")));
    }
    found
}

fn hint(pointer: &str) -> &'static str {
    match pointer {
        "/spec/repo" => "use http://, https:// or oci://",
        "/spec/targetNamespace" => DNS_HINT,
        "/spec/timeoutSeconds" => "use 0 or more",
        _ => "name the chart as its repository does",
    }
}
