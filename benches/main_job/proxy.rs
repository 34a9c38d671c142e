//! Requests through the hub and the tunnel beside the same requests to the child itself: how late, how fast, how many, and what waiting
//! costs. `PROXY_BRIEF=1` takes few samples, to see that all of it runs; `PROXY_PARTS=list,busy` runs these parts alone.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::bare::{Connection, Server};
use crate::figures::{Samples, at_least, goal, heading, line, ms_between};
use crate::stage::{Agent, Hub, settled_kib};
use crate::support::apiserver::ApiServer;
use crate::support::process::Process;
use crate::support::repository::GitRepo;

const SMALL: &str = "/api/v1/namespaces/default";
const LIST: &str = "/api/v1/namespaces/large/configmaps";
const LARGE: usize = 50;
const MEGABYTE: usize = 1_000_000;
/// A gigabyte has 64 of these.
const BULK_STEP: usize = 1 << 24;
/// Where it comes at the rate of a network.
const GIGABIT: &str = "/gigabit";
/// 1 Gbit/s in bytes.
const GIGABIT_BYTES: f64 = 125e6;
const CLIENTS: usize = 8;
/// Watches before the first weighing, so that what is allocated once is not counted.
const WARM_UP: usize = 50;
/// With the former as many as one tunnel lets through, but for a few.
const WATCHES: usize = 900;
/// Watches of one HTTP/2 connection.
const SHARED: usize = 100;

const LATER_GOAL_MS: f64 = 1.0;
const LIST_GOAL: f64 = 0.85;
const RATE_GOAL: f64 = 0.7;
const BUSY_GOAL_MS: f64 = 5.0;
const WATCH_GOAL_KIB: f64 = 30.0;

/// Whether a part was asked for.
fn wanted(part: &str) -> bool {
    let parts = std::env::var("PROXY_PARTS").unwrap_or_default();
    parts.is_empty() || parts.split(',').any(|named| named == part)
}

/// A number of samples, or few of them.
fn many(number: usize) -> usize {
    match std::env::var_os("PROXY_BRIEF") {
        Some(_) => number.div_ceil(20),
        None => number,
    }
}

pub(crate) fn run() {
    let [child, elsewhere] = ["child", "elsewhere"].map(ApiServer::start);
    let repo = GitRepo::with(&[("README.md", "nothing")]);
    let hub = Hub::start(&repo.bare());
    let bulk = bulk_server();
    let runtime = Runtime::new().unwrap();
    let (way, agent) = Way::open(&runtime, "edge-1", &hub, &child, bulk);
    let (other, _agent) = Way::open(&runtime, "edge-2", &hub, &elsewhere, bulk);
    let processes = [
        ("API server", child.process().as_ref().map_or(0, Process::id)),
        ("client", std::process::id()),
        ("hub", hub.id()),
        ("agent", agent.id()),
    ];
    if wanted("small") {
        heading("proxy: a small GET, one after the other");
        runtime.block_on(way.small());
    }
    if wanted("list") {
        heading("proxy: a list of 50 MB");
        add_large_list(&child);
        runtime.block_on(way.list(processes));
    }
    if wanted("rate") {
        heading("proxy: small GETs by 8 clients at once");
        runtime.block_on(way.rate(processes));
    }
    if wanted("busy") {
        heading("proxy: a small GET while something large goes through the same tunnel");
        runtime.block_on(way.busy(&other));
    }
    for (part, http2, protocol) in [
        ("http2", true, "HTTP/2, 100 to a connection"),
        ("http1", false, "HTTP/1.1, a connection each"),
    ] {
        if wanted(part) {
            heading(&format!("proxy: hub memory per idle watch, {protocol}"));
            way.idle(&runtime, &hub, http2);
        }
    }
}

