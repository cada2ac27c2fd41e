//! HTTP to another service, over TLS where its URL says so, with the system's certificates.

use super::{RemoteError, Result};
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// From a request's start to the end of its answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer.
pub(crate) const BODY_BYTES_MAX: usize = 4 << 20;
/// To a connection, of the time above.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Servers close what idles longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Characters of what another service said that are repeated.
const MESSAGE_CHARACTERS: usize = 300;

/// A client, with its connections.
pub(crate) enum Http {
    /// For `http://` URLs only.
    Plain(Client<HttpConnector, Full<Bytes>>),
    /// For both kinds.
    Secure(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// An answer.
pub(crate) struct Reply {
    /// Where it came from, for messages.
    url: String,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| RemoteError::Unreadable {
            url: self.url.clone(),
            message: error.to_string(),
        })
    }

    /// Itself if it is a success.
    pub(crate) fn good(self) -> Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(RemoteError::Status {
            message: self.message(),
            status: self.status.as_u16(),
            url: self.url,
        })
    }

    /// What it says is wrong, in OpenStack's form or as it is.
    pub(crate) fn message(&self) -> String {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        let errors = value
            .as_object()
            .into_iter()
            .flat_map(|object| object.values());
        let message = errors
            .filter_map(|error| error.get("message")?.as_str())
            .next();
        message
            .unwrap_or(text.trim())
            .chars()
            .take(MESSAGE_CHARACTERS)
            .collect()
    }
}

impl Http {
    /// A client for what is at `url`, and for all that its catalogue may name.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let tls = HttpsConnectorBuilder::new().with_native_roots();
        match tls {
            Ok(tls) => {
                connector.enforce_http(false);
                let tls = tls.https_or_http().enable_http1().wrap_connector(connector);
                Ok(Self::Secure(builder.build(tls)))
            }
            // A machine without certificates can still speak to what is on its loopback.
            Err(_none) if url.starts_with("http://") => Ok(Self::Plain(builder.build(connector))),
            Err(error) => Err(RemoteError::Certificates {
                message: error.to_string(),
            }),
        }
    }

    async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<hyper::Response<Incoming>, ClientError> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Secure(client) => client.request(request).await,
        }
    }

    /// One request and its answer, whatever its status.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            let mut value =
                HeaderValue::from_str(value).map_err(|_not_a_value| RemoteError::Url {
                    url: url.to_owned(),
                })?;
            value.set_sensitive(true);
            request = request.header(*name, value);
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .header(header::ACCEPT, "application/json")
            .body(Full::from(body))
            .map_err(|_not_a_request| RemoteError::Url {
                url: url.to_owned(),
            })?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.answer(request, url)).await;
        answer.map_err(|_elapsed| RemoteError::Silent {
            url: url.to_owned(),
        })?
    }

    async fn answer(&self, request: Request<Full<Bytes>>, url: &str) -> Result<Reply> {
        let unreachable = |message| RemoteError::Unreachable {
            url: url.to_owned(),
            message,
        };
        let answer = self.request(request).await;
        let (head, body) = answer
            .map_err(|error| unreachable(chain(&error)))?
            .into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
        Ok(Reply {
            url: url.to_owned(),
            status: head.status,
            headers: head.headers,
            body: body
                .map_err(|error| unreachable(chain(&*error)))?
                .to_bytes(),
        })
    }
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
