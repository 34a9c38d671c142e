//! What hub and agent say to each other: control messages and their codec, stream headers, version negotiation. Pure: bytes in,
//! values out; never reads, writes, waits or looks at a clock.

pub mod codec;
pub mod content;
pub mod control;
pub mod header;
pub mod version;
