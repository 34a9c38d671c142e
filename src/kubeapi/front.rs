//! The HTTP front: from a request whose user is known to an answer. Owns routing, content negotiation and body limits; decides
//! nothing about access (its caller does) and nothing about objects (its backend does).

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{HeaderName, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::accept::{Representation, negotiate};
use super::backend::{Action, Backend, Outcome, PatchType, Target, Written};
use super::error::{ApiError, Details};
use super::path::{ResourcePath, Route};
use super::query::{DeleteOptions, ListOptions, WriteOptions};
use super::reading::{self, Shown, WatchRequest};
use super::resource::{Catalog, Resource, Subresource};
use super::response::{self, ResponseBody};
use super::table::RowObject;
use super::{discovery, openapi, protobuf};
use crate::core::request_query::Query;

/// Largest request body, as in Kubernetes.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Who asks. Whether they may was decided before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Who sent the request, where that one acts as the user.
    pub sender: Option<String>,
}

/// A Kubernetes-style server over a backend.
#[derive(Debug)]
pub struct Front<B> {
    backend: Arc<B>,
    shutdown: CancellationToken,
}

struct Asked {
    method: Method,
    path: ResourcePath,
    query: Query,
    accept: Option<String>,
    content_type: String,
    user_agent: String,
    context: RequestContext,
    body: Bytes,
}

impl<B: Backend> Front<B> {
    /// A front over a backend; open watches end when the token is cancelled.
    pub fn new(backend: Arc<B>, shutdown: CancellationToken) -> Front<B> {
        Front { backend, shutdown }
    }