/// Who has a part in a request: names and process ids.
type Processes = [(&'static str, u32); 4];

/// Processor time that they had, in ms.
struct Work {
    processes: Processes,
    done: [f64; 4],
}

impl Work {
    fn new(processes: Processes) -> Self {
        Work {
            processes,
            done: [0.0; 4],
        }
    }

    /// What this takes of it counts.
    async fn of<T>(&mut self, job: impl Future<Output = T>) -> T {
        let before = self.processes.map(|(_, id)| processor_ms(id));
        let result = job.await;
        for ((done, before), (_, id)) in self.done.iter_mut().zip(before).zip(self.processes) {
            *done += processor_ms(id) - before;
        }
        result
    }

    /// The share of each of so many.
    fn each(&self, number: f64) -> String {
        let each = self.processes.iter().zip(self.done);
        let each: Vec<String> = each.map(|((name, _), done)| format!("{name} {:.0}", done / number)).collect();
        each.join("   ")
    }
}

/// Both ways to one child.
struct Way {
    hub: Server,
    child: Server,
    socket: String,
    bulk: u16,
}

impl Way {
    /// The ways to a child whose agent has connected.
    fn open(runtime: &Runtime, name: &str, hub: &Hub, child: &ApiServer, bulk: u16) -> (Way, Agent) {
        let mut agent = Agent::new(name, hub, child).with(&format!("--allow-proxy-to=127.0.0.1:{bulk}"));
        agent.launch();
        let_admins_in(child);
        let way = Way {
            hub: hub.server(),
            child: Server::of_kubeconfig(&child.kubeconfig()),
            socket: format!("/apis/proxies.clusternet.io/v1alpha1/sockets/{}/proxy", child.cluster_id()),
            bulk,
        };
        runtime.block_on(way.until_open());
        (way, agent)
    }

    fn through(&self, path: &str) -> String {
        format!("{}/direct{path}", self.socket)
    }

    async fn until_open(&self) {
        loop {
            let mut connection = self.hub.connect().await;
            if connection.send(Method::GET, &self.through(SMALL), &[], Bytes::new()).await.0 == 200 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn small(&self) {
        let (mut direct, mut through) = (self.child.connect().await, self.hub.connect().await);
        let path = self.through(SMALL);
        let (mut without, mut with) = (Samples::default(), Samples::default());
        for round in 0..many(2_000) + 100 {
            let (bare, ours) = (timed(&mut direct, SMALL).await, timed(&mut through, &path).await);
            if round >= 100 {
                without.add(bare);
                with.add(ours);
            }
        }
        line("direct", &tail(&without));
        line("through hub and tunnel", &tail(&with));
        goal("P50 later than direct", with.median() - without.median(), LATER_GOAL_MS, "ms");
    }

    async fn list(&self, processes: Processes) {
        let (mut direct, mut through) = (self.child.connect().await, self.hub.connect().await);
        let path = self.through(LIST);
        let (mut without, mut with) = (Samples::default(), Samples::default());
        let mut work = [Work::new(processes), Work::new(processes)];
        let rounds = many(20).max(3);
        for _ in 0..rounds {
            without.add(work[0].of(throughput(&mut direct, LIST)).await);
            with.add(work[1].of(throughput(&mut through, &path)).await);
        }
        let rounds = rounds as f64;
        line("direct", &without.spread("MB/s"));
        line("  processor time of a list, ms", &work[0].each(rounds));
        line("through hub and tunnel", &with.spread("MB/s"));
        line("  processor time of a list, ms", &work[1].each(rounds));
        at_least("P50 of direct's P50", with.median() / without.median(), LIST_GOAL, "x");
    }

    async fn rate(&self, processes: Processes) {
        let period = Duration::from_millis(many(4_000) as u64);
        let (mut without, mut with) = (Samples::default(), Samples::default());
        let (mut work, mut requests) = ([Work::new(processes), Work::new(processes)], [0.0; 2]);
        let path = self.through(SMALL);
        for _ in 0..many(5).max(2) {
            let rates = [
                work[0].of(requests_per_second(&self.child, SMALL, period)).await,
                work[1].of(requests_per_second(&self.hub, &path, period)).await,
            ];
            without.add(rates[0]);
            with.add(rates[1]);
            for (requests, rate) in requests.iter_mut().zip(rates) {
                // In thousands, so that each took so many millionths of a second.
                *requests += rate * period.as_secs_f64() / 1000.0;
            }
        }
        line("direct", &without.spread("/s"));
        line("  processor time of a request, µs", &work[0].each(requests[0]));
        line("through hub and tunnel", &with.spread("/s"));
        line("  processor time of a request, µs", &work[1].each(requests[1]));
        at_least("P50 of direct's P50", with.median() / without.median(), RATE_GOAL, "x");
    }

    /// Beside a transfer that takes as many cores as there are, which says more of the machine than of the tunnel: what the same transfer does through
    /// the tunnel of another cluster stands beside it. And beside one as fast as a network.
    async fn busy(&self, other: &Way) {
        let mut small = self.hub.connect().await;
        let path = self.through(SMALL);
        let mut quiet = Samples::default();
        for _ in 0..many(500) {
            quiet.add(timed(&mut small, &path).await);
        }
        line("with the tunnel to themselves", &tail(&quiet));
        for (way, what, rate) in [
            (other, "a gigabyte through another cluster's tunnel", "/"),
            (self, "a gigabyte through this one", "/"),
            (self, "as much at 1 Gbit/s", GIGABIT),
        ] {
            let over = Arc::new(AtomicBool::new(false));
            let bulk = tokio::spawn(way.transfer(rate, &over).await);
            let mut busy = Samples::default();
            while !over.load(Ordering::Relaxed) {
                busy.add(timed(&mut small, &path).await);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let speed = bulk.await.unwrap();
            line(&format!("beside {what}, {speed:.0} MB/s"), &tail(&busy));
            goal("P99", busy.at(0.99), BUSY_GOAL_MS, "ms");
        }
    }

    /// What a service beside the API server sends, in MB/s.
    async fn transfer(&self, rate: &str, over: &Arc<AtomicBool>) -> impl Future<Output = f64> + use<> {
        let mut connection = self.hub.connect().await;
        let path = format!("{}/http/127.0.0.1:{}{rate}", self.socket, self.bulk);
        let over = Arc::clone(over);
        async move {
            let speed = throughput(&mut connection, &path).await;
            over.store(true, Ordering::Relaxed);
            speed
        }
    }

    fn idle(&self, runtime: &Runtime, hub: &Hub, http2: bool) {
        let mut held = runtime.block_on(self.watches(WARM_UP, http2));
        let before = settled_kib(hub.id());
        let number = many(WATCHES);
        held.extend(runtime.block_on(self.watches(number, http2)));
        let after = settled_kib(hub.id());
        goal("per idle watch", (after - before) / number as f64, WATCH_GOAL_KIB, "KiB");
        drop(held);
        runtime.block_on(self.until_open());
    }

    /// Watches in which nothing happens, as long as what is returned is held.
    async fn watches(&self, number: usize, http2: bool) -> Vec<Box<dyn Send>> {
        let path = self.through("/api/v1/configmaps?watch=true&fieldSelector=metadata.name%3Dnone");
        let mut held: Vec<Box<dyn Send>> = Vec::new();
        let mut shared = None;
        for index in 0..number {
            if !http2 {
                let mut connection = self.hub.connect().await;
                let response = connection.exchange(Method::GET, &path, &[], Bytes::new()).await;
                assert_eq!(response.status(), 200);
                held.push(Box::new((connection, response)));
                continue;
            }
            if index % SHARED == 0 {
                shared = Some(self.hub.connect_http2().await);
            }
            let request = Request::get(format!("https://127.0.0.1{path}")).body(Full::default());
            let response = shared.as_mut().unwrap().send_request(request.unwrap()).await.unwrap();
            assert_eq!(response.status(), 200);
            held.push(Box::new((shared.clone(), response)));
        }
        held
    }
}

async fn timed(connection: &mut Connection, path: &str) -> f64 {
    let begin = Instant::now();
    connection.get(path).await;
    ms_between(begin, Instant::now())
}

/// MB/s of one answer.
async fn throughput(connection: &mut Connection, path: &str) -> f64 {
    let begin = Instant::now();
    let length = connection.get(path).await;
    length as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

async fn requests_per_second(server: &Server, path: &str, period: Duration) -> f64 {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (mut connection, path) = (server.connect().await, path.to_owned());
        connection.get(&path).await;
        clients.spawn(async move {
            let (begin, mut count) = (Instant::now(), 0.0);
            while begin.elapsed() < period {
                connection.get(&path).await;
                count += 1.0;
            }
            count / begin.elapsed().as_secs_f64()
        });
    }
    clients.join_all().await.into_iter().sum()
}

fn tail(samples: &Samples) -> String {
    let [middle, tail, worst] = [0.5, 0.99, 1.0].map(|part| samples.at(part));
    format!("P50 {middle:.2} ms   P99 {tail:.2} ms   max {worst:.2} ms")
}

/// Answers each request with a gigabyte, as fast as it is taken or as 1 Gbit/s brings it.
fn bulk_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || send_bulk(socket));
        }
    });
    port
}

