//! What happens on the way to a cluster: much at once, large answers, readers that stop, and ways that break. Nobody hangs, nobody slows
//! another, and whoever can go on goes on.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::apiserver::ApiServer;
use crate::support::fleet::{Fleet, Hub};
use crate::support::node::read_head;
use crate::support::process::{Process, run};
use crate::support::reach::{Protocol, Reach};
use crate::support::relay::Relay;
use crate::support::repository::GitRepo;
use crate::support::{holds, scratch, wait_until};

/// A cluster whose agent reaches the hub through a relay.
fn behind_a_relay() -> (Reach, Relay) {
    let repo = GitRepo::with(&[("README.md", "A fleet.\n")]);
    let hub = Hub::prepare("hub", &repo);
    let relay = Relay::to(hub.port());
    let hub = hub.advertising(relay.port());
    (Reach::over(Fleet::of(repo, hub, &["a"]), &["a"]), relay)
}

/// Runs `break_it` while commands run and logs are followed by every client of cluster a, and expects each to end with an error.
fn all_end_with_an_error(reach: &Reach, number: usize, break_it: impl FnOnce()) {
    let pod = format!("broken-{number}");
    let script = "echo up; exec sleep 100000";
    reach.run_pod(0, &pod, &json!({ "command": ["sh", "-c", script] }));
    // Their logs end with them.
    let (mut clients, mut running) = (Vec::new(), Vec::new());
    for client in reach.clients_of(0) {
        for arguments in [&["exec", &pod, "--", "sh", "-c", script][..], &["logs", "-f", &pod]] {
            let mut process = client.start(arguments);
            process.wait_log("up");
            running.push((client.protocol, arguments[0], process));
        }
        clients.push(client);
    }
    break_it();
    for (protocol, verb, process) in &mut running {
        let (code, name) = (process.wait_exit(), process.name().to_owned());
        let log = process.log();
        // By SPDY a client takes every end of its connection for the end of each of its streams, and an error stream that ends without a
        // word for success (client-go v1.35, tools/remotecommand/errorstream.go): it ends, and that is all that a server can bring about.
        if (*protocol, *verb) == (Protocol::Spdy, "exec") {
            continue;
        }
        assert!(code.is_some_and(|code| code != 0), "{name} {verb} ended with {code:?}: {log}");
        let said = log.to_lowercase();
        assert!(
            said.contains("error") || said.contains("eof"),
            "{name} {verb} says nothing of it: {log}"
        );
    }
}

#[test]
fn commands_and_logs_end_with_an_error_when_the_way_breaks() {
    let (mut reach, relay) = behind_a_relay();
    all_end_with_an_error(&reach, 0, || relay.cut());
    relay.open();
    reach.fleet.wait_reachable(0);
    // Both ends still think that they are connected: the keep-alive finds out.
    all_end_with_an_error(&reach, 1, || relay.hold());
    relay.open();
    reach.fleet.wait_reachable(0);
    let agent = reach.fleet.agents[0].process().id();
    all_end_with_an_error(&reach, 2, || kill(agent));
    reach.fleet.agents[0].launch();
    reach.fleet.wait_reachable(0);
    let hub = reach.fleet.hub.process().id();
    all_end_with_an_error(&reach, 3, || kill(hub));
    reach.fleet.hub.start_again();
    reach.fleet.wait_reachable(0);
}

fn kill(process: u32) {
    run(std::process::Command::new("kill").args(["-KILL", &process.to_string()])).ok();
}

