//! A small issuer of OpenID Connect on loopback: discovery and keys over HTTPS, and ID tokens signed as a test wants them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::fleet::Hub;
use super::node::read_head;
use super::pki::Authority;

/// An issuer that runs as long as the test process, unless it is made to look away.
pub(crate) struct Issuer {
    authority: Authority,
    port: u16,
    keys: Mutex<Vec<(String, KeyPair)>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    answers: Mutex<(String, String)>,
    down: Mutex<bool>,
    fetches: AtomicUsize,
}

impl Issuer {
    /// Starts it with one key, `first`, and the RSA key of the fixtures, `rsa`.
    pub(crate) fn start() -> Self {
        let authority = Authority::new("issuer-ca");
        let server = authority.server();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let chain = vec![CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).unwrap();
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let state = Arc::new(State::default());
        let issuer = Issuer {
            authority,
            port,
            keys: Mutex::default(),
            state: Arc::clone(&state),
        };
        issuer.add_key("first");
        let tls = Arc::new(tls);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // Whoever asked may have gone away.
                let _ = answer(&state, socket, Arc::clone(&tls));
            }
        });
        issuer
    }

    /// Its URL.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The certificate that its clients must trust, PEM.
    fn ca(&self) -> String {
        self.authority.certificate()
    }

    /// The hub with the flags by which it takes this issuer's tokens: the user is called as in `email`, and every group gets `oidc:` before
    /// its name. The directory keeps what the hub reads.
    pub(crate) fn taken_by(&self, hub: Hub, directory: &Path) -> Hub {
        let ca = directory.join("issuer-ca.crt");
        std::fs::write(&ca, self.ca()).unwrap();
        hub.with(&format!("--oidc-issuer-url={}", self.url()))
            .with("--oidc-client-id=hub")
            .with("--oidc-username-claim=email")
            .with("--oidc-groups-claim=groups")
            .with("--oidc-groups-prefix=oidc:")
            .with("--oidc-required-claim=hd=example.org")
            .with("--oidc-signing-algs=RS256,ES256")
            .with(&format!("--oidc-ca-file={}", ca.display()))
    }

    /// Claims that such a hub takes for an hour, for `name`@example.org.
    pub(crate) fn claims(&self, name: &str, groups: &[&str]) -> Value {
        let email = format!("{name}@example.org");
        json!({"iss": self.url(), "aud": "hub", "exp": now() + 3600, "email": email, "groups": groups, "hd": "example.org"})
    }

    /// How often something was fetched.
    pub(crate) fn fetches(&self) -> usize {
        self.state.fetches.load(Ordering::SeqCst)
    }

    /// Hangs up on everybody, or no longer.
    pub(crate) fn set_down(&self, down: bool) {
        *self.state.down.lock().unwrap() = down;
    }

    /// Adds a key with this id to those that it publishes.
    pub(crate) fn add_key(&self, id: &str) {
        self.keys.lock().unwrap().push((id.to_owned(), KeyPair::generate().unwrap()));
        self.publish(|_| true);
    }

    /// Gives the id of a key to a new one.
    pub(crate) fn replace_key(&self, id: &str) {
        self.keys.lock().unwrap().retain(|(known, _)| known != id);
        self.add_key(id);
    }

    /// Publishes every key but this one from now on.
    pub(crate) fn withdraw_key(&self, id: &str) {
        self.publish(|published| published != id);
    }

    /// Each answer has a key of a kind that nobody knows besides.
    fn publish(&self, wanted: impl Fn(&str) -> bool) {
        let keys = self.keys.lock().unwrap();
        let rsa =
            json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "rsa", "e": "AQAB", "n": fixture("rsa.modulus.base64url")});
        let odd = json!({"kty": "LATTICE", "kid": "odd", "alg": "XX1"});
        let published = keys.iter().filter(|(id, _)| wanted(id)).map(|(id, key)| jwk(id, key));
        let set: Vec<Value> = published.chain([odd, rsa]).collect();
        let discovery = json!({"issuer": self.url(), "jwks_uri": format!("{}/keys?of=everybody", self.url())});
        *self.state.answers.lock().unwrap() = (discovery.to_string(), json!({"keys": set}).to_string());
    }

    /// A token with these claims, signed by the key of this id with ES256, or by the RSA key.
    pub(crate) fn token(&self, key: &str, claims: &Value) -> String {
        if key == "rsa" {
            let der = BASE64_STANDARD.decode(fixture("rsa.pkcs1.base64")).unwrap();
            return sign(Algorithm::RS256, key, claims, &EncodingKey::from_rsa_der(&der));
        }
        let keys = self.keys.lock().unwrap();
        let (_, pair) = keys.iter().find(|(id, _)| id == key).unwrap();
        sign(
            Algorithm::ES256,
            key,
            claims,
            &EncodingKey::from_ec_der(&pair.serialize_der()),
        )
    }
}

/// The time in claims, in seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// Claims of which one is otherwise.
pub(crate) fn changed(claims: &Value, claim: &str, value: Value) -> Value {
    let mut claims = claims.clone();
    claims[claim] = value;
    claims
}

/// A token that anybody can make.
pub(crate) fn sign(algorithm: Algorithm, key: &str, claims: &Value, secret: &EncodingKey) -> String {
    let mut header = Header::new(algorithm);
    header.kid = Some(key.to_owned());
    jsonwebtoken::encode(&header, claims, secret).unwrap()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/issuer").join(name);
    std::fs::read_to_string(path).unwrap().split_whitespace().collect()
}

fn jwk(id: &str, key: &KeyPair) -> Value {
    // An uncompressed point: 4, x, y.
    let point = key.der_bytes();
    let coordinate = |range| BASE64_URL_SAFE_NO_PAD.encode(&point[range]);
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": id, "x": coordinate(1..33), "y": coordinate(33..65)})
}

fn answer(state: &State, socket: TcpStream, tls: Arc<ServerConfig>) -> std::io::Result<()> {
    if *state.down.lock().unwrap() {
        return Ok(());
    }
    state.fetches.fetch_add(1, Ordering::SeqCst);
    let connection = ServerConnection::new(tls).map_err(std::io::Error::other)?;
    let mut stream = StreamOwned::new(connection, socket);
    let head = read_head(&mut stream)?;
    let (discovery, keys) = state.answers.lock().unwrap().clone();
    let body = if head.starts_with("GET /.well-known/openid-configuration ") {
        discovery
    } else {
        keys
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.conn.send_close_notify();
    stream.flush()?;
    let _ = stream.sock.set_read_timeout(Some(std::time::Duration::from_secs(1)));
    let _ = stream.read(&mut [0; 1]);
    Ok(())
}
