//! The tunnel's limits and times with their reasons. Plain values: decides nothing at run time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// How many streams the hub opens to one agent at most: users get 429 beyond it.
const HUB_STREAMS: usize = 1_000;
/// How many streams an agent opens to its hub at most: the control stream, and room to replace it.
const AGENT_STREAMS: usize = 8;
/// What the receiver tolerates above the opener's limit, because it learns later than the opener that a stream is over.
const RECEIVER_SLACK: usize = 280;
/// The hub's default for how many proxied streams may be open over all its tunnels.
const PROCESS_STREAMS: usize = 8_192;

/// When a silent peer is asked, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// A websocket Ping is sent this often.
    pub ping_every: Duration,
    /// A peer that was silent for this long is dead. Above twice `ping_every`, so that one lost Pong kills nothing.
    pub dead_after: Duration,
}

/// Limits and times of one tunnel.
#[derive(Clone, Debug)]
pub struct TunnelSettings {
    /// How many streams this side may have open to the peer.
    pub usable_streams: usize,
    /// How many of the peer's streams this side serves; further ones are reset at once.
    pub accepted_streams: usize,
    /// Bytes that the multiplexer may add to the windows of busy streams: what long distances need to be fast.
    pub window_headroom: usize,
    /// How long a graceful close may take before the connection is cut.
    pub close_timeout: Duration,
    /// Keep-alive of the websocket.
    pub keep_alive: KeepAlive,
    /// Streams that all tunnels of this process may have open together, which bounds the memory in their windows.
    pub process_streams: Arc<Semaphore>,
}

impl TunnelSettings {
    /// For the hub's end. All tunnels of a hub share a clone of one value, and so its bound on open streams.
    pub fn hub() -> Self {
        TunnelSettings {
            usable_streams: HUB_STREAMS,
            accepted_streams: 2 * AGENT_STREAMS,
            window_headroom: 4 << 20,
            ..Self::common()
        }
    }

    /// For an agent's end, which has one tunnel and receives the pushes.
    pub fn agent() -> Self {
        TunnelSettings {
            usable_streams: AGENT_STREAMS,
            accepted_streams: HUB_STREAMS + RECEIVER_SLACK,
            window_headroom: 48 << 20,
            ..Self::common()
        }
    }

    fn common() -> Self {
        TunnelSettings {
            usable_streams: AGENT_STREAMS,
            accepted_streams: AGENT_STREAMS,
            window_headroom: 0,
            close_timeout: Duration::from_secs(2),
            keep_alive: KeepAlive {
                ping_every: Duration::from_secs(10),
                dead_after: Duration::from_secs(25),
            },
            process_streams: Arc::new(Semaphore::new(PROCESS_STREAMS)),
        }
    }
}
