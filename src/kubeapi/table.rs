//! Server-side tables (`as=Table;v=v1;g=meta.k8s.io`): column definitions and rows. Pure; the time is passed in.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::printer_path::{PrinterPath, text_of};

/// How a resource is printed.
#[derive(Debug, Clone)]
pub enum Columns {
    /// NAME and AGE.
    NameAndAge,
    /// NAME and CREATED AT, as Kubernetes prints kinds that have no printer.
    NameAndCreation,
    /// NAME and then columns given by paths.
    Paths(Vec<PathColumn>),
    /// Columns computed by a function.
    Computed(&'static [ColumnDefinition], RowFunction),
}

/// Computes the cells of a row, one per column definition.
pub type RowFunction = fn(&Value, Timestamp) -> Vec<Value>;

/// A computed column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDefinition {
    /// Title in its own spelling; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string`, `integer`, …
    pub kind: &'static str,
    /// Empty or `name`.
    pub format: &'static str,
    /// 0 is always shown, more only with `-o wide`.
    pub priority: i32,
}

/// A column of any type.
pub const fn column(name: &'static str, kind: &'static str) -> ColumnDefinition {
    ColumnDefinition {
        name,
        kind,
        format: "",
        priority: 0,
    }
}

/// The text column with the object's name.
pub const fn name_column() -> ColumnDefinition {
    ColumnDefinition {
        name: "Name",
        kind: "string",
        format: "name",
        priority: 0,
    }
}

/// A text column that only `-o wide` shows.
pub const fn wide(name: &'static str) -> ColumnDefinition {
    ColumnDefinition {
        name,
        kind: "string",
        format: "",
        priority: 1,
    }
}

/// A column that a path fills (`additionalPrinterColumns`).
#[derive(Debug, Clone)]
pub struct PathColumn {
    /// Title.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// Format, such as `int64`.
    pub format: String,
    /// Explanation.
    pub description: String,
    /// 0 is always shown.
    pub priority: i32,
    /// Where the value is.
    pub path: PrinterPath,
}

impl PathColumn {
    /// A column with a title, a type and a path; `None` when the path does not parse.
    pub fn new(name: &str, kind: &str, path: &str) -> Option<PathColumn> {
        Some(PathColumn {
            name: name.to_owned(),
            kind: kind.to_owned(),
            format: String::new(),
            description: String::new(),
            priority: 0,
            path: PrinterPath::parse(path)?,
        })
    }

    fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let found = self.path.find(object);
        let Some(first) = found.first() else {
            return Value::Null;
        };
        match self.kind.as_str() {
            "integer" | "number" if first.is_number() => (*first).clone(),
            "boolean" if first.is_boolean() => (*first).clone(),
            "date" => json!(age(first.as_str(), now)),
            "string" => json!(found.iter().map(|value| text_of(value)).collect::<Vec<_>>().join(",")),
            _ => Value::Null,
        }
    }
}

const NAME_DESCRIPTION: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow \
     a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and \
     configuration definition. Cannot be updated. More info: \
     https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";

impl Columns {
    /// `columnDefinitions`.
    pub fn definitions(&self) -> Value {
        match self {
            Columns::NameAndAge => json!([definition("Name", "string", "name", 0), definition("Age", "date", "", 0)]),
            Columns::NameAndCreation => json!([
                definition("Name", "string", "name", 0),
                definition("Created At", "date", "", 0)
            ]),
            Columns::Paths(columns) => std::iter::once(definition("Name", "string", "name", 0))
                .chain(columns.iter().map(path_definition))
                .collect(),
            Columns::Computed(columns, _) => columns
                .iter()
                .map(|column| definition(column.name, column.kind, column.format, column.priority))
                .collect(),
        }
    }

    /// The cells of an object's row.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = json!(text(object, "/metadata/name"));
        let created = object.pointer("/metadata/creationTimestamp").and_then(Value::as_str);
        match self {
            Columns::NameAndAge => vec![name, json!(age(created, now))],
            Columns::NameAndCreation => vec![name, json!(created.unwrap_or("<unknown>"))],
            Columns::Paths(columns) => std::iter::once(name)
                .chain(columns.iter().map(|column| column.cell(object, now)))
                .collect(),
            Columns::Computed(_, row) => row(object, now),
        }
    }
}

fn definition(name: &str, kind: &str, format: &str, priority: i32) -> Value {
    let description = if format == "name" { NAME_DESCRIPTION } else { "" };
    json!({"name": name, "type": kind, "format": format, "description": description, "priority": priority})
}

fn path_definition(column: &PathColumn) -> Value {
    json!({
        "name": column.name, "type": column.kind, "format": column.format,
        "description": column.description, "priority": column.priority,
    })
}

/// What a row carries besides its cells (`includeObject`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowObject {
    /// Nothing.
    None,
    /// The metadata, as PartialObjectMetadata.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl RowObject {
    /// Reads the parameter `includeObject`.
    pub fn parse(text: Option<&str>) -> RowObject {
        match text {
            Some("None") => RowObject::None,
            Some("Object") => RowObject::Object,
            _ => RowObject::Metadata,
        }
    }
}

/// One row.
pub fn row(columns: &Columns, object: &Value, include: RowObject, now: Timestamp) -> Value {
    let cells = columns.cells(object, now);
    match include {
        RowObject::None => json!({"cells": cells, "object": null}),
        RowObject::Metadata => json!({"cells": cells, "object": partial_metadata(object)}),
        RowObject::Object => json!({"cells": cells, "object": object}),
    }
}

/// A `Table` with the given rows; definitions are left out after the first event of a watch.
pub fn table(metadata: &Value, definitions: Option<Value>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions.unwrap_or_default(), "rows": rows,
    })
}

/// `PartialObjectMetadata` of an object.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// The text at a JSON pointer, empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer, 0 if there is none.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The list at a JSON pointer, empty if there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The age of an object from its creation time.
pub fn age_of(object: &Value, now: Timestamp) -> Value {
    json!(age(
        object.pointer("/metadata/creationTimestamp").and_then(Value::as_str),
        now
    ))
}

/// The age since an RFC 3339 time in kubectl's words.
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(since) => human_duration(now.as_second() - since.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration with two significant units, as kubectl prints it: `2m5s`, `4h`, `3d2h`, `2y30d`.
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(years, "y", days % 365, "d"),
        _ => format!("{years}y"),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        for (seconds, want) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (125, "2m5s"),
            (180, "3m"),
            (660, "11m"),
            (10_799, "179m"),
            (14_700, "4h5m"),
            (36_000, "10h"),
            (190_800, "2d5h"),
            (86_400 * 400, "400d"),
            (86_400 * 760, "2y30d"),
            (86_400 * 365 * 9, "9y"),
        ] {
            assert_eq!(human_duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn path_columns() {
        let columns = Columns::Paths(vec![
            PathColumn::new("Replicas", "integer", ".spec.replicas").unwrap(),
            PathColumn::new("Phase", "string", ".status.phase").unwrap(),
            PathColumn::new("Age", "date", ".metadata.creationTimestamp").unwrap(),
        ]);
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"replicas": 2}});
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        assert_eq!(
            columns.cells(&object, now),
            vec![json!("a"), json!(2), Value::Null, json!("60s")]
        );
        assert_eq!(columns.definitions()[3]["name"], "Age");
    }
}
