//! Tokens: login, and what a token says.

use super::super::error::HttpError;
use super::super::request::{Reply, Request};
use super::super::{Server, boxed};
use super::catalogue::catalogue;
use super::{Answer, NAME_MAX, admin_only, invalid};
use crate::app::view::time_text;
use crate::identity::{DOMAIN_ID, DOMAIN_NAME, IdentityError, Named, Proof, TokenScope, TokenView};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

/// `{"id": …}` or `{"name": …, "domain": {"id" or "name": …}}`.
fn named(value: &Value, what: &str) -> Result<Named, HttpError> {
    let text = |value: &Value| {
        value
            .as_str()
            .filter(|text| text.len() <= NAME_MAX)
            .map(str::to_owned)
    };
    if let Some(id) = value.get("id").and_then(text) {
        return Ok(Named::Id(id));
    }
    let name = value
        .get("name")
        .and_then(text)
        .ok_or_else(|| invalid(format!("{what}: expected an id, or a name with its domain")))?;
    let domain = value.get("domain");
    let id = domain
        .and_then(|domain| domain.get("id"))
        .and_then(Value::as_str);
    let domain_name = domain
        .and_then(|domain| domain.get("name"))
        .and_then(Value::as_str);
    match (id, domain_name) {
        (None, None) => Err(invalid(format!(
            "{what}: a name needs a domain's id or name"
        ))),
        (Some(DOMAIN_ID), _) => Ok(Named::Name(name)),
        (None, Some(domain)) if domain.eq_ignore_ascii_case(DOMAIN_NAME) => Ok(Named::Name(name)),
        _ => Err(HttpError::Identity(IdentityError::Unauthorized)),
    }
}

fn proof_of(identity: &Value) -> Result<(Proof, &'static str), HttpError> {
    let methods = identity.get("methods").and_then(Value::as_array);
    let methods = methods.ok_or_else(|| invalid("auth.identity.methods: expected a list"))?;
    if methods.iter().any(|method| method == "password") {
        let user = identity.pointer("/password/user");
        let user = user.ok_or_else(|| invalid("auth.identity.password.user is missing"))?;
        let password = user.get("password").and_then(Value::as_str);
        let password = password
            .ok_or_else(|| invalid("auth.identity.password.user.password: expected a string"))?;
        let named = named(user, "auth.identity.password.user")?;
        return Ok((Proof::Password(named, password.to_owned()), "password"));
    }
    if methods.iter().any(|method| method == "token") {
        let id = identity.pointer("/token/id").and_then(Value::as_str);
        let id = id.ok_or_else(|| invalid("auth.identity.token.id: expected a string"))?;
        return Ok((Proof::Token(id.to_owned()), "token"));
    }
    // Other methods exist in Keystone, but not here.
    Err(HttpError::Identity(IdentityError::Unauthorized))
}

fn scope_of(scope: Option<&Value>) -> Result<TokenScope, HttpError> {
    match scope {
        None | Some(Value::Null) => Ok(TokenScope::Default),
        Some(Value::String(text)) if text == "unscoped" => Ok(TokenScope::Unscoped),
        Some(scope) => {
            if scope.get("unscoped").is_some() {
                return Ok(TokenScope::Unscoped);
            }
            let project = scope
                .get("project")
                .ok_or(HttpError::Identity(IdentityError::Unauthorized))?;
            Ok(TokenScope::Project(named(project, "auth.scope.project")?))
        }
    }
}

/// Keystone prints microseconds.
fn precise(us: i64) -> String {
    let seconds = time_text(us);
    format!(
        "{}.{:06}Z",
        seconds.trim_end_matches('Z'),
        us.rem_euclid(1_000_000)
    )
}

fn token_view(server: &Server, origin: &str, view: &TokenView, methods: &[&str]) -> Value {
    let domain = json!({ "id": DOMAIN_ID, "name": DOMAIN_NAME });
    let mut token = json!({
        "methods": methods,
        "user": {
            "id": view.user.id,
            "name": view.user.name,
            "domain": domain,
            "password_expires_at": null,
        },
        "audit_ids": [view.token.token_hash.chars().take(22).collect::<String>()],
        "issued_at": precise(view.token.issued_at),
        "expires_at": precise(view.token.expires_at),
    });
    if let Some(project) = &view.project {
        token["project"] = json!({ "id": project.id, "name": project.name, "domain": domain });
        token["is_domain"] = false.into();
        token["roles"] = view
            .roles
            .iter()
            .map(|role| json!({ "id": role.id, "name": role.name }))
            .collect();
        token["catalog"] = catalogue(server, origin);
    }
    json!({ "token": token })
}

pub(super) fn token_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let body = request.json()?;
        let auth = body
            .get("auth")
            .ok_or_else(|| invalid("Expecting to find 'auth' in the body"))?;
        let identity = auth
            .get("identity")
            .ok_or_else(|| invalid("auth.identity is missing"))?;
        let (proof, method) = proof_of(identity)?;
        let scope = scope_of(auth.get("scope"))?;
        let (view, secret) = server.identity()?.login(proof, scope).await?;
        let body = token_view(&server, &server.origin(&request), &view, &[method]);
        Ok(Reply {
            subject_token: Some(secret),
            ..Reply::created(body)
        })
    })
}

/// The token that is asked about: the caller's own, or for an admin any.
fn subject(request: &Request) -> Result<String, HttpError> {
    let text = |name: &str| {
        request
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let subject = text("x-subject-token").ok_or_else(|| invalid("X-Subject-Token is missing"))?;
    if text("x-auth-token") != Some(subject) && !request.caller.has_role("service") {
        admin_only(&request.caller)?;
    }
    Ok(subject.to_owned())
}

pub(super) fn token_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let subject = subject(&request)?;
        let view = server.identity()?.show(&subject).await?;
        let view =
            view.ok_or_else(|| IdentityError::NotFound("token", "X-Subject-Token".into()))?;
        let body = token_view(&server, &server.origin(&request), &view, &["password"]);
        Ok(Reply {
            subject_token: Some(subject),
            ..Reply::ok(body)
        })
    })
}

pub(super) fn token_check(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let subject = subject(&request)?;
        match server.identity()?.show(&subject).await? {
            Some(_) => Ok(Reply {
                status: StatusCode::OK,
                ..Reply::default()
            }),
            None => Err(IdentityError::NotFound("token", "X-Subject-Token".into()).into()),
        }
    })
}

pub(super) fn token_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        server.identity()?.revoke(&subject(&request)?).await?;
        Ok(Reply::no_content())
    })
}