#[test]
fn a_command_hears_that_its_caller_is_gone() {
    let reach = Reach::shared();
    for client in reach.clients() {
        let pod = format!("gone-{}", client.name);
        reach.run_idle_pod(client.cluster, &pod);
        let mut command = client.command(&["exec", "-i", &pod, "--", "sh", "-c", "touch begun; cat; touch ended"]);
        command.stdin(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let file = |name: &str| reach.nodes[client.cluster].directory_of(&pod).join(name);
        wait_until("the command runs", || holds(file("begun").exists(), ""));
        child.kill().unwrap();
        child.wait().unwrap();
        wait_until(&format!("{}: the command's input has ended", client.name), || {
            holds(file("ended").exists(), "")
        });
    }
}

#[test]
fn a_client_go_program_resumes_its_watch_after_the_hub_and_the_agent_were_killed() {
    let mut reach = Reach::over(Fleet::start(&["a"]), &["a"]);
    let directory = scratch("informer");
    let mut informer = Process::start("informer", reach.go_client(0, &["informer"]), &directory.path().join("log"));
    informer.wait_log("SYNCED");
    let create = |server: &ApiServer, name: &str| {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let path = "/api/v1/namespaces/default/configmaps";
        assert_eq!(server.send("POST", path, "application/json", &object).status, 201);
    };
    create(&reach.fleet.servers[0], "before");
    informer.wait_log("ADDED before");
    reach.fleet.hub.kill();
    create(&reach.fleet.servers[0], "without-hub");
    reach.fleet.hub.start_again();
    informer.wait_log("ADDED without-hub");
    reach.fleet.agents[0].kill();
    create(&reach.fleet.servers[0], "without-agent");
    reach.fleet.agents[0].launch();
    informer.wait_log("ADDED without-agent");
    let log = informer.log();
    for name in ["before", "without-hub", "without-agent"] {
        assert_eq!(log.matches(&format!("ADDED {name}\n")).count(), 1, "{log}");
    }
    assert!(!log.contains("DELETED"), "{log}");
}

#[test]
fn two_hundred_watches_hear_of_each_change() {
    let reach = Reach::shared();
    let directory = scratch("watches");
    let arguments = ["--count=200", "--namespace=kube-public", "watches"];
    let mut watches = Process::start("watches", reach.go_client(0, &arguments), &directory.path().join("log"));
    watches.wait_log("200 watches are open");
    for name in ["first", "second"] {
        let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        let path = "/api/v1/namespaces/kube-public/configmaps";
        let answer = reach.fleet.servers[0].send("POST", path, "application/json", &object);
        assert_eq!(answer.status, 201, "{}", answer.body);
        watches.wait_log(&format!("all 200 have seen {name}"));
    }
}

const LARGE: usize = 50;
const MEGABYTE: usize = 1_000_000;

/// ConfigMaps of a megabyte each, 50 MB in all, in a namespace of their own.
fn add_large_list(server: &ApiServer, namespace: &str) {
    let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
    assert_eq!(
        server.send("POST", "/api/v1/namespaces", "application/json", &object).status,
        201
    );
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    for number in 0..LARGE {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("large-{number}") },
            "data": { "content": "x".repeat(MEGABYTE) },
        });
        assert_eq!(server.send("POST", &path, "application/json", &object).status, 201);
    }
}

/// The most memory that a process has had so far, in bytes.
fn peak_memory(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn a_large_list_streams_and_is_held_in_memory_nowhere() {
    let mut reach = Reach::over(Fleet::start(&["a"]), &["a"]);
    add_large_list(&reach.fleet.servers[0], "large");
    let processes = [reach.fleet.hub.process().id(), reach.fleet.agents[0].process().id()];
    let before = processes.map(peak_memory);
    let listed = run(&mut reach.go_client(0, &["--namespace=large", "list"])).ok();
    assert_eq!(listed, format!("{LARGE} items, {} bytes of data\n", LARGE * MEGABYTE));
    for (process, before) in processes.into_iter().zip(before) {
        let grown = peak_memory(process).saturating_sub(before);
        assert!(grown < 20 * MEGABYTE, "process {process} grew by {grown} bytes");
    }
}

#[test]
fn a_reader_that_stops_slows_nobody() {
    let reach = Reach::over(Fleet::start(&["a"]), &["a"]);
    add_large_list(&reach.fleet.servers[0], "large");
    let list = format!("{}/api/v1/namespaces/large/configmaps", reach.fleet.socket(0));
    let mut stalled: Vec<_> = (0..3).map(|_| reach.fleet.hub.client().open(&list).unwrap()).collect();
    for stream in &mut stalled {
        assert!(read_head(stream).unwrap().starts_with("HTTP/1.1 200"));
    }
    reach.run_idle_pod(0, "busy");
    let path = format!("{}/api/v1/namespaces/default", reach.fleet.socket(0));
    std::thread::scope(|scope| {
        for worker in 0..20 {
            let (reach, path) = (&reach, &path);
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(reach.fleet.hub.client().get(path).unwrap().status, 200);
                }
                if worker < 4 {
                    let client = reach.kubectl(0);
                    assert_eq!(client.run(&["exec", "busy", "--", "echo", "done"]).ok(), "done\n");
                }
            });
        }
    });
    // Its readers come back: all is still there.
    for stream in &mut stalled {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(
            rest.len() > LARGE * MEGABYTE && rest.ends_with(b"0\r\n\r\n"),
            "{} bytes",
            rest.len()
        );
    }
}

