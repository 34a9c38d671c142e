//! The only file that spawns the `git` program: fetch, push and ls-remote, with people's own credential helpers, ssh configuration and proxies.
//!
//! Every call has `--git-dir`, a fixed locale, no prompts, a wall-clock limit, and an environment without git's own variables.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::core::ids::ObjectId;

/// The oldest `git` that is used: `--force-with-lease` with an expected value and protocol version 2 by default.
const MINIMUM_VERSION: (u32, u32) = (2, 26);
/// The longest that transferring objects may take.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// The longest that a remote may take to say what its refs are; a hub that starts waits for it.
const ASK_LIMIT: Duration = Duration::from_secs(20);
/// At most this much of what git prints is kept.
const MAX_OUTPUT: u64 = 8 << 20;

/// Runs git in one repository.
#[derive(Debug, Clone)]
pub struct Git {
    directory: PathBuf,
}

/// Why a git command did not do its job.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// The program could not be started.
    #[error("cannot run git; install git {}.{} or newer", MINIMUM_VERSION.0, MINIMUM_VERSION.1)]
    Spawn(#[source] std::io::Error),
    /// It is too old.
    #[error("git {found} is too old; install {}.{} or newer", MINIMUM_VERSION.0, MINIMUM_VERSION.1)]
    Version {
        /// What `git version` prints.
        found: String,
    },
    /// It took too long.
    #[error("git {command} took more than {} s and was ended", .limit.as_secs())]
    TimedOut {
        /// The sub-command.
        command: String,
        /// How long it was waited for.
        limit: Duration,
    },
    /// It failed.
    #[error("git {command} failed: {message}")]
    Failed {
        /// The sub-command.
        command: String,
        /// The last lines that it printed.
        message: String,
    },
}

impl Git {
    /// For a git directory; checks the program's version.
    pub fn new(directory: &Path) -> Result<Self, GitError> {
        let git = Git {
            directory: directory.to_owned(),
        };
        let text = git.run(&["version"])?;
        match parse_version(&text) {
            Some(version) if version >= MINIMUM_VERSION => Ok(git),
            _ => Err(GitError::Version {
                found: text.trim().to_owned(),
            }),
        }
    }

    /// The commit that a remote ref points to, without fetching; `None` where the remote has no such ref.
    pub fn remote_ref(&self, url: &str, reference: &str) -> Result<Option<ObjectId>, GitError> {
        let listing = self.run(&["ls-remote", "--", url, reference])?;
        Ok(parse_ls_remote(&listing)
            .into_iter()
            .find(|(_, name)| name == reference)
            .map(|(id, _)| id))
    }

    /// The branch that the remote's `HEAD` names.
    pub fn remote_default_branch(&self, url: &str) -> Result<Option<String>, GitError> {
        let listing = self.run(&["ls-remote", "--symref", "--", url, "HEAD"])?;
        let line = listing.lines().find_map(|line| line.strip_prefix("ref: refs/heads/"));
        Ok(line.and_then(|line| line.split_whitespace().next()).map(str::to_owned))
    }

    /// Fetches one remote ref into a local one; a rewritten history is followed.
    pub fn fetch(&self, url: &str, remote: &str, local: &str) -> Result<(), GitError> {
        let refspec = format!("+{remote}:{local}");
        self.run(&[
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
            "--",
            url,
            &refspec,
        ])
        .map(drop)
    }

    /// The branches of a remote.
    pub fn remote_branches(&self, url: &str) -> Result<Vec<String>, GitError> {
        let listing = self.run(&["ls-remote", "--heads", "--", url])?;
        let names = parse_ls_remote(&listing).into_iter();
        Ok(names
            .filter_map(|(_, name)| name.strip_prefix("refs/heads/").map(str::to_owned))
            .collect())
    }

    /// Pushes a commit to a remote ref, only if that is still what we think it is.
    pub fn push(&self, url: &str, commit: ObjectId, remote: &str, expected: Option<ObjectId>) -> Result<(), GitError> {
        let expected = expected.map(|id| id.to_string()).unwrap_or_default();
        let lease = format!("--force-with-lease={remote}:{expected}");
        let refspec = format!("{commit}:{remote}");
        self.run(&["push", "--porcelain", &lease, "--", url, &refspec]).map(drop)
    }

