//! A bare HTTP/1.1 client over TLS: what the product is held against, and the watch that sees objects arrive. Shares no code with the
//! clients that are measured.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

/// One API server and who asks.
#[derive(Clone)]
pub(crate) struct Server {
    port: u16,
    tls: Arc<ClientConfig>,
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

/// An event of a watch: as much of it as is looked at.
#[derive(Deserialize, Debug)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) object: Seen,
}

/// An object in an event.
#[derive(Deserialize, Debug)]
pub(crate) struct Seen {
    #[serde(default)]
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) data: Value,
    #[serde(default)]
    pub(crate) status: Value,
}

/// Its name.
#[derive(Deserialize, Debug, Default)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: String,
}

/// Events with the moment of their arrival.
pub(crate) struct Watch {
    events: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
}

/// A client configuration for a CA, with or without a client certificate; all PEM.
pub(crate) fn tls(ca: &[u8], identity: Option<(&[u8], &[u8])>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>();
            let key = PrivateKeyDer::from_pem_slice(key).unwrap();
            builder.with_client_auth_cert(chain.unwrap(), key).unwrap()
        }
    })
}

impl Server {
    /// Without a client certificate.
    pub(crate) fn anonymous(port: u16, ca: &[u8]) -> Server {
        Server {
            port,
            tls: tls(ca, None),
        }
    }

    /// As a kubeconfig with certificates in it says.
    pub(crate) fn of_kubeconfig(path: &Path) -> Server {
        let config: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let data = |pointer: &str| {
            BASE64_STANDARD
                .decode(config.pointer(pointer).unwrap().as_str().unwrap())
                .unwrap()
        };
        let server = config.pointer("/clusters/0/cluster/server").unwrap().as_str().unwrap();
        let certificate = data("/users/0/user/client-certificate-data");
        let key = data("/users/0/user/client-key-data");
        Server {
            port: server.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap(),
            tls: tls(
                &data("/clusters/0/cluster/certificate-authority-data"),
                Some((&certificate, &key)),
            ),
        }
    }

    /// Opens a connection; `None` while nobody listens.
    pub(crate) async fn try_connect(&self) -> Option<Connection> {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, socket).await.ok()?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let host = format!("127.0.0.1:{}", self.port);
        Some(Connection { sender, host })
    }

    /// Opens an HTTP/2 connection.
    pub(crate) async fn connect_http2(&self) -> http2::SendRequest<Full<Bytes>> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Opens a connection to a server that is up.
    pub(crate) async fn connect(&self) -> Connection {
        self.try_connect().await.expect("the server can be reached")
    }

    /// Opens a watch and returns when the server has begun to answer it.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let (connection, body) = self.open_watch(path).await;
        let (sender, events) = mpsc::unbounded_channel();
        let follower = Follower {
            server: self.clone(),
            path: path.to_owned(),
            events: sender,
            version: None,
        };
        tokio::spawn(follower.follow(connection, body));
        Watch { events }
    }

    async fn open_watch(&self, path: &str) -> (Connection, Incoming) {
        let mut connection = self.connect().await;
        let response = connection.exchange(Method::GET, path, &[], Bytes::new()).await;
        assert_eq!(response.status(), 200, "watch {path}");
        (connection, response.into_body())
    }

    /// Sends the same kind of server-side applies as the product, over this many connections, which are opened first.
    pub(crate) async fn apply_all(&self, objects: Vec<(String, Bytes)>, at_once: usize) -> Instant {
        let objects = Arc::new(objects);
        let next = Arc::new(AtomicUsize::new(0));
        let mut connections = Vec::new();
        for _ in 0..at_once {
            connections.push(self.connect().await);
        }
        let begin = Instant::now();
        let mut workers = tokio::task::JoinSet::new();
        for mut connection in connections {
            let (objects, next) = (Arc::clone(&objects), Arc::clone(&next));
            workers.spawn(async move {
                while let Some((path, body)) = objects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    connection.apply(path, body.clone()).await;
                }
            });
        }
        workers.join_all().await;
        begin
    }
}

