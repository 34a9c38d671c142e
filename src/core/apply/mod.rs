//! Desired objects and an inventory become ordered steps. Owns order, pruning and what is remembered; sends nothing.
//!
//! ```text
//! Wanted + Inventory ─plan─► Plan { record, steps } ─► save record ─► Progress: next step ─► results ─► Finished { inventory, outcomes } ─► save
//! ```
//!
//! Invariants, held by the property tests in `tests.rs`:
//! - before the first write the inventory holds old ∪ new, so that whatever a kill leaves behind is known;
//! - an entry says `applied: <blob>` only while nothing else can have been written to that object by us;
//! - an object is deleted only after everything else of its Description was applied;
//! - no object is deleted that the tree asks for, whatever is known of its kind's scope then and when it was recorded;
//! - planning again after a kill at any point ends in the same state.

mod claims;
mod inventory;
mod layout;
mod marks;
mod order;
mod plan;
mod progress;
mod report;
mod shards;
#[cfg(test)]
mod tests;

pub use inventory::{Entry, Inventory, Position};
pub use layout::{Contents, Laid, lay_out};
pub use marks::{DESCRIPTION_ANNOTATION, MANAGED_LABEL, is_ours, mark};
pub use order::{is_never_pruned, rank_of};
pub use plan::{Apply, Content, Desired, Plan, Removal, Scope, Step, Target, Unrendered, Wanted, plan};
pub use progress::{Done, Finished, Progress};
pub use report::{Outcomes, Standing, reports};
pub use shards::{BrokenInventory, SHARD_LIMIT, decode_shards, encode_shards};
