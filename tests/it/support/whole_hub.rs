//! A whole hub in this process over a repository of the test, its administrator, and agents that speak the protocol and nothing more.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use branchline::core::access::ADMINS;
use branchline::core::registration::Approval;
use branchline::core::render::RenderSettings;
use branchline::git::RepositoryUrl;
use branchline::hub::ca::{CertificateAuthority, DEFAULT_LIFETIME};
use branchline::hub::tls;
use branchline::hub::{Hub, HubConfig, HubError, UserCredentials};
use branchline::tunnel::control::{self, ControlReceiver, ControlSender};
use branchline::tunnel::dial::{DialError, HubAddress, connect, dial};
use branchline::tunnel::{TunnelHandle, TunnelSettings};
use branchline::wire::control::{ToAgent, ToHub};
use branchline::wire::header::StreamHeader;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::PATIENCE;
use super::repository::GitRepo;
use super::scratch;

const REGISTRATION: &str = "/apis/clusters.clusternet.io/v1beta1/clusterregistrationrequests";
const ADMIN: &str = "/apis/branchline.io/v1alpha1/";

/// A hub that runs; its data directory outlives it.
pub(crate) struct WholeHub {
    hub: Hub,
    stop: CancellationToken,
    authority: CertificateAuthority,
    pub(crate) address: HubAddress,
}

/// Where a hub keeps its things.
pub(crate) fn home() -> TempDir {
    scratch("hub")
}

/// The configuration that tests start from: no polling but the watch, automatic approval.
pub(crate) fn config(source: &GitRepo, home: &TempDir) -> HubConfig {
    HubConfig {
        source: RepositoryUrl::Local(source.bare()),
        branch: None,
        path: String::new(),
        data: home.path().join("data"),
        ca_dir: home.path().join("ca"),
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: Vec::new(),
        state_branch: "branchline/state".to_owned(),
        state_repo: None,
        poll: Duration::from_millis(100),
        approval: Approval::Automatic,
        render: RenderSettings::default(),
        cluster_fan_out: None,
        certificate_lifetime: DEFAULT_LIFETIME,
        unready_grace: Duration::from_secs(90),
        credentials: UserCredentials::default(),
    }
}

impl WholeHub {
    pub(crate) async fn start(config: HubConfig) -> WholeHub {
        WholeHub::try_start(config).await.unwrap()
    }

    pub(crate) async fn try_start(config: HubConfig) -> Result<WholeHub, HubError> {
        let stop = CancellationToken::new();
        let ca_dir = config.ca_dir.clone();
        let hub = Hub::start(config, stop.clone()).await?;
        let authority = CertificateAuthority::load_or_create(&ca_dir, SystemTime::now()).unwrap();
        let address = HubAddress::parse(&format!("https://127.0.0.1:{}", hub.address.port())).unwrap();
        Ok(WholeHub {
            hub,
            stop,
            authority,
            address,
        })
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.hub.finished().await;
    }

