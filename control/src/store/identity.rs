//! The built-in identity's projects, users, roles and tokens.

use super::sql::{self, record};
use super::{Conn, Result, WriteTx};

record! {
    /// A project.
    pub struct ProjectRow {
        /// 32 hex digits.
        pub id: String,
        /// Unique.
        pub name: String,
        /// For people.
        pub description: String,
        /// Whether tokens are given for it.
        pub enabled: bool,
    }
}

record! {
    /// A user.
    pub struct UserRow {
        /// 32 hex digits.
        pub id: String,
        /// Unique.
        pub name: String,
        /// Argon2's PHC string.
        pub password_hash: String,
        /// The project of a token that asks for none.
        pub default_project_id: Option<String>,
        /// Whether it may log in.
        pub enabled: bool,
    }
}

record! {
    /// A role.
    pub struct RoleRow {
        /// 32 hex digits.
        pub id: String,
        /// admin, member, reader, …
        pub name: String,
    }
}

record! {
    /// Who has which role where.
    pub struct AssignmentRow {
        /// The user.
        pub user_id: String,
        /// The project.
        pub project_id: String,
        /// The role.
        pub role_id: String,
    }
}

record! {
    /// A token, by its hash.
    pub struct TokenRow {
        /// SHA-256 of the token, in hex.
        pub token_hash: String,
        /// Whose it is.
        pub user_id: String,
        /// The project it is scoped to.
        pub project_id: Option<String>,
        /// Microseconds since 1970 (UTC).
        pub issued_at: i64,
        /// Microseconds since 1970 (UTC).
        pub expires_at: i64,
    }
}

/// All projects, by name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn project_list(conn: &mut Conn) -> Result<Vec<ProjectRow>> {
    sql::query_as("SELECT id, name, description, enabled FROM identity_projects ORDER BY name")
        .fetch_all(conn)
        .await
}

/// The project with this id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn project_get(conn: &mut Conn, id: &str) -> Result<Option<ProjectRow>> {
    sql::query_as("SELECT id, name, description, enabled FROM identity_projects WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// The project with this name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn project_get_name(conn: &mut Conn, name: &str) -> Result<Option<ProjectRow>> {
    sql::query_as("SELECT id, name, description, enabled FROM identity_projects WHERE name = $1")
        .bind(name)
        .fetch_optional(conn)
        .await
}

