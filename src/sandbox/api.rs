//! The sandbox as the backend of a front: its catalog with custom resources, its objects, and the writes. Owns the only lock order:
//! a write holds the store, and changes the catalog while it does.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{Timestamp, Unit};
use serde_json::{Map, Value, json};

use super::fields::KindSchema;
use super::metadata::{Birth, text};
use super::writing::Writer;
use super::{builtin, custom, fields, reviews, scale};
use crate::kubeapi::{
    Action, ApiError, Backend, Catalog, HealthCheck, Outcome, Resource, ServerVersion, Store, Target, Transaction, WriteOptions,
    Written,
};

type SchemaKey = (String, String, String);

/// How many changes each collection remembers for watches.
const HISTORY: usize = 512;

/// The objects and the resource types of one sandbox.
#[derive(Debug)]
pub struct Api {
    store: Arc<Store>,
    catalog: ArcSwap<Catalog>,
    /// What the patch engine knows of each custom resource, by group, version and plural.
    schemas: ArcSwap<HashMap<SchemaKey, KindSchema>>,
    version: ServerVersion,
}

impl Api {
    pub(super) fn new(first_revision: u64, version: ServerVersion) -> Api {
        Api {
            store: Arc::new(Store::new(first_revision, HISTORY)),
            catalog: ArcSwap::from_pointee(builtin::catalog().clone()),
            schemas: ArcSwap::default(),
            version,
        }
    }

    /// Finds the custom resources again after definitions changed.
    pub(super) fn refresh_catalog(&self, transaction: &Transaction<'_>) {
        let definitions = transaction.list(&builtin::id_of("apiextensions.k8s.io", "customresourcedefinitions"), None);
        let added = custom::resources(definitions.iter().map(Arc::as_ref));
        let schemas = added.iter().filter_map(|resource| {
            let mut definitions = definitions
                .iter()
                .filter(|definition| text(definition, "/metadata/name") == resource.qualified());
            let schema = custom::schema_of(definitions.next()?, &resource.version)?;
            let has_status = resource.subresource("status").is_some();
            Some((key_of(resource), KindSchema::custom(&resource.kind, schema, has_status)))
        });
        self.schemas.store(Arc::new(schemas.collect()));
        self.catalog.store(Arc::new(builtin::catalog().with_added(added)));
    }

    fn schema(&self, resource: &Resource) -> KindSchema {
        let schemas = self.schemas.load();
        let custom = schemas.get(&key_of(resource)).cloned();
        custom.unwrap_or_else(|| KindSchema::of(&resource.api_version(), &resource.kind))
    }

    fn run(&self, writer: &mut Writer<'_, '_>, action: Action) -> Result<Outcome, ApiError> {
        match action {
            Action::Create(object) => writer.create(object),
            Action::Update(object) => writer.update(object),
            Action::Patch(kind, patch) => writer.patch(kind, &patch),
            Action::Delete(options) => writer.delete(&options),
        }
    }

    fn custom_schema(&self, group: &str, version: &str, plural: &str) -> Option<Value> {
        let id = builtin::id_of("apiextensions.k8s.io", "customresourcedefinitions");
        let definition = self.store.get(&id, None, &format!("{plural}.{group}"))?;
        let kind = text(&definition, "/spec/names/kind").to_owned();
        let mut schema = custom::schema_of(&definition, version)?.clone();
        let map = schema.as_object_mut()?;
        let properties = map.entry("properties").or_insert_with(|| json!({})).as_object_mut()?;
        properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
        properties.insert("kind".to_owned(), json!({"type": "string"}));
        properties.insert("metadata".to_owned(), fields::metadata_reference());
        let gvk = json!([{"group": group, "version": version, "kind": kind}]);
        map.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
        Some(schema)
    }
}

fn key_of(resource: &Resource) -> SchemaKey {
    (resource.group.clone(), resource.version.clone(), resource.plural.clone())
}

/// The present in RFC 3339, in whole seconds as Kubernetes writes it.
pub(super) fn now_text() -> String {
    let now = Timestamp::now();
    now.round(Unit::Second).unwrap_or(now).to_string()
}

fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let letters = uuid::Uuid::new_v4().into_bytes();
    letters
        .iter()
        .take(5)
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

impl Backend for Api {
    fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    fn store(&self) -> &Arc<Store> {
        &self.store
    }

    fn version(&self) -> ServerVersion {
        self.version.clone()
    }

    fn health(&self, _endpoint: &str) -> Vec<HealthCheck> {
        vec![HealthCheck {
            name: "ping".to_owned(),
            failure: None,
        }]
    }

    fn schemas(&self, group: &str, version: &str) -> Map<String, Value> {
        let catalog = self.catalog.load();
        let resources: Vec<_> = catalog.of_version(group, version).collect();
        let kinds: Vec<(String, String)> = resources
            .iter()
            .filter(|resource| builtin::is_built_in(resource))
            .map(|resource| (resource.api_version(), resource.kind.clone()))
            .collect();
        let mut schemas = fields::components(&kinds);
        for resource in resources.iter().filter(|resource| !builtin::is_built_in(resource)) {
            if let Some(schema) = self.custom_schema(group, version, &resource.plural) {
                schemas.insert(resource.schema.clone(), schema);
            }
        }
        schemas
    }

    async fn write(&self, target: &Target<'_>, action: Action, options: &WriteOptions) -> Result<Written, ApiError> {
        if let (Action::Create(question), true) = (&action, reviews::is_review(target.resource)) {
            return Ok(Outcome::Created(Arc::new(reviews::answer(question, options))).into());
        }
        let (uid, now, suffix) = (uuid::Uuid::new_v4().to_string(), now_text(), random_suffix());
        self.store.write(|transaction| {
            let mut writer = Writer {
                transaction,
                target: *target,
                options,
                schema: self.schema(target.resource),
                birth: Birth {
                    uid: &uid,
                    now: &now,
                    suffix: &suffix,
                },
                warnings: Vec::new(),
            };
            let outcome = self.run(&mut writer, action)?;
            // Objects of a definition under deletion take it with them when they go, so any deletion may change the catalog.
            if target.resource.plural == "customresourcedefinitions" || matches!(outcome, Outcome::Deleted(_)) {
                self.refresh_catalog(writer.transaction);
            }
            Ok(Written {
                outcome,
                warnings: writer.warnings,
            })
        })
    }

    fn no_subresource(&self, target: &Target<'_>) -> ApiError {
        let name = target.subresource.unwrap_or_default();
        match (target.resource.plural.as_str(), name) {
            ("pods", "log" | "exec" | "attach" | "portforward" | "proxy" | "ephemeralcontainers") => {
                ApiError::bad_request(format!(
                    "pods/{name} is not served: this is a sandbox, which stores pods and runs no containers; use a real cluster for {name}"
                ))
            }
            _ => ApiError::no_such_path(),
        }
    }

    fn read_subresource(&self, target: &Target<'_>) -> Result<Value, ApiError> {
        let object = self
            .store
            .get(&target.resource.id, target.namespace, target.name)
            .ok_or_else(|| ApiError::not_found(target.resource, target.name))?;
        self.store.write(|transaction| scale::read(target, &object, transaction))
    }
}
