//! The sandbox: an in-memory API server. Owns its storage rules; never opens a socket or reads a clock in `fields`.

pub mod fields;
