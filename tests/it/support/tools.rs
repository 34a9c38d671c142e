//! Finds the programs that `tests/tools/build` makes. Never builds or downloads them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The path of a program: from `$KUBEBUILDER_ASSETS`, else from `tests/tools/.cache`. `etcd`, `kube-apiserver`, `kube-controller-manager` and
/// `kubectl` are Kubernetes' own, `kubectl-older` is an older one, `node` and `client` are ours (tests/tools/programs).
pub(crate) fn tool(name: &str) -> PathBuf {
    let cache = match name {
        "node" | "client" => own_cache("programs"),
        "kubectl-older" => own_cache("kubectl-older"),
        _ => kubernetes_cache(),
    };
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let candidates: Vec<PathBuf> = assets
        .into_iter()
        .chain([cache])
        .map(|directory| directory.join(name))
        .collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => path.clone(),
        None => panic!(
            "{name} is not there, looked for {candidates:?}\n  hint: `tests/tools/build` builds it (it needs Go), \
             or set KUBEBUILDER_ASSETS to a folder that has it"
        ),
    }
}

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools")
}

/// The same name as in `tests/tools/build`: the first 16 digits of the SHA-256 over the go.sum files.
fn kubernetes_cache() -> PathBuf {
    let files = ["kubernetes", "etcd"].map(|module| tools().join(module).join("go.sum"));
    tools().join(".cache").join(digits(&files))
}

/// The same name as in `tests/tools/build`: the module's name and the first 16 digits of the SHA-256 over its files in the order of their paths.
fn own_cache(module: &str) -> PathBuf {
    let mut files = Vec::new();
    collect(&tools().join(module), &mut files);
    // By bytes, as `sort` does; paths themselves compare by their parts.
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    tools().join(".cache").join(format!("{module}-{}", digits(&files)))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push(path),
        }
    }
}

fn digits(files: &[PathBuf]) -> String {
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())));
    }
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
