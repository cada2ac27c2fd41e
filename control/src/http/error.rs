//! The only file that knows which status an error has, and how Neutron and Keystone write it.

use crate::app::error::Error;
use crate::identity::IdentityError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// What goes wrong before a request reaches a resource's rules.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error(transparent)]
    App(#[from] Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Without a good token; where to get one.
    #[error("The request you have made requires authentication.")]
    Unauthorized { auth_url: String },
    #[error("The request body is longer than {0} bytes.")]
    BodyTooLong(usize),
    #[error("The resource could not be found.")]
    NoRoute,
    #[error("The method is not allowed for this resource.")]
    NoMethod,
}

impl From<crate::store::StoreError> for HttpError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::App(error.into())
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        match self {
            Self::Unauthorized { ref auth_url } => {
                let mut response = keystone(StatusCode::UNAUTHORIZED, &self.to_string());
                let scheme = format!("Keystone uri=\"{auth_url}\"");
                if let Ok(scheme) = HeaderValue::from_str(&scheme) {
                    response
                        .headers_mut()
                        .insert(header::WWW_AUTHENTICATE, scheme);
                }
                response
            }
            Self::App(error) => {
                let (status, kind) = neutron_status(&error);
                neutron(status, kind, &error.to_string())
            }
            Self::Identity(error) => {
                let status = match &error {
                    IdentityError::Unauthorized => StatusCode::UNAUTHORIZED,
                    IdentityError::Forbidden => StatusCode::FORBIDDEN,
                    IdentityError::NotFound(..) => StatusCode::NOT_FOUND,
                    IdentityError::Conflict(_) => StatusCode::CONFLICT,
                    IdentityError::Invalid(_) => StatusCode::BAD_REQUEST,
                    IdentityError::Busy | IdentityError::Away => StatusCode::SERVICE_UNAVAILABLE,
                    IdentityError::Internal(source) => {
                        log(source);
                        StatusCode::INTERNAL_SERVER_ERROR
                    }
                };
                keystone(status, &error.to_string())
            }
            Self::BodyTooLong(_) => neutron(
                StatusCode::PAYLOAD_TOO_LARGE,
                "HTTPRequestEntityTooLarge",
                &self.to_string(),
            ),
            Self::NoRoute => neutron(StatusCode::NOT_FOUND, "HTTPNotFound", &self.to_string()),
            Self::NoMethod => neutron(
                StatusCode::METHOD_NOT_ALLOWED,
                "HTTPMethodNotAllowed",
                &self.to_string(),
            ),
        }
    }
}

fn neutron_status(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::Invalid { kind, .. } => (StatusCode::BAD_REQUEST, kind),
        Error::Forbidden(_) => (StatusCode::FORBIDDEN, "PolicyNotAuthorized"),
        Error::NotFound { kind, .. } => (StatusCode::NOT_FOUND, kind),
        // Neutron answers 503 where no segment is left, and for what an operator has switched off.
        Error::Conflict {
            kind: kind @ ("NoNetworkAvailable" | "FlavorDisabled" | "ServiceProfileDisabled"),
            ..
        } => (StatusCode::SERVICE_UNAVAILABLE, kind),
        Error::Conflict { kind, .. } => (StatusCode::CONFLICT, kind),
        Error::RevisionMismatch { .. } => (
            StatusCode::PRECONDITION_FAILED,
            "RevisionNumberConstraintFailed",
        ),
        Error::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "HTTPNotImplemented"),
        Error::Busy | Error::TooMany(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Error::Internal(source) => {
            log(source);
            (StatusCode::INTERNAL_SERVER_ERROR, "HTTPInternalServerError")
        }
    }
}

/// The caller sees the outer half only; the operator sees it all.
fn log(source: &crate::store::StoreError) {
    tracing::error!(error = source as &dyn std::error::Error, "request failed");
}

fn neutron(status: StatusCode, kind: &str, message: &str) -> Response {
    let body = json!({ "NeutronError": { "type": kind, "message": message, "detail": "" } });
    (status, Json(body)).into_response()
}

fn keystone(status: StatusCode, message: &str) -> Response {
    let title = status.canonical_reason().unwrap_or_default();
    let body = json!({ "error": { "code": status.as_u16(), "message": message, "title": title } });
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Keystone uri=\"/identity/v3\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}
