//! What keeps the writer from its work, each kind on its own, so that one that is over does not hide another.

/// What is wrong at the moment.
#[derive(Debug, Default)]
pub(super) struct Problems {
    /// Somebody else wrote to the state branch: nothing is written any more.
    pub(super) foreign: Option<String>,
    /// The last commit could not be written.
    pub(super) writing: Option<String>,
    /// The last commit could not be pushed.
    pub(super) pushing: Option<String>,
    /// The remote source does not answer, or has no such branch.
    pub(super) fetching: Option<String>,
    /// The source's head cannot be read.
    pub(super) reading: Option<String>,
}

impl Problems {
    /// Everything, worst first.
    pub(super) fn list(&self) -> Vec<String> {
        let all = [&self.foreign, &self.writing, &self.pushing, &self.fetching, &self.reading];
        all.into_iter().flatten().cloned().collect()
    }

    /// What keeps it from writing the state branch.
    pub(super) fn stopped(&self) -> Option<String> {
        self.foreign.clone().or_else(|| self.writing.clone())
    }
}
