//! Taking a tunnel in: the hub's side of the websocket handshake on a hyper request. Asks nobody whether the peer may have one.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::Empty;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::websocket::{WebSocketBytes, accept_key};
use super::{Role, Tunnel, TunnelSettings, start};

/// A request that is no websocket handshake, answered with 400 or 426.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this path takes websockets only: {0}; use `branchline agent`")]
pub struct NotAWebSocket(&'static str);

/// A handshake that was answered; the tunnel stands once the answer is out.
#[derive(Debug)]
pub struct Accepted(OnUpgrade);

/// Checks a handshake. The response must be sent as it is; meanwhile [`Accepted::tunnel`] waits in a task of its own.
pub fn accept<B>(request: &mut Request<B>) -> Result<(Response<Empty<Bytes>>, Accepted), NotAWebSocket> {
    let key = check(request)?;
    let answer = HeaderValue::from_str(&accept_key(key.as_bytes())).map_err(|_| NotAWebSocket("its key is not text"))?;
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, answer);
    Ok((response, Accepted(hyper::upgrade::on(request))))
}

impl Accepted {
    /// The tunnel, once the connection was handed over.
    pub async fn tunnel(self, settings: &TunnelSettings) -> Result<Tunnel, hyper::Error> {
        let upgraded = self.0.await?;
        let bytes = WebSocketBytes::new(TokioIo::new(upgraded), Role::Hub, settings);
        Ok(start(bytes, Role::Hub, settings))
    }
}

fn check<B>(request: &Request<B>) -> Result<HeaderValue, NotAWebSocket> {
    let headers = request.headers();
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(NotAWebSocket("the request is not GET with HTTP/1.1"));
    }
    if !has_token(headers, header::CONNECTION, "upgrade") || !has_token(headers, header::UPGRADE, "websocket") {
        return Err(NotAWebSocket("the request asks for no upgrade to websocket"));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(NotAWebSocket("its websocket version is not 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    key.cloned().ok_or(NotAWebSocket("it has no websocket key"))
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name);
    let mut texts = values.iter().filter_map(|value| value.to_str().ok());
    texts.any(|text| text.split(',').any(|word| word.trim().eq_ignore_ascii_case(token)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn handshake() -> http::request::Builder {
        Request::get("/x")
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    }

    #[test]
    fn a_handshake_gets_the_answer_of_the_standard() {
        let (response, _) = accept(&mut handshake().body(()).unwrap()).unwrap();
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn anything_else_is_refused() {
        let plain = Request::get("/x").body(()).unwrap();
        let post = handshake().method("POST").body(()).unwrap();
        let old = handshake().header("sec-websocket-version", "8").body(()).unwrap();
        let two = handshake().version(Version::HTTP_2).body(()).unwrap();
        for mut request in [plain, post, two] {
            assert!(accept(&mut request).is_err());
        }
        assert!(accept(&mut { old }).is_ok(), "the first version header counts");
    }
}
