//! The one table of types: which lists merge by which keys, which maps are atomic, which fields carry a patch strategy.
//! Built-in kinds come from `schema.txt` (written by `tests/tools/merge-schema` from Kubernetes' own OpenAPI documents).
//! Never decides anything about an object; it only answers questions about types.
//!
//! A line of the table is `kind <apiVersion> <Kind> <Type>` or `type <Type> <field>…`; `!` before the type makes it atomic.
//! A field is `name[^]:<expression>[=<default>][~<strategy>[~<merge key>]]`; `^` marks what Go's encoder writes even when it
//! is empty or nil. Expressions: `s n b u` scalars (string, number, boolean, any), `?` anything as one atom, `*` anything by
//! deduction (lists atomic, maps granular), `[]E` atomic list, `[=]E` set, `[a,b]E` list with keys, `{}E` map, `!E` atomic.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::Value;

const TABLE: &str = include_str!("schema.txt");
/// What is known of a custom resource without a schema: its metadata; all else is deduced from the values.
const CUSTOM: &str = "type CustomResource apiVersion:s kind:s metadata:ObjectMeta *:*";
static TABLES: [&str; 2] = [TABLE, CUSTOM];
static CUSTOM_ONLY: LazyLock<Schema> = LazyLock::new(|| Schema::parse(&TABLES, |_| false));
static BUILT_IN: LazyLock<Schema> = LazyLock::new(|| Schema::parse(&TABLES, |_| true));

/// A type's place in its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TypeId(u32);

/// A type: the forms a value may have. Deduced types have all three.
#[derive(Debug, Clone, Default)]
pub(super) struct Atom {
    pub(super) scalar: Option<Scalar>,
    pub(super) list: Option<ListType>,
    pub(super) map: Option<MapType>,
}

/// Which values a scalar may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Text,
    Number,
    Boolean,
    Any,
}

/// A list and how its items are told apart.
#[derive(Debug, Clone)]
pub(super) struct ListType {
    pub(super) element: TypeId,
    pub(super) keys: Keys,
}

/// What identifies an item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Keys {
    /// Nothing: the list is one value.
    Atomic,
    /// The item itself; the list is a set.
    Value,
    /// These fields of the item.
    Fields(Vec<String>),
}

/// A struct, a map, or a mixture of the two.
#[derive(Debug, Clone, Default)]
pub(super) struct MapType {
    pub(super) fields: BTreeMap<String, Field>,
    /// Type of everything that is not in `fields`; `None` means that there may be nothing else.
    pub(super) element: Option<TypeId>,
    pub(super) atomic: bool,
}

/// A declared field of a struct.
#[derive(Debug, Clone)]
pub(super) struct Field {
    pub(super) kind: TypeId,
    pub(super) default: Option<Value>,
    /// Written even when it is empty, so that its absence and its empty value are the same.
    pub(super) always: bool,
    pub(super) patch: PatchStrategy,
}

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PatchStrategy {
    pub(super) merge: bool,
    pub(super) replace: bool,
    /// kubectl then names the fields that stay (`$retainKeys`); the server follows whatever the patch says.
    pub(super) retain_keys: bool,
    pub(super) merge_key: Option<String>,
}

/// The forms a value of some type has once the value is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forms {
    pub(super) scalar: bool,
    pub(super) list: bool,
    pub(super) map: bool,
}

impl Atom {
    /// Narrows the forms of this type to the one that `value` has; nothing and null narrow nothing.
    pub(super) fn forms(&self, value: Option<&Value>) -> Forms {
        let all = Forms {
            scalar: self.scalar.is_some(),
            list: self.list.is_some(),
            map: self.map.is_some(),
        };
        let none = Forms {
            scalar: false,
            list: false,
            map: false,
        };
        match value {
            Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) if all.scalar => Forms { scalar: true, ..none },
            Some(Value::Array(_)) if all.list => Forms { list: true, ..none },
            Some(Value::Object(_)) if all.map => Forms { map: true, ..none },
            _ => all,
        }
    }
}

impl MapType {
    /// The type of the value under `key`, if this type says anything about it.
    pub(super) fn child(&self, key: &str) -> Option<TypeId> {
        self.fields.get(key).map(|field| field.kind).or(self.element)
    }
}

/// All types that can be reached from some kinds.
#[derive(Debug, Clone, Default)]
pub(super) struct Schema {
    atoms: Vec<Atom>,
    names: HashMap<String, TypeId>,
    kinds: HashMap<(String, String), TypeId>,
}

