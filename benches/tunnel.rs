//! What a tunnel costs the hub: resident memory per idle tunnel, and how fast a fleet comes back. Run with `cargo bench --bench tunnel`;
//! `TUNNELS=10000` changes the number. The agents live in a child process, so that their memory is not counted.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a bench starts processes and looks at the clock")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use branchline::core::access::{KeyDigest, Refusal};
use branchline::core::ids::ClusterId;
use branchline::hub::acceptor::{Acceptor, Session, Sessions};
use branchline::hub::auth::Authenticator;
use branchline::hub::ca::{CertificateAuthority, CertificateRequest, DEFAULT_LIFETIME};
use branchline::hub::listener::{Application, Peer, PortSettings, serve};
use branchline::hub::tls;
use branchline::tunnel::dial::{HubAddress, dial};
use branchline::tunnel::http::Body;
use branchline::tunnel::{TunnelSettings, control};
use branchline::wire::control::{Hello, ToAgent, ToHub};
use branchline::wire::header::StreamHeader;
use http::{Request, Response};
use hyper::body::Incoming;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const CLUSTER: &str = "0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b";
/// Tunnels before the first measurement, so that what is allocated once is not counted.
const WARM_UP: usize = 100;
const GOAL_KIB: f64 = 25.0;
/// Agents that dial at once, as jitter would spread them.
const DIALLING: usize = 64;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match std::env::var("BRANCHLINE_BENCH_AGENTS") {
        Ok(directory) => runtime.block_on(agents(&directory)),
        Err(_) => runtime.block_on(hub()),
    }
}

/// Accepts every tunnel and keeps it, with one task that waits for its messages as the real registry has.
struct Everybody {
    joined: watch::Sender<usize>,
}

impl Sessions for Everybody {
    fn admit(&self, _: &ClusterId, _: &KeyDigest) -> Result<(), Refusal> {
        Ok(())
    }

    fn joined(&self, mut session: Session) {
        tokio::spawn(async move {
            while let Ok(Some(_)) = session.receiver.receive().await {}
            // The tunnel lives as long as its handle.
            drop(session);
        });
        self.joined.send_modify(|count| *count += 1);
    }
}

struct Port {
    acceptor: Acceptor<Everybody>,
}

impl Application for Port {
    async fn answer(&self, peer: Arc<Peer>, request: Request<Incoming>) -> Response<Body> {
        self.acceptor.answer(&peer, CLUSTER, request)
    }
}

async fn hub() {
    let tunnels: usize = std::env::var("TUNNELS").map_or(1_000, |number| number.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let authority = CertificateAuthority::load_or_create(directory.path(), SystemTime::now()).unwrap();
    let everybody = Arc::new(Everybody {
        joined: watch::Sender::new(0),
    });
    let address = start(&authority, &everybody).await;
    write_credential(directory.path(), &authority, address);

    let mut fleet = Fleet::start(directory.path());
    fleet.bring(WARM_UP, &everybody).await;
    let before = settled_kib().await;
    let begin = Instant::now();
    fleet.bring(tunnels, &everybody).await;
    let took = begin.elapsed();
    let per_tunnel = (settled_kib().await - before) / tunnels as f64;
    println!("idle tunnels                     {tunnels}");
    println!(
        "hub memory per idle tunnel       {per_tunnel:.1} KiB  ({:.2} x the goal of {GOAL_KIB} KiB)",
        per_tunnel / GOAL_KIB
    );
    println!("hub memory with {WARM_UP} tunnels      {:.1} MiB", before / 1024.0);
    println!(
        "all agents connected again in    {:.2} s  ({:.0} tunnels/s, both sides on this machine)",
        took.as_secs_f64(),
        tunnels as f64 / took.as_secs_f64()
    );
}

async fn start(authority: &CertificateAuthority, everybody: &Arc<Everybody>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authenticator = Authenticator::new(authority).unwrap();
    let identity = tls::ServerIdentity::issue(authority, tls::server_names(address, &[]), SystemTime::now()).unwrap();
    let config = tls::server_config(identity, authenticator.verifier()).unwrap();
    let stop = CancellationToken::new();
    let acceptor = Acceptor::new(Arc::clone(everybody), TunnelSettings::hub(), stop.clone());
    let port = Arc::new(Port { acceptor });
    tokio::spawn(serve(listener, config, authenticator, port, PortSettings::default(), stop));
    address
}

fn write_credential(directory: &std::path::Path, authority: &CertificateAuthority, address: SocketAddr) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let request = CertificateRequest::parse(&csr).unwrap();
    let cluster = CLUSTER.parse().unwrap();
    let issued = authority
        .issue_agent(&cluster, &request, SystemTime::now(), DEFAULT_LIFETIME)
        .unwrap();
    std::fs::write(directory.join("agent.crt"), issued.pem).unwrap();
    std::fs::write(directory.join("agent.key"), key.serialize_pem()).unwrap();
    std::fs::write(directory.join("hub"), format!("https://localhost:{}", address.port())).unwrap();
}

