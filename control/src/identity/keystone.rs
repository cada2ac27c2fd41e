//! Tokens of a real Keystone.
//!
//! Guarantees: a token is served only if Keystone accepted it at most [`KeystoneConfig::token_cache_s`] seconds ago and
//! until the end that it names, so what Keystone revokes is refused here after that time; when Keystone cannot be asked, the
//! caller is told so (503) rather than that its token is wrong; one question at a time is asked about one token, and
//! at most [`ASKING_MAX`] at once; what is remembered is bounded, and by hashes of tokens only.

use super::{IdentityError, Result};
use crate::app::policy::{Caller, Scope};
use crate::remote::session::{Credentials, Session, time_of};
use crate::remote::{self, RemoteError};
use crate::store::Clock;
use axum::http::{Method, StatusCode};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Tokens remembered.
const CACHE_MAX: usize = 10_000;
/// Questions that are asked at the same time.
const ASKING_MAX: usize = 32;
/// Questions that wait for their turn; the next one is told to come back.
const WAITING_MAX: usize = 4_096;
/// Bytes of a token: Fernet's are about 200, signed ones (JWS) a thousand and more.
const TOKEN_BYTES_MAX: usize = 4_096;
/// Seconds that an answer may be remembered.
pub const TOKEN_CACHE_S_MAX: u32 = 300;

/// `[identity.keystone]` of the configuration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeystoneConfig {
    /// Keystone's address, with `/v3`.
    pub auth_url: String,
    /// The user that Weft asks Keystone as.
    pub username: String,
    /// Its password.
    pub password: String,
    /// Its project.
    pub project: String,
    /// Its domain's name.
    pub user_domain: String,
    /// Its project's domain's name.
    pub project_domain: String,
    /// Seconds for which a token is not asked about again.
    pub token_cache_s: u32,
    /// Roles, one of which a token in X-Service-Token must have to count.
    pub service_token_roles: Vec<String>,
}

impl Default for KeystoneConfig {
    fn default() -> Self {
        let Credentials {
            auth_url,
            username,
            password,
            project,
            user_domain,
            project_domain,
        } = Credentials::default();
        Self {
            auth_url,
            username,
            password,
            project,
            user_domain,
            project_domain,
            token_cache_s: 5,
            service_token_roles: vec!["service".to_owned()],
        }
    }
}

impl std::fmt::Debug for KeystoneConfig {
    // Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.credentials(), f)
    }
}

impl KeystoneConfig {
    /// The first value that is well-formed and wrong: which, and what was expected.
    ///
    /// # Errors
    /// That value.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let http = ["http://", "https://"];
        if !http.iter().any(|scheme| self.auth_url.starts_with(scheme)) {
            return Err(("auth_url", "http://… or https://…, with /v3 at its end"));
        }
        if self.username.is_empty() || self.password.is_empty() {
            return Err(("password", "the service user's name and password"));
        }
        Ok(())
    }

    /// The service user.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials {
            auth_url: self.auth_url.clone(),
            username: self.username.clone(),
            password: self.password.clone(),
            project: self.project.clone(),
            user_domain: self.user_domain.clone(),
            project_domain: self.project_domain.clone(),
        }
    }
}

/// Whoever a token is, if it is good; what several requests may wait for together.
type Answer = Result<Option<Arc<Caller>>, Refusal>;
type Pending = Shared<BoxFuture<'static, Answer>>;

/// Why no answer could be had.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Away,
    Busy,
}

impl From<Refusal> for IdentityError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Away => Self::Away,
            Refusal::Busy => Self::Busy,
        }
    }
}

/// What is known about a token.
enum Known {
    /// It was good; until when that is not asked again.
    Good(Arc<Caller>, i64),
    /// Somebody is asking.
    Asked(Pending),
}

/// The hash of a token, and whether it may have expired.
type Key = ([u8; 32], bool);

/// A Keystone that is asked about tokens.
#[derive(Clone)]
pub struct Keystone(Arc<Inner>);

struct Inner {
    config: KeystoneConfig,
    session: Session,
    clock: Clock,
    asking: Semaphore,
    waiting: Semaphore,
    known: Mutex<HashMap<Key, Known>>,
    /// So that the log says once that Keystone is away, and once that it is back.
    away: AtomicBool,
}

