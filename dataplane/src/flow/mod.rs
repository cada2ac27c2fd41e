//! Sessions: their keys, what is recorded in them, the table that holds them, and the small tables beside it
//! (fragments, token buckets). All sizes are bounded, all times are arguments.

pub mod bucket;
pub mod fragment;
pub mod key;
pub mod session;
pub mod table;
