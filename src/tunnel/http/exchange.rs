//! One request and its answer through one stream: streamed both ways, handed over when it is an upgrade. Never reuses a stream, never buffers a
//! body, never retries.
//!
//! ```text
//! hub:    header of the stream │ head of the request │ its body, if the header says so │ end
//! agent:  head of the answer │ its body │ end         (after 101 both go on as they like)
//! ```
//!
//! A body goes as it is: the end of the stream is its end, and one that broke off resets the stream. So neither end runs an HTTP connection for
//! each request, an answer that is there at once goes out in one piece, and what waits in vain for an event costs little.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use hyper_util::rt::TokioIo;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::head::{self, HeadError, MAX_HEAD, Read};
use super::splice::{LINGER, splice};
use super::{Body, BoxError, empty, headers, stream as passed_on};
use crate::tunnel::{AbortHandle, TunnelStream};

/// How long a request's head may take to come.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request got no answer, or an answer did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The stream was reset, or its tunnel was lost.
    #[error("the other side broke the request off")]
    Io(#[from] io::Error),
    /// What came is no head.
    #[error("the other side cannot be understood")]
    Head(#[from] HeadError),
    /// The other side switched protocols unasked.
    #[error("the other side switched protocols although nobody asked for it")]
    UnaskedUpgrade,
    /// The answer's body broke off.
    #[error("the answer broke off")]
    Body(#[source] BoxError),
}

/// What a request got.
#[derive(Debug)]
pub struct Answered {
    /// The answer, whose body comes as it is read; with 101 an empty one.
    pub response: Response<Body>,
    /// With 101 the stream, for whoever asked for it.
    pub switched: Option<TunnelStream>,
    /// Breaks off what goes on, though nobody may be reading.
    pub abort: AbortHandle,
}

/// Whether a request's body goes along: the stream's header has to say so.
pub fn has_body<B: hyper::body::Body>(request: &Request<B>) -> bool {
    !request.body().is_end_stream() && !headers::asks_for_upgrade(request.headers())
}

/// Sends a request through a stream whose header was announced, and gives the answer as it comes. The request's URI may be absolute; its headers go
/// out as they are, so remove what may not pass before.
pub async fn exchange<B>(stream: TunnelStream, request: Request<B>) -> Result<Answered, ExchangeError>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (has_body, asks) = (has_body(&request), headers::asks_for_upgrade(request.headers()));
    let head = head::write_request(&request);
    stage(&stream, &head).await?;
    let stream = Arc::new(stream);
    let sending = match has_body {
        true => Some(AbortOnDropHandle::new(tokio::spawn(send_body(
            Arc::clone(&stream),
            passed_on(request.into_body()),
        )))),
        false if asks => {
            stream.push();
            None
        }
        false => {
            stream.finish()?;
            None
        }
    };
    let head = read_head(&stream, head::read_response).await?;
    let abort = stream.abort_handle();
    let mut response = head.map(|()| empty());
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !asks {
        return Err(ExchangeError::UnaskedUpgrade);
    }
    if switched {
        let switched = Arc::into_inner(stream);
        return Ok(Answered {
            response,
            switched,
            abort,
        });
    }
    headers::remove_hop_by_hop(response.headers_mut());
    if asks {
        // The caller's connection is in doubt: it may have sent data of the new protocol already.
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let rest = Rest {
        stream,
        _sending: sending,
    };
    Ok(Answered {
        response: response.map(|_| passed_on(rest)),
        switched: None,
        abort,
    })
}

/// Stages a head, so that it goes out with what follows; writes what there is no room for.
async fn stage(stream: &TunnelStream, head: &[u8]) -> io::Result<()> {
    let staged = stream.stage(head);
    stream.send(&head[staged..]).await
}

/// Sends the body of a request. That nobody takes it any more is no error: there may be an answer all the same.
async fn send_body(stream: Arc<TunnelStream>, mut body: Body) {
    // The head must not wait for a caller that is slow.
    stream.push();
    while let Some(frame) = body.frame().await {
        // Trailers do not go along: Kubernetes knows none.
        let data = match frame {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(_) => {
                debug!("a request's body broke off");
                return stream.abort_handle().abort();
            }
        };
        if stream.send(&data).await.is_err() {
            return;
        }
    }
    let _ = stream.finish();
}

/// Reads a head; what came behind it is put back.
async fn read_head<T>(stream: &TunnelStream, read: fn(&Bytes) -> Read<T>) -> Result<T, ExchangeError> {
    let mut bytes = Bytes::new();
    loop {
        let chunk = std::future::poll_fn(|cx| stream.poll_chunk(cx)).await?;
        if chunk.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        bytes = match bytes.is_empty() {
            true => chunk,
            false => {
                let mut both = BytesMut::from(bytes);
                both.extend_from_slice(&chunk);
                both.freeze()
            }
        };
        if let Some((head, length)) = read(&bytes)? {
            stream.put_back(bytes.slice(length..));
            return Ok(head);
        }
        if bytes.len() > MAX_HEAD {
            return Err(HeadError::TooLong.into());
        }
    }
}

/// Serves the request of a stream whose header was read and says whether a body follows. The answer is given up with the stream: when the hub resets
/// it, or the tunnel is lost.
pub async fn serve<Answer>(
    stream: TunnelStream,
    has_body: bool,
    answer: impl FnOnce(Request<Body>) -> Answer,
) -> Result<(), ExchangeError>
where
    Answer: Future<Output = Response<Body>>,
{
    let head = tokio::time::timeout(HEAD_TIMEOUT, read_head(&stream, head::read_request));
    let request = head.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let stream = Arc::new(stream);
    // The request's body may still be held by whoever it is sent to.
    let abort = stream.abort_handle();
    let request = request.map(|()| match has_body {
        true => passed_on(Rest {
            stream: Arc::clone(&stream),
            _sending: None,
        }),
        false => empty(),
    });
    let response = tokio::select! {
        response = answer(request) => response,
        () = stream.over() => return Err(reset()),
    };
    let sent = send_answer(stream, response).await;
    if sent.is_err() {
        abort.abort();
    }
    sent
}

fn reset() -> ExchangeError {
    io::Error::from(io::ErrorKind::ConnectionReset).into()
}

async fn send_answer(stream: Arc<TunnelStream>, mut response: Response<Body>) -> Result<(), ExchangeError> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upgraded = switched.then(|| hyper::upgrade::on(&mut response));
    stage(&stream, &head::write_response(&response)).await?;
    match upgraded {
        Some(upgraded) => hand_over(stream, upgraded).await,
        None => send_rest(&stream, response.into_body()).await,
    }
}

/// Sends an answer's body behind its head, which goes out at once where nothing follows at once.
async fn send_rest(stream: &TunnelStream, mut body: Body) -> Result<(), ExchangeError> {
    let mut is_pushed = false;
    while !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            // What comes with the head in one piece is handed over by another task, which gets its turn first.
            () = tokio::task::yield_now(), if !is_pushed => {
                stream.push();
                is_pushed = true;
                continue;
            }
            () = stream.over() => return Err(reset()),
        };
        let Some(frame) = frame else { break };
        // Trailers do not go along: Kubernetes knows none.
        let data = frame.map_err(ExchangeError::Body)?.into_data().unwrap_or_default();
        stream.send(&data).await?;
    }
    Ok(stream.finish()?)
}

