//! The messages of the control stream. Owns their shape in JSON; how they are framed is in [`super::codec`].
//!
//! Fields and types that a version does not know are ignored, so that either side may be upgraded first.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::api::cluster::ClusterStatus;
use crate::core::api::subscription::Feed;
use crate::core::ids::{ClusterId, ObjectId, ObjectKind};
use crate::core::room::NodeRules;
use crate::core::selector::Labels;
use crate::core::status::DescriptionReport;

/// What an agent says to its hub.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToHub {
    /// The first message on a tunnel.
    Hello(Box<Hello>),
    /// The cluster's live facts, every `heartbeatSeconds`.
    Heartbeat {
        /// What the agent observed.
        status: Box<ClusterStatus>,
        /// As in [`Hello::labels`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        labels: Option<Labels>,
    },
    /// Content that the agent lacks for the offered tree.
    Want {
        /// The tree of the offer that this belongs to.
        tree: ObjectId,
        /// What is missing.
        ids: Vec<ObjectId>,
    },
    /// What came of a delivery.
    Report(Report),
    /// The answer to [`ToAgent::Ask`].
    Room {
        /// The question's number.
        round: u64,
        /// By the feed's key in `status.replicas`; what could not be found out is left out.
        #[serde(default)]
        feeds: BTreeMap<String, FeedRoom>,
    },
    /// A request for a new certificate.
    Renew {
        /// Certificate signing request, PEM; only its public key counts.
        csr: String,
    },
    /// A message of a newer version.
    #[serde(other)]
    Ignored,
}

/// What a hub says to an agent.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ToAgent {
    /// The answer to [`Hello`].
    Welcome {
        /// The version that both sides speak from here on.
        protocol: u32,
        /// How often a heartbeat is expected.
        heartbeat_seconds: u32,
        /// The hub's epoch.
        epoch: u64,
    },
    /// A desired state; the attachment holds the contents of `objects` in that order.
    Offer(Offer),
    /// The answer to `Want`; the attachment holds the contents of `objects` in that order. May come in several messages.
    Content {
        /// What is attached.
        objects: Vec<ObjectMeta>,
        /// What the hub does not have, or what the offered tree does not reach.
        #[serde(default)]
        missing: Vec<ObjectId>,
    },
    /// How many more replicas of these feeds fit? An agent that does not know the question says nothing.
    Ask(Ask),
    /// A new certificate.
    Certificate {
        /// The certificate, PEM.
        pem: String,
    },
    /// Something that the agent asked for was refused.
    Refused {
        /// A short word for programs, `UnsupportedProtocol`.
        code: String,
        /// What was refused and why.
        message: String,
        /// What to do about it.
        #[serde(default)]
        hint: String,
    },
    /// The hub is going away: reconnect after a random delay.
    Drain {},
    /// A message of a newer version.
    #[serde(other)]
    Ignored,
}

/// How an agent introduces itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The newest version of the protocol that the agent speaks.
    pub protocol: u32,
    /// The agent's build.
    pub agent_version: String,
    /// Must be that of its certificate.
    pub cluster_id: ClusterId,
    /// The tree whose whole content the agent has.
    #[serde(default)]
    pub held: Option<ObjectId>,
    /// The last tree that was applied without a failure.
    #[serde(default)]
    pub applied: Option<ObjectId>,
    /// Epoch of the last delivery that the agent accepted.
    #[serde(default)]
    pub epoch: u64,
    /// Generation of the last delivery that the agent accepted.
    #[serde(default)]
    pub generation: u64,
    /// The cluster's live facts.
    #[serde(default)]
    pub status: ClusterStatus,
    /// All labels below `node.clusternet.io/` that the cluster has. `None`: not known, or from an older agent; those that stand stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Labels>,
}

/// What came of a delivery.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Epoch of the delivery.
    pub epoch: u64,
    /// Generation of the delivery.
    pub generation: u64,
    /// The delivered tree.
    pub tree: ObjectId,
    /// The agent has its whole content.
    pub held: bool,
    /// All of it was applied.
    pub applied: bool,
    /// The Descriptions whose state changed since the last report on this tunnel; the first report has all.
    #[serde(default)]
    pub descriptions: Vec<DescriptionReport>,
}

/// A desired state for one cluster.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// Grows when a hub takes over or is recovered.
    pub epoch: u64,
    /// Grows with every commit on the state branch.
    pub generation: u64,
    /// The tree of the cluster's directory.
    pub tree: ObjectId,
    /// The tree that the attached objects are the difference to.
    #[serde(default)]
    pub base: Option<ObjectId>,
    /// What is attached.
    #[serde(default)]
    pub objects: Vec<ObjectMeta>,
}

/// A question about room.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ask {
    /// Grows with each question; the answer repeats it.
    pub round: u64,
    /// What is asked about.
    #[serde(default)]
    pub feeds: Vec<FeedNeed>,
}

