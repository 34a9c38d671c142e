//! The tunnel's limits and times with their reasons. Plain values: decides nothing at run time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// What every stream may always have in flight, fixed by the yamux specification.
const STREAM_WINDOW: usize = 256 << 10;
/// How many streams the hub opens to one agent at most: users get 429 beyond it.
const HUB_STREAMS: usize = 1_000;
/// How many streams an agent opens to its hub at most: the control stream, and room to replace it.
const AGENT_STREAMS: usize = 8;
/// What the receiver tolerates above the opener's limit, because it learns later than the opener that a stream is over.
const RECEIVER_SLACK: usize = 280;
/// What yamux itself tolerates above our own limits. Reaching it would end the whole tunnel, so it is out of a correct peer's reach: an
/// opener never has more than 256 streams that the receiver did not acknowledge.
const MULTIPLEXER_SLACK: usize = 1_024;
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
    /// The longest piece of a stream that is sent in one go; small calls wait behind it.
    pub split_send: usize,
    /// How long opening a stream may wait for the peer.
    pub open_timeout: Duration,
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
            split_send: 64 << 10,
            open_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(2),
            keep_alive: KeepAlive {
                ping_every: Duration::from_secs(10),
                dead_after: Duration::from_secs(25),
            },
            process_streams: Arc::new(Semaphore::new(PROCESS_STREAMS)),
        }
    }

    /// The multiplexer's own settings. Auto-tuning hands out exactly the difference between the connection's window and what
    /// its streams may always have, which is the head-room.
    pub(super) fn yamux(&self) -> yamux::Config {
        let streams = self.usable_streams + self.accepted_streams + MULTIPLEXER_SLACK;
        let mut config = yamux::Config::default();
        config
            .set_max_connection_receive_window(None)
            .set_max_num_streams(streams)
            .set_max_connection_receive_window(Some(streams * STREAM_WINDOW + self.window_headroom))
            .set_split_send_size(self.split_send);
        config
    }
}
