//! Answers how many more replicas fit. Fetches, and leaves the deciding to [`crate::core::room`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::core::quantity::Quantity;
use crate::core::room::{Requests, Room};
use crate::wire::control::{Ask, FeedNeed, FeedRoom, ToHub};

/// Questions that come together are answered from one look at nodes and pods. It is forgotten afterwards: large clusters have many nodes.
const KEPT: Duration = Duration::from_secs(3);

/// Answers questions until there is nobody left to answer to. Of questions that wait the last one counts.
pub(super) async fn appraise(cluster: Cluster, mut asks: mpsc::Receiver<Ask>, outbox: mpsc::Sender<ToHub>) {
    let mut kept: Option<(Instant, Room)> = None;
    loop {
        let forget = kept.as_ref().map(|(until, _)| *until);
        let ask = tokio::select! {
            ask = asks.recv() => ask,
            () = super::until(forget), if forget.is_some() => {
                kept = None;
                continue;
            }
        };
        let Some(mut ask) = ask else { return };
        while let Ok(newer) = asks.try_recv() {
            ask = newer;
        }
        if kept.is_none() {
            kept = look(&cluster).await.map(|room| (Instant::now() + KEPT, room));
        }
        let answer = answer(&cluster, kept.as_ref().map(|(_, room)| room), ask).await;
        if outbox.send(answer).await.is_err() {
            return;
        }
    }
}

async fn look(cluster: &Cluster) -> Option<Room> {
    match cluster.room().await {
        Ok(room) => Some(room),
        Err(error) => {
            tracing::warn!(%error, "nodes and pods cannot be listed; the hub estimates what fits");
            None
        }
    }
}

/// Where nothing could be found out the answer says nothing, so that the hub need not wait for it.
async fn answer(cluster: &Cluster, room: Option<&Room>, ask: Ask) -> ToHub {
    let mut feeds = BTreeMap::new();
    if let Some(room) = room {
        for need in ask.feeds {
            if let Some(found) = judge(cluster, room, &need).await {
                feeds.insert(need.feed.status_key(), found);
            }
        }
    }
    ToHub::Room { round: ask.round, feeds }
}

async fn judge(cluster: &Cluster, room: &Room, need: &FeedNeed) -> Option<FeedRoom> {
    let requests = need.requests.iter();
    let requests: Option<Requests> = requests
        .map(|(name, text)| Some((name.clone(), Quantity::parse(text)?)))
        .collect();
    let fits = room.fits(&requests?, &need.nodes);
    match cluster.replicas(&need.feed).await {
        Ok(running) => Some(FeedRoom { fits, running }),
        Err(error) => {
            tracing::warn!(%error, feed = %need.feed, "its replicas cannot be read; the hub estimates what fits");
            None
        }
    }
}
