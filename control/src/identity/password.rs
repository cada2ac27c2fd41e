//! Passwords under Argon2id (RFC 9106), with parameters that keep a login's memory small: OWASP's of 7 MiB.

use super::{IdentityError, Result};
use argon2::{Algorithm, Argon2, Params, Version};
use uuid::Uuid;

/// Memory of one check.
pub(super) const MEMORY_KIB: u32 = 7_168;
const ROUNDS: u32 = 5;
const HASH_BYTES: usize = 32;

fn derive(password: &str, salt: &[u8], memory_kib: u32, rounds: u32) -> Option<[u8; HASH_BYTES]> {
    let params = Params::new(memory_kib, rounds, 1, Some(HASH_BYTES)).ok()?;
    let mut hash = [0u8; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut hash)
        .ok()?;
    Some(hash)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What to store for a password: `argon2id m t salt hash`, numbers in decimal and bytes in hex.
///
/// # Errors
/// [`IdentityError::Invalid`] for a password that is too long.
pub(super) fn hash(password: &str) -> Result<String> {
    let invalid = || IdentityError::Invalid("The password cannot be used".to_owned());
    if password.is_empty() || password.chars().count() > super::PASSWORD_MAX {
        return Err(invalid());
    }
    let salt = Uuid::new_v4();
    let hash = derive(password, salt.as_bytes(), MEMORY_KIB, ROUNDS).ok_or_else(invalid)?;
    Ok(format!(
        "argon2id {MEMORY_KIB} {ROUNDS} {} {}",
        hex(salt.as_bytes()),
        hex(&hash)
    ))
}

/// Whether this is the password. Takes as long for a stored text that is none.
pub(super) fn verify(password: &str, stored: &str) -> bool {
    let parts: Vec<&str> = stored.split(' ').collect();
    if let ["argon2id", memory, rounds, salt, expected] = parts.as_slice()
        && let (Ok(memory), Ok(rounds)) = (memory.parse(), rounds.parse())
        && let Ok(salt) = Uuid::try_parse(salt)
    {
        let hash = derive(password, salt.as_bytes(), memory, rounds);
        return hash.is_some_and(|hash| same(hex(&hash).as_bytes(), expected.as_bytes()));
    }
    // The same work for a user that is not there.
    let _ = derive(password, Uuid::nil().as_bytes(), MEMORY_KIB, ROUNDS);
    false
}

/// Compares without telling by its time where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_is_accepted() {
        let stored = hash("correct horse").unwrap();
        assert!(verify("correct horse", &stored));
        assert!(!verify("correct hors", &stored));
        assert!(!verify("correct horse", ""));
        assert!(!verify("", &stored));
        assert!(hash("").is_err());
        assert_ne!(stored, hash("correct horse").unwrap(), "the salt differs");
    }
}
