//! Any bytes as method, target and headers of a request, through everything that decides about it and makes it what a cluster sees.
#![no_main]

#[path = "../checked.rs"]
mod checked;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checked::check(bytes));