fn send_bulk(mut socket: TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && socket.read_exact(&mut byte).is_ok() {
        head.push(byte[0]);
    }
    let is_paced = head.starts_with(format!("GET {GIGABIT} ").as_bytes());
    let length = (many(64) * BULK_STEP) as u64;
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let mut sent = socket.write_all(head.as_bytes());
    let (piece, begin) = (vec![b'x'; 1 << 16], Instant::now());
    for number in 0..length / piece.len() as u64 {
        if is_paced {
            let due = begin + Duration::from_secs_f64(number as f64 * piece.len() as f64 / GIGABIT_BYTES);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        sent = sent.and_then(|()| socket.write_all(&piece));
    }
    sent.unwrap();
}

/// Processor time that a process has had, in ms.
fn processor_ms(id: u32) -> f64 {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanoseconds.sum::<f64>() / 1e6
}

/// The hub's administrators may do everything in the child.
fn let_admins_in(child: &ApiServer) {
    let binding = [
        "create",
        "clusterrolebinding",
        "admins",
        "--clusterrole=cluster-admin",
        "--group=branchline:admins",
    ];
    child.kubectl(&binding).ok();
}

/// ConfigMaps of a megabyte each.
fn add_large_list(child: &ApiServer) {
    child.kubectl(&["create", "namespace", "large"]).ok();
    for number in 0..LARGE {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("large-{number}") },
            "data": { "content": "x".repeat(MEGABYTE) },
        });
        assert_eq!(child.send("POST", LIST, "application/json", &object).status, 201);
    }
}