impl Keystone {
    /// Asks nothing yet: Keystone may start later.
    ///
    /// # Errors
    /// The system's certificates cannot be read.
    pub fn new(config: KeystoneConfig, clock: Clock) -> Result<Self, RemoteError> {
        Ok(Self(Arc::new(Inner {
            session: Session::new(config.credentials(), clock.clone())?,
            config,
            clock,
            asking: Semaphore::new(ASKING_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            known: Mutex::default(),
            away: AtomicBool::new(false),
        })))
    }

    /// Keystone's address, for those who have no token.
    #[must_use]
    pub fn auth_url(&self) -> &str {
        &self.0.config.auth_url
    }

    /// Who a token makes the caller; none if it is not valid. A token in `service` (X-Service-Token) must be valid too, and
    /// with one of the configured roles lets a caller's token have expired: long work of other services ends after it.
    ///
    /// # Errors
    /// [`IdentityError::Away`], [`IdentityError::Busy`].
    pub async fn validate(&self, token: &str, service: Option<&str>) -> Result<Option<Caller>> {
        let mut service_roles = Vec::new();
        if let Some(service) = service {
            let Some(caller) = self.caller(service, false).await? else {
                return Ok(None);
            };
            service_roles.clone_from(&caller.roles);
        }
        let trusted = self.0.config.service_token_roles.iter();
        let trusted = trusted.into_iter().any(|role| service_roles.contains(role));
        let caller = self.caller(token, trusted).await?;
        Ok(caller.map(|caller| Caller {
            service_roles,
            ..Caller::clone(&caller)
        }))
    }

    async fn caller(&self, token: &str, may_be_expired: bool) -> Result<Option<Arc<Caller>>> {
        let readable = token.bytes().all(|byte| byte.is_ascii_graphic());
        if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !readable {
            return Ok(None);
        }
        let key = (Sha256::digest(token.as_bytes()).into(), may_be_expired);
        let pending = {
            let mut known = self.0.known();
            match known.get(&key) {
                Some(Known::Good(caller, until)) if self.0.holds(caller, *until, key) => {
                    return Ok(Some(caller.clone()));
                }
                Some(Known::Asked(pending)) => pending.clone(),
                _ => {
                    // A task of its own: it goes on when the caller who began it goes away.
                    let asked = tokio::spawn(self.clone().ask(key, token.to_owned()));
                    let pending = asked
                        .map(|done| done.unwrap_or(Err(Refusal::Away)))
                        .boxed()
                        .shared();
                    known.insert(key, Known::Asked(pending.clone()));
                    pending
                }
            }
        };
        Ok(pending.await?)
    }

    /// Asks Keystone, and remembers what it says.
    async fn ask(self, key: Key, token: String) -> Answer {
        let inner = &*self.0;
        let answer = inner.ask(&token, key.1).await;
        let now = (inner.clock)();
        let mut known = inner.known();
        known.remove(&key);
        if let Ok(Some(caller)) = &answer {
            if known.len() >= CACHE_MAX {
                known.retain(|_, known| !matches!(known, Known::Good(_, until) if *until <= now));
            }
            let until = now.saturating_add(i64::from(inner.config.token_cache_s) * 1_000_000);
            if known.len() < CACHE_MAX && until > now {
                known.insert(key, Known::Good(caller.clone(), until));
            }
        }
        answer
    }
}

impl Inner {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Known>> {
        // Nothing that holds the lock can leave the map half-changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self, caller: &Caller, until: i64, (_, may_be_expired): Key) -> bool {
        let now = (self.clock)();
        now < until && (may_be_expired || now < caller.expires_at)
    }

    async fn ask(&self, token: &str, may_be_expired: bool) -> Answer {
        let _waiting = self.waiting.try_acquire().map_err(|_full| Refusal::Busy)?;
        let _asking = self
            .asking
            .acquire()
            .await
            .map_err(|_closed| Refusal::Busy)?;
        match self.question(token, may_be_expired).await {
            Ok(caller) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!(url = self.config.auth_url, "Keystone answers again");
                }
                // Keystone's clock may differ: by ours too the token must not have ended.
                let good = |caller: &Caller| may_be_expired || (self.clock)() < caller.expires_at;
                Ok(caller.filter(good).map(Arc::new))
            }
            Err(error) => {
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "tokens cannot be validated: requests are answered with 503");
                }
                Err(Refusal::Away)
            }
        }
    }

    async fn question(&self, token: &str, may_be_expired: bool) -> remote::Result<Option<Caller>> {
        let expired = if may_be_expired {
            "&allow_expired=1"
        } else {
            ""
        };
        let url = self
            .session
            .keystone(&format!("/auth/tokens?nocatalog{expired}"));
        let subject = [("x-subject-token", token)];
        let reply = self.session.send(Method::GET, &url, &subject, None).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(None),
            // What Keystone cannot even read is no token.
            StatusCode::BAD_REQUEST => Ok(None),
            _ => {
                let body: TokenBody = reply.good()?.json()?;
                let caller = body.token.caller();
                caller.map(Some).ok_or(RemoteError::Unreadable {
                    url,
                    message: "the token's end is no time".to_owned(),
                })
            }
        }
    }
}

/// Keystone's answer, as far as it matters here.
#[derive(Deserialize)]
struct TokenBody {
    token: TokenView,
}

#[derive(Deserialize)]
struct TokenView {
    user: Named,
    project: Option<Named>,
    domain: Option<Named>,
    system: Option<serde_json::Value>,
    #[serde(default)]
    roles: Vec<Named>,
    expires_at: String,
}

#[derive(Deserialize)]
struct Named {
    id: String,
    #[serde(default)]
    name: String,
}

impl TokenView {
    fn caller(self) -> Option<Caller> {
        let scope = match (&self.project, &self.domain, &self.system) {
            (Some(_), ..) => Scope::Project,
            (None, Some(_), _) => Scope::Domain,
            (None, None, Some(_)) => Scope::System,
            (None, None, None) => Scope::None,
        };
        Some(Caller {
            expires_at: time_of(&self.expires_at)?,
            user_id: self.user.id,
            project_id: self.project.map(|project| project.id).unwrap_or_default(),
            roles: self.roles.into_iter().map(|role| role.name).collect(),
            scope,
            ..Caller::default()
        })
    }
}