/// Joins the stream with what its request became.
async fn hand_over(stream: Arc<TunnelStream>, upgraded: hyper::upgrade::OnUpgrade) -> Result<(), ExchangeError> {
    let Some(stream) = Arc::into_inner(stream) else {
        return Err(ExchangeError::UnaskedUpgrade);
    };
    stream.push();
    let upgraded = upgraded.await.map_err(io::Error::other)?;
    Ok(splice(stream, TokioIo::new(upgraded), LINGER).await?)
}

/// What still comes of a stream, as a body.
struct Rest {
    stream: Arc<TunnelStream>,
    /// The request is sent as long as its answer is read.
    _sending: Option<AbortOnDropHandle<()>>,
}

impl hyper::body::Body for Rest {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = ready!(self.stream.poll_chunk(cx))?;
        Poll::Ready((!chunk.is_empty()).then_some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_ended()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use futures::StreamExt as _;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::super::{full, stream};
    use super::*;
    use crate::tunnel::{Role, Tunnel, TunnelSettings, start};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Both ends of a tunnel.
    fn ends() -> (Tunnel, Tunnel) {
        let (near, far) = duplex(100_000);
        (
            start(near, Role::Hub, &TunnelSettings::hub()),
            start(far, Role::Agent, &TunnelSettings::agent()),
        )
    }

    /// What comes of a request when the agent's end answers so, and how that went there.
    async fn ask<Answer: Future<Output = Response<Body>>>(
        request: Request<Body>,
        answer: impl FnOnce(Request<Body>) -> Answer,
    ) -> (
        Result<(StatusCode, Result<Bytes, BoxError>), ExchangeError>,
        Result<(), ExchangeError>,
    ) {
        let (hub, mut agent) = ends();
        let has_body = has_body(&request);
        let asking = async {
            let answered = exchange(hub.handle.open().unwrap(), request).await?;
            let status = answered.response.status();
            let body = answered.response.into_body().collect().await;
            Ok((status, body.map(http_body_util::Collected::to_bytes)))
        };
        let serving = async { serve(agent.incoming.recv().await.unwrap(), has_body, answer).await };
        let both = async {
            let both = tokio::join!(asking, serving);
            while hub.handle.open_streams() + agent.handle.open_streams() > 0 {
                tokio::task::yield_now().await;
            }
            both
        };
        tokio::time::timeout(PATIENCE, both)
            .await
            .expect("it ends, and no stream stays")
    }

    fn pieces(lengths: Vec<usize>) -> (Vec<u8>, Body) {
        let pieces = lengths.into_iter().enumerate();
        let pieces: Vec<Bytes> = pieces.map(|(seed, length)| vec![seed as u8; length].into()).collect();
        let frames = futures::stream::iter(pieces.clone()).map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
        (pieces.concat(), stream(StreamBody::new(frames)))
    }

    /// Begins and breaks off.
    fn broken() -> Body {
        let frames = [Ok(Frame::data(Bytes::from_static(b"begun"))), Err(BoxError::from("broken"))];
        stream(StreamBody::new(futures::stream::iter(frames)))
    }

    fn post(body: Body) -> Request<Body> {
        Request::post("/a?b=c").header("x-of", "request").body(body).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn bodies_arrive_whole_both_ways(
            sent in proptest::collection::vec(0usize..200_000, 0..6),
            answered in proptest::collection::vec(0usize..200_000, 0..6),
            long in 0usize..100_000,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let ((sent, request), (answer, body)) = (pieces(sent), pieces(answered));
            let (outcome, served) = runtime.block_on(ask(post(request), async |request: Request<Body>| {
                assert_eq!(request.uri(), "/a?b=c");
                assert_eq!(request.headers()["x-of"], "request");
                assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), sent);
                Response::builder().status(207).header("x-long", "x".repeat(long)).body(body).unwrap()
            }));
            let (status, received) = outcome.unwrap();
            prop_assert_eq!((status.as_u16(), received.unwrap()), (207, Bytes::from(answer)));
            prop_assert!(served.is_ok());
        }
    }

    #[tokio::test]
    async fn what_breaks_off_is_no_end() {
        let (outcome, served) = ask(post(empty()), async |_| Response::new(broken())).await;
        assert!(outcome.unwrap().1.is_err() && matches!(served, Err(ExchangeError::Body(_))));
        let (outcome, _) = ask(post(broken()), async |request: Request<Body>| {
            request.into_body().collect().await.unwrap_err();
            Response::new(empty())
        })
        .await;
        assert!(matches!(outcome, Err(ExchangeError::Io(_))));
    }

    #[tokio::test]
    async fn an_answer_need_not_wait_for_the_question() {
        let endless = futures::stream::repeat_with(|| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; 10_000]))));
        let request = post(stream(StreamBody::new(endless)));
        let (outcome, served) = ask(request, async |_| {
            let mut response = Response::new(full("too much"));
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        })
        .await;
        let (status, body) = outcome.unwrap();
        assert_eq!(
            (status, &body.unwrap()[..]),
            (StatusCode::PAYLOAD_TOO_LARGE, &b"too much"[..])
        );
        served.unwrap();
    }

    #[tokio::test]
    async fn who_goes_away_ends_what_was_asked() {
        let silent = || stream(StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, BoxError>>()));
        for answers in [false, true] {
            let (hub, mut agent) = ends();
            let asking = async {
                let answered = exchange(hub.handle.open().unwrap(), post(empty()));
                // The head comes though its body says nothing.
                let answered = tokio::time::timeout(Duration::from_millis(300), answered).await;
                assert_eq!(answered.is_ok(), answers);
            };
            let serving = async {
                let stream = agent.incoming.recv().await.unwrap();
                let answer = async |_| match answers {
                    true => Response::new(silent()),
                    false => std::future::pending().await,
                };
                serve(stream, false, answer).await
            };
            let ((), served) = tokio::time::timeout(PATIENCE, async { tokio::join!(asking, serving) })
                .await
                .unwrap();
            assert!(matches!(served, Err(ExchangeError::Io(_))), "{served:?}");
        }
    }

    #[tokio::test]
    async fn nobody_switches_protocols_unasked_or_speaks_another_one() {
        for (said, why) in [
            ("HTTP/1.1 101 \r\n\r\n", "switched protocols"),
            ("SSH-2.0-OpenSSH\r\n", "cannot be understood"),
            ("HTTP/1.1 200", "broke the request off"),
        ] {
            let (hub, mut agent) = ends();
            let saying = async {
                let stream = agent.incoming.recv().await.unwrap();
                for byte in said.as_bytes() {
                    // Whoever understands nothing has gone already.
                    let _ = stream.send(&[*byte]).await;
                    tokio::task::yield_now().await;
                }
                let _ = stream.finish();
            };
            let (answered, ()) = tokio::join!(exchange(hub.handle.open().unwrap(), post(empty())), saying);
            let error = answered.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