/// Writes a new project.
///
/// # Errors
/// [`super::StoreError::Conflict`] if the name is taken.
pub async fn project_insert(tx: &mut WriteTx, row: &ProjectRow) -> Result<()> {
    sql::query(
        "INSERT INTO identity_projects (id, name, description, enabled) VALUES ($1, $2, $3, $4)",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.description)
    .bind(row.enabled)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed project.
///
/// # Errors
/// [`super::StoreError::Conflict`] if the name is taken.
pub async fn project_update(tx: &mut WriteTx, row: &ProjectRow) -> Result<()> {
    sql::query(
        "UPDATE identity_projects SET name = $2, description = $3, enabled = $4 WHERE id = $1",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.description)
    .bind(row.enabled)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes a project with its tokens and role assignments; what it owns in the network stays.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn project_delete(tx: &mut WriteTx, id: &str) -> Result<()> {
    sql::query("DELETE FROM identity_projects WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// All users, by name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn user_list(conn: &mut Conn) -> Result<Vec<UserRow>> {
    sql::query_as(
        "SELECT id, name, password_hash, default_project_id, enabled FROM identity_users ORDER BY name",
    )
    .fetch_all(conn)
    .await
}

/// The user with this id.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn user_get(conn: &mut Conn, id: &str) -> Result<Option<UserRow>> {
    sql::query_as(
        "SELECT id, name, password_hash, default_project_id, enabled FROM identity_users WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// The user with this name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn user_get_name(conn: &mut Conn, name: &str) -> Result<Option<UserRow>> {
    sql::query_as(
        "SELECT id, name, password_hash, default_project_id, enabled FROM identity_users WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(conn)
    .await
}

/// Writes a new user.
///
/// # Errors
/// [`super::StoreError::Conflict`] if the name is taken.
pub async fn user_insert(tx: &mut WriteTx, row: &UserRow) -> Result<()> {
    sql::query(
        "INSERT INTO identity_users (id, name, password_hash, default_project_id, enabled) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.password_hash)
    .bind(&row.default_project_id)
    .bind(row.enabled)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Writes a changed user.
///
/// # Errors
/// [`super::StoreError::Conflict`] if the name is taken.
pub async fn user_update(tx: &mut WriteTx, row: &UserRow) -> Result<()> {
    sql::query(
        "UPDATE identity_users SET name = $2, password_hash = $3, default_project_id = $4, enabled = $5 \
         WHERE id = $1",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(&row.password_hash)
    .bind(&row.default_project_id)
    .bind(row.enabled)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes a user with its tokens and role assignments.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn user_delete(tx: &mut WriteTx, id: &str) -> Result<()> {
    sql::query("DELETE FROM identity_users WHERE id = $1")
        .bind(id)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// All roles, by name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn role_list(conn: &mut Conn) -> Result<Vec<RoleRow>> {
    sql::query_as("SELECT id, name FROM identity_roles ORDER BY name")
        .fetch_all(conn)
        .await
}

/// Writes a new role, unless one of this name is there.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn role_ensure(tx: &mut WriteTx, row: &RoleRow) -> Result<()> {
    sql::query(
        "INSERT INTO identity_roles (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&row.id)
    .bind(&row.name)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Gives a user a role in a project.
///
/// # Errors
/// [`super::StoreError::Reference`] if one of the three does not exist.
pub async fn assignment_insert(tx: &mut WriteTx, row: &AssignmentRow) -> Result<()> {
    sql::query(
        "INSERT INTO identity_assignments (user_id, project_id, role_id) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&row.user_id)
    .bind(&row.project_id)
    .bind(&row.role_id)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Takes a role in a project from a user; whether it had it.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn assignment_delete(tx: &mut WriteTx, row: &AssignmentRow) -> Result<bool> {
    let done = sql::query(
        "DELETE FROM identity_assignments WHERE user_id = $1 AND project_id = $2 AND role_id = $3",
    )
    .bind(&row.user_id)
    .bind(&row.project_id)
    .bind(&row.role_id)
    .execute(tx.conn())
    .await?;
    Ok(done > 0)
}

/// All assignments.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn assignment_list(conn: &mut Conn) -> Result<Vec<AssignmentRow>> {
    sql::query_as(
        "SELECT user_id, project_id, role_id FROM identity_assignments \
         ORDER BY user_id, project_id, role_id",
    )
    .fetch_all(conn)
    .await
}

/// A user's roles in a project, by name.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn role_list_of(conn: &mut Conn, user: &str, project: &str) -> Result<Vec<RoleRow>> {
    sql::query_as(
        "SELECT r.id, r.name FROM identity_roles r JOIN identity_assignments a ON a.role_id = r.id \
         WHERE a.user_id = $1 AND a.project_id = $2 ORDER BY r.name",
    )
    .bind(user)
    .bind(project)
    .fetch_all(conn)
    .await
}

/// Writes a new token, and forgets those that have expired.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn token_insert(tx: &mut WriteTx, row: &TokenRow) -> Result<()> {
    let now = tx.now();
    sql::query("DELETE FROM identity_tokens WHERE expires_at < $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    sql::query(
        "INSERT INTO identity_tokens (token_hash, user_id, project_id, issued_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(&row.token_hash)
    .bind(&row.user_id)
    .bind(&row.project_id)
    .bind(row.issued_at)
    .bind(row.expires_at)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The token with this hash.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn token_get(conn: &mut Conn, token_hash: &str) -> Result<Option<TokenRow>> {
    sql::query_as(
        "SELECT token_hash, user_id, project_id, issued_at, expires_at FROM identity_tokens \
         WHERE token_hash = $1",
    )
    .bind(token_hash)
    .fetch_optional(conn)
    .await
}

/// Revokes a token.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn token_delete(tx: &mut WriteTx, token_hash: &str) -> Result<()> {
    sql::query("DELETE FROM identity_tokens WHERE token_hash = $1")
        .bind(token_hash)
        .execute(tx.conn())
        .await?;
    Ok(())
}
