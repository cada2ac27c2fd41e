//! Who asks, by a request's tokens.

use super::Server;
use super::error::HttpError;
use crate::app::error::Error;
use crate::app::policy::Caller;
use axum::http::HeaderMap;

/// The caller, if its tokens are good and of a kind that may call `path`.
pub(super) async fn of(
    server: &Server,
    headers: &HeaderMap,
    path: &str,
) -> Result<Caller, HttpError> {
    // A header that is no text is a token that nobody gave.
    let text = |name: &str| {
        let header = headers.get(name);
        header.map(|t| t.to_str().unwrap_or_default())
    };
    let token = text("x-auth-token").unwrap_or_default();
    let caller = server.authority.validate(token, text("x-service-token"));
    let caller = caller.await?.ok_or_else(|| HttpError::Unauthorized {
        auth_url: server.authority.auth_url().to_owned(),
    })?;
    if caller.may_network() || path.starts_with("/identity") {
        return Ok(caller);
    }
    let message = "a token that is scoped to the system or a domain";
    Err(Error::Forbidden(message.to_owned()).into())
}
