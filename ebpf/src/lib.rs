//! Weft's kernel engine.

mod error;
mod host;
mod load;
pub mod policy;
pub mod sys;

pub use error::EngineError;
pub use host::MissingFeature;
