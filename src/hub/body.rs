//! Bodies of requests to the hub itself, read whole: bounded in size and in time. A body that is passed on to a cluster never comes here.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

use crate::core::access::Refusal;

/// How long a body may take to come; kube-apiserver gives up after a minute too.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A body of at most `limit` bytes that comes within `time`.
pub(super) async fn whole<B>(body: B, limit: usize, time: Duration) -> Result<Bytes, Refusal>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let read = Limited::new(body, limit).collect();
    let read = tokio::time::timeout(time, read).await.map_err(|_| {
        let message = format!("the request's body did not come within {} s; send it again", time.as_secs());
        Refusal::new(408, "Timeout", message)
    })?;
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {limit}");
            Err(Refusal::new(413, "RequestEntityTooLarge", message))
        }
        Err(error) => {
            let message = format!("the request's body cannot be read: {error}");
            Err(Refusal::new(400, "BadRequest", message))
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::convert::Infallible;

    use futures::{StreamExt as _, stream};
    use http_body_util::{Full, StreamBody};
    use hyper::body::Frame;

    use super::*;

    #[tokio::test]
    async fn a_body_has_an_end_in_size_and_in_time() {
        let body = || Full::new(Bytes::from_static(b"whole"));
        assert_eq!(whole(body(), 5, BODY_TIMEOUT).await.unwrap(), "whole");
        assert_eq!(whole(body(), 4, BODY_TIMEOUT).await.unwrap_err().code, 413);
        let begun = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"h")))]);
        let begun = StreamBody::new(begun.chain(stream::pending()));
        let late = whole(begun, 5, Duration::from_millis(1)).await.unwrap_err();
        assert!(late.code == 408 && late.message.contains("did not come within"), "{late}");
    }
}
