//! The built-in identity in Keystone v3's form, as far as the stock client and SDK ask for it.

use super::error::HttpError;
use super::request::{Reply, Request};
use super::{Access, Route, Server, boxed, route};
use crate::app::policy::Caller;
use crate::app::resource::time_text;
use crate::identity::{
    Assignment, DOMAIN_ID, DOMAIN_NAME, IdentityError, Named, NewUser, Proof, TokenScope,
    TokenView, UserChange,
};
use crate::store::identity::{ProjectRow, RoleRow, UserRow};
use axum::http::{Method, StatusCode};
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Answer = BoxFuture<'static, Result<Reply, HttpError>>;

/// Characters of a name.
const NAME_MAX: usize = 255;

pub(super) fn routes() -> Vec<Route> {
    use Access::{Public, Token};
    const TOKENS: &str = "/identity/v3/auth/tokens";
    const ROLE: &str = "/identity/v3/projects/{project}/users/{user}/roles/{role}";
    vec![
        route(Method::GET, "/identity", Public, versions),
        route(Method::GET, "/identity/", Public, versions),
        route(Method::GET, "/identity/v3", Public, version),
        route(Method::GET, "/identity/v3/", Public, version),
        route(Method::POST, TOKENS, Public, token_create),
        route(Method::GET, TOKENS, Token, token_show),
        route(Method::HEAD, TOKENS, Token, token_check),
        route(Method::DELETE, TOKENS, Token, token_delete),
        route(
            Method::GET,
            "/identity/v3/auth/catalog",
            Token,
            catalogue_show,
        ),
        route(
            Method::GET,
            "/identity/v3/auth/projects",
            Token,
            project_list_own,
        ),
        route(
            Method::GET,
            "/identity/v3/users/{id}/projects",
            Token,
            project_list_own,
        ),
        route(Method::GET, "/identity/v3/domains", Token, domain_list),
        route(Method::GET, "/identity/v3/domains/{id}", Token, domain_show),
        route(Method::GET, "/identity/v3/projects", Token, project_list),
        route(Method::POST, "/identity/v3/projects", Token, project_create),
        route(
            Method::GET,
            "/identity/v3/projects/{id}",
            Token,
            project_show,
        ),
        route(
            Method::PATCH,
            "/identity/v3/projects/{id}",
            Token,
            project_update,
        ),
        route(
            Method::DELETE,
            "/identity/v3/projects/{id}",
            Token,
            project_delete,
        ),
        route(Method::GET, "/identity/v3/users", Token, user_list),
        route(Method::POST, "/identity/v3/users", Token, user_create),
        route(Method::GET, "/identity/v3/users/{id}", Token, user_show),
        route(Method::PATCH, "/identity/v3/users/{id}", Token, user_update),
        route(
            Method::DELETE,
            "/identity/v3/users/{id}",
            Token,
            user_delete,
        ),
        route(Method::GET, "/identity/v3/roles", Token, role_list),
        route(Method::POST, "/identity/v3/roles", Token, role_create),
        route(Method::GET, "/identity/v3/roles/{id}", Token, role_show),
        route(
            Method::GET,
            "/identity/v3/role_assignments",
            Token,
            assignment_list,
        ),
        route(
            Method::GET,
            "/identity/v3/projects/{project}/users/{user}/roles",
            Token,
            role_list_of,
        ),
        route(Method::PUT, ROLE, Token, assignment_create),
        route(Method::HEAD, ROLE, Token, assignment_check),
        route(Method::DELETE, ROLE, Token, assignment_delete),
        route(Method::GET, "/identity/v3/services", Token, service_list),
        route(
            Method::GET,
            "/identity/v3/services/{id}",
            Token,
            service_show,
        ),
        route(Method::GET, "/identity/v3/endpoints", Token, endpoint_list),
        route(Method::GET, "/identity/v3/regions", Token, region_list),
    ]
}

fn invalid(message: impl Into<String>) -> HttpError {
    HttpError::Identity(IdentityError::Invalid(message.into()))
}

fn admin_only(caller: &Caller) -> Result<(), HttpError> {
    if caller.is_admin() {
        Ok(())
    } else {
        Err(HttpError::Identity(IdentityError::Forbidden))
    }
}

fn version_view(origin: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{origin}/identity/v3/") }],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

fn versions(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let versions =
            json!({ "versions": { "values": [version_view(&server.origin(&request))] } });
        Ok(Reply {
            status: StatusCode::MULTIPLE_CHOICES,
            ..Reply::ok(versions)
        })
    })
}

fn version(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        Ok(Reply::ok(
            json!({ "version": version_view(&server.origin(&request)) }),
        ))
    })
}

