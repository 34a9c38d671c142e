//! HTTP responses of the front: bodies, content types, lists written without copying their objects.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderName, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use serde_json::Value;

use super::error::ApiError;
use super::resource::Resource;
use super::store::Stored;

/// The body of every answer; it never fails by itself.
pub type ResponseBody = UnsyncBoxBody<Bytes, Infallible>;

/// A JSON answer.
pub fn json(code: u16, value: &Value) -> Response<ResponseBody> {
    bytes(code, "application/json", value.to_string().into())
}

/// A text answer.
pub fn text(code: u16, text: String) -> Response<ResponseBody> {
    bytes(code, "text/plain; charset=utf-8", text.into())
}

/// The `Status` object of an error under its code.
pub fn error(error: &ApiError) -> Response<ResponseBody> {
    let mut response = json(error.code, &error.to_status());
    let seconds = error.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if seconds > 0 {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Any finished answer.
pub(crate) fn bytes(code: u16, content_type: &'static str, content: Bytes) -> Response<ResponseBody> {
    with_body(code, content_type, Full::new(content).boxed_unsync())
}

/// A watch: chunks as they come.
pub(crate) fn streamed(chunks: impl Stream<Item = Bytes> + Send + 'static) -> Response<ResponseBody> {
    let frames = chunks.map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    with_body(200, "application/json", StreamBody::new(frames).boxed_unsync())
}

fn with_body(code: u16, content_type: &'static str, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Adds `Warning` headers, which kubectl prints.
pub(crate) fn add_warnings(response: &mut Response<ResponseBody>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(HeaderName::from_static("warning"), value);
        }
    }
}

/// A list of objects in one version of their resource, written straight from the shared objects.
pub(crate) fn list_bytes<'a>(resource: &Resource, metadata: &Value, items: impl Iterator<Item = &'a Stored>) -> Bytes {
    let api_version = Value::String(resource.api_version());
    let kind = format!("{}List", resource.kind);
    let mut out = format!(r#"{{"kind":"{kind}","apiVersion":{api_version},"metadata":{metadata},"items":["#).into_bytes();
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        push_item(&mut out, item, &api_version);
    }
    out.extend_from_slice(b"]}");
    out.into()
}

fn push_item(out: &mut Vec<u8>, item: &Stored, api_version: &Value) {
    // Kept objects begin with their version, because their keys are sorted.
    if item.text().starts_with(&format!("{{\"apiVersion\":{api_version},")) {
        out.extend_from_slice(item.text().as_bytes());
        return;
    }
    let mut item = item.value();
    if let Some(map) = item.as_object_mut() {
        map.insert("apiVersion".to_owned(), api_version.clone());
    }
    out.extend_from_slice(item.to_string().as_bytes());
}
