//! Bundles: which objects a folder of the source repository holds. Renders nothing; a folder for kustomize is refused.

use std::collections::BTreeMap;

use super::kinds::{invalid, read_spec, unsupported};
use super::{Definition, Snapshot};
use crate::core::api::BRANCHLINE_GROUP;
use crate::core::api::bundle::BundleSpec;
use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::ObjectKey;

/// A folder as one feed.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The folder's path below the configured path with a `/` at its end; empty for the configured path itself.
    pub path: String,
    /// Every object in it that can be a feed, by identity: files may be moved and renamed below the folder.
    pub members: Vec<ObjectKey>,
    /// Where it is defined.
    pub definition: Definition,
}

/// Whether an object is a Bundle.
pub fn is_bundle(key: &ObjectKey) -> bool {
    (key.group.as_str(), key.kind.as_str()) == (BRANCHLINE_GROUP, "Bundle")
}

/// Whether a file is read by kustomize and holds no object.
pub fn is_kustomization(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    ["kustomization.yaml", "kustomization.yml", "Kustomization"].contains(&name)
}

/// The feed that names an object of a Bundle.
pub fn feed_of(key: &ObjectKey, source: &Definition) -> Feed {
    Feed {
        api_version: source.object.api_version().to_owned(),
        kind: key.kind.clone(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// Reads a Bundle, without its objects; nothing where it cannot be carried out.
pub(super) fn read(definition: &Definition, out: &mut Vec<Diagnostic>) -> Option<Bundle> {
    let before = out.len();
    let spec = read_spec::<BundleSpec>(definition, out)?;
    let Some(path) = folder(&spec.path) else {
        let message = format!("{:?} is no folder below the configured path", spec.path);
        let hint = "write the path from there, without .. and without a / at its beginning";
        out.push(invalid(definition, "/spec/path", message, hint));
        return None;
    };
    (out.len() == before).then(|| Bundle {
        path,
        members: Vec::new(),
        definition: definition.clone(),
    })
}

/// The path with a `/` at its end, without `.` and doubled `/`; nothing where it leaves the configured path.
fn folder(path: &str) -> Option<String> {
    if path.is_empty() || path.starts_with('/') {
        return None;
    }
    let mut folder = String::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            return None;
        }
        folder.push_str(part);
        folder.push('/');
    }
    Some(folder)
}

/// Finds every Bundle's objects, once all files are read.
pub(super) fn link(snapshot: &mut Snapshot, kustomizations: &[String], out: &mut Vec<Diagnostic>) {
    let bundles = std::mem::take(&mut snapshot.bundles);
    report_unused(&bundles, kustomizations, out);
    let mut by_file: BTreeMap<&str, Vec<&ObjectKey>> = BTreeMap::new();
    for (key, definition) in &snapshot.feeds {
        by_file.entry(&definition.file).or_default().push(key);
    }
    let mut linked = BTreeMap::new();
    for (key, mut bundle) in bundles {
        let inside = by_file
            .range(bundle.path.as_str()..)
            .take_while(|(file, _)| file.starts_with(&bundle.path));
        bundle.members = inside.flat_map(|(_, keys)| keys.iter().map(|key| (*key).clone())).collect();
        bundle.members.sort();
        match problem(&bundle, kustomizations, snapshot.incomplete) {
            Some(problem) => {
                out.push(problem);
                snapshot.unusable.insert(key);
            }
            None => drop(linked.insert(key, bundle)),
        }
    }
    snapshot.bundles = linked;
}

fn problem(bundle: &Bundle, kustomizations: &[String], incomplete: bool) -> Option<Diagnostic> {
    let definition = &bundle.definition;
    if let Some(file) = kustomizations.iter().find(|file| file.starts_with(&bundle.path)) {
        return Some(unsupported(
            definition,
            "/spec/path",
            &format!("{file} in the folder of a Bundle"),
        ));
    }
    (bundle.members.is_empty() && !incomplete).then(|| {
        let diagnostic = Diagnostic::error(
            "empty-bundle",
            "no file below the folder holds an object that can be delivered",
        );
        let hint = "correct the path; to remove what was delivered, take the Bundle out of feeds";
        definition.locate(diagnostic.field("/spec/path").hint(hint), "/spec/path")
    })
}

fn report_unused(bundles: &BTreeMap<ObjectKey, Bundle>, kustomizations: &[String], out: &mut Vec<Diagnostic>) {
    for file in kustomizations {
        if !bundles.values().any(|bundle| file.starts_with(&bundle.path)) {
            let message = "a kustomization is not read; the files beside it are read as they are";
            let hint = "list it in .branchlineignore";
            out.push(Diagnostic::warning("kustomization", message).at(file, 0).hint(hint));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_below_the_configured_path() {
        assert_eq!(folder("apps/base").as_deref(), Some("apps/base/"));
        assert_eq!(folder("./apps//base/").as_deref(), Some("apps/base/"));
        assert_eq!(folder(".").as_deref(), Some(""));
        for outside in ["", "/", "/apps", "..", "apps/../..", "apps/.."] {
            assert_eq!(folder(outside), None, "{outside}");
        }
    }
}