/// The two services and where they are. Ids are fixed: there is one of each.
fn services() -> [(&'static str, &'static str, &'static str, &'static str); 2] {
    [
        ("6e6574776f726b000000000000000001", "network", "neutron", ""),
        (
            "6964656e746974790000000000000001",
            "identity",
            "keystone",
            "/identity",
        ),
    ]
}

fn endpoint_view(server: &Server, origin: &str, n: usize, interface: &str) -> Value {
    let (service, _, _, path) = services()[n];
    let kind = match interface {
        "public" => 1,
        "internal" => 2,
        _ => 3,
    };
    json!({
        "id": format!("656e64706f696e740000000000000{n}0{kind}"),
        "interface": interface,
        "region": server.identity.region(),
        "region_id": server.identity.region(),
        "service_id": service,
        "enabled": true,
        "url": format!("{origin}{path}"),
        "links": {},
    })
}

fn catalogue(server: &Server, origin: &str) -> Value {
    let entries = services()
        .into_iter()
        .enumerate()
        .map(|(n, (id, kind, name, _))| {
            let endpoints: Vec<Value> = ["public", "internal", "admin"]
                .into_iter()
                .map(|interface| endpoint_view(server, origin, n, interface))
                .collect();
            json!({ "id": id, "type": kind, "name": name, "endpoints": endpoints })
        });
    entries.collect()
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

/// Keystone prints microseconds.
fn precise(us: i64) -> String {
    let seconds = time_text(us);
    format!(
        "{}.{:06}Z",
        seconds.trim_end_matches('Z'),
        us.rem_euclid(1_000_000)
    )
}

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

fn token_create(server: Arc<Server>, request: Request) -> Answer {
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
        let (view, secret) = server.identity.login(proof, scope).await?;
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

fn token_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let subject = subject(&request)?;
        let view = server.identity.show(&subject).await?;
        let view =
            view.ok_or_else(|| IdentityError::NotFound("token", "X-Subject-Token".into()))?;
        let body = token_view(&server, &server.origin(&request), &view, &["password"]);
        Ok(Reply {
            subject_token: Some(subject),
            ..Reply::ok(body)
        })
    })
}

fn token_check(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let subject = subject(&request)?;
        match server.identity.show(&subject).await? {
            Some(_) => Ok(Reply {
                status: StatusCode::OK,
                ..Reply::default()
            }),
            None => Err(IdentityError::NotFound("token", "X-Subject-Token".into()).into()),
        }
    })
}

fn token_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        server.identity.revoke(&subject(&request)?).await?;
        Ok(Reply::no_content())
    })
}

fn catalogue_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let catalogue = catalogue(&server, &server.origin(&request));
        Ok(Reply::ok(json!({ "catalog": catalogue, "links": {} })))
    })
}

/// A list in Keystone's form, filtered by `name` and `enabled` as the client asks.
fn listed(request: &Request, key: &str, items: Vec<Value>) -> Reply {
    let wanted = |item: &Value| {
        request
            .query
            .iter()
            .all(|(name, value)| match name.as_str() {
                "name" | "type" | "service_id" | "interface" => {
                    item[name].as_str() == Some(value.as_str())
                }
                _ => true,
            })
    };
    let items: Vec<Value> = items.into_iter().filter(wanted).collect();
    Reply::ok(json!({ key: items, "links": { "next": null, "previous": null, "self": "" } }))
}

fn domain_view() -> Value {
    json!({
        "id": DOMAIN_ID,
        "name": DOMAIN_NAME,
        "description": "The default domain",
        "enabled": true,
        "tags": [],
        "options": {},
        "links": {},
    })
}

fn domain_list(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move { Ok(listed(&request, "domains", vec![domain_view()])) })
}

fn domain_show(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        match request.id(0) {
            DOMAIN_ID => Ok(Reply::ok(json!({ "domain": domain_view() }))),
            other => {
                Err(IdentityError::NotFound("domain", other.chars().take(64).collect()).into())
            }
        }
    })
}

fn project_view(row: &ProjectRow) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "description": row.description,
        "enabled": row.enabled,
        "domain_id": DOMAIN_ID,
        "parent_id": DOMAIN_ID,
        "is_domain": false,
        "tags": [],
        "options": {},
        "links": {},
    })
}

fn project_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let projects = server.identity.project_list().await?;
        Ok(listed(
            &request,
            "projects",
            projects.iter().map(project_view).collect(),
        ))
    })
}

