//! The integration tests: one binary, one module per boundary. `support` is what they stand on.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests start servers, write files and look at the world"
)]

mod agent;
mod apply;
mod architecture;
mod audit;
mod authorisation;
mod bad_source;
mod capacity;
mod chaos;
mod check_fixtures;
mod cluster_credentials;
mod credentials;
mod delivery;
mod demo;
mod faults;
mod fuzzed_requests;
mod generated_patches;
mod harness;
mod hub;
mod hub_api;
mod hub_repositories;
mod hub_writes;
mod impersonation;
mod kubeconfig;
mod kubectl;
mod morning;
mod oidc;
mod path_faults;
mod plan;
mod plugin;
mod port;
mod reach;
mod registration;
mod remote;
mod render_fixtures;
mod request_path;
mod sandbox_api;
mod sandbox_conformance;
mod server_side_apply;
mod source;
mod support;
mod tour;
mod tunnel;
mod verbs;
mod why;
mod yaml;

/// A file that no `mod` names is never compiled, and its tests never run.
#[test]
fn no_test_file_is_forgotten() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    for (directory, parent) in [(folder.clone(), "main.rs"), (folder.join("support"), "support/mod.rs")] {
        let named = std::fs::read_to_string(folder.join(parent)).unwrap();
        for entry in std::fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            let module = name.trim_end_matches(".rs");
            let is_named = named
                .lines()
                .any(|line| line.trim_start_matches("pub(crate) ") == format!("mod {module};"));
            assert!(
                is_named || ["main", "mod"].contains(&module),
                "tests/it: {name} is named by no `mod` line in {parent}"
            );
        }
    }
}
