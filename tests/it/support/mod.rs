//! What the tests stand on: real API servers, git repositories, processes, certificates, a relay that cuts connections.
//!
//! Everything listens on loopback, lives below `target/tmp` and dies with the test process, however that ends. A missing program is a failure
//! that says how to get it, never a skip. Nothing here asserts on time: `wait_until` has a deadline only so that a hang becomes a failure.

pub(crate) mod apiserver;
pub(crate) mod dice;
pub(crate) mod fleet;
pub(crate) mod https;
pub(crate) mod issuer;
pub(crate) mod node;
pub(crate) mod pki;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod reach;
pub(crate) mod relay;
pub(crate) mod repository;
pub(crate) mod samples;
pub(crate) mod tools;
pub(crate) mod twin;
pub(crate) mod whole_hub;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Long enough for a machine that is busy building something else; a test that is well never comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` answers `Ok`, and returns that. `Err` says what is still missing; the last one is in the failure.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, condition: impl FnMut() -> Result<T, String>) -> T {
    wait_for(PATIENCE, what, condition)
}

/// `wait_until` with its own deadline.
#[track_caller]
pub(crate) fn wait_for<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match condition() {
            Ok(value) => return value,
            Err(missing) if begin.elapsed() > patience => panic!("gave up after {patience:?} waiting until {what}: {missing}"),
            Err(_) => std::thread::sleep(Duration::from_millis(15)),
        }
    }
}

/// `Ok` when it holds; the text otherwise. For conditions that are a plain yes or no.
pub(crate) fn holds(condition: bool, otherwise: impl Into<String>) -> Result<(), String> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}

/// A directory of this test process below `target/tmp`. Directories of test processes that are gone are removed on the way.
fn process_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(parent).expect("target/tmp can be made");
        for entry in std::fs::read_dir(parent).expect("target/tmp can be read").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let of_the_dead = name
                .strip_prefix("it-")
                .is_some_and(|pid| !Path::new("/proc").join(pid).exists());
            if of_the_dead {
                // Another test process may be removing the same directory.
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let own = parent.join(format!("it-{}", std::process::id()));
        std::fs::create_dir_all(&own).expect("a directory below target/tmp can be made");
        own
    })
}

/// An empty directory that is removed when dropped.
pub(crate) fn scratch(name: &str) -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(process_directory())
        .expect("a temporary directory can be made")
}

/// A port on which nobody listens, below the range from which the kernel takes ports for outgoing connections, so that it stays free
/// until the server under test binds it, and again after that server was stopped.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 110).expect("below 110") * 100;
    for _ in 0..11_000 {
        let port = 21_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 11_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 between 21000 and 32000")
}
