//! Who says who a caller is: the built-in identity, or a Keystone.

use super::keystone::Keystone;
use super::{Identity, IdentityError, Result};
use crate::app::policy::Caller;

/// Whoever validates tokens.
pub enum Authority {
    /// Our own identity, which this server also serves.
    Builtin(Box<Identity>),
    /// Somebody else's.
    Keystone(Keystone),
}

impl Authority {
    /// Who the tokens of a request make the caller; none if one of them is not valid.
    ///
    /// # Errors
    /// [`IdentityError::Away`], [`IdentityError::Busy`], [`IdentityError::Internal`].
    pub async fn validate(&self, token: &str, service: Option<&str>) -> Result<Option<Caller>> {
        match self {
            Self::Keystone(keystone) => keystone.validate(token, service).await,
            Self::Builtin(identity) => {
                let Some(caller) = identity.validate(token).await? else {
                    return Ok(None);
                };
                let Some(service) = service else {
                    return Ok(Some(caller));
                };
                let service = identity.validate(service).await?;
                Ok(service.map(|service| Caller {
                    service_roles: service.roles,
                    ..caller
                }))
            }
        }
    }

    /// The built-in identity.
    ///
    /// # Errors
    /// [`IdentityError::NotFound`] if there is none.
    pub fn builtin(&self) -> Result<&Identity> {
        match self {
            Self::Builtin(identity) => Ok(identity),
            Self::Keystone(keystone) => {
                let elsewhere = keystone.auth_url().to_owned();
                Err(IdentityError::NotFound(
                    "a built-in identity; ask",
                    elsewhere,
                ))
            }
        }
    }

    /// Where callers get tokens: a path on this server, or an address.
    #[must_use]
    pub fn auth_url(&self) -> &str {
        match self {
            Self::Builtin(_) => "/identity/v3",
            Self::Keystone(keystone) => keystone.auth_url(),
        }
    }
}