/// Resident memory of this process, once it no longer changes.
async fn settled_kib() -> f64 {
    let mut last = resident_kib();
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident_kib();
        if (now - last).abs() < 64.0 {
            return now;
        }
        last = now;
    }
}

fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The agents' process.
struct Fleet {
    child: Child,
    orders: ChildStdin,
}

impl Fleet {
    fn start(directory: &std::path::Path) -> Fleet {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env("BRANCHLINE_BENCH_AGENTS", directory).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let orders = child.stdin.take().unwrap();
        Fleet { child, orders }
    }

    async fn bring(&mut self, number: usize, everybody: &Everybody) {
        let wanted = *everybody.joined.borrow() + number;
        writeln!(self.orders, "{number}").unwrap();
        everybody.joined.subscribe().wait_for(|count| *count >= wanted).await.unwrap();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens as many tunnels as each line of the input says, and holds them.
async fn agents(directory: &str) {
    let directory = std::path::Path::new(directory);
    let hub = HubAddress::parse(&std::fs::read_to_string(directory.join("hub")).unwrap()).unwrap();
    let config = client_config(directory);
    let orders = tokio::task::spawn_blocking(|| BufReader::new(std::io::stdin()).lines());
    let mut held = Vec::new();
    for order in orders.await.unwrap() {
        let number: usize = order.unwrap().parse().unwrap();
        let mut dialling = JoinSet::new();
        for _ in 0..number {
            if dialling.len() >= DIALLING {
                held.push(dialling.join_next().await.unwrap().unwrap());
            }
            dialling.spawn(agent(hub.clone(), Arc::clone(&config)));
        }
        held.extend(dialling.join_all().await);
    }
}

async fn agent(hub: HubAddress, config: Arc<rustls::ClientConfig>) -> impl Sized {
    let cluster: ClusterId = CLUSTER.parse().unwrap();
    let tunnel = dial(&hub, &cluster, config, &TunnelSettings::agent()).await.unwrap();
    let mut stream = tunnel.handle.open().unwrap();
    control::write_header(&mut stream, &StreamHeader::Control { version: 1 })
        .await
        .unwrap();
    let (mut sender, receiver) = control::split::<ToHub, ToAgent>(stream);
    let hello: Hello = serde_json::from_value(
        serde_json::json!({"protocol": branchline::wire::version::NEWEST, "agentVersion": "bench", "clusterId": CLUSTER}),
    )
    .unwrap();
    sender.send(&ToHub::Hello(Box::new(hello)), b"").await.unwrap();
    (tunnel, sender, receiver)
}

fn client_config(directory: &std::path::Path) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(directory.join("ca.crt")).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(directory.join("agent.crt")).unwrap()],
            PrivateKeyDer::from_pem_file(directory.join("agent.key")).unwrap(),
        );
    Arc::new(config.unwrap())
}
