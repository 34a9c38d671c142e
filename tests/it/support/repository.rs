//! Git repositories that tests push to: a bare one, and a clone whose commits are made in its index alone, so that they can hold what no
//! file system here could (symlinks, submodules, names that are not UTF-8).

use std::path::{Path, PathBuf};
use std::process::Command;

use git2::{Index, IndexEntry, IndexTime, Oid, Repository};
use tempfile::TempDir;

use super::process::{Output, command, run};
use super::scratch;

/// A regular file in git's tree format.
const FILE: u32 = 0o100_644;
/// A symbolic link.
const SYMLINK: u32 = 0o120_000;
/// A submodule.
const SUBMODULE: u32 = 0o160_000;

/// A bare repository and a clone of it, on branch `main`.
pub(crate) struct GitRepo {
    directory: TempDir,
}

impl GitRepo {
    /// An empty bare repository and an empty clone.
    pub(crate) fn empty() -> Self {
        let repo = GitRepo {
            directory: scratch("repository"),
        };
        repo.git(
            repo.directory.path(),
            &["init", "--quiet", "--bare", "--initial-branch=main", "bare.git"],
        )
        .ok();
        repo.git(repo.directory.path(), &["clone", "--quiet", "bare.git", "clone"])
            .ok();
        repo.in_clone(&["symbolic-ref", "HEAD", "refs/heads/main"]).ok();
        repo
    }

    /// A repository with one pushed commit of these files.
    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let repo = GitRepo::empty();
        repo.push("first", files);
        repo
    }

    /// The bare repository: what the hub is pointed at.
    pub(crate) fn bare(&self) -> PathBuf {
        self.directory.path().join("bare.git")
    }

    /// The clone.
    pub(crate) fn clone_directory(&self) -> PathBuf {
        self.directory.path().join("clone")
    }

    /// Writes the files into the index, commits, pushes; returns the commit's id.
    pub(crate) fn push(&self, message: &str, files: &[(&str, &str)]) -> String {
        self.put_all(files);
        self.commit(message);
        self.in_clone(&["push", "--quiet", "origin", "HEAD:refs/heads/main"]).ok();
        self.head()
    }

    /// Removes the files, commits, pushes; returns the commit's id.
    pub(crate) fn push_removal(&self, message: &str, paths: &[&str]) -> String {
        self.remove_all(paths);
        self.push(message, &[])
    }

    /// Stages regular files in one go: every write of the index costs as much as the index is long.
    pub(crate) fn put_all(&self, files: &[(&str, &str)]) {
        self.stage(|index| {
            let mut files = files.iter();
            files.try_for_each(|(path, content)| index.add_frombuffer(&entry(FILE, path.as_bytes()), content.as_bytes()))
        });
    }

    /// Stages the removal of files in one go.
    pub(crate) fn remove_all(&self, paths: &[&str]) {
        self.stage(|index| paths.iter().try_for_each(|path| index.remove_path(Path::new(path))));
    }

    /// Stages a regular file.
    pub(crate) fn put(&self, path: &str, content: &str) {
        self.put_entry(FILE, path.as_bytes(), content.as_bytes());
    }

    /// Stages a regular file whose name is any bytes.
    pub(crate) fn put_bytes(&self, path: &[u8], content: &[u8]) {
        self.put_entry(FILE, path, content);
    }

    /// Stages a symbolic link.
    pub(crate) fn put_symlink(&self, path: &str, target: &str) {
        self.put_entry(SYMLINK, path.as_bytes(), target.as_bytes());
    }

    /// Stages a submodule at a commit that exists nowhere.
    pub(crate) fn put_submodule(&self, path: &str) {
        let mut entry = entry(SUBMODULE, path.as_bytes());
        entry.id = Oid::from_str("1234567890123456789012345678901234567890").expect("forty digits");
        self.stage(|index| index.add(&entry));
    }

    /// Stages the removal of a file.
    pub(crate) fn remove(&self, path: &str) {
        self.stage(|index| index.remove_path(Path::new(path)));
    }

    /// Commits what is staged, even if that is nothing new.
    pub(crate) fn commit(&self, message: &str) {
        self.in_clone(&["commit", "--quiet", "--allow-empty", "--message", message])
            .ok();
    }

    /// The clone's HEAD.
    pub(crate) fn head(&self) -> String {
        self.in_clone(&["rev-parse", "HEAD"]).ok().trim().to_owned()
    }

    /// Runs git in the clone.
    pub(crate) fn in_clone(&self, arguments: &[&str]) -> Output {
        self.git(&self.clone_directory(), arguments)
    }

    /// Runs git in the bare repository.
    pub(crate) fn in_bare(&self, arguments: &[&str]) -> Output {
        self.git(&self.bare(), arguments)
    }

    /// Adds a commit that changes nothing to a branch of the bare repository, as a person would, and returns its id.
    pub(crate) fn commit_by_hand(&self, reference: &str) -> String {
        let parent = self.reference(reference).expect("the branch exists");
        let tree = self.in_bare(&["rev-parse", &format!("{reference}^{{tree}}")]).ok();
        let commit = self
            .in_bare(&["commit-tree", tree.trim(), "-p", &parent, "-m", "by hand"])
            .ok();
        self.in_bare(&["update-ref", reference, commit.trim()]).ok();
        commit.trim().to_owned()
    }

    /// What a ref of the bare repository points to, `None` if it does not exist.
    pub(crate) fn reference(&self, name: &str) -> Option<String> {
        let output = self.in_bare(&["rev-parse", "--verify", "--quiet", name]);
        (output.code == Some(0)).then(|| output.stdout.trim().to_owned())
    }

    /// The files of a revision of the bare repository, by path.
    pub(crate) fn files(&self, revision: &str) -> Vec<String> {
        let listing = self.in_bare(&["ls-tree", "-r", "--name-only", revision]).ok();
        listing.lines().map(str::to_owned).collect()
    }

    /// The content of a file in a revision of the bare repository.
    #[track_caller]
    pub(crate) fn show(&self, revision: &str, path: &str) -> String {
        self.in_bare(&["show", &format!("{revision}:{path}")]).ok()
    }

    fn put_entry(&self, mode: u32, path: &[u8], content: &[u8]) {
        self.stage(|index| index.add_frombuffer(&entry(mode, path), content));
    }

    fn stage(&self, change: impl FnOnce(&mut Index) -> Result<(), git2::Error>) {
        let repository = Repository::open(self.clone_directory()).expect("the clone is a repository");
        let mut index = repository.index().expect("a clone has an index");
        change(&mut index).expect("the entry can be staged");
        index.write().expect("the index can be written");
    }

    fn git(&self, directory: &Path, arguments: &[&str]) -> Output {
        run(scrubbed(directory, self.directory.path()).args(arguments))
    }
}

fn scrubbed(directory: &Path, home: &Path) -> Command {
    let mut git = command(Path::new("git"), home);
    git.current_dir(directory);
    for role in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{role}_NAME"), "A Tester")
            .env(format!("GIT_{role}_EMAIL"), "tester@example.com");
    }
    git
}

fn entry(mode: u32, path: &[u8]) -> IndexEntry {
    IndexEntry {
        ctime: IndexTime::new(0, 0),
        mtime: IndexTime::new(0, 0),
        dev: 0,
        ino: 0,
        mode,
        uid: 0,
        gid: 0,
        file_size: 0,
        id: Oid::ZERO_SHA1,
        flags: 0,
        flags_extended: 0,
        path: path.to_vec(),
    }
}
