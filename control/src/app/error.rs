//! What can go wrong with a request, as the caller may act on it. Which HTTP status each becomes is `http`'s affair.

use crate::store::StoreError;

/// Why a request was not carried out. `kind` is Neutron's name of the exception, which clients look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong: change it.
    #[error("{message}")]
    Invalid {
        /// Neutron's name.
        kind: &'static str,
        /// What is wrong, and with which field.
        message: String,
    },
    /// Not with these roles.
    #[error("{0} is disallowed by policy")]
    Forbidden(String),
    /// Not there, or not visible to the caller.
    #[error("{message}")]
    NotFound {
        /// Neutron's name.
        kind: &'static str,
        /// What.
        message: String,
    },
    /// Not in the present state: change that first.
    #[error("{message}")]
    Conflict {
        /// Neutron's name.
        kind: &'static str,
        /// What stands in the way.
        message: String,
    },
    /// If-Match named another revision.
    #[error("Constrained to {wanted}, but current revision is {current}")]
    RevisionMismatch {
        /// What the caller wants it to be.
        wanted: i64,
        /// What it is.
        current: i64,
    },
    /// What the server does not do.
    #[error("{0}")]
    NotImplemented(String),
    /// Try again later.
    #[error("The server is busy, try again later.")]
    Busy,
    /// So much is open or under way already: try again when some of it has ended.
    #[error("{0}")]
    TooMany(String),
    /// A defect of ours, or the database failed.
    #[error("Request failed: internal server error while processing your request.")]
    Internal(#[source] StoreError),
}

/// What every function of `app` answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::Busy,
            StoreError::Conflict(what) => Self::conflict(
                "Conflict",
                format!("There was a conflict with the current state of the resource ({what})."),
            ),
            StoreError::Reference(_) => Self::conflict(
                "InUse",
                "The resource is in use, or one it refers to is gone.",
            ),
            StoreError::Nul => Self::invalid_input("a text has the character U+0000"),
            other => Self::Internal(other),
        }
    }
}

impl Error {
    /// [`Error::Invalid`] without a name of its own.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::Invalid {
            kind: "HTTPBadRequest",
            message: message.into(),
        }
    }

    /// A value that cannot be.
    pub fn invalid_input(message: impl std::fmt::Display) -> Self {
        Self::Invalid {
            kind: "InvalidInput",
            message: format!("Invalid input for operation: {message}."),
        }
    }

    /// [`Error::Invalid`].
    pub fn invalid(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid {
            kind,
            message: message.into(),
        }
    }

    /// An attribute with a value that cannot be.
    pub fn attribute(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::bad_request(format!("Invalid input for {name}. Reason: {reason}."))
    }

    /// [`Error::Conflict`].
    pub fn conflict(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Conflict {
            kind,
            message: message.into(),
        }
    }

    /// [`Error::NotFound`].
    pub fn not_found(kind: &'static str, message: impl Into<String>) -> Self {
        Self::NotFound {
            kind,
            message: message.into(),
        }
    }
}

/// A text from a request as a message may repeat it: not longer than a person reads.
pub fn quote(text: &str) -> String {
    const SHOWN_MAX: usize = 128;
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    format!("'{shown}'")
}

/// The same for a JSON value.
pub fn quote_value(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => quote(text),
        serde_json::Value::Null => "'None'".to_owned(),
        other => quote(&other.to_string()),
    }
}
