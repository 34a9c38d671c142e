//! Query parameters of list, watch and write requests as typed options. Pure.

use serde_json::Value;

use super::error::ApiError;
use super::front::RequestContext;
use super::selector::LabelSelector;
use crate::core::request_query::{FieldSelector, Query};

fn number(query: &Query, name: &str) -> Result<Option<u64>, ApiError> {
    let Some(given) = query.get(name) else { return Ok(None) };
    let number = given.parse().map(Some);
    number.map_err(|_| ApiError::bad_request(format!("query parameter {name}={given:?} is not a number")))
}

/// `ListOptions`.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Objects whose labels match.
    pub labels: LabelSelector,
    /// Objects whose fields match.
    pub fields: FieldSelector,
    /// Most objects in one answer; 0 means all.
    pub limit: usize,
    /// Where the previous answer ended.
    pub continue_token: Option<String>,
    /// The revision that the client knows; 0 means any.
    pub resource_version: Option<u64>,
    /// `Exact` or `NotOlderThan`.
    pub resource_version_match: Option<String>,
    /// A watch instead of a list.
    pub watch: bool,
    /// The client understands bookmarks.
    pub bookmarks: bool,
    /// A watch that begins with the current objects and a bookmark at their end.
    pub send_initial_events: bool,
    /// When the server ends the watch.
    pub timeout_seconds: Option<u64>,
}

impl ListOptions {
    /// Reads the options; a selector that does not parse is an error.
    pub fn parse(query: &Query) -> Result<ListOptions, ApiError> {
        Ok(ListOptions {
            labels: LabelSelector::parse(query.get("labelSelector").unwrap_or_default())
                .map_err(|error| ApiError::bad_request(error.to_string()))?,
            fields: FieldSelector::parse(query.get("fieldSelector").unwrap_or_default())
                .map_err(|error| ApiError::bad_request(error.to_string()))?,
            limit: number(query, "limit")?
                .and_then(|limit| usize::try_from(limit).ok())
                .unwrap_or(0),
            continue_token: query.get("continue").map(str::to_owned),
            resource_version: resource_version(query)?,
            resource_version_match: query.get("resourceVersionMatch").map(str::to_owned),
            watch: query.flag("watch"),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events: query.flag("sendInitialEvents"),
            timeout_seconds: number(query, "timeoutSeconds")?,
        })
    }
}

fn resource_version(query: &Query) -> Result<Option<u64>, ApiError> {
    let Some(text) = query.get("resourceVersion") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

/// Options of create, update, patch and delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Answer as if done, and do nothing.
    pub dry_run: bool,
    /// Who owns the fields that the request sets.
    pub field_manager: String,
    /// Take fields away from other managers.
    pub force: bool,
    /// `Ignore`, `Warn` or `Strict`.
    pub field_validation: String,
    /// Who asks, for messages.
    pub user: String,
    /// The asker's groups.
    pub groups: Vec<String>,
    /// Who sent the request, where that one acts as the asker.
    pub sender: Option<String>,
}

impl WriteOptions {
    /// Reads the options; without `fieldManager` the manager is the user agent up to its first slash, as in Kubernetes.
    pub fn parse(query: &Query, user_agent: &str, context: &RequestContext) -> Result<WriteOptions, ApiError> {
        let dry_run = match query.get("dryRun") {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(ApiError::bad_request(format!(
                    "Invalid value: {other:?}: dryRun may only be \"All\""
                )));
            }
        };
        let manager = query.get("fieldManager").or_else(|| user_agent.split('/').next());
        Ok(WriteOptions {
            dry_run,
            field_manager: manager.filter(|name| !name.is_empty()).unwrap_or("unknown").to_owned(),
            force: query.flag("force"),
            field_validation: query.get("fieldValidation").unwrap_or("Warn").to_owned(),
            user: context.user.clone(),
            groups: context.groups.clone(),
            sender: context.sender.clone(),
        })
    }
}

/// `DeleteOptions`, from the body and the query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// Delete only an object with this UID.
    pub uid: Option<String>,
    /// Delete only this very revision.
    pub resource_version: Option<String>,
    /// `Foreground`, `Background` or `Orphan`.
    pub propagation: Option<String>,
    /// Seconds that the object may take to go.
    pub grace_seconds: Option<i64>,
}

impl DeleteOptions {
    /// The body's fields win over the query's, as in Kubernetes.
    pub fn parse(query: &Query, body: Option<&Value>) -> DeleteOptions {
        let text = |pointer: &str| body?.pointer(pointer)?.as_str().map(str::to_owned);
        let grace = || body?.get("gracePeriodSeconds")?.as_i64();
        DeleteOptions {
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            propagation: text("/propagationPolicy").or_else(|| query.get("propagationPolicy").map(str::to_owned)),
            grace_seconds: grace().or_else(|| query.get("gracePeriodSeconds").and_then(|text| text.parse().ok())),
        }
    }

    /// Whether the body asks for a dry run.
    pub fn body_wants_dry_run(body: Option<&Value>) -> bool {
        body.and_then(|body| body.get("dryRun"))
            .and_then(Value::as_array)
            .is_some_and(|list| list.iter().any(|entry| entry == "All"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn reads_list_options() {
        let query = Query::parse("watch=true&labelSelector=app%3Dweb%2Ctier+in+%28a%2Cb%29&limit=500&resourceVersion=7");
        let options = ListOptions::parse(&query).unwrap();
        assert!(options.watch);
        assert_eq!((options.limit, options.resource_version), (500, Some(7)));
        assert!(ListOptions::parse(&Query::parse("resourceVersion=x")).is_err());
    }

    #[test]
    fn the_manager_defaults_to_the_user_agent() {
        let options = WriteOptions::parse(
            &Query::parse("dryRun=All"),
            "kubectl/v1.32 (linux)",
            &RequestContext::default(),
        )
        .unwrap();
        assert_eq!((options.field_manager.as_str(), options.dry_run), ("kubectl", true));
    }
}