const GIGABYTE: u64 = 1 << 30;

/// Sends a gigabyte of a pattern to whoever connects.
fn gigabyte_server() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let piece: Vec<u8> = (0..1u32 << 16).map(|number| (number % 251) as u8).collect();
        for mut socket in listener.incoming().flatten() {
            let sent = (0..GIGABYTE / piece.len() as u64).try_for_each(|_| socket.write_all(&piece));
            sent.unwrap();
        }
    });
    port
}

#[test]
fn a_gigabyte_is_forwarded_while_others_are_served() {
    let mut reach = Reach::over(Fleet::start(&["a"]), &["a"]);
    reach.run_idle_pod(0, "giga");
    let client = reach.kubectl(0);
    let mut forward = client.start(&["port-forward", "giga", &format!(":{}", gigabyte_server())]);
    let local = forward.announced_port("Forwarding from 127.0.0.1:");
    let processes = [reach.fleet.hub.process().id(), reach.fleet.agents[0].process().id()];
    let before = processes.map(peak_memory);
    let over = AtomicBool::new(false);
    let served = std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let path = format!("{}/api/v1/namespaces/default", reach.fleet.socket(0));
            let mut served = 0;
            while !over.load(Ordering::Relaxed) {
                assert_eq!(reach.fleet.hub.client().get(&path).unwrap().status, 200);
                served += 1;
            }
            served
        });
        let received = receive(local);
        over.store(true, Ordering::Relaxed);
        assert_eq!(received, GIGABYTE, "{}", forward.log());
        others.join().unwrap()
    });
    assert!(served > 10, "only {served} other requests were served meanwhile");
    for (process, before) in processes.into_iter().zip(before) {
        let grown = peak_memory(process).saturating_sub(before);
        assert!(grown < 64 * MEGABYTE, "process {process} grew by {grown} bytes");
    }
}

/// Reads to the end, checks the pattern, and counts.
fn receive(port: u16) -> u64 {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut count = 0u64;
    loop {
        let length = socket.read(&mut buffer).unwrap();
        if length == 0 {
            return count;
        }
        let expected = (count % (1 << 16) % 251) as u8;
        assert_eq!(buffer[0], expected, "byte {count} is another");
        count += length as u64;
    }
}

/// Takes ten minutes in which nothing happens, so it runs only when asked for:
/// `cargo test --test it -- --ignored path_faults::an_idle_watch`. That silent tunnels are kept and dead ones found is held by
/// `tunnel::` with shorter times.
#[test]
#[ignore = "ten minutes"]
fn an_idle_watch_lives_for_ten_minutes() {
    let reach = Reach::over(Fleet::start(&["a"]), &["a"]);
    let directory = scratch("idle");
    let go = reach.go_client(0, &["--namespace=idle", "--count=1", "watches"]);
    let mut go = Process::start("client-go", go, &directory.path().join("log"));
    go.wait_log("1 watches are open");
    let client = reach.kubectl(0);
    let mut kubectl = client.start(&["get", "configmaps", "-n", "idle", "--watch", "-o", "name"]);
    std::thread::sleep(std::time::Duration::from_secs(610));
    for (path, name) in [("/api/v1/namespaces", "idle"), ("/api/v1/namespaces/idle/configmaps", "late")] {
        let kind = if name == "idle" { "Namespace" } else { "ConfigMap" };
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
        assert_eq!(
            reach.fleet.servers[0].send("POST", path, "application/json", &object).status,
            201
        );
    }
    go.wait_log("all 1 have seen late");
    kubectl.wait_log("configmap/late");
}
