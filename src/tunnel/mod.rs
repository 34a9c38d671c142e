//! The tunnel between hub and agent, used by both ends: websocket frames as a byte stream, keep-alive, a multiplexer that carries
//! many streams in either direction, the control stream's reader and writer, and the way of a request and its answer through one stream.
//! Knows nothing of clusters, certificates' meaning or who may do what.
//!
//! One task per tunnel owns the connection (the driver). Streams queue for it in turns, with bounded memory each, so that no lock is held while
//! waiting, one stalled stream stalls no other, and a small call does not wait behind a large one.

pub mod accept;
pub mod backoff;
mod connection;
pub mod control;
pub mod dial;
mod driver;
mod frame;
mod handle;
pub mod http;
mod settings;
mod stream;
mod stream_state;
pub mod websocket;
mod window;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use handle::{OpenError, TunnelHandle};
pub use settings::{KeepAlive, TunnelSettings};
pub use stream::{AbortHandle, TunnelStream};

/// Which end of the tunnel this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Accepted the connection; opens proxy streams.
    Hub,
    /// Dialled; opens the control stream.
    Agent,
}

/// One end of a running tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Opens streams, closes the tunnel, says when it ended.
    pub handle: TunnelHandle,
    /// The streams that the peer opens; ends with the tunnel.
    pub incoming: mpsc::Receiver<TunnelStream>,
}

/// Starts the multiplexer over a byte stream. Its one task ends when the connection breaks, when the peer leaves, after
/// [`TunnelHandle::close`], and some seconds after every handle and [`Tunnel::incoming`] were dropped.
pub fn start<IO>(io: IO, role: Role, settings: &TunnelSettings) -> Tunnel
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (driver, tunnel) = driver::Driver::new(io, role, settings);
    tokio::spawn(Box::new(driver).run());
    tunnel
}

#[cfg(test)]
mod tests;
