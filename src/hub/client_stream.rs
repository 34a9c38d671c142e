//! A client's connection: the client has to begin in time, and it ends so that the last answer on it arrives. Knows no more of HTTP than how
//! version 2 begins.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How an HTTP/2 connection begins (RFC 9113 §3.4). Before all of this has come, the server of HTTP/2 does not look at the clock.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much of an ended connection is still read.
const LINGER_BYTES: usize = 8 << 20;
const PIECE: usize = 4 << 10;

/// What passes bytes on between a socket and an HTTP server.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: S,
    opening: Option<Opening>,
    linger: Duration,
    ending: Option<Ending>,
    handed_over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Opening {
    /// How many bytes of the preface have come.
    seen: usize,
    deadline: Pin<Box<Sleep>>,
}

#[derive(Debug)]
struct Ending {
    bytes: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> ClientStream<S> {
    /// Gives up with [`io::ErrorKind::TimedOut`] when the client has not begun within `opening`. After its end it is read for `linger` at
    /// most: a socket that is closed with unread bytes in it is reset, and a reset takes away the answer that the client has not read yet,
    /// so that it would see a broken connection where it was refused with a reason.
    pub(super) fn new(stream: S, opening: Duration, linger: Duration) -> Self {
        let opening = Opening {
            seen: 0,
            deadline: Box::pin(sleep(opening)),
        };
        ClientStream {
            stream,
            opening: Some(opening),
            linger,
            ending: None,
            handed_over: Arc::default(),
        }
    }

    /// To be set when the connection leaves HTTP: then its end in one direction is not its end.
    pub(super) fn handed_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.handed_over)
    }
}

impl Opening {
    /// Whether the preface may still go on after these bytes. With HTTP/1.1 that ends with the first method's name at the latest.
    fn hears(&mut self, bytes: &[u8]) -> bool {
        let rest = &PREFACE[self.seen..];
        let same = bytes.iter().zip(rest).take_while(|(byte, wanted)| byte == wanted).count();
        self.seen += same;
        same == bytes.len() && self.seen < PREFACE.len()
    }
}

impl<S: AsyncRead + Unpin> ClientStream<S> {
    /// Reads and throws away what still comes, within limits.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let linger = self.linger;
        let ending = self.ending.get_or_insert_with(|| Ending {
            bytes: 0,
            deadline: Box::pin(sleep(linger)),
        });
        let mut piece = [0; PIECE];
        while ending.bytes < LINGER_BYTES {
            let mut buffer = ReadBuf::new(&mut piece);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => ending.bytes += buffer.filled().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return ending.deadline.as_mut().poll(context),
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(opening) = &mut self.opening else {
            return polled;
        };
        if polled.is_pending() {
            ready!(opening.deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if !opening.hears(&buffer.filled()[before..]) {
            self.opening = None;
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ending.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        }
        if !self.handed_over.load(Ordering::Relaxed) {
            ready!(self.poll_drain(context));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn whoever_does_not_begin_is_given_up() {
        for begin in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
            let (mut client, server) = duplex(64);
            let mut server = ClientStream::new(server, SOON, SOON);
            client.write_all(begin).await.unwrap();
            let mut heard = Vec::new();
            let error = server.read_to_end(&mut heard).await.unwrap_err();
            assert_eq!((error.kind(), &*heard), (io::ErrorKind::TimedOut, begin));
        }
    }

    #[tokio::test]
    async fn whoever_has_begun_may_take_its_time() {
        for begin in [&b"G"[..], b"PUT", PREFACE] {
            let (mut client, server) = duplex(64);
            let mut server = ClientStream::new(server, SOON, SOON);
            client.write_all(begin).await.unwrap();
            let mut heard = vec![0; begin.len()];
            server.read_exact(&mut heard).await.unwrap();
            let rest = tokio::time::timeout(10 * SOON, server.read_u8()).await;
            assert!(rest.is_err(), "it still waits: {rest:?}");
        }
    }

    #[tokio::test]
    async fn an_ended_connection_is_read_until_its_client_has_ended_too() {
        let (mut client, server) = duplex(64);
        let mut server = ClientStream::new(server, LATE, LATE);
        let ended = tokio::spawn(async move { server.shutdown().await });
        // Far more than the connection holds: it passes only if somebody reads it.
        client.write_all(&[0; 1 << 20]).await.unwrap();
        assert!(!ended.is_finished());
        drop(client);
        ended.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_ended_connection_is_not_read_for_ever() {
        let (_silent, server) = duplex(64);
        ClientStream::new(server, LATE, SOON).shutdown().await.unwrap();
        let (mut talkative, server) = duplex(1 << 20);
        let talks = tokio::spawn(async move { while talkative.write_all(&[0; 1 << 16]).await.is_ok() {} });
        ClientStream::new(server, LATE, LATE).shutdown().await.unwrap();
        talks.await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_was_handed_over_ends_by_halves() {
        let (mut client, server) = duplex(64);
        let mut server = ClientStream::new(server, LATE, LATE);
        server.handed_over().store(true, Ordering::Relaxed);
        server.shutdown().await.unwrap();
        client.write_all(b"last words").await.unwrap();
        drop(client);
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"last words");
    }
}
