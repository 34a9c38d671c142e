//! Events about the objects that the hub shows: what `kubectl describe` prints last. Kept in memory, bounded for each object and in all; what
//! holds at the moment is in conditions besides, so that an event that had to go is no loss.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::registry::seconds;
use super::{put, resource};
use crate::core::text::bounded;
use crate::kubeapi::{Store, fnv};

/// Most events of one object.
const MOST_OF_ONE: usize = 10;
/// Most events in all.
const MOST: usize = 10_000;

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) api_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Something worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Notice {
    /// Whether a person should look.
    pub(super) warning: bool,
    /// A word for it.
    pub(super) reason: &'static str,
    /// A sentence for it.
    pub(super) message: String,
}

impl Notice {
    pub(super) fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Notice {
            warning: true,
            reason,
            message: message.into(),
        }
    }

    pub(super) fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Notice {
            warning: false,
            reason,
            message: message.into(),
        }
    }
}

/// Events of one object.
#[derive(Debug, Default)]
struct Known {
    /// What was noticed last, all together: the same again is no news.
    last: u64,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Event {
    name: String,
    first: Timestamp,
    count: u32,
}

/// All events.
#[derive(Debug, Default)]
pub(super) struct Events {
    known: HashMap<About, Known>,
    /// Every event in the order in which it came; some may be gone already.
    order: VecDeque<(About, String)>,
}

impl Events {
    /// Notes what is to be said of an object now, given its UID.
    pub(super) fn note(&mut self, store: &Store, about: &About, uid: &str, notices: &[Notice], now: Timestamp) {
        let text: String = notices
            .iter()
            .map(|notice| format!("{} {}\n", notice.reason, notice.message))
            .collect();
        let digest = fnv(text.as_bytes());
        if notices.is_empty() || self.known.get(about).is_some_and(|known| known.last == digest) {
            return;
        }
        self.known.entry(about.clone()).or_default().last = digest;
        for notice in notices.iter().take(MOST_OF_ONE) {
            self.add(store, about, uid, notice, now);
        }
        while self.order.len() > MOST {
            self.drop_oldest(store);
        }
    }

    fn add(&mut self, store: &Store, about: &About, uid: &str, notice: &Notice, now: Timestamp) {
        let known = self.known.entry(about.clone()).or_default();
        let digest = fnv(format!("{}\n{}\n{}", about.kind, notice.reason, notice.message).as_bytes());
        let name = format!("{}.{digest:016x}", about.name);
        let at = known.events.iter().position(|event| event.name == name);
        let mut event = at.and_then(|at| known.events.remove(at)).unwrap_or_else(|| {
            self.order.push_back((about.clone(), name.clone()));
            Event {
                name,
                first: now,
                count: 0,
            }
        });
        event.count += 1;
        put(store, "", "events", object(about, uid, notice, &event, now));
        known.events.push_back(event);
        if known.events.len() > MOST_OF_ONE
            && let Some(oldest) = known.events.pop_front()
        {
            remove(store, about, &oldest.name);
        }
    }

    fn drop_oldest(&mut self, store: &Store) {
        let Some((about, name)) = self.order.pop_front() else { return };
        if let Some(known) = self.known.get_mut(&about) {
            known.events.retain(|event| event.name != name);
            if known.events.is_empty() {
                self.known.remove(&about);
            }
        }
        remove(store, &about, &name);
    }

    /// The object is gone, and its events with it.
    pub(super) fn forget(&mut self, store: &Store, about: &About) {
        for event in self.known.remove(about).into_iter().flat_map(|known| known.events) {
            remove(store, about, &event.name);
        }
    }
}

fn remove(store: &Store, about: &About, name: &str) {
    store.remove(&resource("", "events"), Some(namespace_of(about)), name);
}

/// Events of objects without a namespace are in `default`, as in Kubernetes.
fn namespace_of(about: &About) -> &str {
    match about.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

fn object(about: &About, uid: &str, notice: &Notice, event: &Event, now: Timestamp) -> Value {
    let mut involved = json!({"apiVersion": about.api_version, "kind": about.kind, "name": about.name, "uid": uid});
    if !about.namespace.is_empty() {
        involved["namespace"] = json!(about.namespace);
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"namespace": namespace_of(about), "name": event.name, "creationTimestamp": seconds(event.first)},
        "involvedObject": involved, "reason": notice.reason, "message": bounded(&notice.message),
        "type": if notice.warning { "Warning" } else { "Normal" }, "count": event.count,
        "firstTimestamp": seconds(event.first), "lastTimestamp": seconds(now),
        "source": {"component": "branchline"}, "reportingComponent": "branchline", "reportingInstance": "hub",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(name: &str) -> About {
        About {
            api_version: "v1",
            kind: "Thing",
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        }
    }

    fn shown(store: &Store) -> Vec<(String, i64)> {
        let items = store
            .list(&resource("", "events"), None)
            .items
            .into_iter()
            .map(|item| item.value());
        let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let mut all: Vec<_> = items
            .map(|event| (text(&event, "message"), event["count"].as_i64().unwrap_or_default()))
            .collect();
        all.sort();
        all
    }

    fn pair(message: &str, count: i64) -> (String, i64) {
        (message.to_owned(), count)
    }

    #[test]
    fn the_same_again_is_no_news_and_what_comes_back_counts() {
        let (store, mut events, now) = (Store::new(0, 10), Events::default(), Timestamp::UNIX_EPOCH);
        let (good, bad) = (Notice::normal("Applied", "good"), Notice::warning("Failed", "bad"));
        for notice in [&bad, &bad, &good, &bad] {
            events.note(&store, &about("a"), "1", std::slice::from_ref(notice), now);
        }
        assert_eq!(shown(&store), [pair("bad", 2), pair("good", 1)]);
        events.forget(&store, &about("a"));
        assert_eq!(shown(&store), []);
    }

    #[test]
    fn the_oldest_go() {
        let (store, mut events, now) = (Store::new(0, 10), Events::default(), Timestamp::UNIX_EPOCH);
        for n in 0..30 {
            let notice = Notice::normal("N", format!("{n:02}"));
            events.note(&store, &about("a"), "1", &[notice], now);
        }
        assert_eq!(shown(&store).len(), MOST_OF_ONE);
        assert_eq!(shown(&store)[0], pair("20", 1));
        for n in 0..MOST {
            events.note(&store, &about(&n.to_string()), "1", &[Notice::normal("N", "x")], now);
        }
        assert_eq!(shown(&store).len(), MOST);
        assert_eq!(shown(&store)[0], pair("x", 1));
    }
}
