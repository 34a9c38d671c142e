//! Errors in the exact shape of Kubernetes' `Status`, because clients switch on `reason` and `code` and print `message`.

use serde_json::{Map, Value, json};

use super::resource::Resource;

/// A refused request: what becomes a `Status` object with `status: Failure`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, for example `NotFound`.
    pub reason: &'static str,
    /// What kubectl prints after `Error from server (<reason>): `.
    pub message: String,
    /// The object concerned and the causes, if known.
    pub details: Option<Box<Details>>,
}

/// `Status.details`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// Object name.
    pub name: String,
    /// API group.
    pub group: String,
    /// Plural resource name or kind, as Kubernetes does for the reason at hand.
    pub kind: String,
    /// Object UID.
    pub uid: String,
    /// One entry per field at fault.
    pub causes: Vec<Cause>,
    /// After how many seconds to try again.
    pub retry_after_seconds: u32,
}

/// One field at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// For example `FieldValueInvalid`.
    pub reason: &'static str,
    /// The message without the field's name.
    pub message: String,
    /// Dotted path of the field.
    pub field: String,
}

impl Cause {
    /// A field whose value is not allowed; the text is what Kubernetes prints after the field's name.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Cause {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {value}: {detail}"),
            field: field.into(),
        }
    }

    /// A field that must be given.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        };
        Cause {
            reason: "FieldValueRequired",
            message,
            field: field.into(),
        }
    }
}

impl ApiError {
    /// An error without details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        ApiError {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    fn about(code: u16, reason: &'static str, message: String, resource: &Resource, name: &str) -> Self {
        ApiError {
            code,
            reason,
            message,
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: resource.group.clone(),
                kind: resource.plural.clone(),
                ..Details::default()
            })),
        }
    }

    /// 404: no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        ApiError::about(404, "NotFound", message, resource, name)
    }

    /// 404: no such path or resource.
    pub fn no_such_path() -> Self {
        ApiError {
            details: Some(Box::default()),
            ..ApiError::new(404, "NotFound", "the server could not find the requested resource")
        }
    }

    /// 409: the name is taken.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        ApiError::about(409, "AlreadyExists", message, resource, name)
    }

    /// 409: the write lost a race or contradicts a precondition.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        ApiError::about(409, "Conflict", message, resource, name)
    }

    /// 403: the request is understood and refused.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified());
        ApiError::about(403, "Forbidden", message, resource, name)
    }

    /// 422: fields that may not have these values.
    pub fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let texts: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let listed = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let kind = match resource.group.as_str() {
            "" => resource.kind.clone(),
            group => format!("{}.{group}", resource.kind),
        };
        let mut error = ApiError::about(
            422,
            "Invalid",
            format!("{kind} \"{name}\" is invalid: {listed}"),
            resource,
            name,
        );
        if let Some(details) = &mut error.details {
            details.kind.clone_from(&resource.kind);
            details.causes = causes;
        }
        error
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        ApiError::new(400, "BadRequest", message)
    }

    /// 405: this resource knows no such verb.
    pub fn method_not_allowed() -> Self {
        ApiError::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 405: this resource is changed elsewhere; `why` goes on from its name.
    pub fn method_not_allowed_because(resource: &Resource, name: &str, why: &str) -> Self {
        let object = match name {
            "" => resource.qualified(),
            name => format!("{} \"{name}\"", resource.qualified()),
        };
        ApiError::about(405, "MethodNotAllowed", format!("{object} {why}"), resource, name)
    }

    /// 410: the watch or list position is no longer kept.
    pub fn expired(asked: u64, oldest: u64) -> Self {
        ApiError::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// 504: the client knows a revision that this server has not reached.
    pub fn revision_from_the_future(asked: u64, current: u64) -> Self {
        let cause = Cause {
            reason: "ResourceVersionTooLarge",
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        ApiError {
            details: Some(Box::new(Details {
                causes: vec![cause],
                retry_after_seconds: 1,
                ..Details::default()
            })),
            ..ApiError::new(
                504,
                "Timeout",
                format!("Timeout: Too large resource version: {asked}, current: {current}"),
            )
        }
    }

    /// 406: no acceptable representation.
    pub fn not_acceptable() -> Self {
        ApiError::new(
            406,
            "NotAcceptable",
            "only the following media types are accepted: application/json",
        )
    }

    /// 415: the body's content type is not understood.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        ApiError::new(
            415,
            "UnsupportedMediaType",
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                accepted.join(", ")
            ),
        )
    }

    /// 413: the body is larger than the server reads.
    pub fn too_large(limit: usize) -> Self {
        ApiError::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {limit}"),
        )
    }

    /// 500: a fault of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        ApiError::new(500, "InternalError", format!("Internal error occurred: {}", message.into()))
    }

    /// The `Status` object.
    pub fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let (Some(details), Some(map)) = (&self.details, status.as_object_mut()) {
            map.insert("details".to_owned(), details.to_json());
        }
        status
    }
}

impl Details {
    /// The details as JSON, empty fields left out.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, text) in [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ] {
            if !text.is_empty() {
                map.insert(key.to_owned(), json!(text));
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes".to_owned(), self.causes.iter().map(Cause::to_json).collect());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".to_owned(), json!(self.retry_after_seconds));
        }
        Value::Object(map)
    }
}

impl Cause {
    fn to_json(&self) -> Value {
        let mut cause = json!({"reason": self.reason, "message": self.message});
        if let (false, Some(map)) = (self.field.is_empty(), cause.as_object_mut()) {
            map.insert("field".to_owned(), json!(self.field));
        }
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_found_reads_as_kubernetes_says_it() {
        let error = ApiError::not_found(&Resource::new("apps", "v1", "Deployment", "deployments", true), "web");
        assert_eq!(error.message, "deployments.apps \"web\" not found");
        assert_eq!(
            error.to_status()["details"],
            json!({"name": "web", "group": "apps", "kind": "deployments"})
        );
    }

    #[test]
    fn several_causes_are_bracketed() {
        let resource = Resource::new("", "v1", "ConfigMap", "configmaps", true);
        let causes = vec![Cause::required("a", ""), Cause::required("b", "name it")];
        assert_eq!(
            ApiError::invalid(&resource, "x", causes).message,
            "ConfigMap \"x\" is invalid: [a: Required value, b: Required value: name it]"
        );
    }
}