/// What one replica of a feed needs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedNeed {
    /// The feed.
    #[serde(flatten)]
    pub feed: Feed,
    /// What a replica requests, by resource.
    #[serde(default)]
    pub requests: BTreeMap<String, String>,
    /// What a replica asks of its node.
    #[serde(default, skip_serializing_if = "NodeRules::is_empty")]
    pub nodes: NodeRules,
}

/// Room for one feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FeedRoom {
    /// How many more pods of it fit on the nodes.
    pub fits: i64,
    /// How many of its replicas exist; `None` where the object does not say.
    #[serde(default)]
    pub running: Option<i64>,
}

/// One attached object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectMeta {
    /// Git object id of the content.
    pub id: ObjectId,
    /// Tree or blob.
    pub kind: ObjectKind,
    /// Length of the content in the attachment.
    pub len: u64,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn messages_have_the_agreed_shape() {
        let want = ToHub::Want {
            tree: ObjectId::EMPTY_TREE,
            ids: vec![],
        };
        assert_eq!(
            serde_json::to_string(&want).unwrap(),
            r#"{"type":"want","tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","ids":[]}"#
        );
        let welcome = ToAgent::Welcome {
            protocol: 1,
            heartbeat_seconds: 30,
            epoch: 2,
        };
        assert_eq!(
            serde_json::to_string(&welcome).unwrap(),
            r#"{"type":"welcome","protocol":1,"heartbeatSeconds":30,"epoch":2}"#
        );
        assert_eq!(serde_json::to_string(&ToAgent::Drain {}).unwrap(), r#"{"type":"drain"}"#);
    }

    #[test]
    fn no_report_of_labels_is_not_a_report_of_none() {
        for (text, want) in [
            (r#"{"type":"heartbeat","status":{}}"#, None),
            (r#"{"type":"heartbeat","status":{},"labels":null}"#, None),
            (r#"{"type":"heartbeat","status":{},"labels":{}}"#, Some(Labels::new())),
        ] {
            let ToHub::Heartbeat { labels, .. } = serde_json::from_str(text).unwrap() else {
                panic!("not a heartbeat");
            };
            assert_eq!(labels, want, "{text}");
        }
        let silent = ToHub::Heartbeat {
            status: Box::default(),
            labels: None,
        };
        assert!(!serde_json::to_string(&silent).unwrap().contains("labels"));
    }

    #[test]
    fn unknown_types_and_fields_are_ignored() {
        let newer: ToAgent = serde_json::from_str(r#"{"type":"teleport","where":{"x":1}}"#).unwrap();
        assert_eq!(newer, ToAgent::Ignored);
        let more: ToAgent = serde_json::from_str(r#"{"type":"certificate","pem":"x","chain":["y"]}"#).unwrap();
        assert_eq!(more, ToAgent::Certificate { pem: "x".to_owned() });
    }

    #[test]
    fn a_question_about_room_has_the_agreed_shape() {
        let text = r#"{"type":"ask","round":7,"feeds":[{"apiVersion":"apps/v1","kind":"Deployment","namespace":"shop","name":"web","requests":{"cpu":"500m"},"nodes":{"nodeSelector":{"disk":"ssd"}}}]}"#;
        let ToAgent::Ask(ask) = serde_json::from_str(text).unwrap() else {
            panic!("not a question");
        };
        assert_eq!(ask.feeds[0].feed.status_key(), "apps/v1/Deployment/shop/web");
        assert_eq!(serde_json::to_string(&ToAgent::Ask(ask)).unwrap(), text);
        let older = text.replace(r#","nodes":{"nodeSelector":{"disk":"ssd"}}"#, "");
        let ToAgent::Ask(ask) = serde_json::from_str(&older).unwrap() else {
            panic!("not a question");
        };
        assert_eq!(serde_json::to_string(&ToAgent::Ask(ask)).unwrap(), older);
        let answer = r#"{"type":"room","round":7,"feeds":{"apps/v1/Deployment/shop/web":{"fits":3}}}"#;
        let ToHub::Room { round, feeds } = serde_json::from_str(answer).unwrap() else {
            panic!("not an answer");
        };
        let room = feeds["apps/v1/Deployment/shop/web"];
        assert_eq!((round, room.fits, room.running), (7, 3, None));
    }

    #[test]
    fn a_hello_needs_its_cluster_and_little_else() {
        let text = r#"{"type":"hello","protocol":1,"agentVersion":"0.1.0","clusterId":"0d0c9d5f-7a77-4a9e-8b7c-6e1b7b6f1a2b"}"#;
        let ToHub::Hello(hello) = serde_json::from_str(text).unwrap() else {
            panic!("not a hello");
        };
        assert_eq!((hello.held, hello.epoch, hello.labels), (None, 0, None));
        assert!(serde_json::from_str::<ToHub>(r#"{"type":"hello","protocol":1}"#).is_err());
    }
}