    /// What is behind the front.
    pub fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// Answers one request.
    pub async fn handle<Q>(&self, request: Request<Q>, context: RequestContext) -> Response<ResponseBody>
    where
        Q: Body + Send,
        Q::Data: Send,
        Q::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.answer(request, context)
            .await
            .unwrap_or_else(|error| error_response(&error))
    }

    async fn answer<Q>(&self, request: Request<Q>, context: RequestContext) -> Result<Response<ResponseBody>, ApiError>
    where
        Q: Body + Send,
        Q::Data: Send,
        Q::Error: Display + Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let header = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let path = match Route::parse(parts.uri.path()) {
            Route::Resource(path) => path,
            other if parts.method == Method::GET || parts.method == Method::HEAD => {
                return self.describe_server(&other, header(ACCEPT), &query, &context);
            }
            Route::Unknown => return Err(ApiError::no_such_path()),
            _ => return Err(ApiError::method_not_allowed()),
        };
        let (content_type, body) = transcode(media_type(header(CONTENT_TYPE)), read_body(body).await?)?;
        self.resource_request(Asked {
            path,
            query,
            accept: header(ACCEPT).map(str::to_owned),
            content_type,
            user_agent: header(USER_AGENT).unwrap_or_default().to_owned(),
            context,
            body,
            method: parts.method,
        })
        .await
    }

    fn describe_server(
        &self,
        route: &Route,
        accept: Option<&str>,
        query: &Query,
        context: &RequestContext,
    ) -> Result<Response<ResponseBody>, ApiError> {
        let catalog = self.backend.catalog();
        let aggregated = || match negotiate(accept, true) {
            Some(Representation::AggregatedDiscovery) => Ok(true),
            Some(_) => Ok(false),
            None => Err(ApiError::not_acceptable()),
        };
        let found = match route {
            Route::Root => Some(discovery::paths(&catalog)),
            Route::Version => Some(self.backend.version().to_json()),
            Route::Health { endpoint, check } => return Ok(self.health(endpoint, check.as_deref(), query, context)),
            Route::CoreVersions if aggregated()? => return Ok(aggregated_response(&discovery::aggregated(&catalog, true))),
            Route::Groups if aggregated()? => return Ok(aggregated_response(&discovery::aggregated(&catalog, false))),
            Route::CoreVersions => Some(discovery::core_versions()),
            Route::Groups => Some(discovery::groups(&catalog)),
            Route::Group(name) => discovery::group(&catalog, name),
            Route::GroupVersion { group, version } => discovery::resources(&catalog, group, version),
            Route::OpenApiV2 => return Ok(self.old_openapi(&catalog, accept)),
            Route::OpenApiIndex => Some(openapi::index(&catalog)),
            Route::OpenApi { group, version } => return self.openapi(&catalog, group, version, query),
            Route::Resource(_) | Route::Unknown => None,
        };
        found
            .map(|document| response::json(200, &document))
            .ok_or_else(ApiError::no_such_path)
    }

    /// A client that names the current digest may keep the document for ever.
    fn openapi(&self, catalog: &Catalog, group: &str, version: &str, query: &Query) -> Result<Response<ResponseBody>, ApiError> {
        let document = openapi::document(catalog, group, version, self.backend.schemas(group, version));
        let mut response = response::json(200, &document.ok_or_else(ApiError::no_such_path)?);
        if query.get("hash") == Some(&openapi::digest(catalog, group, version)) {
            let for_ever = HeaderValue::from_static("public, immutable, max-age=31536000");
            response.headers_mut().insert(CACHE_CONTROL, for_ever);
        }
        Ok(response)
    }

    /// The old document in JSON. In protobuf, which kubectl takes where a server has no version 3, it is empty.
    fn old_openapi(&self, catalog: &Catalog, accept: Option<&str>) -> Response<ResponseBody> {
        if accept.is_some_and(|accept| accept.contains("protobuf")) {
            return response::bytes(200, openapi::V2_PROTOBUF_TYPE, Bytes::from_static(openapi::EMPTY_V2_PROTOBUF));
        }
        let versions = catalog.groups().into_iter();
        let versions = versions.flat_map(|(group, versions)| versions.into_iter().map(move |version| (group, version)));
        let schemas = versions.flat_map(|(group, version)| self.backend.schemas(group, version));
        response::json(200, &openapi::old_document(schemas.collect()))
    }

    /// Why a check fails is for those whose name is known.
    fn health(&self, endpoint: &str, check: Option<&str>, query: &Query, context: &RequestContext) -> Response<ResponseBody> {
        let mut checks = self.backend.health(endpoint);
        if let Some(wanted) = check {
            checks.retain(|check| check.name == wanted);
            if checks.is_empty() {
                return response::text(404, format!("404 page not found: {endpoint} has no check {wanted:?}\n"));
            }
        }
        let failed = checks.iter().any(|check| check.failure.is_some());
        if !failed && !query.has("verbose") {
            return response::text(200, "ok".to_owned());
        }
        let mut text: String = checks
            .iter()
            .map(|check| match &check.failure {
                None => format!("[+]{} ok\n", check.name),
                Some(_) if context.user.is_empty() => format!("[-]{} failed: reason withheld\n", check.name),
                Some(why) => format!("[-]{} failed: {why}\n", check.name),
            })
            .collect();
        text.push_str(&format!("{endpoint} check {}\n", if failed { "failed" } else { "passed" }));
        response::text(if failed { 500 } else { 200 }, text)
    }

    async fn resource_request(&self, asked: Asked) -> Result<Response<ResponseBody>, ApiError> {
        let path = &asked.path;
        let catalog = self.backend.catalog();
        let resource = catalog
            .find(&path.group, &path.version, &path.resource)
            .filter(|resource| resource.namespaced || path.namespace.is_none())
            .ok_or_else(ApiError::no_such_path)?
            .clone();
        if resource.namespaced && path.name.is_some() && path.namespace.is_none() {
            return Err(ApiError::no_such_path());
        }
        let below = match &path.subresource {
            None => None,
            Some(name) => match resource.subresource(name) {
                Some(below) => Some(below),
                None => return Err(self.backend.no_subresource(&target_of(&resource, path))),
            },
        };
        let verb = verb_of(&asked).ok_or_else(ApiError::method_not_allowed)?;
        if !allowed(&resource, below, verb) {
            return Err(self.backend.refusal(&target_of(&resource, path)));
        }
        match verb {
            "get" | "list" | "watch" => self.read(&resource, &asked, verb),
            "deletecollection" => self.delete_collection(&resource, &asked).await,
            _ => self.write(&resource, &asked).await,
        }
    }

    fn read(&self, resource: &Arc<Resource>, asked: &Asked, verb: &str) -> Result<Response<ResponseBody>, ApiError> {
        let shown = shown(asked)?;
        let store = self.backend.store();
        let namespace = asked.path.namespace.as_deref();
        let options = list_options(resource, asked)?;
        match (verb, &asked.path.subresource) {
            ("get", Some(below)) if below != "status" => {
                let object = self.backend.read_subresource(&target_of(resource, &asked.path))?;
                Ok(response::json(200, &object))
            }
            ("get", _) => {
                let name = asked.path.name.as_deref().unwrap_or_default();
                let object = store
                    .get(&resource.id, namespace, name)
                    .and_then(|stored| resource.see(Arc::unwrap_or_clone(stored)))
                    .ok_or_else(|| ApiError::not_found(resource, name))?;
                Ok(reading::object_response(200, resource, &object, shown))
            }
            ("watch", _) => reading::watch_response(
                store,
                WatchRequest {
                    resource: resource.clone(),
                    namespace: namespace.map(str::to_owned),
                    options,
                    shown,
                    shutdown: self.shutdown.clone(),
                },
            ),
            _ => reading::list_response(store, resource, namespace, &options, shown),
        }
    }

    async fn write(&self, resource: &Arc<Resource>, asked: &Asked) -> Result<Response<ResponseBody>, ApiError> {
        let action = action_of(asked)?;
        let mut options = WriteOptions::parse(&asked.query, &asked.user_agent, &asked.context)?;
        check_manager(&action, &asked.query)?;
        if matches!(action, Action::Delete(_)) {
            options.dry_run |= DeleteOptions::body_wants_dry_run(optional_body(asked)?.as_ref());
        }
        let written = self
            .backend
            .write(&target_of(resource, &asked.path), action, &options)
            .await?;
        written_response(resource, asked, &written)
    }

    async fn delete_collection(&self, resource: &Arc<Resource>, asked: &Asked) -> Result<Response<ResponseBody>, ApiError> {
        let body = optional_body(asked)?;
        let mut options = WriteOptions::parse(&asked.query, &asked.user_agent, &asked.context)?;
        options.dry_run |= DeleteOptions::body_wants_dry_run(body.as_ref());
        let selection = list_options(resource, asked)?;
        let listing = self.backend.store().list(&resource.id, asked.path.namespace.as_deref());
        let mut deleted = Vec::new();
        for stored in &listing.items {
            let object = stored.value();
            if !selection.labels.matches(&object) || !selection.fields.matches(&object) {
                continue;
            }
            let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
            let target = Target {
                resource,
                namespace: text("/metadata/namespace"),
                name: text("/metadata/name").unwrap_or_default(),
                subresource: None,
            };
            let action = Action::Delete(DeleteOptions::parse(&asked.query, body.as_ref()));
            match self.backend.write(&target, action, &options).await {
                Err(error) if error.reason == "NotFound" => {}
                Err(error) => return Err(error),
                Ok(_) => deleted.push(stored),
            }
        }
        let metadata = serde_json::json!({"resourceVersion": listing.revision.to_string()});
        let list = response::list_bytes(resource, &metadata, deleted.into_iter());
        Ok(response::bytes(200, "application/json", list))
    }
}