/// The projects where the caller (or for an admin another user) has a role.
fn project_list_own(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let user = match request.id(0) {
            "" => request.caller.user_id.clone(),
            user if user == request.caller.user_id => user.to_owned(),
            user => {
                admin_only(&request.caller)?;
                user.to_owned()
            }
        };
        let assignments = server.identity.assignment_list().await?;
        let own = |project: &&ProjectRow| {
            assignments
                .iter()
                .any(|a| a.user_id == user && a.project_id == project.id)
        };
        let projects = server.identity.project_list().await?;
        Ok(listed(
            &request,
            "projects",
            projects.iter().filter(own).map(project_view).collect(),
        ))
    })
}

fn project_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        if request.id(0) != request.caller.project_id {
            admin_only(&request.caller)?;
        }
        let row = server.identity.project_get(request.id(0)).await?;
        Ok(Reply::ok(json!({ "project": project_view(&row) })))
    })
}

fn object(request: &Request, key: &str) -> Result<Map<String, Value>, HttpError> {
    match request.json()?.get_mut(key).map(Value::take) {
        Some(Value::Object(object)) => Ok(object),
        _ => Err(invalid(format!("Expecting to find '{key}' in the body"))),
    }
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>, HttpError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.chars().count() <= NAME_MAX && !text.contains('\0') => {
            Ok(Some(text.clone()))
        }
        Some(_) => Err(invalid(format!(
            "{key}: expected a string of at most {NAME_MAX} characters"
        ))),
    }
}

fn name(object: &Map<String, Value>) -> Result<String, HttpError> {
    let name = text(object, "name")?.filter(|name| !name.trim().is_empty());
    name.ok_or_else(|| invalid("name: expected a string of 1 to 255 characters"))
}

fn truth(object: &Map<String, Value>, key: &str) -> Result<Option<bool>, HttpError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(truth)) => Ok(Some(*truth)),
        Some(_) => Err(invalid(format!("{key}: expected true or false"))),
    }
}

fn project_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let project = object(&request, "project")?;
        let row = ProjectRow {
            id: String::new(),
            name: name(&project)?,
            description: text(&project, "description")?.unwrap_or_default(),
            enabled: truth(&project, "enabled")?.unwrap_or(true),
        };
        let row = server.identity.project_create(row).await?;
        Ok(Reply::created(json!({ "project": project_view(&row) })))
    })
}

fn project_update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let project = object(&request, "project")?;
        let mut row = server.identity.project_get(request.id(0)).await?;
        row.name = text(&project, "name")?.unwrap_or(row.name);
        row.description = text(&project, "description")?.unwrap_or(row.description);
        row.enabled = truth(&project, "enabled")?.unwrap_or(row.enabled);
        let row = server.identity.project_update(row).await?;
        Ok(Reply::ok(json!({ "project": project_view(&row) })))
    })
}

fn project_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server.identity.project_delete(request.id(0)).await?;
        Ok(Reply::no_content())
    })
}

fn user_view(row: &UserRow) -> Value {
    let mut user = json!({
        "id": row.id,
        "name": row.name,
        "domain_id": DOMAIN_ID,
        "enabled": row.enabled,
        "password_expires_at": null,
        "options": {},
        "links": {},
    });
    if let Some(project) = &row.default_project_id {
        user["default_project_id"] = project.clone().into();
    }
    user
}

fn user_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let users = server.identity.user_list().await?;
        Ok(listed(
            &request,
            "users",
            users.iter().map(user_view).collect(),
        ))
    })
}

fn user_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        if request.id(0) != request.caller.user_id {
            admin_only(&request.caller)?;
        }
        let row = server.identity.user_get(request.id(0)).await?;
        Ok(Reply::ok(json!({ "user": user_view(&row) })))
    })
}

fn password(object: &Map<String, Value>) -> Result<Option<String>, HttpError> {
    match object.get("password") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(password)) if !password.is_empty() => Ok(Some(password.clone())),
        Some(_) => Err(invalid("password: expected a string that is not empty")),
    }
}

fn user_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let user = object(&request, "user")?;
        let new = NewUser {
            name: name(&user)?,
            password: password(&user)?,
            default_project_id: text(&user, "default_project_id")?,
            enabled: truth(&user, "enabled")?.unwrap_or(true),
        };
        let row = server.identity.user_create(new).await?;
        Ok(Reply::created(json!({ "user": user_view(&row) })))
    })
}

fn user_update(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let user = object(&request, "user")?;
        let change = UserChange {
            name: text(&user, "name")?,
            password: password(&user)?,
            enabled: truth(&user, "enabled")?,
            default_project_id: text(&user, "default_project_id")?,
        };
        let row = server.identity.user_update(request.id(0), change).await?;
        Ok(Reply::ok(json!({ "user": user_view(&row) })))
    })
}

