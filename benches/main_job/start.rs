//! How soon an agent is Ready, how soon tunnels are back after the hub was killed, and what hub and agents weigh when nothing happens.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::bare::{Server, Watch};
use crate::figures::{Samples, goal, heading, line, ms_between};
use crate::stage::{Agent, CLUSTERS, Hub, is_ready, own_kib, says_ready, settled_kib};
use crate::support::apiserver::ApiServer;
use crate::support::repository::GitRepo;
use crate::support::samples::{config_map, config_map_feed, subscription};

const CHILDREN: usize = 3;
const ROUNDS: usize = 5;
const READY_GOAL_MS: f64 = 1_000.0;
const BACK_GOAL_MS: f64 = 2_000.0;
const AGENT_GOAL_MB: f64 = 15.0;
const HUB_GOAL_MB: f64 = 40.0;

pub(crate) fn run() {
    let children: Vec<ApiServer> = (1..=CHILDREN).map(|number| ApiServer::start(&name(number))).collect();
    for child in &children {
        child.kubectl(&["create", "namespace", "shop"]).ok();
    }
    let repo = GitRepo::with(&[
        ("app/subscription.yaml", &subscription("app", &[], &[config_map_feed("app")])),
        ("app/config.yaml", &config_map("app", "hello")),
    ]);
    let mut hub = Hub::start(&repo.bare());
    let mut agents: Vec<Agent> = (1..=CHILDREN)
        .map(|number| Agent::new(&name(number), &hub, &children[number - 1]))
        .collect();
    let runtime = Runtime::new().unwrap();
    let server = hub.server();
    heading("agent start -> Ready on the hub");
    let watch = runtime.block_on(server.watch(&format!("{CLUSTERS}?watch=true")));
    start_agents(&runtime, watch, &mut agents);
    heading("hub killed and started -> tunnels of 3 agents back");
    restart_hub(&runtime, &mut hub, &server);
    heading("resident memory, idle");
    weigh(&hub, &agents);
}

fn name(number: usize) -> String {
    format!("edge-{number}")
}

fn start_agents(runtime: &Runtime, mut watch: Watch, agents: &mut [Agent]) {
    let mut first = Samples::default();
    let mut again = Samples::default();
    for (agent, number) in agents.iter_mut().zip(1..) {
        let cluster = name(number);
        let begin = Instant::now();
        agent.launch();
        let ready = runtime.block_on(watch.until(|event| says_ready(event, &cluster, true)));
        first.add(ms_between(begin, ready));
        for _ in 0..ROUNDS {
            agent.kill();
            runtime.block_on(watch.until(|event| says_ready(event, &cluster, false)));
            let begin = Instant::now();
            agent.launch();
            let ready = runtime.block_on(watch.until(|event| says_ready(event, &cluster, true)));
            again.add(ms_between(begin, ready));
        }
    }
    line("first registration with a token", &first.spread("ms"));
    line("registered already", &again.spread("ms"));
    goal("slowest first registration", first.at(1.0), READY_GOAL_MS, "ms");
    goal("slowest start of a registered agent", again.at(1.0), READY_GOAL_MS, "ms");
}

fn restart_hub(runtime: &Runtime, hub: &mut Hub, server: &Server) {
    let mut at_once = Samples::default();
    let mut after_a_while = Samples::default();
    for _ in 0..ROUNDS {
        // Down for a moment, and down long enough for the agents' pauses to have grown.
        for (down, samples) in [(0, &mut at_once), (1_500, &mut after_a_while)] {
            hub.kill();
            std::thread::sleep(Duration::from_millis(down));
            let begin = Instant::now();
            hub.launch();
            runtime.block_on(until_all_ready(server));
            samples.add(ms_between(begin, Instant::now()));
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    line("kill -9, started at once", &at_once.spread("ms"));
    line("kill -9, down for 1.5 s", &after_a_while.spread("ms"));
    goal("slowest, started at once", at_once.at(1.0), BACK_GOAL_MS, "ms");
    goal("slowest, down for 1.5 s", after_a_while.at(1.0), BACK_GOAL_MS, "ms");
}

/// Asks over and over, because a hub that was killed takes its watches along.
async fn until_all_ready(server: &Server) {
    let begin = Instant::now();
    while begin.elapsed() < crate::support::PATIENCE {
        if let Some(mut connection) = server.try_connect().await {
            let (status, body) = connection.send(Method::GET, CLUSTERS, &[], Bytes::new()).await;
            let list: Value = serde_json::from_slice(&body).unwrap_or_default();
            let items = list["items"].as_array().into_iter().flatten();
            if status == 200 && items.filter(|item| is_ready(&item["status"])).count() == CHILDREN {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    panic!("the tunnels are not back");
}

fn weigh(hub: &Hub, agents: &[Agent]) {
    let mb = |id: u32| settled_kib(id) * 1024.0 / 1e6;
    let own = |id: u32| own_kib(id) * 1024.0 / 1e6;
    let largest = agents.iter().map(|agent| mb(agent.id())).fold(0.0, f64::max);
    let largest_own = agents.iter().map(|agent| own(agent.id())).fold(0.0, f64::max);
    goal("largest of the agents", largest, AGENT_GOAL_MB, "MB");
    line(
        "  of that its own; the rest is the binary, shared",
        &format!("{largest_own:.1} MB"),
    );
    goal("hub with 3 clusters", mb(hub.id()), HUB_GOAL_MB, "MB");
    line(
        "  of that its own; the rest is the binary, shared",
        &format!("{:.1} MB", own(hub.id())),
    );
}
