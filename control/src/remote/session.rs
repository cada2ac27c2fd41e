//! A service user at Keystone: its token, and requests to other services with it.

use super::http::{Http, Reply};
use super::{RemoteError, Result};
use crate::store::Clock;
use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A token is renewed so long before its end.
const RENEW_US: i64 = 60_000_000;

/// Who asks, and where Keystone is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credentials {
    /// Keystone's address, with `/v3`.
    pub auth_url: String,
    /// The user.
    pub username: String,
    /// Its password.
    pub password: String,
    /// The project that its token is for.
    pub project: String,
    /// The domain of the user, by name.
    pub user_domain: String,
    /// The domain of the project, by name.
    pub project_domain: String,
}

impl Default for Credentials {
    fn default() -> Self {
        Self {
            auth_url: "http://127.0.0.1:5000/v3".to_owned(),
            username: "neutron".to_owned(),
            password: String::new(),
            project: "service".to_owned(),
            user_domain: "Default".to_owned(),
            project_domain: "Default".to_owned(),
        }
    }
}

impl std::fmt::Debug for Credentials {
    // Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("auth_url", &self.auth_url)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// A logged-in service user.
pub(crate) struct Session {
    http: Http,
    credentials: Credentials,
    clock: Clock,
    login: Mutex<Option<Arc<Login>>>,
}

/// A token and what came with it.
struct Login {
    token: String,
    expires_at: i64,
    catalogue: Value,
}

impl Session {
    /// Not logged in yet.
    ///
    /// # Errors
    /// [`RemoteError::Certificates`] for an `https://` address.
    pub(crate) fn new(credentials: Credentials, clock: Clock) -> Result<Self> {
        Ok(Self {
            http: Http::new(&credentials.auth_url)?,
            credentials,
            clock,
            login: Mutex::default(),
        })
    }

    /// An address at Keystone.
    pub(crate) fn keystone(&self, path: &str) -> String {
        format!("{}{path}", self.credentials.auth_url.trim_end_matches('/'))
    }

    /// The present login, or a new one if there is none, it ends soon, or `refused` is it.
    async fn login(&self, refused: Option<&Arc<Login>>) -> Result<Arc<Login>> {
        // Whoever comes while somebody logs in waits here and takes the same token.
        let mut held = self.login.lock().await;
        let soon = (self.clock)().saturating_add(RENEW_US);
        if let Some(login) = held.as_ref()
            && login.expires_at > soon
            && !refused.is_some_and(|refused| Arc::ptr_eq(refused, login))
        {
            return Ok(login.clone());
        }
        let login = Arc::new(self.log_in().await?);
        *held = Some(login.clone());
        Ok(login)
    }

    async fn log_in(&self) -> Result<Login> {
        let Credentials {
            username,
            password,
            project,
            user_domain,
            project_domain,
            ..
        } = &self.credentials;
        let user =
            json!({ "name": username, "password": password, "domain": { "name": user_domain } });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": user } },
            "scope": { "project": { "name": project, "domain": { "name": project_domain } } },
        } });
        let url = self.keystone("/auth/tokens");
        let reply = self.http.send(Method::POST, &url, &[], Some(&body)).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            return Err(RemoteError::Credentials {
                message: reply.message(),
                username: username.clone(),
                url,
            });
        }
        let reply = reply.good()?;
        let token = reply.headers.get("x-subject-token");
        let token = token
            .and_then(|token| token.to_str().ok())
            .map(str::to_owned);
        let body: Value = reply.json()?;
        let ends = body["token"]["expires_at"].as_str().and_then(time_of);
        let (Some(token), Some(expires_at)) = (token, ends) else {
            let message = "there is no token, or it has no end".to_owned();
            return Err(RemoteError::Unreadable { url, message });
        };
        Ok(Login {
            token,
            expires_at,
            catalogue: body["token"]["catalog"].clone(),
        })
    }

    /// One request with this user's token, and its answer, whatever its status but 401.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply> {
        let mut login = self.login(None).await?;
        let mut reply = self
            .send_as(&login, method.clone(), url, headers, body)
            .await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            // The token was revoked, or Keystone has forgotten its keys.
            login = self.login(Some(&login)).await?;
            reply = self.send_as(&login, method, url, headers, body).await?;
        }
        if reply.status == StatusCode::UNAUTHORIZED {
            return Err(reply.good().err().unwrap_or(RemoteError::Silent {
                url: url.to_owned(),
            }));
        }
        Ok(reply)
    }

    async fn send_as(
        &self,
        login: &Login,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Option<&Value>,
    ) -> Result<Reply> {
        let mut all = vec![("x-auth-token", login.token.as_str())];
        all.extend_from_slice(headers);
        self.http.send(method, url, &all, body).await
    }

    /// Where the catalogue says that a service is, without a `/` at its end.
    pub(crate) async fn endpoint(
        &self,
        service: &str,
        interface: &str,
        region: &str,
    ) -> Result<String> {
        let login = self.login(None).await?;
        let services = login.catalogue.as_array().into_iter().flatten();
        let of_type = services.filter(|entry| entry["type"] == service);
        let mut endpoints =
            of_type.flat_map(|entry| entry["endpoints"].as_array().into_iter().flatten());
        let fits = |entry: &&Value| entry["interface"] == interface && entry["region_id"] == region;
        let url = endpoints.find(fits).and_then(|entry| entry["url"].as_str());
        let url = url.map(|url| url.trim_end_matches('/').to_owned());
        url.ok_or_else(|| RemoteError::Catalogue {
            service: service.to_owned(),
            interface: interface.to_owned(),
            region: region.to_owned(),
        })
    }
}

/// Microseconds since 1970 of a time as Keystone writes it.
pub(crate) fn time_of(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_keystone_writes_them() {
        assert_eq!(time_of("1970-01-01T00:00:01.000002Z"), Some(1_000_002));
        assert_eq!(time_of("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(time_of("yesterday"), None);
    }

    #[test]
    fn a_password_is_not_shown() {
        let credentials = Credentials {
            password: "hidden".to_owned(),
            ..Credentials::default()
        };
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
