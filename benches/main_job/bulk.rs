//! Many small Subscriptions in one push, beside a bare client that sends the same server-side applies as fast as the API server takes them.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::json;

use crate::bare::{Event, Server, Watch};
use crate::figures::{Samples, goal, heading, line, ms_between};
use crate::stage::{Agent, Hub};
use crate::support::apiserver::{ApiServer, kubectl};
use crate::support::repository::GitRepo;
use crate::support::samples::{config_map, config_map_feed, subscription};
use crate::support::scratch;

const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";
/// How the bare client sends: so many requests at once, over a connection each, or over one of HTTP/2, as the agent does.
const WAYS: [(usize, bool); 5] = [(8, false), (16, false), (32, false), (64, false), (64, true)];
/// Objects, and rounds: few objects take so little time that chance plays a larger part.
const SIZES: [(usize, usize); 2] = [(100, 11), (1_000, 5)];
const GOAL: f64 = 1.5;

pub(crate) fn run() {
    let child = ApiServer::start("child");
    child.kubectl(&["create", "namespace", "shop"]).ok();
    let repo = GitRepo::with(&[("README.md", "nothing yet")]);
    let hub = Hub::start(&repo.bare());
    let mut agent = Agent::new("edge-1", &hub, &child);
    agent.launch();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::of_kubeconfig(&child.kubeconfig());
    let watch = runtime.block_on(server.watch(&format!("{CONFIG_MAPS}?watch=true")));
    let mut stage = Stage {
        runtime,
        repo,
        child,
        server,
        watch,
    };
    for (number, rounds) in SIZES {
        stage.measure(number, rounds);
    }
}

struct Stage {
    runtime: tokio::runtime::Runtime,
    repo: GitRepo,
    child: ApiServer,
    server: Server,
    watch: Watch,
}

impl Stage {
    fn measure(&mut self, number: usize, rounds: usize) {
        heading(&format!("{number} Subscriptions in one push -> all objects in one child"));
        let mut ours = Samples::default();
        let mut bare = vec![Samples::default(); WAYS.len()];
        for round in 0..rounds {
            for (samples, way) in bare.iter_mut().zip(WAYS) {
                samples.add(self.bare(number, way));
            }
            ours.add(self.push(&format!("r{round}"), number));
        }
        line("end of git push -> all objects there", &ours.spread("ms"));
        for (samples, (at_once, http2)) in bare.iter().zip(WAYS) {
            let by = if http2 { "at once by HTTP/2" } else { "connections" };
            line(&format!("bare client, {at_once} {by}"), &samples.spread("ms"));
        }
        let kubectl = self.kubectl(number);
        line("kubectl apply --server-side -f, start -> end", &format!("{kubectl:.1} ms"));
        let best = bare.iter().map(Samples::median).fold(f64::INFINITY, f64::min);
        goal("P50 against the best bare client's P50", ours.median() / best, GOAL, "x");
    }

    fn push(&mut self, prefix: &str, number: usize) -> f64 {
        let names: Vec<String> = (0..number).map(|index| format!("{prefix}-{index:04}")).collect();
        let files: Vec<(String, String)> = names.iter().map(|name| (format!("bulk/{name}.yaml"), text(name))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        self.repo.put_all(&files);
        self.repo.commit("many");
        self.rest();
        self.git_push();
        let end = Instant::now();
        let there = |event: &Event| event.kind == "ADDED" && event.object.metadata.name.starts_with(prefix);
        let seen = self.runtime.block_on(self.watch.until_all(number, there));
        let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
        self.repo.remove_all(&paths);
        self.repo.commit("none");
        self.rest();
        self.git_push();
        let gone = |event: &Event| event.kind == "DELETED" && event.object.metadata.name.starts_with(prefix);
        self.runtime.block_on(self.watch.until_all(number, gone));
        self.rest();
        ms_between(end, seen)
    }

    fn git_push(&self) {
        self.repo
            .in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/main"])
            .ok();
    }

    fn bare(&mut self, number: usize, (at_once, http2): (usize, bool)) -> f64 {
        self.rest();
        let objects = (0..number).map(object).collect();
        let begin = match http2 {
            true => self.runtime.block_on(self.server.apply_all_by_http2(objects, at_once)),
            false => self.runtime.block_on(self.server.apply_all(objects, at_once)),
        };
        let there = |event: &Event| event.kind == "ADDED" && event.object.metadata.name.starts_with("bare-");
        let seen = self.runtime.block_on(self.watch.until_all(number, there));
        self.clear("bare-", number);
        ms_between(begin, seen)
    }

    fn kubectl(&mut self, number: usize) -> f64 {
        let directory = scratch("kubectl");
        let file = directory.path().join("all.yaml");
        let texts: Vec<String> = (0..number)
            .map(|index| config_map(&format!("kubectl-{index}"), "hello"))
            .collect();
        std::fs::write(&file, texts.join("---\n")).unwrap();
        let begin = Instant::now();
        let file = file.display().to_string();
        kubectl(&self.child.kubeconfig(), &["apply", "--server-side", "-f", &file]).ok();
        let took = ms_between(begin, Instant::now());
        self.clear("kubectl-", number);
        took
    }

    fn clear(&mut self, prefix: &str, number: usize) {
        self.runtime.block_on(async {
            let mut connection = self.server.connect().await;
            for index in 0..number {
                let path = format!("{CONFIG_MAPS}/{prefix}{index}");
                connection.send(Method::DELETE, &path, &[], Bytes::new()).await;
            }
            let gone = |event: &Event| event.kind == "DELETED" && event.object.metadata.name.starts_with(prefix);
            self.watch.until_all(number, gone).await;
        });
    }

    /// What the measurement before set off is over by then.
    fn rest(&self) {
        std::thread::sleep(Duration::from_millis(700));
    }
}

/// A Subscription and its ConfigMap, in one file.
fn text(name: &str) -> String {
    format!(
        "{}---\n{}",
        subscription(name, &[], &[config_map_feed(name)]),
        config_map(name, "hello")
    )
}

/// What the agent would send for one of them.
fn object(index: usize) -> (String, Bytes) {
    let name = format!("bare-{index}");
    let path = format!("{CONFIG_MAPS}/{name}");
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"greeting": "hello"}, "metadata": {
        "name": name, "namespace": "shop", "labels": {"branchline.io/managed": "true"},
        "annotations": {"branchline.io/description": format!("shop.{name}")},
    }});
    (path, Bytes::from(body.to_string()))
}
