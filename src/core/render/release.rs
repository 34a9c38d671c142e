//! A HelmChart with its overrides → a HelmRelease: which chart, which version, which values. Renders no chart.

use serde_json::{Map, Value, json};

use crate::core::api::APPS_VERSION;
use crate::core::api::helm::{HelmChartSpec, HelmReleaseSpec};
use crate::core::index::{ChartProblem, Definition, is_chart, read_chart};

/// Where the values stand in a HelmRelease.
pub(super) const VALUES: &str = "/spec/values";
/// What decides which release it is: overrides may not change it.
const FIXED: [(&str, &str); 3] = [
    ("/spec/chart", "chart"),
    ("/spec/targetNamespace", "targetNamespace"),
    ("/metadata/namespace", "metadata.namespace"),
];

/// What overriding the chart itself may not do.
pub(super) fn check_chart(changed: &Value, before: &Value) -> Result<(), ChartProblem> {
    for (pointer, field) in FIXED {
        if changed.pointer(pointer) != before.pointer(pointer) {
            return Err(ChartProblem {
                pointer: pointer.to_owned(),
                message: format!("an override may not change {field} of a HelmChart"),
            });
        }
    }
    chart_spec(changed).map(drop)
}

fn chart_spec(chart: &Value) -> Result<HelmChartSpec, ChartProblem> {
    read_chart(chart.get("spec").unwrap_or(&Value::Null))
}

/// The release of a chart: named after it, with its labels, annotations and options.
pub(super) fn release(chart: &Value, values: Option<Value>) -> Result<Value, ChartProblem> {
    let name = chart.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let mut metadata = Map::new();
    for field in ["name", "namespace", "labels", "annotations"] {
        if let Some(value) = chart.pointer(&format!("/metadata/{field}")) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let spec = HelmReleaseSpec {
        release_name: name.to_owned(),
        chart: chart_spec(chart)?,
        values: match values {
            Some(Value::Object(values)) => values,
            _ => Map::new(),
        },
    };
    Ok(json!({"apiVersion": APPS_VERSION, "kind": "HelmRelease", "metadata": metadata, "spec": spec}))
}

/// The Helm release that a chart installs, `<targetNamespace>/<releaseName>`; overrides may not change it. Nothing for another object.
pub fn release_of(source: &Definition) -> Option<String> {
    let object = &source.object;
    let target = object.pointer("/spec/targetNamespace").and_then(Value::as_str);
    is_chart(&object.key()).then_some(format!("{}/{}", target?, object.name()))
}

/// The fields of what changed the values, as they stand in the release.
pub(super) fn below_values(fields: Vec<String>) -> Vec<String> {
    fields.into_iter().map(|field| format!("{VALUES}{field}")).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn chart() -> Value {
        json!({
            "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "HelmChart",
            "metadata": {"name": "mysql", "namespace": "default", "labels": {"a": "b"}, "uid": "1"},
            "spec": {"repo": "oci://r", "chart": "mysql", "version": "1", "targetNamespace": "db", "skipCRDs": true, "timeoutSeconds": 60},
            "status": {"phase": "Found"},
        })
    }

    #[test]
    fn a_release_has_the_name_the_labels_and_the_options_of_its_chart() {
        let want = json!({
            "apiVersion": "apps.clusternet.io/v1alpha1", "kind": "HelmRelease",
            "metadata": {"name": "mysql", "namespace": "default", "labels": {"a": "b"}},
            "spec": {"releaseName": "mysql", "repo": "oci://r", "chart": "mysql", "version": "1", "targetNamespace": "db",
                "skipCRDs": true, "timeoutSeconds": 60, "values": {"x": 1}},
        });
        let made = release(&chart(), Some(json!({"x": 1}))).unwrap();
        assert_eq!(made, want);
        let read: HelmReleaseSpec = serde_json::from_value(made["spec"].clone()).unwrap();
        assert_eq!(
            serde_json::to_value(read).unwrap(),
            want["spec"],
            "a release read back is the release"
        );
    }

    #[test]
    fn what_decides_the_release_stays() {
        for pointer in ["/spec/chart", "/spec/targetNamespace", "/metadata/namespace"] {
            let mut changed = chart();
            *changed.pointer_mut(pointer).unwrap() = json!("other");
            assert_eq!(check_chart(&changed, &chart()).unwrap_err().pointer, pointer);
        }
        let mut changed = chart();
        changed["spec"]["verison"] = json!("2");
        assert_eq!(check_chart(&changed, &chart()).unwrap_err().pointer, "/spec/verison");
        changed = chart();
        changed["spec"]["wait"] = json!("yes");
        assert_eq!(check_chart(&changed, &chart()).unwrap_err().pointer, "/spec/wait");
    }
}
