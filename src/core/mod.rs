//! Everything that decides: pure functions from values to values. No IO, no clock, no randomness, no async.

pub mod access;
pub mod api;
pub mod apply;
pub mod conceal;
pub mod diagnostic;
pub mod ids;
pub mod impact;
pub mod index;
pub mod node_labels;
pub mod object;
pub mod pipeline;
pub mod quantity;
pub mod reach;
pub mod readiness;
pub mod registration;
pub mod render;
pub mod room;
pub mod schedule;
pub mod selector;
pub mod state;
pub mod status;
pub mod taint;
pub mod text;
pub mod tree;
pub mod why;
pub mod yaml;
