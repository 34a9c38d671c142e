//! One feed and the overrides that apply to it → one final manifest with its provenance. Chooses no cluster.
//!
//! Rendering is memoised by (feed digest, ordered override digests): clusters that share their overrides share the result.

mod field_patch;
mod helm_values;
mod json_patch;
mod merge_patch;
mod overriding;
mod release;
mod secrets;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::core::api::subscription::Feed;
use crate::core::diagnostic::Diagnostic;
use crate::core::ids::{ObjectId, ObjectKey, ObjectKind};
use crate::core::index::{ChartProblem, Definition, Override, is_chart};
use crate::core::object::Object;
use crate::core::yaml;
use overriding::{Subject, apply_override};

pub use release::release_of;

/// The directory of a Description's final objects.
pub const MANIFESTS: &str = "manifests";
/// The directory of a Description's HelmReleases.
pub const RELEASES: &str = "releases";

/// The largest manifest that is rendered, bytes: a larger one no cluster would take. An API server reads at most 3 MiB of a request
/// (`MaxRequestBodyBytes` in `k8s.io/apiserver/pkg/server/config.go`); etcd keeps half of that unless `--max-request-bytes` says more.
pub const MAX_MANIFEST: usize = 3 << 20;

/// What rendering one feed gave.
#[derive(Debug)]
pub struct Rendered {
    /// The manifest, or nothing where a patch failed: then the feed keeps its last good render.
    pub manifest: Option<Manifest>,
    /// Which override set which fields; every override that applied, even without effect.
    pub provenance: Vec<AppliedOverride>,
    /// What people should know, placed in the override's file.
    pub diagnostics: Vec<Diagnostic>,
}

/// A final object as the state branch holds it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its path below the Description's directory.
    pub path: String,
    /// The YAML.
    pub bytes: Arc<[u8]>,
    /// The blob's id.
    pub id: ObjectId,
}

/// One override and what its entries did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedOverride {
    /// `Globalization` or `Localization`.
    pub kind: &'static str,
    /// Namespace; empty for a Globalization.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Its entries: index, name and the fields that each set; none where it was without effect.
    pub entries: Vec<(usize, String, Vec<String>)>,
}

/// What people allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RenderSettings {
    /// Whether Secrets with plain data may be feeds, so that their data stands in the state branch.
    pub allow_plain_secrets: bool,
}

/// Rendered feeds by input digests.
#[derive(Debug, Default)]
pub struct RenderCache {
    rendered: HashMap<(ObjectId, Vec<ObjectId>), Cached>,
    generation: u64,
    renders: u64,
}

#[derive(Debug)]
struct Cached {
    used: u64,
    rendered: Arc<Rendered>,
    /// Where the inputs stood, if diagnostics point there.
    places: Vec<Definition>,
}

impl RenderCache {
    /// The rendered feed, from memory where its inputs are known and its diagnostics still point to the right lines.
    pub fn render(&mut self, feed: &Definition, overrides: &[Arc<Override>], settings: RenderSettings) -> Arc<Rendered> {
        let key = (feed.digest, overrides.iter().map(|applied| applied.digest).collect());
        let inputs = || std::iter::once(feed).chain(overrides.iter().map(|applied| &applied.definition));
        match self.rendered.get_mut(&key) {
            Some(known) if known.places.iter().zip(inputs()).all(|(then, now)| then.stands_as(now)) => {
                known.used = self.generation;
                return known.rendered.clone();
            }
            _ => {}
        }
        self.renders += 1;
        let rendered = Arc::new(render(feed, overrides, settings));
        let places = match rendered.diagnostics.is_empty() {
            true => Vec::new(),
            false => inputs().cloned().collect(),
        };
        let cached = Cached {
            used: self.generation,
            rendered: rendered.clone(),
            places,
        };
        self.rendered.insert(key, cached);
        rendered
    }

    /// Begins a run; what no run since the one before used is forgotten.
    pub fn begin_run(&mut self) {
        let last = self.generation;
        self.rendered.retain(|_, cached| cached.used == last);
        self.generation += 1;
    }

    /// How many feeds were really rendered since the start.
    pub fn render_count(&self) -> u64 {
        self.renders
    }
}

/// Renders one feed with its overrides in order.
pub fn render(feed: &Definition, overrides: &[Arc<Override>], settings: RenderSettings) -> Rendered {
    let mut rendered = Rendered {
        manifest: None,
        provenance: Vec::new(),
        diagnostics: Vec::new(),
    };
    if let Err(diagnostic) = secrets::check_source(feed, settings) {
        rendered.diagnostics.push(*diagnostic);
        return rendered;
    }
    let mut subject = Subject::new(&feed.object);
    for applied in overrides {
        let provenance = apply_override(&mut subject, applied, &mut rendered.diagnostics);
        match provenance.and_then(|provenance| secrets::check_override(&subject.object, applied, provenance, settings)) {
            Ok(provenance) => rendered.provenance.push(provenance),
            Err(diagnostic) => {
                rendered.diagnostics.push(*diagnostic);
                return rendered;
            }
        }
    }
    match subject.finish() {
        Ok(mut value) => {
            strip_system_fields(&mut value);
            let manifest = manifest(&value, &feed.object);
            match manifest.bytes.len() {
                ..=MAX_MANIFEST => rendered.manifest = Some(manifest),
                bytes => rendered.diagnostics.push(too_large(feed, bytes)),
            }
        }
        Err(problem) => rendered.diagnostics.push(broken_chart(feed, &problem)),
    }
    rendered
}

