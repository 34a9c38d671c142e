//! Create, update and patch as an API server carries them out. Pure but for the transaction it is given; never defaults or admits.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fields::{ApplyError, KindSchema, Mistyped, PatchContext, conflict_message};
use super::metadata::{self, Birth, text};
use super::{builtin, custom, deletion, fields, scale};
use crate::kubeapi::{ApiError, Cause, Details, Outcome, PatchType, Resource, Target, Transaction, WriteOptions};

/// One write in progress.
pub(super) struct Writer<'a, 'store> {
    pub(super) transaction: &'a mut Transaction<'store>,
    pub(super) target: Target<'a>,
    pub(super) options: &'a WriteOptions,
    /// What the patch engine knows of the kind.
    pub(super) schema: KindSchema,
    pub(super) birth: Birth<'a>,
    /// Texts for `Warning` headers.
    pub(super) warnings: Vec<String>,
}

impl<'a> Writer<'a, '_> {
    pub(super) fn resource(&self) -> &'a Resource {
        self.target.resource
    }

    pub(super) fn live(&self) -> Option<Arc<Value>> {
        self.transaction
            .get(&self.target.resource.id, self.target.namespace, self.target.name)
    }

    pub(super) fn existing(&self) -> Result<Arc<Value>, ApiError> {
        self.live()
            .ok_or_else(|| ApiError::not_found(self.resource(), self.target.name))
    }

    pub(super) fn put(&mut self, object: Value) -> Arc<Value> {
        match self.options.dry_run {
            true => Arc::new(object),
            false => self.transaction.put(&self.target.resource.id, object),
        }
    }

    fn record(&self, old: Option<&Value>, new: Value) -> Value {
        let api_version = self.resource().api_version();
        self.schema.record(old, new, &self.context(&api_version))
    }

    fn context<'c>(&'c self, api_version: &'c str) -> PatchContext<'c> {
        PatchContext {
            api_version,
            kind: &self.target.resource.kind,
            manager: &self.options.field_manager,
            subresource: self.target.subresource.unwrap_or_default(),
            now: self.birth.now,
        }
    }

    fn is(&self, group: &str, plural: &str) -> bool {
        self.resource().group == group && self.resource().plural == plural
    }

    fn is_definition(&self) -> bool {
        self.is("apiextensions.k8s.io", "customresourcedefinitions")
    }

    /// Whether status is written only through its own subresource.
    fn separates_status(&self) -> bool {
        self.resource().subresource("status").is_some()
    }

    /// POST.
    pub(super) fn create(&mut self, mut object: Value) -> Result<Outcome, ApiError> {
        if self.target.subresource.is_some() {
            return Err(ApiError::method_not_allowed());
        }
        self.identify(&mut object)?;
        self.tidy(&mut object)?;
        let object = self.record(None, self.without_status(object));
        self.insert(object)
    }

    /// Gives a new object its kind, namespace, name and identity, and checks that it may come to be.
    fn identify(&mut self, object: &mut Value) -> Result<(), ApiError> {
        let resource = self.resource();
        metadata::check_kind(object, resource)?;
        metadata::check_namespace(object, self.target.namespace)?;
        metadata::prepare_create(object, resource, &self.birth)?;
        if self.is_definition() {
            custom::prepare(object, resource)?;
        }
        let name = text(object, "/metadata/name");
        if self.transaction.get(&resource.id, self.target.namespace, name).is_some() {
            return Err(ApiError::already_exists(resource, name));
        }
        self.check_home(name)
    }

    /// The namespace has to be there and may not be going away.
    fn check_home(&self, name: &str) -> Result<(), ApiError> {
        let Some(namespace) = self.target.namespace else {
            return Ok(());
        };
        let namespaces = builtin::id_of("", "namespaces");
        let Some(home) = self.transaction.get(&namespaces, None, namespace) else {
            let resource = Resource::new("", "v1", "Namespace", "namespaces", false);
            return Err(ApiError::not_found(&resource, namespace));
        };
        if home.pointer("/metadata/deletionTimestamp").is_none() {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(self.resource(), name, &why);
        if let Some(details) = &mut error.details {
            details.causes.push(Cause {
                reason: "NamespaceTerminating",
                message: format!("namespace {namespace} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
        }
        Err(error)
    }

    /// What reading into Go's structs and writing them again does to an object.
    fn tidy(&mut self, object: &mut Value) -> Result<(), ApiError> {
        metadata::drop_empty(object);
        if builtin::is_built_in(self.resource()) {
            metadata::drop_nulls(object);
        }
        self.decode(object)?;
        match self.is("", "secrets") {
            true => fold_string_data(object),
            false => Ok(()),
        }
    }

    /// Unknown fields go, with an error, a warning or silently as the client asked; a value of another type is always an error.
    fn decode(&mut self, object: &mut Value) -> Result<(), ApiError> {
        let resource = self.resource();
        let unknown = self
            .schema
            .decode(object)
            .map_err(|mistyped| mistyped_error(resource, self.target.name, &mistyped))?;
        let named = unknown.iter().map(|field| format!("unknown field \"{field}\""));
        match self.options.field_validation.as_str() {
            "Strict" if !unknown.is_empty() => {
                let problem = format!("strict decoding error: {}", named.collect::<Vec<_>>().join(", "));
                Err(ApiError::bad_request(undecodable(resource, &problem)))
            }
            "Ignore" => Ok(()),
            _ => {
                self.warnings.extend(named);
                Ok(())
            }
        }
    }

    fn without_status(&self, mut object: Value) -> Value {
        if let (true, Some(map)) = (self.separates_status(), object.as_object_mut()) {
            map.remove("status");
        }
        object
    }

    fn insert(&mut self, mut object: Value) -> Result<Outcome, ApiError> {
        match (self.resource().group.as_str(), self.resource().plural.as_str()) {
            ("", "namespaces") => begin_namespace(&mut object),
            ("", "pods" | "persistentvolumeclaims") => object["status"] = json!({"phase": "Pending"}),
            ("", "persistentvolumes") => object["status"] = json!({"phase": "Pending"}),
            ("apiextensions.k8s.io", "customresourcedefinitions") => custom::establish(&mut object, self.birth.now),
            _ => {}
        }
        Ok(Outcome::Created(self.put(object)))
    }

    /// PUT.
    pub(super) fn update(&mut self, mut new: Value) -> Result<Outcome, ApiError> {
        if self.target.subresource == Some("scale") {
            let live = self.existing()?;
            return self.rescale(&live, &new);
        }
        metadata::check_kind(&mut new, self.resource())?;
        metadata::check_namespace(&mut new, self.target.namespace)?;
        let live = self.existing()?;
        let name = text(&new, "/metadata/name");
        if name != self.target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        let is_custom = !builtin::is_built_in(self.resource());
        if is_custom && text(&new, "/metadata/resourceVersion").is_empty() {
            let cause = Cause {
                reason: "FieldValueInvalid",
                message: "Invalid value: 0: must be specified for an update".to_owned(),
                field: "metadata.resourceVersion".to_owned(),
            };
            return Err(ApiError::invalid(self.resource(), name, vec![cause]));
        }
        self.replace(&live, new, false)
    }

    /// PATCH.
    pub(super) fn patch(&mut self, kind: PatchType, patch: &Value) -> Result<Outcome, ApiError> {
        if kind == PatchType::Apply {
            return self.apply(patch);
        }
        let live = self.existing()?;
        if self.target.subresource == Some("scale") {
            let scale = patched(
                kind,
                &scale::read(&self.target, &live, self.transaction)?,
                patch,
                self.resource(),
            )?;
            return self.rescale(&live, &scale);
        }
        let new = patched(kind, &live, patch, self.resource())?;
        if text(&new, "/metadata/name") != self.target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({})",
                text(&new, "/metadata/name"),
                self.target.name
            )));
        }
        self.replace(&live, new, false)
    }

    fn apply(&mut self, configuration: &Value) -> Result<Outcome, ApiError> {
        let mut configuration = configuration.clone();
        let name = text(&configuration, "/metadata/name").to_owned();
        if name.is_empty() {
            metadata::metadata(&mut configuration)?.insert("name".to_owned(), json!(self.target.name));
        } else if name != self.target.name {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                self.target.name
            )));
        }
        metadata::check_namespace(&mut configuration, self.target.namespace)?;
        if self.target.subresource != Some("scale") {
            metadata::check_kind(&mut configuration, self.resource())?;
        }
        let live = self.live();
        if self.target.subresource == Some("scale") {
            return self.rescale(&self.existing()?, &configuration);
        }
        let configuration = match self.target.subresource {
            None => self.without_status(configuration),
            Some(_) => configuration,
        };
        if live.is_none() && self.target.subresource.is_some() {
            return Err(ApiError::not_found(self.resource(), self.target.name));
        }
        let api_version = self.resource().api_version();
        let applied = self
            .schema
            .apply(
                live.as_deref(),
                &configuration,
                &self.context(&api_version),
                self.options.force,
            )
            .map_err(|error| apply_error(error, self.resource(), self.target.name))?;
        match live {
            Some(live) => self.replace(&live, applied, true),
            None => {
                let mut object = applied;
                self.identify(&mut object)?;
                self.tidy(&mut object)?;
                self.insert(object)
            }
        }
    }

    /// Stores the changed object; the same content again is no change.
    fn replace(&mut self, live: &Arc<Value>, mut new: Value, applied: bool) -> Result<Outcome, ApiError> {
        let resource = self.resource();
        metadata::prepare_update(&mut new, live, resource)?;
        self.tidy(&mut new)?;
        if self.target.subresource.is_none() && self.separates_status() {
            copy_field(&mut new, live, "status");
        }
        if self.is_definition() && self.target.subresource.is_none() {
            custom::prepare(&mut new, resource)?;
            custom::establish(&mut new, self.birth.now);
        }
        if !applied {
            new = self.record(Some(live), new);
        }
        metadata::count_generation(&mut new, live, resource);
        if unchanged(&new, live) {
            return Ok(Outcome::Updated(live.clone()));
        }
        if deletion::is_finished(&new) {
            return Ok(Outcome::Updated(self.finish_deletion(new)));
        }
        Ok(Outcome::Updated(self.put(new)))
    }

    /// The object had its deletion pending and lost its last finalizer.
    fn finish_deletion(&mut self, last: Value) -> Arc<Value> {
        let last = self.put(last);
        if !self.options.dry_run {
            deletion::remove(self.transaction, &self.target.resource.id, &last);
        }
        last
    }

    fn rescale(&mut self, live: &Arc<Value>, wanted: &Value) -> Result<Outcome, ApiError> {
        let given = text(wanted, "/metadata/resourceVersion");
        if !given.is_empty() && given != text(live, "/metadata/resourceVersion") {
            return Err(metadata::modified(self.resource(), self.target.name));
        }
        let new = scale::write(&self.target, live, wanted, self.transaction)?;
        let scaled = match self.replace(live, new, false)? {
            Outcome::Created(object) | Outcome::Updated(object) | Outcome::Deleted(object) => object,
        };
        Ok(Outcome::Updated(Arc::new(scale::read(
            &self.target,
            &scaled,
            self.transaction,
        )?)))
    }
}

