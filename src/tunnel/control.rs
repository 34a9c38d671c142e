//! Stream headers and control messages over an asynchronous stream. Owns the buffering; shapes and limits are in [`crate::wire`].

use std::io;
use std::marker::PhantomData;

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::wire::codec::{self, DecodeError, EncodeError, Received};
use crate::wire::header::{self, HeaderError, StreamHeader};

use super::TunnelStream;

/// Room for the next read while no message is under way: thousands of idle control streams wait at once.
const IDLE_READ: usize = 512;
/// Room for the next read inside a message; memory grows with what has come, never with what was announced.
const BUSY_READ: usize = 64 << 10;

/// Why a control stream ended or a header could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Reading or writing failed.
    #[error("the stream broke off")]
    Io(#[from] io::Error),
    /// The peer sent what is not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// What was to be sent does not fit.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The stream's header is not one.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Opens a stream's conversation: must be the first that is written.
pub async fn write_header<IO: AsyncWrite + Unpin>(stream: &mut IO, header: &StreamHeader) -> Result<(), ControlError> {
    stream.write_all(&header::encode(header)?).await?;
    Ok(stream.flush().await?)
}

/// The same for a new stream on which something else follows at once: the header goes out with its first bytes, in one piece.
pub fn announce(stream: &TunnelStream, header: &StreamHeader) -> Result<(), ControlError> {
    // There is room: a header is far shorter than what a stream may send unasked.
    stream.stage(&header::encode(header)?);
    Ok(())
}

/// Reads the header of a stream that the peer opened. Bound it in time: a peer may never send one.
pub async fn read_header<IO: AsyncRead + Unpin>(stream: &mut IO) -> Result<StreamHeader, ControlError> {
    let mut field = [0; 4];
    stream.read_exact(&mut field).await?;
    let mut json = vec![0; header::length(field)?];
    stream.read_exact(&mut json).await?;
    Ok(header::decode(&json)?)
}

/// The two directions of a control stream, after its header.
pub fn split<Out, In>(stream: TunnelStream) -> (ControlSender<Out>, ControlReceiver<In>) {
    let (reader, writer) = tokio::io::split(stream);
    let receiver = ControlReceiver {
        reader,
        buffer: BytesMut::new(),
        messages: PhantomData,
    };
    let sender = ControlSender {
        writer,
        messages: PhantomData,
    };
    (sender, receiver)
}

/// Sends messages of one kind.
#[derive(Debug)]
pub struct ControlSender<Out> {
    writer: WriteHalf<TunnelStream>,
    messages: PhantomData<fn(Out)>,
}

impl<Out: Serialize> ControlSender<Out> {
    /// Sends one message. Not cancel safe: a call that is dropped half-way leaves half a frame, so give it a task of its own.
    pub async fn send(&mut self, message: &Out, attachment: &[u8]) -> Result<(), ControlError> {
        let frame = codec::encode(message, attachment)?;
        self.writer.write_all(&frame).await?;
        Ok(self.writer.flush().await?)
    }

    /// Ends this direction in order.
    pub async fn finish(mut self) -> Result<(), ControlError> {
        Ok(self.writer.shutdown().await?)
    }
}

/// Receives messages of one kind.
#[derive(Debug)]
pub struct ControlReceiver<In> {
    reader: ReadHalf<TunnelStream>,
    buffer: BytesMut,
    messages: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> ControlReceiver<In> {
    /// The next message; `None` when the peer ended the stream between two of them. Cancel safe.
    pub async fn receive(&mut self) -> Result<Option<Received<In>>, ControlError> {
        loop {
            if let Some(received) = codec::take(&mut self.buffer)? {
                self.let_go();
                return Ok(Some(received));
            }
            self.make_room()?;
            if self.reader.read_buf(&mut self.buffer).await? == 0 {
                return self.ended();
            }
        }
    }

    fn make_room(&mut self) -> Result<(), ControlError> {
        let room = match codec::lacking(&self.buffer)? {
            _ if self.buffer.is_empty() => IDLE_READ,
            lacking => lacking.clamp(IDLE_READ, BUSY_READ),
        };
        self.buffer.reserve(room);
        Ok(())
    }

    /// Gives the memory of a large message back instead of keeping it while the stream idles.
    fn let_go(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    fn ended(&self) -> Result<Option<Received<In>>, ControlError> {
        if self.buffer.is_empty() {
            return Ok(None);
        }
        Err(ControlError::Io(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the control stream ended inside a message",
        )))
    }
}