/// Paths that lead nowhere are answered in plain text, as Kubernetes does; clients make their own message of that.
fn error_response(error: &ApiError) -> Response<ResponseBody> {
    match *error == ApiError::no_such_path() {
        true => response::text(404, "404 page not found\n".to_owned()),
        false => response::error(error),
    }
}

async fn read_body<Q>(body: Q) -> Result<Bytes, ApiError>
where
    Q: Body,
    Q::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Err(error) => Err(ApiError::bad_request(format!("the request body could not be read: {error}"))),
    }
}

fn aggregated_response(document: &Value) -> Response<ResponseBody> {
    response::bytes(200, discovery::AGGREGATED_TYPE, document.to_string().into())
}

fn media_type(header: Option<&str>) -> String {
    let header = header.unwrap_or("application/json");
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn verb_of(asked: &Asked) -> Option<&'static str> {
    let named = asked.path.name.is_some();
    match asked.method.as_str() {
        "GET" | "HEAD" if named => Some("get"),
        "GET" | "HEAD" if asked.query.flag("watch") => Some("watch"),
        "GET" | "HEAD" => Some("list"),
        "POST" if !named || asked.path.subresource.is_some() => Some("create"),
        "PUT" if named => Some("update"),
        "PATCH" if named => Some("patch"),
        "DELETE" if named => Some("delete"),
        "DELETE" => Some("deletecollection"),
        _ => None,
    }
}

fn allowed(resource: &Resource, below: Option<&Subresource>, verb: &str) -> bool {
    match below {
        None => resource.allows(verb),
        Some(below) => below.verbs.contains(&verb),
    }
}

fn target_of<'a>(resource: &'a Arc<Resource>, path: &'a ResourcePath) -> Target<'a> {
    Target {
        resource,
        namespace: path.namespace.as_deref(),
        name: path.name.as_deref().unwrap_or_default(),
        subresource: path.subresource.as_deref(),
    }
}

