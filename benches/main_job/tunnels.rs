//! What a registered cluster and its idle tunnel cost the real hub: process, registry, sessions and API view included. The agents' ends
//! are held by this process, so only the hub is weighed.

use std::sync::Arc;
use std::time::Instant;

use base64::prelude::{BASE64_STANDARD, Engine};
use branchline::core::ids::ClusterId;
use branchline::tunnel::dial::{HubAddress, dial};
use branchline::tunnel::{TunnelSettings, control};
use branchline::wire::control::{Hello, ToAgent, ToHub};
use branchline::wire::header::StreamHeader;
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::bare::{Server, tls};
use crate::figures::{goal, heading, line, ms_between};
use crate::stage::{Hub, settled_kib};
use crate::support::repository::GitRepo;

/// Tunnels before the first weighing, so that what is allocated once is not counted.
const WARM_UP: usize = 100;
const TUNNELS: usize = 1_000;
/// Agents that register or dial at once.
const AT_ONCE: usize = 32;
const GOAL_KIB: f64 = 25.0;
const REQUESTS: &str = "/apis/clusters.clusternet.io/v1beta1/clusterregistrationrequests";

/// A registered cluster: its id and certificate, PEM.
type Registered = (ClusterId, String);

pub(crate) fn run() {
    heading("hub memory per idle tunnel: the whole hub");
    let repo = GitRepo::with(&[("README.md", "nothing")]);
    let hub = Hub::start(&repo.bare());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let key = Arc::new(rcgen::KeyPair::generate().unwrap());
    let start = settled_kib(hub.id());
    let begin = Instant::now();
    let fleet = runtime.block_on(register_all(&hub, &key));
    let registering = ms_between(begin, Instant::now());
    let registered = settled_kib(hub.id());

    let (warm_up, rest) = fleet.split_at(WARM_UP);
    let mut held = runtime.block_on(dial_all(&hub, &key, warm_up));
    let before = settled_kib(hub.id());
    let begin = Instant::now();
    held.extend(runtime.block_on(dial_all(&hub, &key, rest)));
    let dialling = ms_between(begin, Instant::now());
    let after = settled_kib(hub.id());

    let clusters = (WARM_UP + TUNNELS) as f64;
    line("hub at its start", &format!("{:.1} MiB", start / 1024.0));
    line(
        "per registered cluster without a tunnel",
        &format!(
            "{:.1} KiB, after {clusters} registrations in {:.2} s",
            (registered - start) / clusters,
            registering / 1000.0
        ),
    );
    goal("per idle tunnel", (after - before) / TUNNELS as f64, GOAL_KIB, "KiB");
    line(
        &format!("{TUNNELS} agents dialled"),
        &format!(
            "in {:.2} s, both ends on this machine; hub {:.1} MiB",
            dialling / 1000.0,
            after / 1024.0
        ),
    );
    drop(held);
}

async fn register_all(hub: &Hub, key: &Arc<rcgen::KeyPair>) -> Vec<Registered> {
    let (token, _) = hub.join();
    let server = Server::anonymous(hub.port(), hub.ca().as_bytes());
    let mut workers = JoinSet::new();
    for worker in 0..AT_ONCE {
        let (server, token, key) = (server.clone(), token.clone(), Arc::clone(key));
        workers.spawn(async move {
            let mut connection = server.connect().await;
            let mut registered = Vec::new();
            for number in (worker..WARM_UP + TUNNELS).step_by(AT_ONCE) {
                let body = request(number, &key);
                let bearer = format!("Bearer {token}");
                let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
                let (status, answer) = connection.send(Method::POST, REQUESTS, &headers, Bytes::from(body)).await;
                let answer: Value = serde_json::from_slice(&answer).unwrap();
                assert!(status < 300, "{answer}");
                let certificate = BASE64_STANDARD.decode(answer["status"]["certificate"].as_str().unwrap());
                registered.push((id(number), String::from_utf8(certificate.unwrap()).unwrap()));
            }
            registered
        });
    }
    workers.join_all().await.into_iter().flatten().collect()
}

fn id(number: usize) -> ClusterId {
    format!("0d0c9d5f-7a77-4a9e-8b7c-{number:012x}").parse().unwrap()
}

/// All clusters share one key, because making a thousand takes longer than all the rest.
fn request(number: usize, key: &rcgen::KeyPair) -> String {
    let csr = rcgen::CertificateParams::default()
        .serialize_request(key)
        .unwrap()
        .pem()
        .unwrap();
    json!({
        "apiVersion": "clusters.clusternet.io/v1beta1", "kind": "ClusterRegistrationRequest",
        "metadata": {
            "name": format!("clusternet-{}", id(number)),
            "annotations": {"branchline.io/certificate-signing-request": csr},
        },
        "spec": {
            "clusterId": id(number), "clusterName": format!("edge-{number}"), "clusterType": "EdgeCluster", "syncMode": "Pull",
            "clusterLabels": {"region": "eu", "stage": "production"},
        },
    })
    .to_string()
}

async fn dial_all(hub: &Hub, key: &rcgen::KeyPair, fleet: &[Registered]) -> Vec<impl Sized + use<>> {
    let address = HubAddress::parse(&format!("https://127.0.0.1:{}", hub.port())).unwrap();
    let (ca, key) = (hub.ca(), key.serialize_pem());
    let mut held = Vec::new();
    let mut dialling = JoinSet::new();
    for (cluster, certificate) in fleet {
        if dialling.len() >= AT_ONCE {
            held.push(dialling.join_next().await.unwrap().unwrap());
        }
        let tls = tls(ca.as_bytes(), Some((certificate.as_bytes(), key.as_bytes())));
        dialling.spawn(agent(address.clone(), cluster.clone(), tls));
    }
    held.extend(dialling.join_all().await);
    held
}

async fn agent(hub: HubAddress, cluster: ClusterId, tls: Arc<rustls::ClientConfig>) -> impl Sized {
    let tunnel = dial(&hub, &cluster, tls, &TunnelSettings::agent()).await.unwrap();
    let mut stream = tunnel.handle.open().unwrap();
    control::write_header(&mut stream, &StreamHeader::Control { version: 1 })
        .await
        .unwrap();
    let (mut sender, mut receiver) = control::split::<ToHub, ToAgent>(stream);
    let hello: Hello = serde_json::from_value(hello(&cluster)).unwrap();
    sender.send(&ToHub::Hello(Box::new(hello)), b"").await.unwrap();
    let welcome = receiver.receive().await.unwrap().unwrap();
    assert!(matches!(welcome.message, ToAgent::Welcome { .. }));
    (tunnel, sender, receiver)
}

/// What an agent of an ordinary cluster says.
fn hello(cluster: &ClusterId) -> Value {
    let sum = json!({"cpu": "48", "memory": "197568Mi", "pods": "330", "ephemeral-storage": "1200Gi"});
    json!({"protocol": branchline::wire::version::NEWEST, "agentVersion": "bench", "clusterId": cluster, "status": {
        "lastObservedTime": "2026-01-01T00:00:00Z", "k8sVersion": "v1.35.4", "agentVersion": "0.1.0", "platform": "linux/amd64",
        "apiserverURL": "https://10.96.0.1:443", "healthz": true, "livez": true, "readyz": true, "useSocket": true,
        "allocatable": sum, "capacity": sum, "clusterCIDR": "10.244.0.0/16", "serviceCIDR": "10.96.0.0/16",
        "nodeStatistics": {"readyNodes": 3}, "heartbeatFrequencySeconds": 30,
    }})
}
