//! Refusals as HTTP answers.

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use crate::core::access::Refusal;
use crate::tunnel::http::{Body, full};

/// The same for somebody who asks what there is. client-go prints of a refusal there only what comes as text (`newUnstructuredResponseError` in
/// its `rest/request.go`), else "unknown".
pub fn refused_discovery(refusal: &Refusal) -> Response<Body> {
    let mut response = refused(refusal);
    *response.body_mut() = full(refusal.message.clone());
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}

/// The answer that carries a refusal as a Kubernetes `Status`.
pub fn refused(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(full(refusal.to_status().to_string()));
    *response.status_mut() = StatusCode::from_u16(refusal.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    if refusal.retry_after_seconds > 0 {
        headers.insert(RETRY_AFTER, HeaderValue::from(refusal.retry_after_seconds));
    }
    response
}