fn undecodable(resource: &Resource, problem: &str) -> String {
    format!(
        "{0} in version {1:?} cannot be handled as a {0}: {problem}",
        resource.kind, resource.version
    )
}

fn mistyped_error(resource: &Resource, name: &str, mistyped: &Mistyped) -> ApiError {
    let Mistyped { field, wanted, found } = mistyped;
    if builtin::is_built_in(resource) {
        let problem = format!("json: cannot unmarshal {found} into Go struct field {field} of type {wanted}");
        return ApiError::bad_request(undecodable(resource, &problem));
    }
    let cause = Cause {
        reason: "FieldValueTypeInvalid",
        message: format!("Invalid value: {found:?}: {field} in body must be of type {wanted}: {found:?}"),
        field: field.clone(),
    };
    ApiError::invalid(resource, name, vec![cause])
}

fn copy_field(new: &mut Value, live: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match live.get(field) {
        Some(value) => map.insert(field.to_owned(), value.clone()),
        None => map.remove(field),
    };
}

fn begin_namespace(object: &mut Value) {
    let name = text(object, "/metadata/name").to_owned();
    object["status"] = json!({"phase": "Active"});
    object["spec"] = json!({"finalizers": ["kubernetes"]});
    let labels = object["metadata"].as_object_mut();
    let labels = labels.map(|metadata| metadata.entry("labels").or_insert_with(|| json!({})));
    if let Some(labels) = labels.and_then(Value::as_object_mut) {
        labels.insert("kubernetes.io/metadata.name".to_owned(), json!(name));
    }
}

