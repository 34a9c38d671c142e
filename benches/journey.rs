//! How long the main job takes, beside kubectl and a bare client on the same machine, and what hub and agent weigh. Prints ratios; asserts
//! nothing. `tests/tools/build && cargo bench` runs it; it takes about two minutes.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench ends at the first thing that goes wrong"
)]
#![expect(clippy::disallowed_methods, reason = "measures processes by the clock")]

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};

use support::apiserver::{ApiServer, kubectl};
use support::fleet::{Agent, Fleet};
use support::node::read_head;
use support::samples::{base, config_map, greeting};
use support::{scratch, wait_until};

fn main() {
    // `cargo test --benches` and `cargo clippy` only want to know that it builds.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!("branchline journey: {} processors, {}", processors(), kernel());
    let mut fleet = Fleet::start(&["a", "b", "c"]);
    fleet.repo.push("base", &[("base.yaml", &base())]);
    wait_until("the namespace is there", || {
        fleet.servers[0].get("/api/v1/namespaces/shop").ok_or_else(|| fleet.hub.log())
    });
    sizes(&mut fleet);
    one_object(&fleet);
    for count in [100, 1000] {
        many_objects(&fleet, count);
    }
    restarts(fleet);
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/version")
        .unwrap_or_default()
        .split(" (")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The middle of some durations, and the one that nine of ten do not exceed.
fn quantiles(mut durations: Vec<Duration>) -> (Duration, Duration) {
    durations.sort_unstable();
    (durations[durations.len() / 2], durations[durations.len() * 9 / 10])
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn ratio(ours: Duration, theirs: Duration) -> String {
    format!("{:.2}", ours.as_secs_f64() / theirs.as_secs_f64())
}

/// Tells when each ConfigMap of namespace `shop` in this cluster is first seen, from a watch that is open before anything is asked for.
fn watch_config_maps(server: &ApiServer) -> mpsc::Receiver<(String, Instant)> {
    let (sender, seen) = mpsc::channel();
    let list = server.get("/api/v1/namespaces/shop/configmaps").unwrap();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/namespaces/shop/configmaps?watch=true&resourceVersion={version}");
    let mut stream = server.client().open(&path).unwrap();
    std::thread::spawn(move || {
        // The answer's head ends with an empty line, the chunks follow.
        read_head(&mut stream).unwrap();
        let mut events = BufReader::new(Chunks { stream, left: 0 });
        let mut line = String::new();
        while events.read_line(&mut line).is_ok_and(|length| length > 0) {
            let now = Instant::now();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let seen = format!(
                "{}={}",
                text(&event["object"]["metadata"]["name"]),
                text(&event["object"]["data"]["greeting"])
            );
            if sender.send((seen, now)).is_err() {
                return;
            }
            line.clear();
        }
    });
    seen
}

/// The content of HTTP chunks.
struct Chunks<R> {
    stream: R,
    left: usize,
}

impl<R: Read> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let mut length = String::new();
            let mut byte = [0u8; 1];
            // A chunk's length stands alone on a line; the line end of the chunk before is skipped.
            while !length.ends_with('\n') || length.trim().is_empty() {
                self.stream.read_exact(&mut byte)?;
                length.push(char::from(byte[0]));
            }
            self.left = usize::from_str_radix(length.trim(), 16).map_err(std::io::Error::other)?;
        }
        let wanted = buffer.len().min(self.left);
        let length = self.stream.read(&mut buffer[..wanted])?;
        self.left -= length;
        Ok(length)
    }
}

/// Waits for one state of one ConfigMap.
fn arrival(seen: &mpsc::Receiver<(String, Instant)>, wanted: &str) -> Instant {
    loop {
        let (found, when) = seen.recv_timeout(support::PATIENCE).expect("the object arrives");
        if found == wanted {
            return when;
        }
    }
}

