//! A request and its answer over one stream, for both ends: sending and serving them without buffering, handing a connection over. Decides nothing
//! about who may ask for what.

mod exchange;
mod head;
mod headers;
mod splice;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};

pub use exchange::{Answered, ExchangeError, exchange, has_body, serve};
pub use head::HeadError;
pub use headers::{asks_for_upgrade, remove_caller_credentials, remove_hop_by_hop};
pub use splice::{hand_over_until, splice};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A body that is passed on as it comes.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A body that is complete.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body without content.
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body that comes from elsewhere.
pub fn stream<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}
