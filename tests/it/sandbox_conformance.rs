//! The sandbox answers kubectl as a real API server does: every script of fixtures/kubectl runs against both, and what kubectl prints
//! has to be the same after the normalisations below.
//!
//! A script is lines of kubectl arguments (single quotes group), `# …` comments, `-- name --` followed by a file's content up to the
//! next blank line, and `~ reason` before a command whose output differs on purpose: then only the exit codes are compared.

use std::path::{Path, PathBuf};
use std::thread;

use branchline::sandbox::{Sandbox, SandboxOptions};
use tokio_util::sync::CancellationToken;

use crate::support::apiserver::{ApiServer, ControllerManager};
use crate::support::process::{command, run};
use crate::support::scratch;
use crate::support::tools::tool;

/// A sandbox that serves on a loopback port from a thread of its own, until dropped.
struct ServedSandbox {
    cancel: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl ServedSandbox {
    fn start(name: &str) -> ServedSandbox {
        let directory = scratch(name);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::fs::write(directory.path().join("kubeconfig"), kubeconfig(port)).unwrap();
        let cancel = CancellationToken::new();
        let cancelled = cancel.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let sandbox = Sandbox::new(SandboxOptions {
                    kube_system_uid: uuid::Uuid::from_u128(7),
                    snapshot: None,
                });
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                sandbox.serve(listener, cancelled).await.unwrap();
            });
        });
        ServedSandbox {
            cancel,
            thread: Some(thread),
            directory,
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }
}

impl Drop for ServedSandbox {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn kubeconfig(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: sandbox\n\
         clusters: [{{name: sandbox, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
         users: [{{name: anybody, user: {{}}}}]\n\
         contexts: [{{name: sandbox, context: {{cluster: sandbox, user: anybody}}}}]\n"
    )
}

#[derive(Debug)]
enum Step {
    Command {
        arguments: Vec<String>,
        differs: Option<String>,
    },
    File {
        name: String,
        content: String,
    },
}

fn parse(script: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut reason = None;
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --")) {
            let content: Vec<&str> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            steps.push(Step::File {
                name: name.to_owned(),
                content: content.join("\n") + "\n",
            });
        } else if let Some(why) = line.strip_prefix("~ ") {
            reason = Some(why.to_owned());
        } else if !line.is_empty() && !line.starts_with('#') {
            steps.push(Step::Command {
                arguments: words(line),
                differs: reason.take(),
            });
        }
    }
    steps
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words
}

/// One command's outcome, normalised.
#[derive(Debug, PartialEq)]
struct Said {
    command: String,
    code: Option<i32>,
    text: String,
}

fn play(steps: &[Step], kubeconfig: &Path) -> Vec<Said> {
    let directory = scratch("kubectl-script");
    let mut said = Vec::new();
    for step in steps {
        match step {
            Step::File { name, content } => std::fs::write(directory.path().join(name), content).unwrap(),
            Step::Command { arguments, .. } => {
                let mut kubectl = command(&tool("kubectl"), directory.path());
                kubectl.arg("--kubeconfig").arg(kubeconfig).args(arguments);
                kubectl.current_dir(directory.path());
                let output = run(&mut kubectl);
                said.push(Said {
                    command: arguments.join(" "),
                    code: output.code,
                    text: normalise(&(output.stdout + &output.stderr)),
                });
            }
        }
    }
    said
}

/// Takes out what no two servers agree on: times, ages, UIDs, revisions, temporary paths, and the padding that depends on them.
fn normalise(text: &str) -> String {
    let lines = text.lines().filter(|line| !is_client_log(line));
    lines.map(|line| normal_line(line) + "\n").collect()
}

/// kubectl's own log (`E1121 07:31:02.…`), which tells how a race within kubectl went, not what a server said.
fn is_client_log(line: &str) -> bool {
    let mut characters = line.chars();
    let level = characters.next().is_some_and(|level| "IWEF".contains(level));
    level && characters.by_ref().take(4).all(|digit| digit.is_ascii_digit()) && characters.next() == Some(' ')
}

fn normal_line(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let mut previous = "";
    let mut normal: Vec<String> = Vec::new();
    for token in line.split_whitespace() {
        normal.push(match (previous.trim_matches('"'), token.trim_matches(['"', ','])) {
            ("resourceVersion:" | "resourceVersion\":", _) => "REVISION".to_owned(),
            (_, bare) if is_time(bare) => "TIME".to_owned(),
            (_, bare) if is_uuid(bare) => "UID".to_owned(),
            (_, bare) if is_age(bare) => "AGE".to_owned(),
            (_, bare) if bare.contains("/LIVE-") || bare.contains("/MERGED-") => "FILE".to_owned(),
            _ => token.to_owned(),
        });
        previous = token;
    }
    " ".repeat(indent) + &normal.join(" ")
}

fn is_time(token: &str) -> bool {
    let digits = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let shape: String = token.chars().map(digits).collect();
    shape.starts_with("0000-00-00T00:00:00") || shape == "0000-00-00" || shape.starts_with("00:00:00.0")
}

fn is_uuid(token: &str) -> bool {
    let lengths: Vec<usize> = token.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && token.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

fn is_age(token: &str) -> bool {
    token.ends_with(['s', 'm', 'h'])
        && token.starts_with(|c: char| c.is_ascii_digit())
        && token.chars().all(|c| c.is_ascii_digit() || matches!(c, 's' | 'm' | 'h'))
}

fn compare(name: &str, steps: &[Step], real: &[Said], sandbox: &[Said]) -> String {
    let commands = steps.iter().filter_map(|step| match step {
        Step::Command { differs, .. } => Some(differs),
        Step::File { .. } => None,
    });
    let mut differences = String::new();
    for ((differs, real), sandbox) in commands.zip(real).zip(sandbox) {
        let same = real.code == sandbox.code && (differs.is_some() || real.text == sandbox.text);
        if !same {
            differences += &format!(
                "\n{name}$ kubectl {}\n--- real [{:?}]\n{}--- sandbox [{:?}]\n{}",
                real.command, real.code, real.text, sandbox.code, sandbox.text
            );
        }
    }
    differences
}

fn differences(name: &str, real: &Path) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kubectl").join(name);
    let steps = parse(&std::fs::read_to_string(path).unwrap());
    let sandbox = ServedSandbox::start(name);
    let (from_real, from_sandbox) = thread::scope(|scope| {
        let from_real = scope.spawn(|| play(&steps, real));
        let from_sandbox = play(&steps, &sandbox.kubeconfig());
        (from_real.join().unwrap(), from_sandbox)
    });
    compare(name, &steps, &from_real, &from_sandbox)
}

#[test]
fn kubectl_sees_no_difference() {
    let server = ApiServer::start("conformance");
    // Namespaces are deleted by a controller.
    let _controllers = ControllerManager::start(&server);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/kubectl");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert!(!names.is_empty());
    let differences: String = names.iter().map(|name| differences(name, &server.kubeconfig())).collect();
    assert!(differences.is_empty(), "{differences}");
}