    fn client(&self, certificate: Option<(&str, &str)>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        })
    }

    /// Sends one request over a connection of its own.
    pub(crate) async fn send(
        &self,
        client: Arc<rustls::ClientConfig>,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: impl Into<Bytes>,
    ) -> (u16, Value) {
        let stream = connect(&self.address, client).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "hub");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender
            .send_request(request.body(Full::new(body.into())).unwrap())
            .await
            .unwrap();
        let code = response.status().as_u16();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        connection.abort();
        let value = serde_json::from_slice(&text).unwrap_or_else(|_| json!(String::from_utf8_lossy(&text)));
        (code, value)
    }

    /// A request of the administrator.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let issued = self
            .authority
            .issue_user("admin", ADMINS, SystemTime::now(), DEFAULT_LIFETIME)
            .unwrap();
        let client = self.client(Some((&issued.certificate_pem, &issued.key_pem)));
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{ADMIN}{path}")
        };
        self.send(client, method, &path, None, body.to_string()).await
    }

    /// `branchline status -o json`.
    pub(crate) async fn status(&self) -> Value {
        self.admin(Method::GET, "status", &Value::Null).await.1
    }

    /// Waits until the hub's status is as a condition wants it.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let status = self.status().await;
            if condition(&status) {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "gave up waiting until {what}: {status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until an object of the hub's API is as a condition wants it.
    pub(crate) async fn shown(&self, path: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let begun = std::time::Instant::now();
        loop {
            let object = self.admin(Method::GET, path, &Value::Null).await.1;
            if condition(&object) {
                return object;
            }
            assert!(begun.elapsed() < PATIENCE, "gave up waiting for {path}: {object:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `/readyz` says to somebody whom the hub does not know.
    pub(crate) async fn ready(&self) -> (u16, String) {
        let (code, text) = self
            .send(self.client(None), Method::GET, "/readyz?verbose", None, Bytes::new())
            .await;
        (code, text.to_string())
    }

    /// A new bootstrap token.
    pub(crate) async fn token(&self, ttl_seconds: Option<u64>) -> String {
        let (code, token) = self
            .admin(
                Method::POST,
                "tokens",
                &json!({"ttlSeconds": ttl_seconds, "description": "test"}),
            )
            .await;
        assert_eq!(code, 201, "{token}");
        token["token"].as_str().unwrap().to_owned()
    }

    /// A registration with any body.
    pub(crate) async fn post_registration(&self, token: Option<&str>, body: impl Into<Bytes>) -> (u16, Value) {
        self.send(self.client(None), Method::POST, REGISTRATION, token, body).await
    }
}

/// An agent's identity.
pub(crate) struct Candidate {
    pub(crate) cluster: String,
    pub(crate) name: String,
    key: KeyPair,
}

impl Candidate {
    /// The nth cluster with a new key.
    pub(crate) fn new(number: u8, name: &str) -> Self {
        Candidate {
            cluster: format!("{number:08x}-7a77-4a9e-8b7c-6e1b7b6f1a2b"),
            name: name.to_owned(),
            key: KeyPair::generate().unwrap(),
        }
    }

    pub(crate) fn body(&self) -> Value {
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&self.key)
            .unwrap()
            .pem()
            .unwrap();
        json!({
            "apiVersion": "clusters.clusternet.io/v1beta1", "kind": "ClusterRegistrationRequest",
            "metadata": {"name": format!("clusternet-{}", self.cluster), "annotations": {"branchline.io/certificate-signing-request": csr}},
            "spec": {"clusterId": self.cluster, "clusterName": self.name, "syncMode": "Pull"},
        })
    }

    /// Asks to belong to the fleet.
    pub(crate) async fn register(&self, hub: &WholeHub, token: Option<&str>) -> (u16, Value) {
        hub.post_registration(token, self.body().to_string()).await
    }

    /// Registers and expects a certificate, PEM.
    pub(crate) async fn certificate(&self, hub: &WholeHub, token: Option<&str>) -> String {
        use base64::Engine as _;
        let (code, answer) = self.register(hub, token).await;
        let certificate = answer["status"]["certificate"].as_str();
        let certificate = certificate.unwrap_or_else(|| panic!("no certificate: {code} {answer:#}"));
        let pem = base64::engine::general_purpose::STANDARD.decode(certificate).unwrap();
        String::from_utf8(pem).unwrap()
    }

    /// Opens the tunnel and says hello with these fields besides.
    pub(crate) async fn join(&self, hub: &WholeHub, certificate: &str, hello: Value) -> Result<Joined, DialError> {
        let client = hub.client(Some((certificate, &self.key.serialize_pem())));
        let cluster = self.cluster.parse().unwrap();
        let tunnel = dial(&hub.address, &cluster, client, &TunnelSettings::agent()).await?;
        let mut stream = tunnel.handle.open().unwrap();
        control::write_header(&mut stream, &StreamHeader::Control { version: 1 })
            .await
            .unwrap();
        let (mut sender, receiver) = control::split(stream);
        let mut fields =
            json!({"protocol": branchline::wire::version::NEWEST, "agentVersion": "test", "clusterId": self.cluster});
        for (field, value) in hello.as_object().into_iter().flatten() {
            fields[field] = value.clone();
        }
        let hello = ToHub::Hello(Box::new(serde_json::from_value(fields).unwrap()));
        sender.send(&hello, b"").await.unwrap();
        Ok(Joined {
            sender,
            receiver,
            handle: tunnel.handle,
        })
    }
}

/// An agent whose tunnel stands.
pub(crate) struct Joined {
    pub(crate) sender: ControlSender<ToHub>,
    pub(crate) receiver: ControlReceiver<ToAgent>,
    pub(crate) handle: TunnelHandle,
}

impl Joined {
    /// The next message that the hub sends.
    pub(crate) async fn next(&mut self) -> ToAgent {
        let next = tokio::time::timeout(PATIENCE, self.receiver.receive()).await;
        next.expect("the hub says nothing")
            .unwrap()
            .expect("the hub ended the stream")
            .message
    }

    /// The next offer.
    pub(crate) async fn offer(&mut self) -> branchline::wire::control::Offer {
        loop {
            if let ToAgent::Offer(offer) = self.next().await {
                return offer;
            }
        }
    }

    /// Waits until the hub has closed the tunnel.
    pub(crate) async fn closed(&self) {
        tokio::time::timeout(PATIENCE, self.handle.closed().cancelled())
            .await
            .expect("the hub keeps the tunnel");
    }
}
