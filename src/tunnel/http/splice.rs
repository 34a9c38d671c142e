//! Two connections handed over to each other. Knows nothing of what they carry.

use std::io;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long one side of a handed-over connection may go on after the other has finished.
pub(super) const LINGER: Duration = Duration::from_secs(60);
/// One read, and at most as much that waits between two ends.
const PIECE: usize = 16 << 10;

/// Joins an upgraded connection with what it was upgraded for, in a task that ends with them or with the token.
pub fn hand_over_until<IO>(caller: OnUpgrade, upstream: IO, ended: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    tokio::spawn(async move {
        if ended.run_until_cancelled(join(caller, upstream)).await.is_none() {
            debug!("an upgraded connection was cut");
        }
    });
}

async fn join<IO: AsyncRead + AsyncWrite>(caller: OnUpgrade, upstream: IO) {
    let caller = match caller.await {
        Ok(caller) => caller,
        Err(error) => return debug!(error = %error, "an upgraded connection was not handed over"),
    };
    if let Err(error) = splice(TokioIo::new(caller), upstream, LINGER).await {
        debug!(error = %error, "an upgraded connection ended early");
    }
}

/// Copies both ways until both ends are done. When one end has finished, the other may go on for `linger`: a peer that never
/// finishes would keep its stream for ever.
///
/// An end that takes no more bytes may still have something to say, such as a command's exit code: what comes for it is then read and
/// thrown away. Left unread it would reset the sender's connection, and with it the last words that are on their way there.
pub async fn splice<A, B>(a: A, b: B, linger: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_reader, a_writer) = tokio::io::split(a);
    let (b_reader, b_writer) = tokio::io::split(b);
    let mut there = std::pin::pin!(pump(a_reader, b_writer));
    let mut back = std::pin::pin!(pump(b_reader, a_writer));
    let rest = tokio::select! {
        done = &mut there => { done?; tokio::time::timeout(linger, back).await }
        done = &mut back => { done?; tokio::time::timeout(linger, there).await }
    };
    rest.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "one end had finished, the other never did",
        ))
    })
}

/// One direction, until its source ends. A source that breaks off is an error; a target that does is none.
async fn pump<A: AsyncRead, B: AsyncWrite>(mut reader: ReadHalf<A>, mut writer: WriteHalf<B>) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut is_taken = true;
    loop {
        let length = reader.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        is_taken = is_taken && write(&mut writer, &buffer[..length]).await.is_ok();
    }
    // A target that is gone already hears nothing of the end.
    let _ = writer.shutdown().await;
    Ok(())
}

async fn write<B: AsyncWrite>(writer: &mut WriteHalf<B>, bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    /// The far ends of two connections that are spliced.
    fn spliced() -> (DuplexStream, DuplexStream, tokio::task::JoinHandle<io::Result<()>>) {
        let ((a, near_a), (b, near_b)) = (duplex(64), duplex(64));
        (a, b, tokio::spawn(splice(near_a, near_b, LINGER)))
    }

    #[tokio::test]
    async fn each_end_finishes_for_itself() {
        let (mut a, mut b, done) = spliced();
        a.write_all(b"question").await.unwrap();
        a.shutdown().await.unwrap();
        let mut heard = Vec::new();
        b.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"question");
        b.write_all(b"answer").await.unwrap();
        b.shutdown().await.unwrap();
        heard.clear();
        a.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"answer");
        done.await.unwrap().unwrap();
    }

    /// Says its last words and takes nothing any more.
    struct Deaf(&'static [u8]);

    impl AsyncRead for Deaf {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            buffer.put_slice(self.0);
            self.0 = b"";
            std::task::Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Deaf {
        fn poll_write(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            std::task::Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
        }
    }

    #[tokio::test]
    async fn last_words_arrive_though_nobody_listens_any_more() {
        let (mut a, near_a) = duplex(64);
        let done = tokio::spawn(splice(near_a, Deaf(b"exit code 0"), LINGER));
        // More than the connection holds: it passes only if somebody reads it.
        a.write_all(&[0; 1 << 20]).await.unwrap();
        let mut heard = [0; 11];
        a.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"exit code 0");
        drop(a);
        done.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_end_that_never_finishes_is_given_up() {
        let ((mut a, near_a), (_b, near_b)) = (duplex(64), duplex(64));
        a.shutdown().await.unwrap();
        let ended = splice(near_a, near_b, Duration::from_millis(1)).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
