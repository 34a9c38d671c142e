//! Asks the writer for changes of durable facts, in the name of who asks, and waits for their commit.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::writer::Wake;
use crate::core::access::{Actor, Refusal};
use crate::core::registration::{Edit, Edited};

/// How long an edit may wait for its commit.
const EDIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The way to the writer.
#[derive(Debug, Clone)]
pub struct Editor {
    wakes: mpsc::Sender<Wake>,
}

impl Editor {
    /// Asks over this queue.
    pub fn new(wakes: mpsc::Sender<Wake>) -> Self {
        Editor { wakes }
    }

    /// What the hub does by itself.
    pub async fn edit(&self, edit: Edit) -> Result<Edited, Refusal> {
        self.ask(|reply| Wake::Edit(edit, reply)).await
    }

    /// What a user asks for: the commit names the user as its author.
    pub async fn edit_for(&self, actor: &Actor, edit: Edit) -> Result<Edited, Refusal> {
        self.ask(|reply| Wake::EditBy(actor.clone(), edit, reply)).await
    }

    async fn ask(&self, wake: impl FnOnce(oneshot::Sender<Result<Edited, Refusal>>) -> Wake) -> Result<Edited, Refusal> {
        let (reply, answer) = oneshot::channel();
        let busy = |message: &str| Refusal {
            retry_after_seconds: 1,
            ..Refusal::new(503, "ServiceUnavailable", message)
        };
        self.wakes
            .send(wake(reply))
            .await
            .map_err(|_| busy("the hub is going away; try again"))?;
        match tokio::time::timeout(EDIT_TIMEOUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(busy("the hub is going away; try again")),
            Err(_) => Err(busy(
                "the state branch was not written in time; look at the hub's log and try again",
            )),
        }
    }
}