fn shown(asked: &Asked) -> Result<Shown, ApiError> {
    Ok(Shown {
        representation: negotiate(asked.accept.as_deref(), false).ok_or_else(ApiError::not_acceptable)?,
        include: RowObject::parse(asked.query.get("includeObject")),
    })
}

fn list_options(resource: &Resource, asked: &Asked) -> Result<ListOptions, ApiError> {
    let options = ListOptions::parse(&asked.query)?;
    for term in options.fields.terms() {
        let known =
            matches!(term.field.as_str(), "metadata.name" | "metadata.namespace") || resource.selectable.contains(&term.field);
        if !known {
            return Err(ApiError::bad_request(format!("field label not supported: {}", term.field)));
        }
    }
    Ok(options)
}

fn action_of(asked: &Asked) -> Result<Action, ApiError> {
    match asked.method.as_str() {
        "POST" => Ok(Action::Create(object_body(asked)?)),
        "PUT" => Ok(Action::Update(object_body(asked)?)),
        "PATCH" => {
            let kind = PatchType::from_media_type(&asked.content_type)
                .ok_or_else(|| ApiError::unsupported_media_type(PatchType::MEDIA_TYPES))?;
            Ok(Action::Patch(kind, parse_body(asked)?))
        }
        _ => Ok(Action::Delete(DeleteOptions::parse(
            &asked.query,
            optional_body(asked)?.as_ref(),
        ))),
    }
}

fn check_manager(action: &Action, query: &Query) -> Result<(), ApiError> {
    let is_apply = matches!(action, Action::Patch(PatchType::Apply, _));
    if is_apply && query.get("fieldManager").is_none() {
        return Err(ApiError::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ));
    }
    if !is_apply && matches!(action, Action::Patch(..)) && query.flag("force") {
        return Err(ApiError::new(
            422,
            "Invalid",
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        ));
    }
    Ok(())
}

/// A body in Kubernetes' protobuf becomes JSON.
fn transcode(content_type: String, body: Bytes) -> Result<(String, Bytes), ApiError> {
    if content_type != protobuf::MEDIA_TYPE || body.is_empty() {
        return Ok((content_type, body));
    }
    let object = protobuf::decode(&body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    Ok(("application/json".to_owned(), object.to_string().into()))
}

fn object_body(asked: &Asked) -> Result<Value, ApiError> {
    match asked.content_type.as_str() {
        "application/json" | "application/yaml" => parse_body(asked),
        _ => Err(ApiError::unsupported_media_type(&["application/json", "application/yaml"])),
    }
}

fn optional_body(asked: &Asked) -> Result<Option<Value>, ApiError> {
    if asked.body.is_empty() {
        return Ok(None);
    }
    parse_body(asked).map(Some)
}

/// JSON is tried first because it is what clients send even where the content type says YAML.
fn parse_body(asked: &Asked) -> Result<Value, ApiError> {
    let json_error = match serde_json::from_slice(&asked.body) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if asked.content_type.contains("yaml") {
        return serde_saphyr::from_slice(&asked.body)
            .map_err(|error| ApiError::bad_request(format!("the request body is neither JSON nor YAML: {error}")));
    }
    Err(ApiError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {json_error}",
        asked.path.resource
    )))
}

fn written_response(resource: &Resource, asked: &Asked, written: &Written) -> Result<Response<ResponseBody>, ApiError> {
    let shown = shown(asked)?;
    let exchanges_other_kind = asked
        .path
        .subresource
        .as_deref()
        .and_then(|name| resource.subresource(name))
        .is_some_and(|below| below.kind.is_some());
    let mut response = match &written.outcome {
        Outcome::Created(object) | Outcome::Updated(object) if exchanges_other_kind => response::json(200, object),
        Outcome::Created(object) => reading::object_response(201, resource, object, shown),
        Outcome::Updated(object) => reading::object_response(200, resource, object, shown),
        Outcome::Deleted(object) => response::json(200, &deleted_status(resource, object)),
    };
    response::add_warnings(&mut response, &written.warnings);
    Ok(response)
}

fn deleted_status(resource: &Resource, object: &Value) -> Value {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let details = Details {
        name: text("/metadata/name"),
        group: resource.group.clone(),
        kind: resource.plural.clone(),
        uid: text("/metadata/uid"),
        ..Details::default()
    };
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_json(),
    })
}
