//! A request, decoded as far as every handler needs it: who asks, the path's ids, the query, the body.

use super::error::HttpError;
use crate::app::error::Error;
use crate::app::policy::Caller;
use crate::app::resource::Place;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::{Json, http};
use serde_json::Value;

/// Bytes of a request's body.
pub(super) const BODY_BYTES_MAX: usize = 8 << 20;

/// A decoded request.
pub(super) struct Request {
    /// Who asks. Anonymous on public routes.
    pub(super) caller: Caller,
    /// The path's parameters, in order.
    pub(super) path: Vec<String>,
    /// The path.
    pub(super) uri_path: String,
    /// The query string's pairs.
    pub(super) query: Vec<(String, String)>,
    /// The headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Bytes,
}

/// An answer.
#[derive(Default)]
pub(super) struct Reply {
    /// 200 unless set.
    pub(super) status: StatusCode,
    /// None for no body.
    pub(super) body: Option<Value>,
    /// A body that is JSON text already.
    pub(super) json: Option<String>,
    /// A page for people, in the place of a body.
    pub(super) page: Option<&'static str>,
    /// A token, for the header that carries it.
    pub(super) subject_token: Option<String>,
    /// Sentences for Warning headers (RFC 7234, section 5.5).
    pub(super) warnings: Vec<&'static str>,
    /// Other headers.
    pub(super) headers: Vec<(HeaderName, String)>,
    /// A body without an end, and what it is.
    pub(super) stream: Option<(&'static str, Body)>,
}

impl Reply {
    /// 200 with a body.
    pub(super) fn ok(body: Value) -> Self {
        Self {
            body: Some(body),
            ..Self::default()
        }
    }

    /// 200 with a body that is JSON text already.
    pub(super) fn json(json: String) -> Self {
        Self {
            json: Some(json),
            ..Self::default()
        }
    }

    /// 200 with a page for people.
    pub(super) fn page(page: &'static str) -> Self {
        Self {
            page: Some(page),
            ..Self::default()
        }
    }

    /// 200 with a body without an end.
    pub(super) fn stream(kind: &'static str, body: Body) -> Self {
        Self {
            stream: Some((kind, body)),
            ..Self::default()
        }
    }

    /// 201 with a body.
    pub(super) fn created(body: Value) -> Self {
        Self {
            status: StatusCode::CREATED,
            body: Some(body),
            ..Self::default()
        }
    }

    /// The same answer with warnings.
    pub(super) fn warning(self, warnings: Vec<&'static str>) -> Self {
        Self { warnings, ..self }
    }

    /// 204
    pub(super) fn no_content() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            ..Self::default()
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = match (self.body, self.json, self.page, self.stream) {
            (Some(body), ..) => (self.status, Json(body)).into_response(),
            (None, Some(text), ..) => (self.status, json, text).into_response(),
            (None, None, Some(page), _) => (self.status, Html(page)).into_response(),
            (None, None, None, Some((kind, body))) => {
                let headers = [
                    (header::CONTENT_TYPE, kind),
                    (header::CACHE_CONTROL, "no-store"),
                ];
                (self.status, headers, body).into_response()
            }
            (None, None, None, None) => self.status.into_response(),
        };
        for (name, value) in self.headers {
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
        }
        if let Some(token) = self.subject_token.and_then(|token| token.parse().ok()) {
            response.headers_mut().insert("x-subject-token", token);
            response
                .headers_mut()
                .insert(header::VARY, http::HeaderValue::from_static("X-Auth-Token"));
        }
        for warning in self.warnings {
            if let Ok(value) = format!("299 weft \"{warning}\"").parse() {
                response.headers_mut().append(header::WARNING, value);
            }
        }
        response
    }
}

impl Request {
    /// Reads the parts and the body, the latter up to [`BODY_BYTES_MAX`].
    pub(super) async fn read(
        parts: &mut Parts,
        body: Body,
        caller: Caller,
    ) -> Result<Self, HttpError> {
        let params = RawPathParams::from_request_parts(parts, &()).await;
        let path = params.map(|params| params.iter().map(|(_, value)| value.to_owned()).collect());
        let query = parts.uri.query().unwrap_or_default();
        let body = axum::body::to_bytes(body, BODY_BYTES_MAX)
            .await
            .map_err(|_too_long| HttpError::BodyTooLong(BODY_BYTES_MAX))?;
        Ok(Self {
            caller,
            path: path.map_err(|_not_text| HttpError::NoRoute)?,
            uri_path: parts.uri.path().to_owned(),
            query: form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
            headers: parts.headers.clone(),
            body,
        })
    }

    /// A request of the same caller for one item, by its id.
    pub(super) fn of(&self, id: &str) -> Self {
        Self {
            caller: self.caller.clone(),
            path: vec![id.to_owned()],
            uri_path: String::new(),
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// The n-th parameter of the path.
    pub(super) fn id(&self, n: usize) -> &str {
        self.path.get(n).map_or("", String::as_str)
    }

    /// The item that the path names, for what has a parent too.
    pub(super) fn place(&self) -> Place<'_> {
        match self.path.as_slice() {
            [parent, id] => Place {
                parent: Some(parent),
                id,
            },
            _ => Place::from(self.id(0)),
        }
    }

    /// The parent that the path of a collection names.
    pub(super) fn parent(&self) -> Option<&str> {
        self.path.first().map(String::as_str)
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Result<Value, HttpError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let message = format!(
                "The server could not comply with the request since it is either malformed or \
                 otherwise incorrect: the body is not JSON ({error})"
            );
            HttpError::App(Error::bad_request(message))
        })
    }

    /// The revision that If-Match names.
    pub(super) fn if_match(&self) -> Result<Option<i64>, HttpError> {
        let Some(value) = self.headers.get(header::IF_MATCH) else {
            return Ok(None);
        };
        let text = value.to_str().unwrap_or_default().trim();
        let number = text
            .strip_prefix("revision_number=")
            .and_then(|n| n.parse().ok());
        number.map(Some).ok_or_else(|| {
            HttpError::App(Error::bad_request(
                "Could not parse the If-Match header: expected 'revision_number=N'",
            ))
        })
    }

    /// Where the caller reached this server.
    pub(super) fn origin(&self) -> String {
        let host = self
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        // It goes into links and the catalogue: nothing but a host's characters.
        let good =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']' | '_');
        let host = host.filter(|host| host.len() <= 255 && host.chars().all(good));
        format!("http://{}", host.unwrap_or("localhost"))
    }
}
