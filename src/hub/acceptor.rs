//! Where agents come in: checks that a tunnel is asked for by the cluster's own agent, starts it, waits for the agent to introduce
//! itself, and hands the session over. Keeps no list of sessions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::answer::refused;
use super::listener::Peer;
use crate::core::access::{KeyDigest, Refusal, authorize_agent};
use crate::core::ids::ClusterId;
use crate::core::text::cut;
use crate::tunnel::accept::{Accepted, accept};
use crate::tunnel::control::{self, ControlError, ControlReceiver, ControlSender};
use crate::tunnel::http::{Body, stream};
use crate::tunnel::{Tunnel, TunnelHandle, TunnelSettings, TunnelStream};
use crate::wire::control::{Hello, ToAgent, ToHub};
use crate::wire::header::StreamHeader;
use crate::wire::version;

/// The longest word for a cluster in a line of the log, in bytes.
const LONGEST_WORD: usize = 253;
/// How long an agent may take from the upgrade to its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(15);

/// Who keeps the sessions.
pub trait Sessions: Send + Sync + 'static {
    /// Whether a tunnel of this cluster with this key may come in, which is so for the registered key alone. A tunnel that is
    /// admitted takes the place of one that stands already.
    fn admit(&self, cluster: &ClusterId, key: &KeyDigest) -> Result<(), Refusal>;

    /// Takes a session over. Its agent waits for a `Welcome`.
    fn joined(&self, session: Session);
}

/// An agent that has introduced itself.
#[derive(Debug)]
pub struct Session {
    /// The cluster, as its certificate says.
    pub cluster: ClusterId,
    /// The key of its certificate.
    pub key: KeyDigest,
    /// Where the agent is.
    pub address: SocketAddr,
    /// The version that both sides speak.
    pub protocol: u32,
    /// What the agent said about itself.
    pub hello: Hello,
    /// To the agent.
    pub sender: ControlSender<ToAgent>,
    /// From the agent.
    pub receiver: ControlReceiver<ToHub>,
    /// Opens streams to it, and says when it is gone. The tunnel ends when the last clone is dropped.
    pub handle: TunnelHandle,
}

/// Takes tunnels in.
#[derive(Debug)]
pub struct Acceptor<S> {
    sessions: Arc<S>,
    settings: TunnelSettings,
    introductions: TaskTracker,
    stop: CancellationToken,
}

/// Why a tunnel ended before it became a session.
#[derive(Debug, thiserror::Error)]
enum IntroductionError {
    #[error("the connection was not handed over")]
    Upgrade(#[from] hyper::Error),
    #[error("the agent did not introduce itself within {} s", HELLO_TIMEOUT.as_secs())]
    TimedOut,
    #[error("the agent left before it introduced itself")]
    Left,
    #[error("the first stream is not the control stream")]
    NoControlStream,
    #[error("the first message is not a hello")]
    NoHello,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    Refused(Refusal),
}

impl<S: Sessions> Acceptor<S> {
    /// Hands sessions over to `sessions` until `stop`.
    pub fn new(sessions: Arc<S>, settings: TunnelSettings, stop: CancellationToken) -> Self {
        Acceptor {
            sessions,
            settings,
            introductions: TaskTracker::new(),
            stop,
        }
    }

    /// The answer to a request for `cluster`'s tunnel.
    pub fn answer(&self, peer: &Peer, cluster: &str, mut request: Request<Incoming>) -> Response<Body> {
        match self.admit(peer, cluster, &mut request) {
            Ok((response, newcomer)) => {
                let (sessions, settings, stop) = (Arc::clone(&self.sessions), self.settings.clone(), self.stop.clone());
                self.introductions.spawn(async move {
                    tokio::select! {
                        () = newcomer.introduce(&*sessions, &settings) => {}
                        () = stop.cancelled() => {}
                    }
                });
                response
            }
            Err(refusal) => {
                // Anybody may ask, for a word of any length.
                let cluster = cut(cluster, LONGEST_WORD);
                info!(peer = %peer.address, cluster, refusal = %refusal, "a tunnel was refused");
                refused(&refusal)
            }
        }
    }