/// `stringData` of a Secret is only a way to write `data`.
fn fold_string_data(secret: &mut Value) -> Result<(), ApiError> {
    use base64::Engine;
    let Some(map) = secret.as_object_mut() else {
        return Ok(());
    };
    let Some(Value::Object(texts)) = map.remove("stringData") else {
        return Ok(());
    };
    let data = map.entry("data").or_insert_with(|| json!({}));
    let data = data
        .as_object_mut()
        .ok_or_else(|| ApiError::bad_request("data of a Secret is not an object"))?;
    for (key, value) in texts {
        let text = value.as_str().unwrap_or_default();
        data.insert(key, json!(base64::engine::general_purpose::STANDARD.encode(text)));
    }
    Ok(())
}

fn patched(kind: PatchType, live: &Value, patch: &Value, resource: &Resource) -> Result<Value, ApiError> {
    match kind {
        PatchType::Merge => Ok(fields::merge_patch(live, patch)),
        // Kubernetes keeps the operation that failed to itself.
        PatchType::Json => fields::json_patch(live, patch).map_err(|_| {
            ApiError::new(
                422,
                "Invalid",
                "the server rejected our request due to an error in our request",
            )
        }),
        PatchType::Strategic if !builtin::is_built_in(resource) => Err(ApiError::unsupported_media_type(&[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/apply-patch+yaml",
        ])),
        PatchType::Strategic | PatchType::Apply => {
            fields::strategic_merge_patch(live, patch, &resource.api_version(), &resource.kind).map_err(ApiError::bad_request)
        }
    }
}

fn apply_error(error: ApplyError, resource: &Resource, name: &str) -> ApiError {
    match error {
        ApplyError::Invalid(message) => ApiError::bad_request(message),
        ApplyError::NotOfType(message) => ApiError::new(500, "", message),
        ApplyError::Conflicts(conflicts) => {
            let causes = fields::conflict_causes(&conflicts);
            let causes = causes.as_array().map_or(&[][..], Vec::as_slice).iter();
            let mut answer = ApiError::conflict(resource, name, "");
            answer.message = conflict_message(&conflicts);
            answer.details = Some(Box::new(Details {
                causes: causes
                    .map(|cause| Cause {
                        reason: "FieldManagerConflict",
                        message: text(cause, "/message").to_owned(),
                        field: text(cause, "/field").to_owned(),
                    })
                    .collect(),
                ..Details::default()
            }));
            answer
        }
    }
}

/// Equal but for the times in `managedFields`: Kubernetes does not write such an update.
fn unchanged(new: &Value, live: &Value) -> bool {
    without_times(new) == without_times(live)
}

fn without_times(object: &Value) -> Value {
    let mut object = object.clone();
    let entries = object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
    }
    object
}
