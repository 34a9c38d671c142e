//! Content negotiation: which representation of objects a client wants. Pure.

/// How objects are represented in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Representation {
    /// The objects themselves.
    Object,
    /// A table for people.
    Table,
    /// Metadata only.
    Metadata,
    /// Aggregated discovery; plain discovery is `Object`.
    AggregatedDiscovery,
}

/// The first representation in `Accept` that is served; `None` when there is none. No header means JSON.
pub(crate) fn negotiate(accept: Option<&str>, is_discovery: bool) -> Option<Representation> {
    match accept.map(str::trim) {
        None | Some("") => Some(Representation::Object),
        Some(accept) => accept.split(',').find_map(|range| media_range(range, is_discovery)),
    }
}

fn media_range(range: &str, is_discovery: bool) -> Option<Representation> {
    let mut parts = range.split(';').map(str::trim);
    let media_type = parts.next()?;
    if !matches!(media_type, "application/json" | "*/*" | "application/*") {
        return None;
    }
    let (mut kind, mut version, mut group) = ("", "", "");
    for (key, value) in parts.filter_map(|part| part.split_once('=')) {
        match key {
            "as" => kind = value,
            "v" => version = value,
            "g" => group = value,
            _ => {}
        }
    }
    match (kind, group, version) {
        ("", _, _) => Some(Representation::Object),
        ("Table", "meta.k8s.io", "v1" | "v1beta1") if !is_discovery => Some(Representation::Table),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") if !is_discovery => {
            Some(Representation::Metadata)
        }
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") if is_discovery => Some(Representation::AggregatedDiscovery),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_range_wins() {
        let kubectl =
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(Some(kubectl), false), Some(Representation::Table));
        assert_eq!(negotiate(Some(kubectl), true), Some(Representation::Object));
        let discovery = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(negotiate(Some(discovery), true), Some(Representation::AggregatedDiscovery));
        assert_eq!(
            negotiate(Some("application/vnd.kubernetes.protobuf, */*"), false),
            Some(Representation::Object)
        );
        assert_eq!(negotiate(Some("application/vnd.kubernetes.protobuf"), false), None);
        assert_eq!(negotiate(None, false), Some(Representation::Object));
    }
}