impl Server {
    /// The same over one connection of HTTP/2.
    pub(crate) async fn apply_all_by_http2(&self, objects: Vec<(String, Bytes)>, at_once: usize) -> Instant {
        let connection = self.connect_http2().await;
        let begin = Instant::now();
        let apply = |(path, body): (String, Bytes)| {
            let mut connection = connection.clone();
            async move {
                let uri = format!("https://127.0.0.1:{}{}", self.port, apply_path(&path));
                let request = APPLY_HEADERS
                    .iter()
                    .fold(Request::patch(uri), |request, (name, value)| request.header(*name, *value));
                let answer = connection.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
                assert!(answer.status().is_success(), "{path}: {}", answer.status());
                answer.into_body().collect().await.unwrap();
            }
        };
        futures::stream::iter(objects).for_each_concurrent(at_once, apply).await;
        begin
    }
}

const APPLY_HEADERS: [(&str, &str); 2] = [
    ("content-type", "application/apply-patch+yaml"),
    ("accept", "application/json"),
];

fn apply_path(path: &str) -> String {
    format!("{path}?fieldManager=bench&force=true&fieldValidation=Strict")
}

impl Connection {
    /// One request; the answer's body streams.
    pub(crate) async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> http::Response<Incoming> {
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await.unwrap();
        self.sender
            .send_request(request.body(Full::new(body)).unwrap())
            .await
            .unwrap()
    }

    /// A GET that is answered with 200; how many bytes came, and nothing of them is kept.
    pub(crate) async fn get(&mut self, path: &str) -> usize {
        let response = self.exchange(Method::GET, path, &[], Bytes::new()).await;
        assert_eq!(response.status(), 200, "{path}");
        let (mut body, mut length) = (response.into_body(), 0);
        while let Some(frame) = body.frame().await {
            length += frame.unwrap().data_ref().map_or(0, Bytes::len);
        }
        length
    }

    /// One request and its whole answer.
    pub(crate) async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> (u16, Bytes) {
        let response = self.exchange(method, path, headers, body).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    /// A server-side apply.
    pub(crate) async fn apply(&mut self, path: &str, body: Bytes) {
        let path = apply_path(path);
        let (status, answer) = self.send(Method::PATCH, &path, &APPLY_HEADERS, body).await;
        assert!(status < 300, "{path}: {status} {}", String::from_utf8_lossy(&answer));
    }
}

/// Reads a watch. An API server ends the watch of whoever is slow, which is everybody on a busy machine; it goes on where it ended.
struct Follower {
    server: Server,
    path: String,
    events: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
    /// The last event's resource version.
    version: Option<String>,
}

impl Follower {
    async fn follow(mut self, mut connection: Connection, mut body: Incoming) {
        while self.read(&mut body).await {
            let Some(version) = self.version.as_ref().filter(|_| !self.events.is_closed()) else {
                return;
            };
            let path = format!("{}&resourceVersion={version}", self.path);
            drop(connection);
            (connection, body) = self.server.open_watch(&path).await;
        }
    }

    /// Until the watch ends, or nobody waits for its events any more. The parsing is left to the one who waits.
    async fn read(&mut self, body: &mut Incoming) -> bool {
        let mut text = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let now = Instant::now();
            text.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                self.version = version_in(&line).or(self.version.take());
                if self.events.send((now, line)).is_err() {
                    return false;
                }
            }
        }
        true
    }
}

fn version_in(line: &[u8]) -> Option<String> {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let start = line.windows(FIELD.len()).position(|window| window == FIELD)? + FIELD.len();
    let digits = line[start..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.map(|digit| char::from(*digit)).collect())
}

impl Watch {
    /// The moment when an event arrived that answers `true`; earlier ones are passed over.
    pub(crate) async fn until(&mut self, mut wanted: impl FnMut(&Event) -> bool) -> Instant {
        loop {
            let next = tokio::time::timeout(crate::support::PATIENCE, self.events.recv()).await;
            let (moment, line) = next.expect("an event comes in time").expect("the watch goes on");
            let event = serde_json::from_slice(&line).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&line)));
            if wanted(&event) {
                return moment;
            }
        }
    }

    /// The moment when there had been such events about `number` different objects.
    pub(crate) async fn until_all(&mut self, number: usize, mut wanted: impl FnMut(&Event) -> bool) -> Instant {
        let mut names = HashSet::new();
        self.until(|event| wanted(event) && names.insert(event.object.metadata.name.clone()) && names.len() == number)
            .await
    }
}
