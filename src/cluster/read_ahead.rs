//! Connections that give as much as a reader has room for. TLS gives one record of 16 KiB at a time, and everything behind it then handles large
//! answers in such pieces: each a frame of the tunnel and a round through the tasks of agent and hub.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that reads on while there are bytes and room.
#[derive(Debug)]
pub(super) struct ReadAhead<IO> {
    io: IO,
    /// What went wrong after bytes that had to be handed over first.
    failed: Option<io::Error>,
}

impl<IO> ReadAhead<IO> {
    pub(super) fn new(io: IO) -> Self {
        ReadAhead { io, failed: None }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for ReadAhead<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let start = buffer.filled().len();
        loop {
            let before = buffer.filled().len();
            match Pin::new(&mut self.io).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before && buffer.remaining() > 0 => {}
                Poll::Ready(Err(error)) if before > start => {
                    self.failed = Some(error);
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if before > start => return Poll::Ready(Ok(())),
                other => return other,
            }
        }
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for ReadAhead<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<IO: Connection> Connection for ReadAhead<IO> {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::io::AsyncReadExt;

    /// Gives these, one at a time, then nothing.
    struct Pieces(Vec<io::Result<&'static [u8]>>);

    impl AsyncRead for Pieces {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            match self.0.pop() {
                Some(piece) => buffer.put_slice(piece?),
                None => return Poll::Pending,
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_come_together_and_an_error_after_them() {
        let broken = io::Error::other("broken");
        let (mut io, mut buffer) = (
            ReadAhead::new(Pieces(vec![Ok(b""), Err(broken), Ok(b"two "), Ok(b"one ")])),
            [0; 64],
        );
        assert_eq!(io.read(&mut buffer).await.unwrap(), 8);
        assert_eq!(&buffer[..8], b"one two ");
        assert_eq!(io.read(&mut buffer).await.unwrap_err().to_string(), "broken");
        assert_eq!(io.read(&mut buffer).await.unwrap(), 0, "the end");
        io.io.0 = vec![Ok(b"more")];
        assert_eq!(io.read(&mut buffer).await.unwrap(), 4, "what is there is not held back");
    }
}
