//! The roles and bindings that count: those of the newest commit, and where it cannot be read those before.

use std::sync::Arc;

use tracing::{info, warn};

use crate::core::access::rbac::Policy;
use crate::core::diagnostic::Diagnostic;
use crate::core::index::{self, Access, AccessReadings, access_objects};
use crate::core::text::with_causes;
use crate::hub::data::AccessFile;

/// What is granted, and where it is kept for a restart.
pub(super) struct Rights {
    file: AccessFile,
    access: Access,
    policy: Arc<Policy>,
}

impl Rights {
    /// Those that counted when the hub ended.
    pub(super) fn load(file: AccessFile) -> Self {
        let access = file.load();
        Rights {
            policy: Arc::new(Policy::new(&access_objects(&access))),
            access,
            file,
        }
    }

    /// Ready to be asked.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy)
    }

    /// Takes a commit's. They count from the next revision on, whether the state branch can be written or not.
    pub(super) fn follow(&mut self, readings: &AccessReadings) -> Vec<Diagnostic> {
        let (access, findings) = index::follow_access(&self.access, readings);
        if access_objects(&access) != access_objects(&self.access) {
            self.policy = Arc::new(Policy::new(&access_objects(&access)));
            if let Err(error) = self.file.store(&access) {
                warn!(error = %with_causes(&error), "the roles and bindings that count cannot be kept for a restart");
            }
            info!(objects = access.len(), "roles and bindings changed");
        }
        self.access = access;
        findings
    }
}
