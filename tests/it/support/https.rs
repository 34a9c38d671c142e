//! One HTTPS request and its answer, written out by hand, so that no test depends on the clients that it tests.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::PATIENCE;
use super::node::read_head;
use super::pki::Identity;

/// Whom to talk to, and as whom.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    port: u16,
    tls: Arc<ClientConfig>,
    /// Lines of the head besides those that every request has.
    headers: String,
}

/// A request besides its method and path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Body<'a> {
    /// `Content-Type`; empty without a body.
    pub(crate) content_type: &'a str,
    /// The content.
    pub(crate) content: &'a str,
}

/// A TLS connection to a server under test.
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Response {
    /// HTTP status code.
    pub(crate) status: u16,
    /// Body as text.
    pub(crate) body: String,
}

impl Response {
    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Client {
    /// Talks to 127.0.0.1:`port`, trusts the CA certificate (PEM), shows the client certificate if there is one.
    pub(crate) fn new(port: u16, ca: &str, identity: Option<&Identity>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots
                .add(certificate.expect("the CA is PEM"))
                .expect("the CA is a certificate");
        }
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default versions")
            .with_root_certificates(roots);
        let tls = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>();
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("the key is PEM");
                builder
                    .with_client_auth_cert(chain.expect("the certificate is PEM"), key)
                    .expect("key and certificate fit")
            }
        };
        Client {
            port,
            tls: Arc::new(tls),
            headers: String::new(),
        }
    }

    /// The same, with a bearer token.
    pub(crate) fn with_bearer(self, token: &str) -> Self {
        self.with_header("Authorization", &format!("Bearer {token}"))
    }

    /// The same, with a header.
    pub(crate) fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers += &format!("{name}: {value}\r\n");
        self
    }

    /// GET.
    pub(crate) fn get(&self, path: &str) -> Result<Response, String> {
        self.request("GET", path, Body::default())
    }

    /// Sends a request on a connection of its own. `Err` is a connection or a TLS handshake that failed, in words.
    pub(crate) fn request(&self, method: &str, path: &str, body: Body<'_>) -> Result<Response, String> {
        self.exchange(&self.head(method, path, body), body.content)
            .map_err(|error| format!("{method} {path}: {error}"))
    }

    fn head(&self, method: &str, path: &str, body: Body<'_>) -> String {
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nAccept: application/json, */*\r\n",
            self.port
        );
        head += &self.headers;
        if !body.content_type.is_empty() {
            head += &format!(
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                body.content_type,
                body.content.len()
            );
        }
        head + "\r\n"
    }

    /// Sends a GET and returns the connection on which the answer comes: for watches.
    pub(crate) fn open(&self, path: &str) -> Result<Stream, std::io::Error> {
        let mut stream = self.connect()?;
        stream.write_all(self.head("GET", path, Body::default()).as_bytes())?;
        Ok(stream)
    }

    /// Asks for an upgraded connection; returns the head of the answer, and the connection behind it.
    pub(crate) fn upgrade(&self, path: &str, protocol: &str) -> Result<(String, Stream), std::io::Error> {
        self.upgrade_by("POST", path, protocol)
    }

    /// The same with another method: websocket clients ask with GET.
    pub(crate) fn upgrade_by(&self, method: &str, path: &str, protocol: &str) -> Result<(String, Stream), std::io::Error> {
        let mut stream = self.connect()?;
        let port = self.port;
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n");
        let head = head + &self.headers + "\r\n";
        stream.write_all(head.as_bytes())?;
        Ok((read_head(&mut stream)?, stream))
    }

    /// Sends these bytes as they are, and reads until the server ends the connection. `Err` if it does so without an answer.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<String, std::io::Error> {
        let mut stream = self.connect()?;
        // A server that has heard enough need not take the rest.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        if answer.is_empty() {
            ended?;
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// A TLS connection on which nothing was sent yet.
    pub(crate) fn connect(&self) -> Result<Stream, std::io::Error> {
        let socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let server = ServerName::try_from("127.0.0.1").expect("an address is a server name");
        let connection = ClientConnection::new(self.tls.clone(), server).map_err(std::io::Error::other)?;
        Ok(StreamOwned::new(connection, socket))
    }

    fn exchange(&self, head: &str, content: &str) -> Result<Response, std::io::Error> {
        let mut stream = self.connect()?;
        stream.write_all(format!("{head}{content}").as_bytes())?;
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        match parse(&bytes) {
            Some(response) => Ok(response),
            None => Err(ended.err().unwrap_or_else(|| std::io::Error::other("the answer is not HTTP"))),
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked {
        unchunk(&bytes[end + 4..])?
    } else {
        bytes[end + 4..].to_vec()
    };
    Some(Response {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?, 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(line + 2..line + 2 + length)?);
        bytes = bytes.get(line + 4 + length..)?;
    }
}
