//! Making and changing projects, users and role assignments: the admin's business.

use super::{Identity, IdentityError, PASSWORD_MAX, Result, new_id, password};
use crate::store::identity::{self as store, AssignmentRow, ProjectRow, RoleRow, UserRow};

/// A user to be made.
#[derive(Clone, Debug, Default)]
pub struct NewUser {
    /// Unique.
    pub name: String,
    /// None: it cannot log in until it has one.
    pub password: Option<String>,
    /// The project of a token that asks for none.
    pub default_project_id: Option<String>,
    /// Whether it may log in.
    pub enabled: bool,
}

/// What is to change about a user.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// Another name.
    pub name: Option<String>,
    /// Another password.
    pub password: Option<String>,
    /// Whether it may log in.
    pub enabled: Option<bool>,
    /// Another default project.
    pub default_project_id: Option<String>,
}

/// Who has which role where.
pub type Assignment = AssignmentRow;

fn project_missing(id: &str) -> IdentityError {
    IdentityError::NotFound("project", id.chars().take(64).collect())
}

fn user_missing(id: &str) -> IdentityError {
    IdentityError::NotFound("user", id.chars().take(64).collect())
}

impl Identity {
    /// All projects.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn project_list(&self) -> Result<Vec<ProjectRow>> {
        Ok(store::project_list(self.store.read().await?.conn()).await?)
    }

    /// One project.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn project_get(&self, id: &str) -> Result<ProjectRow> {
        let found = store::project_get(self.store.read().await?.conn(), id).await?;
        found.ok_or_else(|| project_missing(id))
    }

    /// Makes a project.
    ///
    /// # Errors
    /// [`IdentityError::Conflict`] if the name is taken.
    pub async fn project_create(&self, mut row: ProjectRow) -> Result<ProjectRow> {
        row.id = new_id();
        let mut tx = self.store.write().await?;
        store::project_insert(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Changes a project.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Conflict`].
    pub async fn project_update(&self, row: ProjectRow) -> Result<ProjectRow> {
        let mut tx = self.store.write().await?;
        store::project_update(&mut tx, &row).await?;
        tx.commit().await?;
        self.forget();
        Ok(row)
    }

    /// Ends a project. What it owns in the network stays.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn project_delete(&self, id: &str) -> Result<()> {
        let mut tx = self.store.write().await?;
        store::project_get(tx.conn(), id)
            .await?
            .ok_or_else(|| project_missing(id))?;
        store::project_delete(&mut tx, id).await?;
        tx.commit().await?;
        self.forget();
        Ok(())
    }

    /// All users.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn user_list(&self) -> Result<Vec<UserRow>> {
        Ok(store::user_list(self.store.read().await?.conn()).await?)
    }

    /// One user.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn user_get(&self, id: &str) -> Result<UserRow> {
        let found = store::user_get(self.store.read().await?.conn(), id).await?;
        found.ok_or_else(|| user_missing(id))
    }

    /// Makes a user.
    ///
    /// # Errors
    /// [`IdentityError::Conflict`] if the name is taken, [`IdentityError::Invalid`] for the password.
    pub async fn user_create(&self, new: NewUser) -> Result<UserRow> {
        let row = UserRow {
            id: new_id(),
            name: new.name,
            password_hash: self.hash(new.password).await?,
            default_project_id: new.default_project_id,
            enabled: new.enabled,
        };
        let mut tx = self.store.write().await?;
        store::user_insert(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(row)
    }

    /// Changes a user.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`], [`IdentityError::Conflict`], [`IdentityError::Invalid`].
    pub async fn user_update(&self, id: &str, change: UserChange) -> Result<UserRow> {
        let password_hash = match change.password {
            Some(password) => Some(self.hash(Some(password)).await?),
            None => None,
        };
        let mut tx = self.store.write().await?;
        let mut row = store::user_get(tx.conn(), id)
            .await?
            .ok_or_else(|| user_missing(id))?;
        row.name = change.name.unwrap_or(row.name);
        row.password_hash = password_hash.unwrap_or(row.password_hash);
        row.enabled = change.enabled.unwrap_or(row.enabled);
        row.default_project_id = change.default_project_id.or(row.default_project_id);
        store::user_update(&mut tx, &row).await?;
        tx.commit().await?;
        self.forget();
        Ok(row)
    }

    /// Ends a user.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn user_delete(&self, id: &str) -> Result<()> {
        let mut tx = self.store.write().await?;
        store::user_get(tx.conn(), id)
            .await?
            .ok_or_else(|| user_missing(id))?;
        store::user_delete(&mut tx, id).await?;
        tx.commit().await?;
        self.forget();
        Ok(())
    }

    /// All roles.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn role_list(&self) -> Result<Vec<RoleRow>> {
        Ok(store::role_list(self.store.read().await?.conn()).await?)
    }

    /// Makes a role.
    ///
    /// # Errors
    /// [`IdentityError::Conflict`] if the name is taken.
    pub async fn role_create(&self, name: &str) -> Result<RoleRow> {
        let mut tx = self.store.write().await?;
        let row = RoleRow {
            id: new_id(),
            name: name.to_owned(),
        };
        store::role_ensure(&mut tx, &row).await?;
        let mine = store::role_list(tx.conn())
            .await?
            .iter()
            .any(|role| role.id == row.id);
        if !mine {
            let message = format!("Conflict occurred: there is a role named {name:?} already.");
            return Err(IdentityError::Conflict(message));
        }
        tx.commit().await?;
        Ok(row)
    }

    /// Who has which role where.
    ///
    /// # Errors
    /// [`IdentityError::Internal`].
    pub async fn assignment_list(&self) -> Result<Vec<Assignment>> {
        Ok(store::assignment_list(self.store.read().await?.conn()).await?)
    }

    /// Gives a user a role in a project.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn assignment_create(&self, assignment: &Assignment) -> Result<()> {
        let mut tx = self.store.write().await?;
        store::assignment_insert(&mut tx, assignment).await?;
        tx.commit().await?;
        self.forget();
        Ok(())
    }

    /// Takes a role in a project from a user.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`].
    pub async fn assignment_delete(&self, assignment: &Assignment) -> Result<()> {
        let mut tx = self.store.write().await?;
        if !store::assignment_delete(&mut tx, assignment).await? {
            return Err(IdentityError::NotFound(
                "role assignment",
                assignment.role_id.clone(),
            ));
        }
        tx.commit().await?;
        self.forget();
        Ok(())
    }

    async fn hash(&self, password: Option<String>) -> Result<String> {
        match password {
            // No stored text that a password could match.
            None => Ok(String::new()),
            Some(password) if password.chars().count() > PASSWORD_MAX => Err(
                IdentityError::Invalid(format!("password: at most {PASSWORD_MAX} characters")),
            ),
            Some(password) => self.bounded(move || password::hash(&password)).await?,
        }
    }
}
