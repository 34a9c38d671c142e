//! Two connections handed over to each other. Knows nothing of what they carry.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// Copies both ways until both ends are done. When one end has finished, the other may go on for `linger`: a peer that never
/// finishes would keep its stream for ever, because a stream that was half closed cannot be reset.
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

async fn pump<A: AsyncRead, B: AsyncWrite>(mut reader: ReadHalf<A>, mut writer: WriteHalf<B>) -> io::Result<()> {
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}
