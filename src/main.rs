//! The binary: argv to a command, its outcome to an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    branchline::cli::main(std::env::args_os())
}
