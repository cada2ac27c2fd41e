//! What the host must have, and what to do where it has not.

use std::fmt;

/// Something that the kernel engine needs and this host lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    /// What it is.
    pub what: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}
