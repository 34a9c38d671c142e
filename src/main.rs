//! The `branchline` program.
fn main() {}