fn user_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server.identity.user_delete(request.id(0)).await?;
        Ok(Reply::no_content())
    })
}

fn role_view(row: &RoleRow) -> Value {
    json!({
        "id": row.id,
        "name": row.name,
        "domain_id": null,
        "description": null,
        "options": {},
        "links": {},
    })
}

fn role_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let roles = server.identity.role_list().await?;
        Ok(listed(
            &request,
            "roles",
            roles.iter().map(role_view).collect(),
        ))
    })
}

fn role_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let row = server
            .identity
            .role_create(&name(&object(&request, "role")?)?)
            .await?;
        Ok(Reply::created(json!({ "role": role_view(&row) })))
    })
}

fn role_show(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let roles = server.identity.role_list().await?;
        let row = roles.iter().find(|role| role.id == request.id(0));
        let shown = request.id(0).chars().take(64).collect();
        let row = row.ok_or(IdentityError::NotFound("role", shown))?;
        Ok(Reply::ok(json!({ "role": role_view(row) })))
    })
}

fn role_list_of(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let assignments = server.identity.assignment_list().await?;
        let roles = server.identity.role_list().await?;
        let (project, user) = (request.id(0), request.id(1));
        let has = |role: &&RoleRow| {
            assignments
                .iter()
                .any(|a| a.role_id == role.id && a.user_id == user && a.project_id == project)
        };
        Ok(listed(
            &request,
            "roles",
            roles.iter().filter(has).map(role_view).collect(),
        ))
    })
}

fn assignment_of(request: &Request) -> Assignment {
    Assignment {
        project_id: request.id(0).to_owned(),
        user_id: request.id(1).to_owned(),
        role_id: request.id(2).to_owned(),
    }
}

fn assignment_create(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server
            .identity
            .assignment_create(&assignment_of(&request))
            .await?;
        Ok(Reply::no_content())
    })
}

fn assignment_check(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let wanted = assignment_of(&request);
        if server.identity.assignment_list().await?.contains(&wanted) {
            return Ok(Reply::no_content());
        }
        Err(
            IdentityError::NotFound("role assignment", wanted.role_id.chars().take(64).collect())
                .into(),
        )
    })
}

fn assignment_delete(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        server
            .identity
            .assignment_delete(&assignment_of(&request))
            .await?;
        Ok(Reply::no_content())
    })
}

fn assignment_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let asked = |key: &str| {
            request
                .query
                .iter()
                .find(|(name, _)| name == key)
                .map(|(_, v)| v)
        };
        let fits = |key: &str, value: &String| asked(key).is_none_or(|wanted| wanted == value);
        let assignments = server.identity.assignment_list().await?;
        let views: Vec<Value> = assignments
            .iter()
            .filter(|a| {
                fits("user.id", &a.user_id)
                    && fits("scope.project.id", &a.project_id)
                    && fits("role.id", &a.role_id)
            })
            .map(|a| {
                json!({
                    "user": { "id": a.user_id },
                    "role": { "id": a.role_id },
                    "scope": { "project": { "id": a.project_id } },
                    "links": {},
                })
            })
            .collect();
        Ok(Reply::ok(json!({ "role_assignments": views, "links": {} })))
    })
}

fn service_view((id, kind, name, _): (&str, &str, &str, &str)) -> Value {
    json!({ "id": id, "type": kind, "name": name, "enabled": true, "description": "", "links": {} })
}

fn service_list(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        Ok(listed(
            &request,
            "services",
            services().into_iter().map(service_view).collect(),
        ))
    })
}

fn service_show(_server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let found = services().into_iter().find(|(id, ..)| *id == request.id(0));
        let shown = request.id(0).chars().take(64).collect();
        let found = found.ok_or(IdentityError::NotFound("service", shown))?;
        Ok(Reply::ok(json!({ "service": service_view(found) })))
    })
}

fn endpoint_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        admin_only(&request.caller)?;
        let origin = server.origin(&request);
        let mut endpoints = Vec::new();
        for n in 0..services().len() {
            for interface in ["public", "internal", "admin"] {
                endpoints.push(endpoint_view(&server, &origin, n, interface));
            }
        }
        Ok(listed(&request, "endpoints", endpoints))
    })
}

fn region_list(server: Arc<Server>, request: Request) -> Answer {
    boxed(async move {
        let region = json!({
            "id": server.identity.region(),
            "description": "",
            "parent_region_id": null,
            "links": {},
        });
        Ok(listed(&request, "regions", vec![region]))
    })
}
