//! The integration tests: one binary, one module per boundary.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod tunnel;
