//! One object: from the end of `git push` until it stands in the child's API server, beside kubectl and a bare request.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bare::{Server, Watch};
use crate::figures::{Samples, goal, heading, line, ms_between};
use crate::stage::{Agent, Hub};
use crate::support::apiserver::{ApiServer, kubectl};
use crate::support::repository::GitRepo;
use crate::support::samples::{config_map, config_map_feed, subscription};
use crate::support::scratch;

const WARM_UP: usize = 5;
const ROUNDS: usize = 30;
const GOAL_MS: f64 = 30.0;
const CONFIG_MAPS: &str = "/api/v1/namespaces/shop/configmaps";

#[derive(Default)]
struct Figures {
    pushed: Samples,
    git: Samples,
    kubectl: Samples,
    bare: Samples,
}

pub(crate) fn run() {
    heading("git push -> object in the child's API server, one cluster, warm");
    let child = ApiServer::start("child");
    child.kubectl(&["create", "namespace", "shop"]).ok();
    let repo = GitRepo::with(&[
        (
            "app/subscription.yaml",
            &subscription("app", &[], &[config_map_feed("pushed")]),
        ),
        ("app/config.yaml", &config_map("pushed", "first")),
    ]);
    let hub = Hub::start(&repo.bare());
    let mut agent = Agent::new("edge-1", &hub, &child);
    agent.launch();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::of_kubeconfig(&child.kubeconfig());
    let mut watch = runtime.block_on(server.watch(&format!("{CONFIG_MAPS}?watch=true")));
    runtime.block_on(watch.until(|event| event.object.metadata.name == "pushed"));
    let mut round = Round {
        runtime,
        repo,
        child,
        server,
        watch,
        scratch: scratch("kubectl"),
    };
    for number in 0..WARM_UP {
        round.play(number, &mut Figures::default());
    }
    let mut figures = Figures::default();
    for number in WARM_UP..WARM_UP + ROUNDS {
        round.play(number, &mut figures);
    }
    print(&figures);
}

struct Round {
    runtime: tokio::runtime::Runtime,
    repo: GitRepo,
    child: ApiServer,
    server: Server,
    watch: Watch,
    scratch: tempfile::TempDir,
}

impl Round {
    fn play(&mut self, number: usize, figures: &mut Figures) {
        let value = format!("value-{number}");
        self.repo.put("app/config.yaml", &config_map("pushed", &value));
        self.repo.commit(&value);
        self.rest();
        let begin = Instant::now();
        self.repo
            .in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/main"])
            .ok();
        let end = Instant::now();
        let seen = self.until_seen("pushed", &value);
        figures.git.add(ms_between(begin, end));
        figures.pushed.add(ms_between(end, seen));

        let file = self.scratch.path().join("config.yaml");
        std::fs::write(&file, config_map("by-kubectl", &value)).unwrap();
        self.rest();
        let begin = Instant::now();
        let file = file.display().to_string();
        kubectl(&self.child.kubeconfig(), &["apply", "-f", &file]).ok();
        figures.kubectl.add(ms_between(begin, Instant::now()));

        self.rest();
        let body = serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"greeting": value},
            "metadata": {"name": "bare", "namespace": "shop"}});
        let begin = self.runtime.block_on(async {
            let mut connection = self.server.connect().await;
            let begin = Instant::now();
            connection
                .apply(&format!("{CONFIG_MAPS}/bare"), Bytes::from(body.to_string()))
                .await;
            begin
        });
        let seen = self.until_seen("bare", &value);
        figures.bare.add(ms_between(begin, seen));
    }

    fn until_seen(&mut self, name: &str, value: &str) -> Instant {
        let wanted = |event: &crate::bare::Event| event.object.metadata.name == name && event.object.data["greeting"] == value;
        self.runtime.block_on(self.watch.until(wanted))
    }

    /// What the measurement before set off is over by then.
    fn rest(&self) {
        std::thread::sleep(Duration::from_millis(150));
    }
}

fn print(figures: &Figures) {
    line("end of git push -> object there", &figures.pushed.spread("ms"));
    line("  git push itself", &figures.git.spread("ms"));
    line("kubectl apply of the same file, start -> end", &figures.kubectl.spread("ms"));
    line("bare server-side apply, request -> object there", &figures.bare.spread("ms"));
    let ours = figures.pushed.median();
    goal("P50 against the goal", ours, GOAL_MS, "ms");
    goal("P50 against kubectl apply", ours, figures.kubectl.median(), "ms");
    line(
        "P50 against a bare server-side apply",
        &format!("{:.1} x", ours / figures.bare.median()),
    );
}
