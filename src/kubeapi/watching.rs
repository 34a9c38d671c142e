//! One watch request as a stream of event lines. Owns its position in the history; a watch that falls behind ends with 410.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::accept::Representation;
use super::error::ApiError;
use super::query::ListOptions;
use super::resource::Resource;
use super::store::{Change, ChangeKind, Store, Stored};
use super::table::{self, RowObject};

/// How many changes are read from the history at once.
const BATCH: usize = 256;
/// How often a quiet watch is told the latest revision.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// When a watch without `timeoutSeconds` ends: Kubernetes takes 30 to 60 minutes.
const LONGEST: Duration = Duration::from_secs(45 * 60);

/// Which objects a watch shows, and how.
#[derive(Debug)]
pub(crate) struct WatchView {
    pub(crate) resource: Arc<Resource>,
    pub(crate) namespace: Option<String>,
    pub(crate) options: ListOptions,
    pub(crate) representation: Representation,
    pub(crate) include: RowObject,
}

/// Where a watch begins.
pub(crate) struct WatchStart {
    /// The revision after which changes are shown.
    pub(crate) position: u64,
    /// Objects that are shown first, as additions.
    pub(crate) initial: Vec<Stored>,
}

struct Watching {
    view: WatchView,
    store: Arc<Store>,
    changed: watch::Receiver<u64>,
    shutdown: CancellationToken,
    position: u64,
    initial: Option<Vec<Stored>>,
    columns_sent: bool,
    deadline: Instant,
    next_bookmark: Instant,
    ended: bool,
}

/// The stream of chunks, one or more lines each; it ends at its deadline, with the server, or after an error event.
pub(crate) fn stream(
    view: WatchView,
    store: Arc<Store>,
    start: WatchStart,
    shutdown: CancellationToken,
) -> impl Stream<Item = Bytes> {
    let now = Instant::now();
    let asked = view.options.timeout_seconds.filter(|seconds| *seconds > 0);
    let longest = asked.map_or(LONGEST, Duration::from_secs);
    let watching = Watching {
        changed: store.follow(&view.resource.id),
        view,
        store,
        shutdown,
        position: start.position,
        initial: Some(start.initial),
        columns_sent: false,
        deadline: now + longest,
        next_bookmark: now + BOOKMARK_EVERY,
        ended: false,
    };
    futures::stream::unfold(watching, |mut watching| async move {
        let chunk = watching.next_chunk().await?;
        Some((chunk, watching))
    })
}

impl Watching {
    async fn next_chunk(&mut self) -> Option<Bytes> {
        if let Some(initial) = self.initial.take() {
            let lines = self.initial_lines(&initial);
            if !lines.is_empty() {
                return Some(lines.into());
            }
        }
        while !self.ended {
            let lines = self.pending_lines();
            if !lines.is_empty() {
                return Some(lines.into());
            }
            let bookmark = tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = tokio::time::sleep_until(self.next_bookmark), if self.view.options.bookmarks => true,
                changed = self.changed.changed() => { changed.ok()?; false }
            };
            if bookmark {
                self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                return Some(self.bookmark_line(false).into());
            }
        }
        None
    }

    fn initial_lines(&mut self, initial: &[Stored]) -> Vec<u8> {
        let mut lines = Vec::new();
        for object in initial {
            self.add_line(&mut lines, "ADDED", object.value());
        }
        if self.view.options.send_initial_events {
            lines.extend(self.bookmark_line(true));
        }
        lines
    }

    fn pending_lines(&mut self) -> Vec<u8> {
        // Marked as seen before reading, so that a change in between wakes the watch again.
        self.changed.mark_unchanged();
        let mut lines = Vec::new();
        match self.store.changes_after(&self.view.resource.id, self.position, BATCH) {
            Ok(changes) => {
                for change in &changes.items {
                    if let Some((kind, object)) = self.view.show(change) {
                        self.add_line(&mut lines, kind, object);
                    }
                }
                self.position = changes.up_to;
                if changes.items.len() == BATCH {
                    self.changed.mark_changed();
                }
            }
            Err(expired) => {
                self.ended = true;
                let status = ApiError::expired(expired.asked, expired.oldest).to_status();
                push_line(&mut lines, &json!({"type": "ERROR", "object": status}));
            }
        }
        lines
    }

    fn add_line(&mut self, lines: &mut Vec<u8>, kind: &str, object: Value) {
        let columns = !std::mem::replace(&mut self.columns_sent, true);
        let shown = self.view.represent(object, columns);
        push_line(lines, &json!({"type": kind, "object": shown}));
    }

    fn bookmark_line(&mut self, initial_events_end: bool) -> Vec<u8> {
        let resource = &self.view.resource;
        let mut object = json!({
            "kind": resource.kind, "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": self.position.to_string(), "creationTimestamp": null},
        });
        if initial_events_end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let mut lines = Vec::new();
        self.add_line(&mut lines, "BOOKMARK", object);
        lines
    }
}

impl WatchView {
    fn selects(&self, object: &Value) -> bool {
        let in_namespace = match &self.namespace {
            Some(namespace) => table::text(object, "/metadata/namespace") == namespace,
            None => true,
        };
        in_namespace && self.options.labels.matches(object) && self.options.fields.matches(object)
    }

    /// What a watch with this selection sees of a change: an object that leaves the selection is deleted for it.
    fn show(&self, change: &Change) -> Option<(&'static str, Value)> {
        let selected = |stored: &Stored| self.resource.see(stored.value()).filter(|object| self.selects(object));
        let previous = change.previous.as_ref().and_then(selected);
        let current = Some(&change.object)
            .filter(|_| change.kind != ChangeKind::Deleted)
            .and_then(selected);
        match (previous, current) {
            (None, Some(object)) => Some(("ADDED", object)),
            (Some(_), Some(object)) => Some(("MODIFIED", object)),
            // The last state stands under the revision of the removal already.
            (Some(_), None) if change.kind == ChangeKind::Deleted => Some(("DELETED", self.resource.see(change.object.value())?)),
            (Some(previous), None) => Some(("DELETED", left_selection(previous, change.revision))),
            (None, None) => None,
        }
    }

    fn represent(&self, object: Value, columns: bool) -> Value {
        match self.representation {
            Representation::Metadata => table::partial_metadata(&object),
            Representation::Table => {
                let printer = &self.resource.columns;
                let row = table::row(printer, &object, self.include, Timestamp::now());
                let metadata = json!({"resourceVersion": table::text(&object, "/metadata/resourceVersion")});
                table::table(&metadata, columns.then(|| printer.definitions()), vec![row])
            }
            _ => in_version(object, &self.resource),
        }
    }
}

/// The object as it was when it last matched, under the revision at which it left.
fn left_selection(mut object: Value, revision: u64) -> Value {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".to_owned(), json!(revision.to_string()));
    }
    object
}

/// The object under the API version by which it was asked for; stored objects are the same in all of their versions.
pub(crate) fn in_version(mut object: Value, resource: &Resource) -> Value {
    if let Some(map) = object.as_object_mut() {
        map.insert("apiVersion".to_owned(), json!(resource.api_version()));
    }
    object
}

fn push_line(lines: &mut Vec<u8>, event: &Value) {
    lines.extend_from_slice(event.to_string().as_bytes());
    lines.push(b'\n');
}