fn too_large(feed: &Definition, bytes: usize) -> Diagnostic {
    let message =
        format!("the object has {bytes} bytes after its overrides, more than the {MAX_MANIFEST} that an API server takes");
    let hint = "split it, or keep large data out of it; until then the last result stays";
    feed.locate(Diagnostic::error("too-large", message).hint(hint), "")
}

fn broken_chart(feed: &Definition, problem: &ChartProblem) -> Diagnostic {
    let diagnostic = Diagnostic::error("invalid-field", &*problem.message).field(&*problem.pointer);
    feed.locate(
        diagnostic.hint("correct the HelmChart; until then the last result stays"),
        &problem.pointer,
    )
}

/// The JSON pointer of a key below another pointer.
fn json_pointer_of(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Removes what only an API server may write, and kubectl's copy of the object.
fn strip_system_fields(value: &mut Value) {
    const SYSTEM_METADATA: [&str; 8] = [
        "managedFields",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    if let Some(object) = value.as_object_mut() {
        object.remove("status");
    }
    let Some(metadata) = value.pointer_mut("/metadata").and_then(Value::as_object_mut) else {
        return;
    };
    SYSTEM_METADATA.iter().for_each(|field| drop(metadata.remove(*field)));
    let annotations = metadata.get_mut("annotations").and_then(Value::as_object_mut);
    let emptied = annotations.is_some_and(|map: &mut Map<String, Value>| {
        map.remove("kubectl.kubernetes.io/last-applied-configuration").is_some() && map.is_empty()
    });
    if emptied {
        metadata.remove("annotations");
    }
}

fn manifest(value: &Value, source: &Object) -> Manifest {
    let mut key = source.key();
    let directory = if is_chart(&key) { RELEASES } else { MANIFESTS };
    key.kind = value.pointer("/kind").and_then(Value::as_str).map_or(key.kind, str::to_owned);
    key.namespace = value
        .pointer("/metadata/namespace")
        .and_then(Value::as_str)
        .filter(|ns| !ns.is_empty())
        .map(str::to_owned);
    let bytes: Arc<[u8]> = yaml::emit(value).into_bytes().into();
    let id = ObjectId::hash(ObjectKind::Blob, &bytes);
    Manifest {
        path: format!("{directory}/{}", file_name(&key)),
        bytes,
        id,
    }
}

/// The longest file name that is written; file systems allow 255 bytes.
const MAX_FILE_NAME: usize = 200;

/// `<kind>.<group>_<namespace>_<name>.yaml`: lower case, core group and no namespace left out, odd characters percent-encoded, cut with a
/// digest past 200 bytes.
pub fn file_name(key: &ObjectKey) -> String {
    let mut stem = encode(&key.kind.to_ascii_lowercase());
    if !key.group.is_empty() {
        stem = format!("{stem}.{}", encode(&key.group));
    }
    if let Some(namespace) = &key.namespace {
        stem = format!("{stem}_{}", encode(namespace));
    }
    stem = format!("{stem}_{}", encode(&key.name));
    if stem.len() + ".yaml".len() > MAX_FILE_NAME {
        let digest = ObjectId::hash(ObjectKind::Blob, stem.as_bytes()).to_string();
        stem.truncate(MAX_FILE_NAME - ".yaml".len() - 17);
        stem = format!("{stem}-{}", &digest[..16]);
    }
    format!("{stem}.yaml")
}

/// Keeps `a-z0-9.-`; everything else is percent-encoded, the separator `_` too, so that two objects never share a name.
fn encode(part: &str) -> String {
    part.bytes().fold(String::with_capacity(part.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02x}")),
        }
        out
    })
}

/// Digest of what decides a feed's bytes apart from ApplyLater overrides.
pub fn input_digest(feed: &Feed, source: ObjectId, now: impl Iterator<Item = ObjectId>) -> ObjectId {
    let mut text = format!("{feed} {} {source}", feed.api_version);
    now.for_each(|id| text.push_str(&format!(" {id}")));
    ObjectId::hash(ObjectKind::Blob, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, kind: &str, namespace: Option<&str>, name: &str) -> ObjectKey {
        ObjectKey {
            group: group.into(),
            kind: kind.into(),
            namespace: namespace.map(Into::into),
            name: name.into(),
        }
    }

    #[test]
    fn file_names_follow_the_state_branch_rules() {
        assert_eq!(
            file_name(&key("", "ConfigMap", Some("shop"), "web")),
            "configmap_shop_web.yaml"
        );
        assert_eq!(
            file_name(&key("apps", "Deployment", Some("shop"), "web")),
            "deployment.apps_shop_web.yaml"
        );
        assert_eq!(file_name(&key("", "Namespace", None, "shop")), "namespace_shop.yaml");
        let role = key("rbac.authorization.k8s.io", "ClusterRole", None, "system:Foo_x");
        assert_eq!(
            file_name(&role),
            "clusterrole.rbac.authorization.k8s.io_system%3a%46oo%5fx.yaml"
        );
        let (a, b) = (
            file_name(&key("", "ConfigMap", Some("n"), &"a".repeat(253))),
            file_name(&key("", "ConfigMap", Some("n"), &"a".repeat(252))),
        );
        assert!(a.len() == MAX_FILE_NAME && b.len() == MAX_FILE_NAME && a != b);
    }
}
