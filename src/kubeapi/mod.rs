//! A Kubernetes-style HTTP front over a versioned in-memory store, used by the hub's API and by the sandbox: paths, discovery,
//! OpenAPI, lists, watches, tables, selectors and `Status` errors. Who may ask what is decided before a request gets here, what a
//! write does is decided by the [`Backend`] behind it.

mod accept;
mod backend;
mod clusternet;
mod clusternet_schema;
mod discovery;
mod error;
mod front;
mod openapi;
pub mod patch;
mod path;
mod printer_path;
mod protobuf;
mod query;
mod reading;
mod resource;
pub mod response;
mod reviews;
mod selector;
mod store;
pub mod table;
mod watching;

pub use backend::{Action, Backend, HealthCheck, Outcome, PatchType, ServerVersion, Target, Written};
pub use clusternet::clusternet_resources;
pub use clusternet_schema::{clusternet_schemas, component_of};
pub use error::{ApiError, Cause, Details};
pub use front::{Front, RequestContext};
pub use openapi::fnv;
pub use path::{ResourcePath, Route};
pub use printer_path::PrinterPath;
pub use query::{DeleteOptions, ListOptions, WriteOptions};
pub use resource::{Catalog, READ_ONLY, READ_WRITE, Resource, ResourceId, SUBRESOURCE, Subresource, SubresourceKind, View};
pub use response::ResponseBody;
pub use reviews::review_resources;
pub use selector::{LabelSelector, SelectorError};
pub use store::{Change, ChangeKind, Changes, Expired, Listing, ObjectName, Store, Stored, Transaction};