impl Schema {
    /// The table of built-in kinds.
    pub(super) fn built_in() -> &'static Schema {
        &BUILT_IN
    }

    /// What is known of every custom resource, to be extended by what its definition says.
    pub(super) fn of_custom_resources() -> &'static Schema {
        &CUSTOM_ONLY
    }

    /// The type behind an id.
    pub(super) fn atom(&self, id: TypeId) -> &Atom {
        &self.atoms[id.0 as usize]
    }

    /// A built-in kind's type.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        self.kinds.get(&(api_version.to_owned(), kind.to_owned())).copied()
    }

    /// A type by its expression or name; of a built-in table only those that occur in it.
    pub(super) fn named(&self, name: &str) -> Option<TypeId> {
        self.names.get(name).copied()
    }

    /// The type of anything as one value.
    pub(super) fn untyped(&self) -> TypeId {
        TypeId(0)
    }

    /// All expressions and names that occur in the table, with their types.
    pub(super) fn names(&self) -> impl Iterator<Item = (&str, TypeId)> {
        self.names.iter().map(|(name, id)| (name.as_str(), *id))
    }

    /// The type of everything that no schema describes.
    pub(super) fn deduced(&self) -> TypeId {
        TypeId(1)
    }

    /// Adds a type.
    pub(super) fn add(&mut self, atom: Atom) -> TypeId {
        let id = TypeId(u32::try_from(self.atoms.len()).unwrap_or(u32::MAX));
        self.atoms.push(atom);
        id
    }

    /// Parses the kinds that are wanted, and what they consist of.
    fn parse(tables: &'static [&'static str], wanted: fn(&str) -> bool) -> Schema {
        let lines = || tables.iter().flat_map(|table| table.lines());
        let definitions: HashMap<&str, &str> = lines().filter_map(definition).collect();
        let mut parser = Parser {
            schema: Schema::with_untyped(),
            definitions,
        };
        for line in lines()
            .filter_map(|line| line.strip_prefix("kind "))
            .filter(|line| wanted(line))
        {
            let mut words = line.split(' ');
            if let (Some(version), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) {
                let id = parser.expression(name);
                parser.schema.kinds.insert((version.to_owned(), kind.to_owned()), id);
            }
        }
        parser.expression("CustomResource");
        parser.schema
    }

    /// A schema of the two untyped types: `?` (one atom) and `*` (deduced).
    pub(super) fn with_untyped() -> Schema {
        let mut schema = Schema::default();
        let untyped = |element, atomic| Atom {
            scalar: Some(Scalar::Any),
            list: Some(ListType {
                element: TypeId(0),
                keys: Keys::Atomic,
            }),
            map: Some(MapType {
                fields: BTreeMap::new(),
                element: Some(element),
                atomic,
            }),
        };
        let atomic = schema.add(untyped(TypeId(0), true));
        let deduced = schema.add(untyped(TypeId(1), false));
        schema.names.insert("?".to_owned(), atomic);
        schema.names.insert("*".to_owned(), deduced);
        schema
    }
}

/// A `type` line's name, and the line from its name on, with the `!` of an atomic type.
fn definition(line: &'static str) -> Option<(&'static str, &'static str)> {
    let line = line.strip_prefix("type ")?;
    let (name, _) = line.split_once(' ')?;
    Some((name.trim_start_matches('!'), line))
}

struct Parser {
    schema: Schema,
    definitions: HashMap<&'static str, &'static str>,
}

impl Parser {
    /// The type that an expression means; the same expression is one type.
    fn expression(&mut self, text: &'static str) -> TypeId {
        if let Some(known) = self.schema.names.get(text) {
            return *known;
        }
        // The id is taken before the parts are looked at, for types that contain themselves.
        let id = self.schema.add(Atom::default());
        self.schema.names.insert(text.to_owned(), id);
        let atom = self.atom(text);
        self.schema.atoms[id.0 as usize] = atom;
        id
    }

    fn atom(&mut self, text: &'static str) -> Atom {
        if let Some(scalar) = scalar(text) {
            return Atom {
                scalar: Some(scalar),
                ..Atom::default()
            };
        }
        if let Some(rest) = text.strip_prefix('!') {
            let mut atom = self.atom(rest);
            if let Some(map) = &mut atom.map {
                map.atomic = true;
            }
            return atom;
        }
        if let Some((keys, element)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let list = ListType {
                element: self.expression(element),
                keys: keys_of(keys),
            };
            return Atom {
                list: Some(list),
                ..Atom::default()
            };
        }
        let map = match text.strip_prefix("{}") {
            Some(element) => MapType {
                element: Some(self.expression(element)),
                ..MapType::default()
            },
            None => self.structure(text),
        };
        Atom {
            map: Some(map),
            ..Atom::default()
        }
    }

    /// A named struct, by its line in the table.
    fn structure(&mut self, name: &str) -> MapType {
        let mut map = MapType::default();
        let Some(line) = self.definitions.get(name).copied() else {
            return map;
        };
        map.atomic = line.starts_with('!');
        for text in line.split(' ').skip(1) {
            let Some((name, kind)) = text.split_once(':') else { continue };
            let field = self.field(name.ends_with('^'), kind);
            match name {
                "*" => map.element = Some(field.kind),
                name => drop(map.fields.insert(name.trim_end_matches('^').to_owned(), field)),
            }
        }
        map
    }

    fn field(&mut self, always: bool, text: &'static str) -> Field {
        let mut parts = text.split('~');
        let kind = parts.next().unwrap_or_default();
        let strategies = parts.next().unwrap_or_default();
        // A set's `[=]` is no default: defaults follow the closing bracket.
        let split_at = kind.rfind(']').unwrap_or(0);
        let (kind, default) = match kind[split_at..].find('=') {
            Some(at) => (&kind[..split_at + at], serde_json::from_str(&kind[split_at + at + 1..]).ok()),
            None => (kind, None),
        };
        let has = |word| strategies.split(',').any(|strategy| strategy == word);
        let patch = PatchStrategy {
            merge: has("merge"),
            replace: has("replace"),
            retain_keys: has("retainKeys"),
            merge_key: parts.next().map(str::to_owned),
        };
        Field {
            kind: self.expression(kind),
            default,
            always,
            patch,
        }
    }
}

fn scalar(text: &str) -> Option<Scalar> {
    match text {
        "s" => Some(Scalar::Text),
        "n" => Some(Scalar::Number),
        "b" => Some(Scalar::Boolean),
        "u" => Some(Scalar::Any),
        _ => None,
    }
}

fn keys_of(text: &str) -> Keys {
    match text {
        "" => Keys::Atomic,
        "=" => Keys::Value,
        names => Keys::Fields(names.split(',').map(str::to_owned).collect()),
    }
}