    fn admit(&self, peer: &Peer, cluster: &str, request: &mut Request<Incoming>) -> Result<(Response<Body>, Newcomer), Refusal> {
        let cluster: ClusterId = cluster
            .parse()
            .map_err(|error| Refusal::new(400, "BadRequest", format!("{error}")))?;
        let identity = peer.identity(SystemTime::now());
        let key = authorize_agent(&identity, &cluster)?.clone();
        self.sessions.admit(&cluster, &key)?;
        let (response, accepted) = accept(request).map_err(|error| Refusal::new(400, "BadRequest", error.to_string()))?;
        let newcomer = Newcomer {
            cluster,
            key,
            address: peer.address,
            accepted,
        };
        Ok((response.map(stream), newcomer))
    }
}

/// A tunnel whose agent has yet to introduce itself.
struct Newcomer {
    cluster: ClusterId,
    key: KeyDigest,
    address: SocketAddr,
    accepted: Accepted,
}

impl Newcomer {
    async fn introduce<S: Sessions>(self, sessions: &S, settings: &TunnelSettings) {
        let (address, cluster) = (self.address, self.cluster.clone());
        match self.session(settings).await {
            Ok(session) => sessions.joined(session),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                info!(peer = %address, cluster = %cluster, error = %error, cause, "a tunnel did not become a session");
            }
        }
    }

    async fn session(self, settings: &TunnelSettings) -> Result<Session, IntroductionError> {
        let introduction = async {
            let mut tunnel = self.accepted.tunnel(settings).await?;
            let control = control_stream(&mut tunnel).await?;
            let (mut sender, mut receiver) = control::split(control);
            let hello = first_message(&mut receiver).await?;
            let protocol = match agree(&self.cluster, &hello) {
                Ok(protocol) => protocol,
                Err(refusal) => return Err(refuse(&mut sender, &tunnel.handle, refusal).await),
            };
            Ok(Session {
                cluster: self.cluster,
                key: self.key,
                address: self.address,
                protocol,
                hello,
                sender,
                receiver,
                handle: tunnel.handle,
            })
        };
        let introduced = tokio::time::timeout(HELLO_TIMEOUT, introduction).await;
        introduced.unwrap_or(Err(IntroductionError::TimedOut))
    }
}

async fn control_stream(tunnel: &mut Tunnel) -> Result<TunnelStream, IntroductionError> {
    let mut stream = tunnel.incoming.recv().await.ok_or(IntroductionError::Left)?;
    match control::read_header(&mut stream).await? {
        StreamHeader::Control { .. } => Ok(stream),
        StreamHeader::Proxy(_) | StreamHeader::Unknown => Err(IntroductionError::NoControlStream),
    }
}

async fn first_message(receiver: &mut ControlReceiver<ToHub>) -> Result<Hello, IntroductionError> {
    match receiver.receive().await?.ok_or(IntroductionError::Left)?.message {
        ToHub::Hello(hello) => Ok(*hello),
        _ => Err(IntroductionError::NoHello),
    }
}

fn agree(cluster: &ClusterId, hello: &Hello) -> Result<u32, Refusal> {
    if &hello.cluster_id != cluster {
        let message = format!(
            "the hello is from cluster {}, the certificate is that of cluster {cluster}; is the agent's credential a copy of another cluster's?",
            hello.cluster_id
        );
        return Err(Refusal::forbidden(message));
    }
    version::choose(hello.protocol).map_err(|error| Refusal::new(400, "UnsupportedProtocol", error.to_string()))
}

/// Tells the agent why, and ends the tunnel.
async fn refuse(sender: &mut ControlSender<ToAgent>, handle: &TunnelHandle, refusal: Refusal) -> IntroductionError {
    let message = ToAgent::Refused {
        code: refusal.reason.to_owned(),
        message: refusal.message.clone(),
        hint: String::new(),
    };
    if let Err(error) = sender.send(&message, b"").await {
        return error.into();
    }
    handle.close().await;
    IntroductionError::Refused(refusal)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn hello(cluster: &str, protocol: u32) -> Hello {
        serde_json::from_value(serde_json::json!({"protocol": protocol, "agentVersion": "1", "clusterId": cluster})).unwrap()
    }

    #[test]
    fn a_hello_must_fit_its_certificate_and_speak_our_protocol() {
        let id = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";
        let cluster: ClusterId = id.parse().unwrap();
        assert_eq!(agree(&cluster, &hello(id, 9)).unwrap(), version::NEWEST);
        assert_eq!(agree(&cluster, &hello(id, 0)).unwrap_err().reason, "UnsupportedProtocol");
        let other = hello("11111111-7a77-4a9e-8b7c-6e1b7b6f1a2b", 1);
        assert_eq!(agree(&cluster, &other).unwrap_err().code, 403);
    }
}
