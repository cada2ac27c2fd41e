//! Weft's kernel engine.

pub mod policy;
pub mod sys;