/// End of `git push` → object present, beside `kubectl apply` of the same object.
fn one_object(fleet: &Fleet) {
    const ROUNDS: usize = 30;
    let seen = watch_config_maps(&fleet.servers[0]);
    let directory = scratch("apply");
    let (mut ours, mut whole, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let text = format!("round-{round}");
        fleet.repo.put("one.yaml", &greeting("one", &[("name", "a")], &text));
        fleet.repo.commit(&text);
        let begin = Instant::now();
        fleet
            .repo
            .in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/main"])
            .ok();
        let pushed = Instant::now();
        let present = arrival(&seen, &format!("one={text}"));
        ours.push(present.saturating_duration_since(pushed));
        whole.push(present - begin);

        let file = directory.path().join("bare.yaml");
        std::fs::write(&file, config_map("bare", &text)).unwrap();
        let begin = Instant::now();
        kubectl(&fleet.servers[0].kubeconfig(), &["apply", "-f", file.to_str().unwrap()]).ok();
        theirs.push(begin.elapsed());
    }
    let (ours, whole, theirs) = (quantiles(ours), quantiles(whole), quantiles(theirs));
    println!("one object, {ROUNDS} rounds                        P50         P90");
    for (what, (middle, high)) in [
        ("end of git push → present", ours),
        ("begin of git push → present", whole),
        ("kubectl apply", theirs),
    ] {
        println!("  {what:<40} {:>10}  {:>10}", milliseconds(middle), milliseconds(high));
    }
    println!("  ratio to kubectl apply, P50: {}", ratio(ours.0, theirs.0));
}

/// So many Subscriptions in one push → all objects present, beside a bare client that sends the same server-side applies.
fn many_objects(fleet: &Fleet, count: usize) {
    let seen = watch_config_maps(&fleet.servers[0]);
    for number in 0..count {
        let name = format!("many-{count}-{number}");
        fleet
            .repo
            .put(&format!("many/{name}.yaml"), &greeting(&name, &[("name", "a")], "hello"));
    }
    fleet.repo.commit("many");
    let begin = Instant::now();
    fleet
        .repo
        .in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/main"])
        .ok();
    let pushed = Instant::now();
    let mut last = begin;
    for _ in 0..count {
        last = seen.recv_timeout(support::PATIENCE).expect("all objects arrive").1;
    }
    let ours = last.saturating_duration_since(pushed);
    println!("{count} Subscriptions in one push");
    println!("  end of git push → all present            {:>10}", milliseconds(ours));
    let mut best = Duration::MAX;
    for at_once in [1, 8, 16, 64] {
        let bare = bare_client(&fleet.servers[0], count, at_once);
        best = best.min(bare);
        println!(
            "  bare client, {at_once:>2} requests at once         {:>10}",
            milliseconds(bare)
        );
    }
    println!("  ratio to the best bare client: {}", ratio(ours, best));
}

/// Server-side applies of as many new ConfigMaps, so many at once.
fn bare_client(server: &ApiServer, count: usize, at_once: usize) -> Duration {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = Kubeconfig::read_from(server.kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        let api: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config).unwrap(), "shop");
        api.list(&Default::default()).await.unwrap();
        let params = PatchParams::apply("bare").force();
        let begin = Instant::now();
        let requests = (0..count).map(|number| {
            let name = format!("bare-{count}-{at_once}-{number}");
            let object: serde_json::Value = serde_saphyr::from_str(&config_map(&name, "hello")).unwrap();
            let (api, params) = (&api, &params);
            async move { api.patch(&name, params, &Patch::Apply(object)).await.unwrap() }
        });
        futures::stream::iter(requests)
            .buffer_unordered(at_once)
            .for_each(|_| async {})
            .await;
        begin.elapsed()
    })
}

/// Agent start → Ready; hub restart → all tunnels back.
fn restarts(mut fleet: Fleet) {
    let server = ApiServer::start("late");
    let mut late = Agent::prepare("late", &fleet.hub.join(&[]), &server);
    let begin = Instant::now();
    late.launch();
    fleet.hub.wait_cluster("late", "True");
    println!(
        "first start of an agent → Ready              {:>10}",
        milliseconds(begin.elapsed())
    );
    late.kill();
    fleet.hub.wait_cluster("late", "Unknown");
    let begin = Instant::now();
    late.launch();
    fleet.hub.wait_cluster("late", "True");
    println!(
        "start of a registered agent → Ready          {:>10}",
        milliseconds(begin.elapsed())
    );
    fleet.hub.kill();
    let begin = Instant::now();
    fleet.hub.start_again();
    fleet.wait_all_ready();
    println!(
        "hub restart → 3 tunnels back                 {:>10}",
        milliseconds(begin.elapsed())
    );
}

/// Resident memory of the idle processes.
fn sizes(fleet: &mut Fleet) {
    println!(
        "hub with {} clusters, idle: {}",
        fleet.agents.len(),
        resident(fleet.hub.process().id())
    );
    println!("agent, idle: {}", resident(fleet.agents[0].process().id()));
}

fn resident(process: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: f64 = line
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default();
    format!("{:.1} MB", kibibytes / 1024.0)
}
