//! Bundle: a directory of the source repository as one feed. A kind of ours.

use serde::{Deserialize, Serialize};

/// `Bundle.spec`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BundleSpec {
    /// The directory, relative to the configured path; `.` is the configured path itself.
    pub path: String,
}