    /// Makes a clone with a work tree for people, with a name to commit under where they have not stated one.
    pub fn clone_to(&self, repository: &Path, folder: &Path) -> Result<(), GitError> {
        let (from, to) = (repository.display().to_string(), folder.display().to_string());
        self.run(&["clone", "--quiet", "--", &from, &to])?;
        let clone = Git {
            directory: folder.join(".git"),
        };
        for (name, value) in [("user.name", "Branchline demo"), ("user.email", "demo@branchline.io")] {
            if clone.run(&["config", "--get", name]).is_err() {
                clone.run(&["config", name, value])?;
            }
        }
        Ok(())
    }

    /// Which files below these paths each commit of a ref added, newest first, in the form that [`crate::core::state::first_commits`] reads.
    pub fn additions(&self, reference: &str, paths: &[&str]) -> Result<String, GitError> {
        let log = [
            "log",
            "--no-renames",
            "--diff-filter=A",
            "--format=t %ct",
            "--name-only",
            reference,
            "--",
        ];
        self.run(&[&log, paths].concat())
    }

    /// Joins packs so that their number stays small.
    pub fn repack(&self) -> Result<(), GitError> {
        self.run(&["repack", "-d", "--geometric=2", "--quiet"]).map(drop)
    }

    fn run(&self, arguments: &[&str]) -> Result<String, GitError> {
        let limit = if arguments.first() == Some(&"ls-remote") {
            ASK_LIMIT
        } else {
            TIME_LIMIT
        };
        let mut child = self.command(arguments).spawn().map_err(GitError::Spawn)?;
        let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let command = arguments.first().copied().unwrap_or_default().to_owned();
        let (Ok(output), Ok(errors)) = (output.recv_timeout(limit), errors.recv_timeout(limit)) else {
            end(&mut child);
            return Err(GitError::TimedOut { command, limit });
        };
        let status = child.wait().map_err(GitError::Spawn)?;
        if status.success() {
            Ok(output)
        } else {
            Err(GitError::Failed {
                command,
                message: last_lines(&errors, &output),
            })
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.directory);
        // No hooks of a repository that we only store; no automatic repacking beside our own.
        command.args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "gc.auto=0",
            "-c",
            "maintenance.auto=false",
        ]);
        // Helpers such as ext:: run programs named by the address.
        command.args(["-c", "protocol.ext.allow=never", "-c", "protocol.fd.allow=never"]);
        command.args(arguments);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            let kept = [
                "GIT_SSH",
                "GIT_SSH_COMMAND",
                "GIT_SSL_CAINFO",
                "GIT_ASKPASS",
                "GIT_CONFIG_GLOBAL",
            ];
            if name.starts_with("GIT_") && !kept.contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Reads a pipe to its end on a thread of its own, so that neither pipe can fill up and block the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is what there is to tell.
            let _ = pipe.take(MAX_OUTPUT).read_to_end(&mut bytes);
        }
        // The receiver is gone only when the time is up.
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn end(child: &mut Child) {
    // A child that has ended already cannot be killed, which is as well.
    let _ = child.kill();
    let _ = child.wait();
}

fn last_lines(errors: &str, output: &str) -> String {
    // What git adds to every failure of a connection would hide the line that says why.
    let empty_words = [
        "",
        "Please make sure you have the correct access rights",
        "and the repository exists.",
    ];
    // `push --porcelain` says in its output what became of a ref, and only that it failed among the errors.
    let lines = output.lines().filter(|line| line.starts_with('!')).chain(errors.lines());
    let lines: Vec<&str> = lines.filter(|line| !empty_words.contains(&line.trim())).collect();
    let text = lines[lines.len().saturating_sub(4)..].join("; ");
    // Git itself leaves out passwords, and names the user, who may be a token.
    crate::core::text::bounded(&super::url::without_secrets(&text))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let version = text.trim().strip_prefix("git version ")?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn parse_ls_remote(text: &str) -> Vec<(ObjectId, String)> {
    let pairs = text.lines().filter_map(|line| line.split_once('\t'));
    pairs
        .filter_map(|(id, name)| Some((id.parse().ok()?, name.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_git_prints() {
        assert_eq!(parse_version("git version 2.39.5\n"), Some((2, 39)));
        assert_eq!(parse_version("git version 2.50.1 (Apple Git-155)\n"), Some((2, 50)));
        assert_eq!(parse_version("nonsense"), None);
        let listing = "4b825dc642cb6eb9a060e54bf8d69288fbee4904\trefs/heads/main\n";
        assert_eq!(parse_ls_remote(listing)[0].1, "refs/heads/main");
        let rejected = last_lines(
            "error: failed to push some refs\n",
            "To x\n!\ta:b\t[rejected] (stale info)\nDone\n",
        );
        assert!(
            rejected.contains("stale info") && rejected.contains("failed to push"),
            "{rejected}"
        );
    }
}
