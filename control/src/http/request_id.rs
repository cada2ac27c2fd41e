//! Numbers of requests, as OpenStack's services have them (oslo.middleware's RequestId): its clients show them with an error, and
//! operators look for them in logs.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

/// The number of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// Gives each answer a number of its own, as OpenStack's services do and its clients show, and writes it down with what went wrong.
pub(super) async fn numbered(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let number = format!("req-{}", Uuid::new_v4());
    let mut response = next.run(request).await;
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::warn!(%method, path, "{number} was answered with 500");
    }
    if let Ok(number) = HeaderValue::try_from(number) {
        response.headers_mut().insert(REQUEST_ID, number);
    }
    response
}
