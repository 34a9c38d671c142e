//! Nodes and pods for [`crate::core::room`], page by page, each forgotten once it is counted; and how many replicas of an object there are.

use serde::Deserialize;
use serde_json::Value;

use super::client::Cluster;
use super::error::ApiError;
use super::objects::object_path;
use super::status::{ListMetadata, next_page};
use crate::core::api::subscription::Feed;
use crate::core::ids::group_of;
use crate::core::room::{NodeFacts, PodFacts, Room};

/// A page of pods is a few megabytes at most.
const A_PAGE: usize = 250;

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    metadata: ListMetadata,
    items: Vec<T>,
}

impl Cluster {
    /// What is free on its nodes.
    pub async fn room(&self) -> Result<Room, ApiError> {
        let mut room = Room::default();
        self.each("/api/v1/nodes", |node: &NodeFacts| room.add_node(node)).await?;
        self.each("/api/v1/pods", |pod: &PodFacts| room.add_pod(pod)).await?;
        Ok(room.settle())
    }

    async fn each<T: serde::de::DeserializeOwned>(&self, list: &str, mut take: impl FnMut(&T)) -> Result<(), ApiError> {
        let mut next = String::new();
        loop {
            let page: Page<T> = self.get(&format!("{list}?limit={A_PAGE}&continue={next}")).await?;
            page.items.iter().for_each(&mut take);
            next = next_page(&page.metadata);
            if next.is_empty() {
                return Ok(());
            }
        }
    }

    /// How many replicas an object has at the moment, none where it is not there yet; `None` where its kind does not say.
    pub async fn replicas(&self, feed: &Feed) -> Result<Option<i64>, ApiError> {
        let resource = match self.resource(&feed.api_version, &feed.kind).await {
            Ok(resource) => resource,
            // Its definition comes with it.
            Err(ApiError::NoSuchKind { .. }) => return Ok(Some(0)),
            Err(error) => return Err(error),
        };
        let path = object_path(&feed.api_version, &resource, &feed.key());
        match self.get::<Value>(&path).await {
            Ok(object) => Ok(replicas_of(feed, &object)),
            Err(ApiError::Refused(status)) if status.code == 404 => Ok(Some(0)),
            Err(error) => Err(error),
        }
    }
}

/// Kubernetes' own workloads leave a zero out.
fn replicas_of(feed: &Feed, object: &Value) -> Option<i64> {
    let stated = object.pointer("/status/replicas").and_then(Value::as_i64);
    stated.or((group_of(&feed.api_version) == "apps").then_some(0))
}
