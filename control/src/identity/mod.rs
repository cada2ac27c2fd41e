//! A small identity of our own, so that the first command works with nothing else installed: users with passwords,
//! projects, roles, tokens. One domain, `default`.
//!
//! Guarantees: passwords are stored under Argon2id and tokens under SHA-256 only; a token that was revoked, whose user
//! or project is gone or disabled, or that has expired is refused (by another server on the same database after at
//! most [`CACHE_US`]); password checks are bounded in number, so that a flood of logins takes no more memory.

mod admin;
mod authority;
mod keystone;
mod password;
mod register;

pub use admin::{Assignment, NewUser, UserChange};
pub use authority::Authority;
pub use keystone::{Keystone, KeystoneConfig, TOKEN_CACHE_S_MAX};
pub use register::{Changes, Registration, register};

use crate::app::policy::{Caller, Scope};
use crate::store::identity::{
    self as store, AssignmentRow, ProjectRow, RoleRow, TokenRow, UserRow,
};
use crate::store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The one domain.
pub const DOMAIN_ID: &str = "default";
/// Its name.
pub const DOMAIN_NAME: &str = "Default";

/// Microseconds for which a validated token is not looked up again.
pub const CACHE_US: i64 = 2_000_000;
/// Validated tokens remembered.
const CACHE_MAX: usize = 10_000;
/// Passwords checked at the same time; each takes [`password::MEMORY_KIB`].
const CHECKS_MAX: usize = 2;
/// Logins that wait for their password's check.
const LOGINS_WAITING_MAX: usize = 256;
/// Bytes of a user's name in the log.
const LOGGED_NAME_BYTES: usize = 64;
/// Characters of a password.
pub(crate) const PASSWORD_MAX: usize = 1_024;

/// The roles of a new database, each implying those behind it.
const ROLES: &[&str] = &["admin", "manager", "member", "reader"];
/// Roles that stand apart.
const ROLES_APART: &[&str] = &["service"];

/// Who validates tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityMode {
    /// The built-in identity, under /identity.
    #[default]
    Builtin,
    /// A Keystone.
    Keystone,
}

/// `[identity]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityConfig {
    /// Who validates tokens.
    pub mode: IdentityMode,
    /// The password of the user `admin` on the first start; none for a random one.
    pub admin_password: Option<String>,
    /// Seconds that a token lasts.
    pub token_lifetime_s: u32,
    /// The region that the catalogue names.
    pub region: String,
    /// For the mode `keystone`.
    pub keystone: KeystoneConfig,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            mode: IdentityMode::default(),
            admin_password: None,
            token_lifetime_s: 43_200,
            region: "RegionOne".to_owned(),
            keystone: KeystoneConfig::default(),
        }
    }
}

/// Why the identity refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Wrong name or password, or no token.
    #[error("The request you have made requires authentication.")]
    Unauthorized,
    /// Not with these roles.
    #[error("You are not authorized to perform the requested action.")]
    Forbidden,
    /// Not there.
    #[error("Could not find {0}: {1}.")]
    NotFound(&'static str, String),
    /// Taken.
    #[error("{0}")]
    Conflict(String),
    /// The request is wrong.
    #[error("{0}")]
    Invalid(String),
    /// Too many logins at once.
    #[error("The server is busy, try again later.")]
    Busy,
    /// Keystone cannot be asked.
    #[error("The identity service cannot be reached, try again later.")]
    Away,
    /// A defect of ours, or the database failed.
    #[error("An unexpected error prevented the server from fulfilling your request.")]
    Internal(#[source] StoreError),
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::Busy,
            StoreError::Conflict(_) => Self::Conflict(
                "Conflict occurred: Duplicate entry found with that name.".to_owned(),
            ),
            StoreError::Reference(_) => {
                Self::NotFound("user, project or role", "one of the three".to_owned())
            }
            StoreError::Nul => Self::Invalid("a text has the character U+0000".to_owned()),
            other => Self::Internal(other),
        }
    }
}

/// What every function here answers.
pub type Result<T, E = IdentityError> = std::result::Result<T, E>;

/// Someone's id, or name (in the default domain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

/// How somebody proves who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A user's password.
    Password(Named, String),
    /// Another token.
    Token(String),
}

/// What a new token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenScope {
    /// The user's default project, if there is one.
    Default,
    /// No project.
    Unscoped,
    /// This project.
    Project(Named),
}

/// All that is to say about a token.
#[derive(Clone, Debug)]
pub struct TokenView {
    /// Its row.
    pub token: TokenRow,
    /// Whose it is.
    pub user: UserRow,
    /// The project it is scoped to.
    pub project: Option<ProjectRow>,
    /// The user's roles there, implied ones included.
    pub roles: Vec<RoleRow>,
}

