//! Heads of requests and of their answers as they stand in a stream: in the syntax of HTTP/1.1 (RFC 9112 §2.1), a line for each field. Pure.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

/// The longest head in bytes.
pub(super) const MAX_HEAD: usize = 256 << 10;
/// The most fields of a head.
const MAX_FIELDS: usize = 128;

/// Why bytes are no head.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not in HTTP's syntax.
    #[error("it does not speak HTTP/1.1: {0}")]
    Syntax(#[from] httparse::Error),
    /// A part that HTTP's syntax allows and nobody can use.
    #[error("its head has a part that cannot be used")]
    Unusable(#[from] http::Error),
    /// Longer than allowed.
    #[error("its head is longer than the {MAX_HEAD} bytes allowed")]
    TooLong,
}

/// A head with its length in bytes; `None` while its end is missing.
pub(super) type Read<T> = Result<Option<(T, usize)>, HeadError>;

/// The head of a request, whose target becomes path and query alone.
pub(super) fn write_request<B>(request: &Request<B>) -> Vec<u8> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let line = [request.method().as_str(), " ", target, " HTTP/1.1\r\n"].concat();
    write(&line, request.headers())
}

/// The head of an answer.
pub(super) fn write_response<B>(response: &Response<B>) -> Vec<u8> {
    let line = ["HTTP/1.1 ", response.status().as_str(), " \r\n"].concat();
    write(&line, response.headers())
}

fn write(line: &str, headers: &HeaderMap) -> Vec<u8> {
    let length = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 4;
    let mut head = Vec::with_capacity(line.len() + headers.iter().map(length).sum::<usize>() + 2);
    head.extend_from_slice(line.as_bytes());
    for (name, value) in headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// A request's head at the begin of these bytes.
pub(super) fn read_request(bytes: &Bytes) -> Read<Request<()>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes)? else {
        return Ok(None);
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(http::Error::from)?;
    *request.uri_mut() = Uri::try_from(parsed.path.unwrap_or_default()).map_err(http::Error::from)?;
    *request.headers_mut() = read_fields(bytes, parsed.headers)?;
    Ok(Some((request, length)))
}

/// An answer's head at the begin of these bytes.
pub(super) fn read_response(bytes: &Bytes) -> Read<Response<()>> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = parsed.parse(bytes)? else {
        return Ok(None);
    };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or_default()).map_err(http::Error::from)?;
    *response.headers_mut() = read_fields(bytes, parsed.headers)?;
    Ok(Some((response, length)))
}

/// The fields, whose values share the memory of the bytes.
fn read_fields(bytes: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(http::Error::from)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).map_err(http::Error::from)?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn fields() -> impl Strategy<Value = HeaderMap> {
        let value = proptest::collection::vec(prop_oneof![Just(9u8), 32u8..127, 128u8..], 0..40);
        let field = ("[a-zA-Z][a-zA-Z0-9-]{0,20}", value);
        proptest::collection::vec(field, 0..20).prop_map(|fields| {
            let field = |(name, value): (String, Vec<u8>)| {
                let name: HeaderName = name.parse().unwrap();
                (name, HeaderValue::from_bytes(value.trim_ascii()).unwrap())
            };
            fields.into_iter().map(field).collect()
        })
    }

    /// What is read of every begin of these bytes: nothing, until all of them are there.
    fn read<T>(head: &[u8], behind: &[u8], read: fn(&Bytes) -> Read<T>) -> T {
        for end in 0..head.len() {
            assert!(read(&Bytes::copy_from_slice(&head[..end])).unwrap().is_none());
        }
        let (value, length) = read(&[head, behind].concat().into()).unwrap().unwrap();
        assert_eq!(length, head.len());
        value
    }

    proptest! {
        #[test]
        fn heads_survive_the_stream(
            method in "[A-Z]{1,10}",
            target in "/[a-z0-9/%._~-]{0,30}(\\?[a-z=&]{0,20})?",
            status in 100u16..1000,
            headers in fields(),
            behind: Vec<u8>,
        ) {
            let mut request = Request::builder().method(method.as_str()).uri(format!("https://elsewhere{target}")).body(()).unwrap();
            *request.headers_mut() = headers.clone();
            let back = read(&write_request(&request), &behind, read_request);
            prop_assert_eq!((back.method().as_str(), back.uri().to_string()), (&*method, target));
            prop_assert_eq!(back.headers(), &headers);
            let mut response = Response::builder().status(status).body(()).unwrap();
            *response.headers_mut() = headers.clone();
            let back = read(&write_response(&response), &behind, read_response);
            prop_assert_eq!((back.status().as_u16(), back.headers()), (status, &headers));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, begin in prop_oneof![Just(""), Just("GET / HTTP/1.1\r\n"), Just("HTTP/1.1 200 OK\r\n")]) {
            let bytes: Bytes = [begin.as_bytes(), &bytes].concat().into();
            let _ = (read_request(&bytes), read_response(&bytes));
        }
    }

    #[test]
    fn what_no_server_understands_is_refused() {
        for bytes in [
            "SSH-2.0-OpenSSH_9.6\r\n",
            "HTTP/1.1 20 \r\n\r\n",
            "HTTP/1.1 200 \r\na b: c\r\n\r\n",
            "HTTP/1.1 200 \r\na: b\0\r\n\r\n",
        ] {
            assert!(read_response(&bytes.into()).is_err(), "{bytes:?}");
        }
        for bytes in [
            "GET / HTTP/1.1\r\n a: b\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET /\u{7f} HTTP/1.1\r\n\r\n",
        ] {
            assert!(read_request(&bytes.into()).is_err(), "{bytes:?}");
        }
        let many = format!("HTTP/1.1 200 \r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert!(matches!(
            read_response(&many.into()),
            Err(HeadError::Syntax(httparse::Error::TooManyHeaders))
        ));
    }
}
