//! What was let in and goes on: each response body and upgraded connection holds a lease, which is cut when the right to it ends.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::audit::AuditRecord;
use super::auth::Caller;
use crate::core::access::{Need, Refusal};
use crate::tunnel::AbortHandle;
use crate::tunnel::http::{Body, BoxError};

const ENDED: &str = "the right to this request has ended, or the credential that it came with";

type Standing = Arc<Mutex<HashMap<u64, Weak<Lease>>>>;

/// Every lease that stands.
#[derive(Debug, Default)]
pub struct Leases {
    standing: Standing,
    next: AtomicU64,
}

/// The right to one request, for as long as it goes on.
#[derive(Debug)]
pub struct Lease {
    number: u64,
    caller: Caller,
    need: Need,
    cut: CancellationToken,
    /// Breaks off what goes on at a cluster, though a client that stands still reads nothing of it.
    breaks_off: Mutex<Option<AbortHandle>>,
    standing: Standing,
}

fn lock(standing: &Standing) -> MutexGuard<'_, HashMap<u64, Weak<Lease>>> {
    // Entries are put in and taken out whole.
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Leases {
    /// A new lease.
    pub fn grant(&self, caller: Caller, need: Need) -> Arc<Lease> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let lease = Arc::new(Lease {
            number,
            caller,
            need,
            cut: CancellationToken::new(),
            breaks_off: Mutex::new(None),
            standing: Arc::clone(&self.standing),
        });
        lock(&self.standing).insert(number, Arc::downgrade(&lease));
        lease
    }

    /// Who holds the leases that stand.
    pub fn callers(&self) -> Vec<Caller> {
        let standing: Vec<Arc<Lease>> = lock(&self.standing).values().filter_map(Weak::upgrade).collect();
        standing.iter().map(|lease| lease.caller.clone()).collect()
    }

    /// Cuts every lease that the condition no longer holds for.
    pub fn cut_unless(&self, holds: impl Fn(&Caller, &Need) -> bool) {
        let standing: Vec<Arc<Lease>> = lock(&self.standing).values().filter_map(Weak::upgrade).collect();
        for lease in standing {
            if !lease.cut.is_cancelled() && !holds(&lease.caller, &lease.need) {
                tracing::info!(
                    user = lease.caller.user.name,
                    "a request that goes on is cut: its right or credential has ended"
                );
                lease.end();
            }
        }
    }
}

impl Lease {
    fn end(&self) {
        self.cut.cancel();
        let breaks_off = self.breaks_off.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(stream) = breaks_off {
            stream.abort();
        }
    }

    /// What is broken off when the right ends.
    pub fn breaks_off(&self, stream: AbortHandle) {
        *self.breaks_off.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
        // It may have ended before.
        if self.cut.is_cancelled() {
            self.end();
        }
    }

    /// Cancelled when the right ends.
    pub fn ended(&self) -> CancellationToken {
        self.cut.clone()
    }

    /// What a request waits for, unless the right to it ends first.
    pub async fn during<T>(&self, wait: impl Future<Output = T>) -> Result<T, Refusal> {
        tokio::select! {
            // What has ended counts, though what was waited for may have come at the same time.
            biased;
            () = self.cut.cancelled() => Err(Refusal::forbidden("forbidden: the right to this request ended while it waited")),
            done = wait => Ok(done),
        }
    }

    /// The response, its body bound to this lease.
    pub fn bind(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        self.bind_body(response, None)
    }

    /// The same for an answer of a cluster, whose bytes are counted.
    pub fn bind_counted(self: &Arc<Self>, response: Response<Body>, record: Arc<AuditRecord>) -> Response<Body> {
        self.bind_body(response, Some(record))
    }

    fn bind_body(self: &Arc<Self>, response: Response<Body>, record: Option<Arc<AuditRecord>>) -> Response<Body> {
        response.map(|body| {
            LeasedBody {
                body,
                ended: Box::pin(self.cut.clone().cancelled_owned()),
                record,
                _lease: Arc::clone(self),
            }
            .boxed_unsync()
        })
    }

    /// A connection to a cluster bound to this lease, which counts what comes.
    pub fn bind_stream<S>(self: &Arc<Self>, stream: S, record: Arc<AuditRecord>) -> LeasedStream<S> {
        LeasedStream {
            stream,
            ended: Box::pin(self.cut.clone().cancelled_owned()),
            record,
            lease: Arc::clone(self),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        lock(&self.standing).remove(&self.number);
    }
}

struct LeasedBody {
    body: Body,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    record: Option<Arc<AuditRecord>>,
    /// Stands for as long as the body does.
    _lease: Arc<Lease>,
}

impl hyper::body::Body for LeasedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(ENDED.into())));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(record), Some(Ok(frame))) = (&self.record, &frame) {
            record.count(frame.data_ref().map_or(0, Bytes::len));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that ends with its lease.
#[derive(Debug)]
pub struct LeasedStream<S> {
    stream: S,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    record: Arc<AuditRecord>,
    lease: Arc<Lease>,
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, ENDED)
}

impl<S> LeasedStream<S> {
    /// Wakes the reader when the right ends.
    fn poll_ended(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.ended.as_mut().poll(context) {
            Poll::Ready(()) => Err(ended()),
            Poll::Pending => Ok(()),
        }
    }

    /// The same for writers, of whom none waits for it: whoever passes bytes on is ended by [`Lease::ended`].
    fn check(&self) -> io::Result<()> {
        match self.lease.cut.is_cancelled() {
            true => Err(ended()),
            false => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LeasedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_ended(context)?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.record.count(buffer.filled().len() - before);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LeasedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
