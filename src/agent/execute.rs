//! Carries a plan out against the API server, step by step. Makes no choice: what comes next is the plan's, what it means is `Progress`'s.

use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::cluster::{ApiError, Cluster, Deleted};
use crate::core::apply::{Apply, Done, Finished, Plan, Progress, Removal, Step};
use crate::core::ids::ObjectKey;

/// Requests at once, over one connection where the server speaks HTTP/2. A hundred objects, and a thousand, take a quarter longer with 8 than with
/// 64; API servers let 100 requests of one connection be under way.
const AT_ONCE: usize = 64;

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// What it came to.
    pub finished: Finished,
    /// Why the API server could not be asked any more, if that is what ended the run.
    pub unreachable: Option<String>,
}

/// Executes a plan whose record has been saved. `stop` ends it between two requests; what is under way is waited for.
pub async fn execute(cluster: &Cluster, plan: Plan, stop: &CancellationToken) -> Run {
    let mut progress = Progress::start(plan);
    let mut unreachable = None;
    while let Some(step) = progress.next_step() {
        let halt = stop.child_token();
        let work: Vec<_> = items(step)
            .into_iter()
            .map(|item| item.carry_out(cluster.clone(), halt.clone()))
            .collect();
        let mut results = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some((key, result)) = results.next().await {
            let done = match result {
                Ok(done) => done,
                Err(error) if error.is_unreachable() => {
                    halt.cancel();
                    let message = error.explain();
                    unreachable.get_or_insert_with(|| message.clone());
                    Done::NotTried(message)
                }
                Err(error) => Done::Failed(error.explain()),
            };
            progress.done(&key, done);
        }
        if halt.is_cancelled() {
            break;
        }
    }
    Run {
        finished: progress.finish(),
        unreachable,
    }
}

/// One request, or one short conversation, with the API server.
enum Item {
    Apply(Apply),
    Establish(ObjectKey),
    Remove(Removal),
}

fn items(step: Step) -> Vec<Item> {
    match step {
        Step::Apply(items) => items.into_iter().map(Item::Apply).collect(),
        Step::Establish(keys) => keys.into_iter().map(Item::Establish).collect(),
        Step::Prune(items) => items.into_iter().map(Item::Remove).collect(),
    }
}

impl Item {
    fn key(&self) -> &ObjectKey {
        match self {
            Item::Apply(item) => &item.key,
            Item::Establish(key) => key,
            Item::Remove(item) => &item.key,
        }
    }

    /// Does not begin what is not wanted any more, and waits for nothing then; a request that is under way is never given up, because it could
    /// reach the API server after its successor.
    async fn carry_out(self, cluster: Cluster, halt: CancellationToken) -> (ObjectKey, Result<Done, ApiError>) {
        let key = self.key().clone();
        let interrupted = || Done::NotTried("not tried: the run was interrupted and goes on".to_owned());
        if halt.is_cancelled() {
            return (key, Ok(interrupted()));
        }
        let result = match self {
            Item::Apply(item) => cluster.apply(&item.key, &item.body, &halt).await.map(|()| Done::Well),
            Item::Establish(definition) => match halt.run_until_cancelled(cluster.established(&definition.name)).await {
                Some(result) => result.map(|()| Done::Well),
                None => Ok(interrupted()),
            },
            Item::Remove(item) => remove(&cluster, &item).await,
        };
        (key, result)
    }
}

async fn remove(cluster: &Cluster, item: &Removal) -> Result<Done, ApiError> {
    if item.keep {
        let still = cluster.is_there(&item.api_version, &item.key).await?;
        return Ok(if still { Done::StillThere } else { Done::Well });
    }
    Ok(match cluster.delete_ours(&item.api_version, &item.key).await? {
        Deleted::Gone => Done::Well,
        Deleted::Going(why) => Done::Going(why),
        Deleted::NotOurs => Done::NotOurs,
    })
}
