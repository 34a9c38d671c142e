//! Finds the programs that `tests/tools/build` makes. Never builds or downloads them.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The path of `etcd`, `kube-apiserver`, `kube-controller-manager` or `kubectl`: from `$KUBEBUILDER_ASSETS`, else from `tests/tools/.cache`.
pub(crate) fn tool(name: &str) -> PathBuf {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let candidates: Vec<PathBuf> = assets
        .into_iter()
        .chain([cache()])
        .map(|directory| directory.join(name))
        .collect();
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => path.clone(),
        None => panic!(
            "{name} is not there, looked for {candidates:?}\n  hint: `tests/tools/build` builds it (it needs Go), \
             or set KUBEBUILDER_ASSETS to a folder that has etcd, kube-apiserver, kube-controller-manager and kubectl"
        ),
    }
}

/// The same name as in `tests/tools/build`: the first 16 digits of the SHA-256 over the go.sum files.
fn cache() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools");
    let mut hasher = Sha256::new();
    for module in ["kubernetes", "etcd"] {
        hasher.update(std::fs::read(tools.join(module).join("go.sum")).expect("go.sum is committed"));
    }
    let digits: String = hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    tools.join(".cache").join(digits)
}
