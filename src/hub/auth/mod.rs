//! Who sends a request: the client certificate of its connection, else its bearer token. What the sender may do is in [`super::gate`].
//!
//! ```text
//! certificate of the hub's CA ─► user
//! else bearer token ─► static token
//! else ─► nobody: 401
//! ```

mod certificate;

use std::time::SystemTime;

use http::HeaderMap;

use super::listener::Peer;
use crate::core::access::{Refusal, User, user_of};

pub use certificate::{Authenticator, Credential};

/// An authenticated sender.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is.
    pub user: User,
    proof: Proof,
}

/// What the sender proved itself by, for asking again while a stream stands.
#[derive(Clone, Debug)]
enum Proof {
    Certificate { not_after: Option<SystemTime> },
}

/// Everything by which a sender can prove who it is.
#[derive(Debug, Default)]
pub struct Authentication {}

impl Authentication {
    /// Who sends this request.
    pub async fn caller(&self, peer: &Peer, _headers: &HeaderMap) -> Result<Caller, Refusal> {
        let identity = peer.identity(SystemTime::now());
        Ok(Caller {
            user: user_of(&identity)?.clone(),
            proof: Proof::Certificate {
                not_after: peer.not_after(),
            },
        })
    }

    /// Whether what the sender proved still counts.
    pub fn still_holds(&self, caller: &Caller, now: SystemTime) -> bool {
        match &caller.proof {
            Proof::Certificate { not_after } => not_after.is_none_or(|end| now <= end),
        }
    }
}
