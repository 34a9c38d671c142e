//! Connections below TLS. Knows nothing of what runs over them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// So much is read at once where there is much: four records of TLS.
const PIECE: usize = 64 << 10;

/// A connection that is read in large pieces while much comes. TLS asks for 4 KiB at a time, four calls of the system for one of its records;
/// a list of 50 MB is 12,000 of them at each hop. While little comes there is no buffer: most connections lie idle.
#[derive(Debug)]
pub struct Gathered<S> {
    stream: S,
    unread: BytesMut,
    /// Whether the last read filled all the room that it was given, so that more is likely to be there.
    much: bool,
}

impl<S> Gathered<S> {
    /// Reads this connection so.
    pub fn new(stream: S) -> Self {
        Gathered {
            stream,
            unread: BytesMut::new(),
            much: false,
        }
    }
}

impl<S: AsyncRead + Unpin> Gathered<S> {
    fn poll_direct(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.unread = BytesMut::new();
        let room = buffer.remaining();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        self.much = room > 0 && buffer.remaining() == 0;
        Poll::Ready(Ok(()))
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unread.reserve(PIECE);
        let read = poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.unread);
        if !matches!(read, Poll::Ready(Ok(1..))) {
            self.unread = BytesMut::new();
            self.much = false;
        }
        ready!(read)?;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            if !self.much || buffer.remaining() >= PIECE {
                return self.poll_direct(cx, buffer);
            }
            ready!(self.poll_gather(cx))?;
        }
        let taken = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..taken]);
        self.unread.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

impl<S: Connection> Connection for Gathered<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    proptest! {
        #[test]
        fn all_bytes_come_in_order(
            sent in proptest::collection::vec(0usize..200_000, 0..6),
            pieces in proptest::collection::vec(1usize..100_000, 1..8),
        ) {
            let bytes: Vec<u8> = (0..sent.iter().sum::<usize>()).map(|number| (number % 251) as u8).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (mut near, far) = duplex(150_000);
            let received = runtime.block_on(async {
                let sending = async {
                    let mut rest = &bytes[..];
                    for length in sent {
                        let (piece, after) = rest.split_at(length);
                        near.write_all(piece).await.unwrap();
                        rest = after;
                        tokio::task::yield_now().await;
                    }
                    drop(near);
                };
                let receiving = async {
                    let (mut far, mut received, mut sizes) = (Gathered::new(far), Vec::new(), pieces.iter().cycle());
                    loop {
                        let mut piece = vec![0; *sizes.next().unwrap()];
                        match far.read(&mut piece).await.unwrap() {
                            0 => return (far, received),
                            length => received.extend_from_slice(&piece[..length]),
                        }
                    }
                };
                tokio::join!(sending, receiving).1
            });
            prop_assert_eq!(received.1, bytes);
            prop_assert_eq!(received.0.unread.capacity(), 0, "an idle connection has no buffer");
        }
    }

    #[tokio::test]
    async fn where_much_comes_the_system_is_asked_seldom() {
        struct Counted(usize);
        impl AsyncRead for Counted {
            fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                self.0 += 1;
                buffer.put_slice(&vec![0; buffer.remaining()]);
                Poll::Ready(Ok(()))
            }
        }
        let mut gathered = Gathered::new(Counted(0));
        let mut record = [0; 4 << 10];
        for _ in 0..257 {
            gathered.read_exact(&mut record).await.unwrap();
        }
        assert_eq!(gathered.stream.0, 1 + 256 * record.len() / PIECE);
    }
}
