//! Starts programs, keeps what they print, and sees to it that none outlives the test process.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};

use super::{holds, wait_until};

/// What a program that ran to its end left behind.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit code; `None` after a signal.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
    what: String,
}

impl Output {
    /// Standard output of a run that ended well; fails with all that was printed otherwise.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{} failed\n{}{}", self.what, self.stdout, self.stderr);
        self.stdout
    }

    /// Both outputs of a run that must end with this exit code.
    #[track_caller]
    pub(crate) fn fails_with(self, code: i32) -> String {
        let text = format!("{}{}", self.stdout, self.stderr);
        assert_eq!(self.code, Some(code), "{} ended otherwise\n{text}", self.what);
        text
    }
}

/// Runs a program to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    let what = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        what,
    }
}

/// A command with an environment of its own: nothing of the developer's kubeconfig, git configuration or proxies reaches a test.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .current_dir(home);
    command
}

/// The program under test.
pub(crate) fn branchline(home: &Path) -> Command {
    command(Path::new(env!("CARGO_BIN_EXE_branchline")), home)
}

/// A program that goes on running. Killed when dropped; if the test failed, the end of its log is printed then.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    lines_on_failure: usize,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts the command; both outputs are appended to `log`.
    pub(crate) fn start(name: &str, command: Command, log: &Path) -> Self {
        let what = format!("{command:?}");
        let child = start_with_log(command, log).unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
        Process {
            name: name.to_owned(),
            lines_on_failure: 60,
            log: log.to_owned(),
            child,
        }
    }

    /// Only a few lines are printed if a test fails: for servers that are not under test and print much.
    #[must_use]
    pub(crate) fn quietly(mut self) -> Self {
        self.lines_on_failure = 5;
        self
    }

    /// All that it and its predecessors with the same log have printed so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// What it is called in failures.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// `None` while it runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked for its state")
    }

    /// SIGKILL: no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, SIGSTOP or SIGCONT, by name without `SIG`.
    pub(crate) fn signal(&self, signal: &str) {
        run(Command::new("kill").args([&format!("-{signal}"), &self.id().to_string()])).ok();
    }

    /// Waits for its end and returns the exit code.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        let name = self.name.clone();
        wait_until(&format!("{name} ends"), || {
            self.exit_status().ok_or_else(|| "it still runs".to_owned())
        })
        .code()
    }

    /// Waits for a port that it announces behind these words.
    #[track_caller]
    pub(crate) fn announced_port(&mut self, before: &str) -> u16 {
        self.wait_log(before);
        let log = self.log();
        let rest = log.split(before).nth(1).unwrap_or_default();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("no port in {log}"))
    }

    /// Waits until a line of the log contains `text`.
    #[track_caller]
    pub(crate) fn wait_log(&mut self, text: &str) {
        let name = self.name.clone();
        wait_until(&format!("{name} logs {text:?}"), || {
            if self.log().contains(text) {
                return Ok(());
            }
            let ended = self.exit_status();
            assert!(
                ended.is_none(),
                "{name} ended ({ended:?}) before it logged {text:?}:\n{}",
                self.log()
            );
            holds(false, format!("its log is\n{}", tail(&self.log(), 60)))
        });
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{}", self.name, tail(&self.log(), self.lines_on_failure));
        }
    }
}

/// The last lines.
fn tail(log: &str, count: usize) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn start_with_log(command: Command, log: &Path) -> io::Result<Child> {
    let output = File::options().create(true).append(true).open(log)?;
    let mut command = tied_to_us(command);
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    spawn(command)
}

/// The same command through util-linux' `setpriv`, which asks the kernel to kill the program when its parent thread ends.
fn tied_to_us(command: Command) -> Command {
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL", "--"])
        .arg(command.get_program())
        .args(command.get_args());
    tied.env_clear();
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            tied.env(key, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        tied.current_dir(directory);
    }
    tied
}

/// Spawns on one thread that lives as long as the test process: the kernel's parent-death signal goes by thread, and a server that several
/// tests share must not die with the test that happened to start it.
fn spawn(command: Command) -> io::Result<Child> {
    type Order = (Command, mpsc::Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                // The one who asked may have given up.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    let sender = spawner.lock().expect("nobody panics while sending").clone();
    sender.send((command, answer)).expect("the spawner never ends");
    child.recv().expect("the spawner always answers")
}
