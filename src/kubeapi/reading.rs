//! Get, list and watch: from options and the store to answers. Never changes anything.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::accept::Representation;
use super::error::ApiError;
use super::query::ListOptions;
use super::resource::Resource;
use super::response::{self, ResponseBody};
use super::store::{Listing, ObjectName, Store, Stored};
use super::table::{self, RowObject};
use super::watching::{self, WatchStart, WatchView, in_version};

/// How the client wants objects shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    pub(crate) representation: Representation,
    pub(crate) include: RowObject,
}

/// One object as an answer.
pub(crate) fn object_response(code: u16, resource: &Resource, object: &Value, shown: Shown) -> Response<ResponseBody> {
    match shown.representation {
        Representation::Metadata => response::json(code, &table::partial_metadata(object)),
        Representation::Table => {
            let metadata = json!({"resourceVersion": table::text(object, "/metadata/resourceVersion")});
            let row = table::row(&resource.columns, object, shown.include, Timestamp::now());
            response::json(
                code,
                &table::table(&metadata, Some(resource.columns.definitions()), vec![row]),
            )
        }
        _ => response::json(code, &in_version(object.clone(), resource)),
    }
}

/// A list as an answer.
pub(crate) fn list_response(
    store: &Store,
    resource: &Resource,
    namespace: Option<&str>,
    options: &ListOptions,
    shown: Shown,
) -> Result<Response<ResponseBody>, ApiError> {
    let page = page(store, resource, namespace, options)?;
    let items = page.items.iter();
    Ok(match shown.representation {
        Representation::Table => {
            let now = Timestamp::now();
            let rows = items
                .map(|item| table::row(&resource.columns, &item.value(), shown.include, now))
                .collect();
            let table = table::table(&page.metadata, Some(resource.columns.definitions()), rows);
            response::json(200, &table)
        }
        Representation::Metadata => {
            let items: Vec<Value> = items.map(|item| table::partial_metadata(&item.value())).collect();
            response::json(
                200,
                &json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": page.metadata, "items": items,
                }),
            )
        }
        _ => response::bytes(200, "application/json", response::list_bytes(resource, &page.metadata, items)),
    })
}

/// The revision that a list has to show, if it is not the latest.
fn wanted_revision(options: &ListOptions, current: u64) -> Result<Option<u64>, ApiError> {
    let Some(asked) = options.resource_version.filter(|asked| *asked > 0) else {
        return Ok(None);
    };
    if asked > current {
        return Err(ApiError::revision_from_the_future(asked, current));
    }
    Ok((options.resource_version_match.as_deref() == Some("Exact")).then_some(asked))
}

/// Where a page ended; opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Position {
    /// Revision of the first page: a watch from there misses nothing on any page.
    revision: u64,
    namespace: String,
    name: String,
}

struct Page {
    metadata: Value,
    items: Vec<Stored>,
}

fn page(store: &Store, resource: &Resource, namespace: Option<&str>, options: &ListOptions) -> Result<Page, ApiError> {
    let start = options.continue_token.as_deref().map(read_position).transpose()?;
    let after = start
        .as_ref()
        .map(|start| ObjectName::new(Some(&start.namespace), &start.name));
    let current = store.revision();
    let exact = match &start {
        Some(start) if start.revision > current => return Err(ApiError::new(410, "Expired", CONTINUE_TOO_OLD)),
        Some(start) => Some(start.revision),
        None => wanted_revision(options, current)?,
    };
    let listing = match exact {
        Some(revision) => Listing {
            revision,
            items: store
                .list_at(&resource.id, namespace, after.as_ref(), revision)
                .map_err(|expired| match &start {
                    Some(_) => ApiError::new(410, "Expired", CONTINUE_TOO_OLD),
                    None => ApiError::expired(expired.asked, expired.oldest),
                })?,
        },
        None => store.list_after(&resource.id, namespace, after.as_ref()),
    };
    let revision = listing.revision;
    let mut items = selected(listing, resource, options);
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if options.limit > 0 && items.len() > options.limit {
        let remaining = items.len() - options.limit;
        items.truncate(options.limit);
        metadata["continue"] = json!(items.last().map(|last| write_position(revision, &last.value())));
        if options.labels.is_empty() && options.fields.is_empty() {
            metadata["remainingItemCount"] = json!(remaining);
        }
    }
    Ok(Page { metadata, items })
}

const CONTINUE_TOO_OLD: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
     without the continue parameter.";

/// Objects are only read where there is something to compare or to make of them.
fn selected(listing: Listing, resource: &Resource, options: &ListOptions) -> Vec<Stored> {
    let mut items = listing.items;
    if resource.view.is_some() {
        let seen = items.iter().filter_map(|item| resource.see(item.value()));
        items = seen.map(|object| Stored::of(&object)).collect();
    }
    if !options.labels.is_empty() || !options.fields.is_empty() {
        items.retain(|item| {
            let object = item.value();
            options.labels.matches(&object) && options.fields.matches(&object)
        });
    }
    items
}

fn write_position(revision: u64, last: &Value) -> String {
    let (namespace, name) = (table::text(last, "/metadata/namespace"), table::text(last, "/metadata/name"));
    URL_SAFE_NO_PAD.encode(json!({"revision": revision, "namespace": namespace, "name": name}).to_string())
}

fn read_position(token: &str) -> Result<Position, ApiError> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    decoded
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| ApiError::bad_request("continue key is not valid: it was not made by this server"))
}

/// What a watch request is answered with.
pub(crate) struct WatchRequest {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) options: ListOptions,
    pub(crate) shown: Shown,
    pub(crate) shutdown: CancellationToken,
}

/// A watch as an answer that goes on.
pub(crate) fn watch_response(store: &Arc<Store>, request: WatchRequest) -> Result<Response<ResponseBody>, ApiError> {
    let view = WatchView {
        resource: request.resource,
        namespace: request.namespace,
        options: request.options,
        representation: request.shown.representation,
        include: request.shown.include,
    };
    let start = watch_start(store, &view)?;
    Ok(response::streamed(watching::stream(
        view,
        store.clone(),
        start,
        request.shutdown,
    )))
}

fn watch_start(store: &Store, view: &WatchView) -> Result<WatchStart, ApiError> {
    let options = &view.options;
    let asked = options.resource_version.unwrap_or(0);
    let listing = store.list(&view.resource.id, view.namespace.as_deref());
    if asked > listing.revision {
        return Err(ApiError::revision_from_the_future(asked, listing.revision));
    }
    if asked > 0 && !options.send_initial_events {
        return Ok(WatchStart {
            position: asked,
            initial: Vec::new(),
        });
    }
    Ok(WatchStart {
        position: listing.revision,
        initial: selected(listing, &view.resource, options),
    })
}
