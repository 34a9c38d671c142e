//! What the rest of a process holds of a tunnel: opening streams under its limits, closing, and learning that it ended.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio_util::sync::CancellationToken;

use super::TunnelSettings;
use super::connection::Connection;
use super::stream::TunnelStream;
use super::stream_state::Slots;

/// Opens streams to the peer. Clones share the tunnel.
#[derive(Clone, Debug)]
pub struct TunnelHandle {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connection: Arc<Connection>,
    outbound: Arc<Semaphore>,
    outbound_limit: usize,
    inbound: Arc<Semaphore>,
    inbound_limit: usize,
    process: Arc<Semaphore>,
    closed: CancellationToken,
    close: CancellationToken,
    ended: CancellationToken,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.connection.abandon();
    }
}

/// Why no stream could be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// This tunnel has as many streams open as it may have.
    #[error("{limit} requests to this cluster are open already, which is the limit")]
    TooManyStreams {
        /// The tunnel's limit.
        limit: usize,
    },
    /// All tunnels of this process together have as many streams open as they may have.
    #[error("this hub has as many requests to clusters open as its memory allows")]
    ProcessFull,
    /// The tunnel has ended.
    #[error("the tunnel is closed")]
    Closed,
}

impl TunnelHandle {
    pub(super) fn new(connection: Arc<Connection>, inbound: Arc<Semaphore>, settings: &TunnelSettings) -> Self {
        let shared = Shared {
            connection,
            outbound: Arc::new(Semaphore::new(settings.usable_streams)),
            outbound_limit: settings.usable_streams,
            inbound,
            inbound_limit: settings.accepted_streams,
            process: Arc::clone(&settings.process_streams),
            closed: CancellationToken::new(),
            close: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        TunnelHandle {
            shared: Arc::new(shared),
        }
    }

    /// Opens a stream. The peer hears of it with the first byte that is written.
    pub fn open(&self) -> Result<TunnelStream, OpenError> {
        if self.is_closed() {
            return Err(OpenError::Closed);
        }
        let limit = self.shared.outbound_limit;
        let slot = acquire(&self.shared.outbound, OpenError::TooManyStreams { limit })?;
        let share = acquire(&self.shared.process, OpenError::ProcessFull)?;
        let stream = self.shared.connection.open().ok_or(OpenError::Closed)?;
        Ok(TunnelStream::new(stream, Slots::outbound(slot, share)))
    }

    /// Cancelled when the tunnel has ended, for whatever reason.
    pub fn closed(&self) -> CancellationToken {
        self.shared.closed.clone()
    }

    /// Whether the tunnel has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// How many streams are open, in both directions.
    pub fn open_streams(&self) -> usize {
        let outbound = self.shared.outbound_limit - self.shared.outbound.available_permits();
        let inbound = self.shared.inbound_limit - self.shared.inbound.available_permits();
        outbound + inbound
    }

    /// Asks for the tunnel's end without waiting for it.
    pub fn begin_close(&self) {
        self.shared.close.cancel();
    }

    /// Ends the tunnel: sends what was written, tells the peer, closes the connection. Open streams break off.
    pub async fn close(&self) {
        self.begin_close();
        self.shared.ended.cancelled().await;
    }

    pub(super) fn close_token(&self) -> CancellationToken {
        self.shared.close.clone()
    }

    pub(super) fn ended_token(&self) -> CancellationToken {
        self.shared.ended.clone()
    }
}

fn acquire(semaphore: &Arc<Semaphore>, full: OpenError) -> Result<OwnedSemaphorePermit, OpenError> {
    Arc::clone(semaphore).try_acquire_owned().map_err(|error| match error {
        TryAcquireError::NoPermits => full,
        TryAcquireError::Closed => OpenError::Closed,
    })
}
