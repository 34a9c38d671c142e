//! The main job, measured whole: the release binary as processes, against a real kube-apiserver and etcd on loopback. Every figure stands
//! beside a baseline from the same run, because the machine is shared and only ratios last.
//!
//! `cargo bench --bench main_job`, or only some of it: `cargo bench --bench main_job -- push bulk start tunnels proxy`.
//! With `RUST_LOG` set it reaches hub and agents, and their logs are kept in `target/tmp`.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a bench fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a bench starts processes and looks at the clock")]

mod bare;
mod bulk;
mod figures;
mod proxy;
mod push;
mod stage;
mod start;
#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "what the tests stand on; a bench needs a part of it")]
mod support;
mod tunnels;

const SECTIONS: [(&str, fn()); 5] = [
    ("push", push::run),
    ("bulk", bulk::run),
    ("start", start::run),
    ("tunnels", tunnels::run),
    ("proxy", proxy::run),
];

fn main() {
    let (options, named): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| argument.starts_with('-'));
    // `cargo bench` passes this; `cargo test --benches` only wants to know that it builds.
    if !options.iter().any(|option| option == "--bench") {
        return;
    }
    if let Some(unknown) = named.iter().find(|name| SECTIONS.iter().all(|(known, _)| known != name)) {
        let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        panic!("there is no section {unknown:?}; there are {}", known.join(", "));
    }
    figures::print_machine();
    for (name, section) in SECTIONS {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            section();
        }
    }
}
