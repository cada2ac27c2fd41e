//! The feed's authority, the tokens that hosts join with, and the certificates that agents have. Nothing of it has a
//! revision: hosts' duties do not depend on it.

use super::sql::{self, record};
use super::{Conn, Result, WriteTx};
use weft_model::limits;

record! {
    /// Who signs certificates, in PEM.
    pub struct AuthorityRow {
        /// Its certificate.
        pub certificate: String,
        /// Its private key.
        pub key: String,
    }
}

record! {
    /// An agent's certificate.
    pub struct CertificateRow {
        /// The SHA-256 of its bytes, in hexadecimal.
        pub fingerprint: String,
        /// The host that it is for.
        pub host: String,
        /// Microseconds since 1970 (UTC).
        pub expires_at: i64,
        /// Whether it was taken back.
        pub revoked: bool,
    }
}

/// The authority, if one was made.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn authority_get(conn: &mut Conn) -> Result<Option<AuthorityRow>> {
    sql::query_as("SELECT certificate, key FROM feed_authority WHERE id = 1")
        .fetch_optional(conn)
        .await
}

/// Makes `row` the authority unless there is one; answers the one that is.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn authority_ensure(tx: &mut WriteTx, row: AuthorityRow) -> Result<AuthorityRow> {
    sql::query(
        "INSERT INTO feed_authority (id, certificate, key) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING",
    )
    .bind(&row.certificate)
    .bind(&row.key)
    .execute(tx.conn())
    .await?;
    Ok(authority_get(tx.conn()).await?.unwrap_or(row))
}

/// Lets a host join once with the token of this hash.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn token_insert(tx: &mut WriteTx, hash: &str, host: &str, expires_at: i64) -> Result<()> {
    sql::query("INSERT INTO feed_tokens (hash, host, expires_at) VALUES ($1, $2, $3)")
        .bind(hash)
        .bind(host)
        .bind(expires_at)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// Whose a token is; none if it is not known or has expired by `now`.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn token_host(conn: &mut Conn, hash: &str, now: i64) -> Result<Option<String>> {
    sql::query_scalar("SELECT host FROM feed_tokens WHERE hash = $1 AND expires_at > $2")
        .bind(hash)
        .bind(now)
        .fetch_optional(conn)
        .await
}

/// Takes a token that has not expired, and answers whose it was. Those that have expired go with it.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn token_take(tx: &mut WriteTx, hash: &str) -> Result<Option<String>> {
    let now = tx.now();
    sql::query("DELETE FROM feed_tokens WHERE expires_at <= $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    sql::query_scalar("DELETE FROM feed_tokens WHERE hash = $1 RETURNING host")
        .bind(hash)
        .fetch_optional(tx.conn())
        .await
}

/// Notes a certificate. Those that have expired are forgotten, and the oldest of a host that has too many.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn certificate_insert(tx: &mut WriteTx, row: &CertificateRow) -> Result<()> {
    let now = tx.now();
    sql::query("DELETE FROM feed_certificates WHERE expires_at <= $1")
        .bind(now)
        .execute(tx.conn())
        .await?;
    sql::query(
        "INSERT INTO feed_certificates (fingerprint, host, expires_at, revoked) VALUES ($1, $2, $3, $4)",
    )
    .bind(&row.fingerprint)
    .bind(&row.host)
    .bind(row.expires_at)
    .bind(row.revoked)
    .execute(tx.conn())
    .await?;
    sql::query(
        "DELETE FROM feed_certificates WHERE host = $1 AND fingerprint <> $2 AND fingerprint NOT IN \
         (SELECT fingerprint FROM feed_certificates WHERE host = $1 AND fingerprint <> $2 \
         ORDER BY expires_at DESC, fingerprint LIMIT $3)",
    )
    .bind(&row.host)
    .bind(&row.fingerprint)
    .bind(i64::from(limits::FEED_CERTIFICATES_PER_HOST_MAX) - 1)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// A certificate, if it is known.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn certificate_get(conn: &mut Conn, fingerprint: &str) -> Result<Option<CertificateRow>> {
    sql::query_as(
        "SELECT fingerprint, host, expires_at, revoked FROM feed_certificates WHERE fingerprint = $1",
    )
    .bind(fingerprint)
    .fetch_optional(conn)
    .await
}

/// What was taken back of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Certificates, those that have expired among them until they are forgotten.
    pub certificates: u64,
    /// Tokens, likewise.
    pub tokens: u64,
}

/// Takes back a host's certificates and its tokens.
///
/// # Errors
/// [`super::StoreError::Database`].
pub async fn host_revoke(tx: &mut WriteTx, host: &str) -> Result<Revoked> {
    let tokens = sql::query("DELETE FROM feed_tokens WHERE host = $1")
        .bind(host)
        .execute(tx.conn())
        .await?;
    let sql = "UPDATE feed_certificates SET revoked = TRUE WHERE host = $1 AND NOT revoked";
    let certificates = sql::query(sql).bind(host).execute(tx.conn()).await?;
    Ok(Revoked {
        certificates,
        tokens,
    })
}
