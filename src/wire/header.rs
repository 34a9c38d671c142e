//! The header that opens every stream of a tunnel: `u32` length, big endian, and JSON. Says what the stream is for and, for a
//! proxied request, on whose behalf; never changes during a stream's life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::access::impersonation::ClusterCredential;

/// The longest header in bytes, without its length field.
pub const MAX_HEADER: usize = 64 << 10;

/// What a stream is for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum StreamHeader {
    /// Control messages; opened by the agent, exactly one.
    Control {
        /// Version of the framing.
        version: u32,
    },
    /// One request and its answer; opened by the hub, which asks.
    Proxy(ProxyHeader),
    /// A purpose that this version does not know: the stream is closed.
    #[serde(other)]
    Unknown,
}

/// Who stands behind a proxied request and where it goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyHeader {
    /// Where it goes: `direct` is the cluster's own API server.
    pub target: String,
    /// The user whom the agent impersonates.
    pub user: String,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The user's extra attributes.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
    /// What kind of request comes.
    pub class: RequestClass,
    /// Whether a body follows its head.
    #[serde(default)]
    pub body: bool,
    /// A credential of the cluster itself, in place of impersonation. The user is empty then, so that an agent that does not know this field
    /// refuses the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<ClusterCredential>,
}

/// The kinds of proxied requests, which differ in how long they live.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestClass {
    /// An ordinary request and its answer.
    Short,
    /// An answer that goes on: watch, `logs -f`.
    Watch,
    /// A connection that is handed over: exec, attach, port-forward.
    Upgrade,
    /// A class of a newer version; treated as long-lived.
    #[serde(other)]
    Other,
}

/// Why a header cannot be sent or was not understood.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Longer than allowed.
    #[error("a stream header of {0} bytes is longer than the {MAX_HEADER} allowed")]
    TooLong(usize),
    /// Not JSON of this shape.
    #[error("the stream header is not understood")]
    Json(#[source] serde_json::Error),
}

/// The bytes that open a stream.
pub fn encode(header: &StreamHeader) -> Result<Vec<u8>, HeaderError> {
    let json = serde_json::to_vec(header).map_err(HeaderError::Json)?;
    if json.len() > MAX_HEADER {
        return Err(HeaderError::TooLong(json.len()));
    }
    let length = u32::try_from(json.len()).map_err(|_| HeaderError::TooLong(json.len()))?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

/// The announced length of a header's JSON, checked before anything is allocated.
pub fn length(field: [u8; 4]) -> Result<usize, HeaderError> {
    let length = u32::from_be_bytes(field) as usize;
    if length > MAX_HEADER {
        return Err(HeaderError::TooLong(length));
    }
    Ok(length)
}

/// The header in its JSON.
pub fn decode(json: &[u8]) -> Result<StreamHeader, HeaderError> {
    serde_json::from_slice(json).map_err(HeaderError::Json)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn headers_survive_the_wire(user in ".{0,80}", groups in prop::collection::vec(".{0,40}", 0..5)) {
            let header = StreamHeader::Proxy(ProxyHeader {
                target: "direct".to_owned(), user, groups, extra: BTreeMap::new(), class: RequestClass::Watch, body: true, credential: None,
            });
            let bytes = encode(&header).unwrap();
            let (field, json) = bytes.split_first_chunk::<4>().unwrap();
            prop_assert_eq!(length(*field).unwrap(), json.len());
            prop_assert_eq!(decode(json).unwrap(), header);
        }

        #[test]
        fn garbage_is_an_error(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(decode(&bytes).is_err());
        }
    }

    #[test]
    fn headers_have_the_agreed_shape() {
        assert_eq!(
            encode(&StreamHeader::Control { version: 1 }).unwrap()[4..],
            *br#"{"type":"control","version":1}"#
        );
        let newer = decode(br#"{"type":"shell","rows":24}"#).unwrap();
        assert_eq!(newer, StreamHeader::Unknown);
        assert!(matches!(length(u32::MAX.to_be_bytes()), Err(HeaderError::TooLong(_))));
    }

    #[test]
    fn a_header_without_an_end_is_refused() {
        let groups = vec!["g".repeat(1_000); 100];
        let header = StreamHeader::Proxy(ProxyHeader {
            target: "direct".to_owned(),
            user: "alice".to_owned(),
            groups,
            extra: BTreeMap::new(),
            class: RequestClass::Short,
            body: false,
            credential: None,
        });
        assert!(matches!(encode(&header), Err(HeaderError::TooLong(_))));
    }
}