/// The built-in identity.
pub struct Identity {
    store: Store,
    config: IdentityConfig,
    checks: Arc<Semaphore>,
    waiting: Semaphore,
    /// By token hash; what a caller may do, and until when that is not asked again.
    cache: Mutex<HashMap<String, (Caller, i64)>>,
}

impl Identity {
    /// Over a store.
    #[must_use]
    pub fn new(store: Store, config: IdentityConfig) -> Self {
        Self {
            store,
            config,
            checks: Arc::new(Semaphore::new(CHECKS_MAX)),
            waiting: Semaphore::new(LOGINS_WAITING_MAX),
            cache: Mutex::default(),
        }
    }

    /// The region that the catalogue names.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.config.region
    }

    /// Makes the roles, and on the first start the project and user `admin`. Answers the user's password if it was
    /// made up: nobody can read it again.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn bootstrap(&self) -> Result<Option<String>> {
        let mut tx = self.store.write().await?;
        for name in ROLES.iter().chain(ROLES_APART) {
            store::role_ensure(
                &mut tx,
                &RoleRow {
                    id: new_id(),
                    name: (*name).to_owned(),
                },
            )
            .await?;
        }
        if store::user_get_name(tx.conn(), "admin").await?.is_some() {
            tx.commit().await?;
            return Ok(None);
        }
        let made_up = self.config.admin_password.is_none().then(new_id);
        let password = made_up
            .clone()
            .or_else(|| self.config.admin_password.clone());
        let project = ProjectRow {
            id: new_id(),
            name: "admin".to_owned(),
            description: "The administrator's project".to_owned(),
            enabled: true,
        };
        store::project_insert(&mut tx, &project).await?;
        let user = UserRow {
            id: new_id(),
            name: "admin".to_owned(),
            password_hash: password::hash(&password.unwrap_or_default())?,
            default_project_id: None,
            enabled: true,
        };
        store::user_insert(&mut tx, &user).await?;
        let roles = store::role_list(tx.conn()).await?;
        if let Some(admin) = roles.iter().find(|role| role.name == "admin") {
            let row = AssignmentRow {
                user_id: user.id,
                project_id: project.id,
                role_id: admin.id.clone(),
            };
            store::assignment_insert(&mut tx, &row).await?;
        }
        tx.commit().await?;
        Ok(made_up)
    }

    /// Gives a token to whoever proves who they are. The token itself is the second part: it is stored nowhere.
    ///
    /// # Errors
    /// [`IdentityError::Unauthorized`], whatever was wrong: name, password or project.
    pub async fn login(&self, proof: Proof, scope: TokenScope) -> Result<(TokenView, String)> {
        let (user, expires_at) = match proof {
            Proof::Password(named, password) => {
                let user = self.user_checked(named, password).await?;
                let lifetime = i64::from(self.config.token_lifetime_s) * 1_000_000;
                (user, self.store.now().saturating_add(lifetime))
            }
            // A token got by a token ends no later.
            Proof::Token(token) => {
                let view = self
                    .show(&token)
                    .await?
                    .ok_or(IdentityError::Unauthorized)?;
                (view.user, view.token.expires_at)
            }
        };
        let mut tx = self.store.write().await?;
        let project = match scope {
            TokenScope::Unscoped => None,
            TokenScope::Default => match &user.default_project_id {
                Some(id) => store::project_get(tx.conn(), id).await?,
                None => None,
            },
            TokenScope::Project(named) => {
                let found = match &named {
                    Named::Id(id) => store::project_get(tx.conn(), id).await?,
                    Named::Name(name) => store::project_get_name(tx.conn(), name).await?,
                };
                Some(found.ok_or(IdentityError::Unauthorized)?)
            }
        };
        let mut roles = Vec::new();
        if let Some(project) = &project {
            let all = store::role_list(tx.conn()).await?;
            roles = implied(
                &all,
                store::role_list_of(tx.conn(), &user.id, &project.id).await?,
            );
            if roles.is_empty() || !project.enabled {
                return Err(IdentityError::Unauthorized);
            }
        }
        let secret = format!("{}{}", new_id(), new_id());
        let token = TokenRow {
            token_hash: token_hash(&secret),
            user_id: user.id.clone(),
            project_id: project.as_ref().map(|project| project.id.clone()),
            issued_at: tx.now(),
            expires_at,
        };
        store::token_insert(&mut tx, &token).await?;
        tx.commit().await?;
        Ok((
            TokenView {
                token,
                user,
                project,
                roles,
            },
            secret,
        ))
    }

    /// All about a token; none if it is not valid.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn show(&self, token: &str) -> Result<Option<TokenView>> {
        let mut read = self.store.read().await?;
        let conn = read.conn();
        let Some(token) = store::token_get(conn, &token_hash(token)).await? else {
            return Ok(None);
        };
        let user = store::user_get(conn, &token.user_id)
            .await?
            .filter(|user| user.enabled);
        let Some(user) = user.filter(|_| token.expires_at > self.store.now()) else {
            return Ok(None);
        };
        let mut roles = Vec::new();
        let mut project = None;
        if let Some(id) = &token.project_id {
            let found = store::project_get(conn, id)
                .await?
                .filter(|project| project.enabled);
            let all = store::role_list(conn).await?;
            roles = implied(&all, store::role_list_of(conn, &user.id, id).await?);
            if found.is_none() || roles.is_empty() {
                return Ok(None);
            }
            project = found;
        }
        Ok(Some(TokenView {
            token,
            user,
            project,
            roles,
        }))
    }

    /// Who a token makes the caller; none if it is not valid.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn validate(&self, token: &str) -> Result<Option<Caller>> {
        if token.is_empty() || token.len() > 255 {
            return Ok(None);
        }
        let now = self.store.now();
        let hash = token_hash(token);
        let cached = self.cache().get(&hash).cloned();
        if let Some((caller, until)) = cached
            && now < until
            && now < caller.expires_at
        {
            return Ok(Some(caller));
        }
        let Some(view) = self.show(token).await? else {
            self.cache().remove(&hash);
            return Ok(None);
        };
        let caller = Caller {
            service_roles: Vec::new(),
            scope: match view.project {
                Some(_) => Scope::Project,
                None => Scope::None,
            },
            user_id: view.user.id,
            project_id: view.project.map(|project| project.id).unwrap_or_default(),
            roles: view.roles.into_iter().map(|role| role.name).collect(),
            expires_at: view.token.expires_at,
        };
        let mut cache = self.cache();
        if cache.len() >= CACHE_MAX {
            cache.retain(|_, (_, until)| now < *until);
        }
        if cache.len() < CACHE_MAX {
            cache.insert(hash, (caller.clone(), now.saturating_add(CACHE_US)));
        }
        Ok(Some(caller))
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn revoke(&self, token: &str) -> Result<()> {
        let hash = token_hash(token);
        let mut tx = self.store.write().await?;
        store::token_delete(&mut tx, &hash).await?;
        tx.commit().await?;
        self.cache().remove(&hash);
        Ok(())
    }

    /// Forgets what was validated: users, projects or roles changed.
    fn forget(&self) {
        self.cache().clear();
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Caller, i64)>> {
        // Nothing that holds the lock can leave the map half-changed.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user with this name and password. Takes as long for a name that nobody has.
    async fn user_checked(&self, named: Named, password: String) -> Result<UserRow> {
        let mut read = self.store.read().await?;
        let user = match &named {
            Named::Id(id) => store::user_get(read.conn(), id).await?,
            Named::Name(name) => store::user_get_name(read.conn(), name).await?,
        };
        drop(read);
        let stored = user
            .as_ref()
            .map(|user| user.password_hash.clone())
            .unwrap_or_default();
        if password.chars().count() > PASSWORD_MAX {
            return Err(IdentityError::Unauthorized);
        }
        let good = self
            .bounded(move || password::verify(&password, &stored))
            .await?;
        let user = user.filter(|user| good && user.enabled);
        if user.is_none() {
            // As many as passwords can be checked, which is few.
            let (Named::Id(who) | Named::Name(who)) = &named;
            let shown = &who[..who.floor_char_boundary(LOGGED_NAME_BYTES)];
            tracing::warn!(user = ?shown, "a login was refused: unknown, disabled, or another password");
        }
        user.ok_or(IdentityError::Unauthorized)
    }

    /// Runs what takes much processor and memory, a few at a time, beside the threads that serve requests.
    async fn bounded<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let _waiting = self
            .waiting
            .try_acquire()
            .map_err(|_full| IdentityError::Busy)?;
        let permit = self.checks.clone().acquire_owned().await;
        let permit = permit.map_err(|_closed| IdentityError::Busy)?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|_panicked| IdentityError::Busy)
    }
}

/// 32 hex digits, as Keystone's ids, with 122 random bits.
fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}

fn token_hash(token: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(token.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Adds the roles that the assigned ones imply.
fn implied(all: &[RoleRow], assigned: Vec<RoleRow>) -> Vec<RoleRow> {
    let strongest = assigned
        .iter()
        .filter_map(|role| ROLES.iter().position(|name| *name == role.name))
        .min()
        .unwrap_or(ROLES.len());
    let mut roles = assigned;
    for name in &ROLES[strongest..] {
        if !roles.iter().any(|role| role.name == *name) {
            roles.extend(all.iter().find(|role| role.name == *name).cloned());
        }
    }
    roles
}
