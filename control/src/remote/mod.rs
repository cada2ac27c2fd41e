//! The other services of the cloud: Keystone, and through its catalogue Nova.
//!
//! Guarantees: every call ends within [`http::ANSWER_TIMEOUT`], with a body of at most [`http::BODY_BYTES_MAX`]; a
//! session's own token is renewed before it ends, and once more if the other side refuses it.

pub(crate) mod http;
pub(crate) mod session;

/// Why another service did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// The system's certificates cannot be read.
    #[error("cannot read the system's certificates: {message}")]
    Certificates {
        /// Why.
        message: String,
    },
    /// Not an URL that can be called.
    #[error("{url} is no http:// or https:// URL")]
    Url {
        /// What was given.
        url: String,
    },
    /// No connection, or it broke.
    #[error("{url} cannot be reached: {message}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        message: String,
    },
    /// No answer in time.
    #[error("{url} gave no answer within {} s", http::ANSWER_TIMEOUT.as_secs())]
    Silent {
        /// Where.
        url: String,
    },
    /// An answer that is not what was asked for.
    #[error("{url} answered {status}: {message}")]
    Status {
        /// Where.
        url: String,
        /// Which status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// An answer that cannot be read.
    #[error("the answer of {url} cannot be read: {message}")]
    Unreadable {
        /// Where.
        url: String,
        /// Why.
        message: String,
    },
    /// The service user's name, password or project is wrong.
    #[error("Keystone at {url} refuses the user {username} of the configuration: {message}")]
    Credentials {
        /// Where.
        url: String,
        /// Who.
        username: String,
        /// What it said.
        message: String,
    },
    /// The catalogue does not say where a service is.
    #[error(
        "Keystone's catalogue has no {interface} endpoint of a service {service:?} in {region}"
    )]
    Catalogue {
        /// The service's type.
        service: String,
        /// `public`, `internal` or `admin`.
        interface: String,
        /// The region.
        region: String,
    },
}

/// What every function here answers.
pub(crate) type Result<T, E = RemoteError> = std::result::Result<T, E>;
