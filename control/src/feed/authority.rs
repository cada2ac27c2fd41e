//! Who may speak on the feed: tokens, certificates, and who signs them.
//!
//! Guarantees: all servers of a database trust the same authority, whose key never leaves the database; a token joins one
//! host once; a certificate is one host's, lasts [`CERTIFICATE_S`], and is looked up at each use, so that one that was
//! taken back is worth nothing from then on. What a certificate says of itself is not read: its bytes are its name.

use crate::store::feed_certificate::{self as rows, AuthorityRow, CertificateRow, Revoked};
use crate::store::{Store, StoreError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use weft_model::HostName;

/// Seconds that an agent's certificate lasts; it is renewed when two thirds of them are over.
const CERTIFICATE_S: u64 = 24 * 3_600;
/// Bytes of an uncompressed point of P-256.
const PUBLIC_KEY_BYTES: usize = 65;

/// Why the feed's authority could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The database.
    #[error("the feed's authority cannot be read or written")]
    Store(#[from] StoreError),
    /// A certificate or key cannot be made or read.
    #[error("a certificate of the feed cannot be made")]
    Certificate(#[from] rcgen::Error),
    /// The same, of who encrypts.
    #[error("the feed cannot be encrypted")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

type Result<T, E = AuthorityError> = std::result::Result<T, E>;

/// Who signs.
#[derive(Clone)]
pub struct Authority {
    store: Store,
    certificate: CertificateDer<'static>,
    issuer: Arc<Issuer<'static, KeyPair>>,
}

/// A certificate, and when to ask for the next.
pub(super) struct Signed {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) renew_after_s: u64,
}

/// A public key as an agent sends it.
struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Hexadecimal digits as bytes.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| (0..text.len()).step_by(2).map(pair).collect())?
}

/// What a certificate is known by.
pub(super) fn fingerprint(certificate: &[u8]) -> String {
    hex(&Sha256::digest(certificate))
}

fn public_key_read(text: &str) -> Option<Vec<u8>> {
    unhex(text).filter(|key| key.len() == PUBLIC_KEY_BYTES)
}

/// The name that authorities and servers go by.
fn named(mut params: CertificateParams, name: &str) -> CertificateParams {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    params.distinguished_name = names;
    params
}

fn authority_params() -> Result<CertificateParams> {
    let mut params = named(CertificateParams::new(Vec::new())?, "Weft feed authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(params)
}

impl Authority {
    /// Reads the database's authority, or makes it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub async fn open(store: &Store) -> Result<Self> {
        let known = rows::authority_get(store.read().await?.conn()).await?;
        let row = match known {
            Some(row) => row,
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                let row = AuthorityRow {
                    certificate: authority_params()?.self_signed(&key)?.pem(),
                    key: key.serialize_pem(),
                };
                let mut tx = store.write().await?;
                let row = rows::authority_ensure(&mut tx, row).await?;
                tx.commit().await?;
                row
            }
        };
        let certificate = CertificateDer::from_pem_slice(row.certificate.as_bytes());
        let key = KeyPair::from_pem(&row.key)?;
        Ok(Self {
            store: store.clone(),
            certificate: certificate.map_err(|error| AuthorityError::Tls(error.into()))?,
            issuer: Arc::new(Issuer::new(authority_params()?, key)),
        })
    }

    /// How a server of these names encrypts, and whom it lets in: whoever has a certificate of ours, and who has none
    /// (that one may only join).
    pub(super) fn server(&self, names: &[String]) -> Result<ServerConfig> {
        let tls = |error: Box<dyn std::error::Error + Send + Sync>| AuthorityError::Tls(error);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let params = named(CertificateParams::new(names)?, "Weft feed server");
        let own = params.signed_by(&key, &self.issuer)?;
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(|error| tls(error.into()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|error| tls(error.into()))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(error.into()))?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![own.der().clone(), self.certificate.clone()], key)
            .map_err(|error| tls(error.into()))
    }

    /// A token with which `host` may join once within `time`: the secret, and what the server is known by.
    ///
    /// # Errors
    /// [`AuthorityError::Store`].
    pub async fn token(&self, host: &HostName, time: Duration) -> Result<String> {
        let secret = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_der();
        let secret = fingerprint(&secret);
        let mut tx = self.store.write().await?;
        let time = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        let expires_at = tx.now().saturating_add(time);
        let hash = fingerprint(secret.as_bytes());
        rows::token_insert(&mut tx, &hash, host.as_str(), expires_at).await?;
        tx.commit().await?;
        Ok(format!("{secret}.{}", hex(&self.certificate)))
    }

    /// Takes back a host's certificates and tokens; how many those were.
    ///
    /// # Errors
    /// [`AuthorityError::Store`].
    pub async fn revoke(&self, host: &HostName) -> Result<Revoked> {
        let mut tx = self.store.write().await?;
        let revoked = rows::host_revoke(&mut tx, host.as_str()).await?;
        tx.commit().await?;
        Ok(revoked)
    }

    /// A certificate for the bearer of a token; none if the token is not this host's, was used, or has expired.
    pub(super) async fn join(
        &self,
        host: &HostName,
        secret: &str,
        public_key: &str,
    ) -> Result<Option<Signed>> {
        let hash = fingerprint(secret.as_bytes());
        let mut view = self.store.read().await?;
        let whose = rows::token_host(view.conn(), &hash, self.store.now()).await?;
        drop(view);
        if whose.as_deref() != Some(host.as_str()) || public_key_read(public_key).is_none() {
            // Whoever guesses takes no writer's turn.
            return Ok(None);
        }
        let mut tx = self.store.write().await?;
        let whose = rows::token_take(&mut tx, &hash).await?;
        if whose.as_deref() != Some(host.as_str()) {
            // Dropped, so that another host's token is not used up.
            return Ok(None);
        }
        let Some((signed, row)) = self.sign(host, public_key, tx.now())? else {
            return Ok(None);
        };
        rows::certificate_insert(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(Some(signed))
    }

    /// The next certificate of a host that has one; none if the key is no key.
    pub(super) async fn renew(&self, host: &HostName, public_key: &str) -> Result<Option<Signed>> {
        let mut tx = self.store.write().await?;
        let Some((signed, row)) = self.sign(host, public_key, tx.now())? else {
            return Ok(None);
        };
        rows::certificate_insert(&mut tx, &row).await?;
        tx.commit().await?;
        Ok(Some(signed))
    }

    fn sign(
        &self,
        host: &HostName,
        public_key: &str,
        now: i64,
    ) -> Result<Option<(Signed, CertificateRow)>> {
        let Some(key) = public_key_read(public_key) else {
            return Ok(None);
        };
        let mut params = named(CertificateParams::new(Vec::new())?, host.as_str());
        let time = i64::try_from(CERTIFICATE_S * 1_000_000).unwrap_or(i64::MAX);
        let expires_at = now.saturating_add(time);
        if let Ok(end) = OffsetDateTime::from_unix_timestamp(expires_at / 1_000_000) {
            params.not_after = end;
        }
        let certificate = params.signed_by(&PublicKey(key), &self.issuer)?;
        let certificate = certificate.der().clone();
        let row = CertificateRow {
            fingerprint: fingerprint(&certificate),
            host: host.to_string(),
            expires_at,
            revoked: false,
        };
        let signed = Signed {
            certificate,
            renew_after_s: CERTIFICATE_S * 2 / 3,
        };
        Ok(Some((signed, row)))
    }

    /// The host that a certificate is for; none if it is not known, has expired or was taken back.
    pub(super) async fn host_of(&self, fingerprint: &str) -> Result<Option<String>> {
        let mut view = self.store.read().await?;
        let row = rows::certificate_get(view.conn(), fingerprint).await?;
        let now = self.store.now();
        let valid = row.filter(|row| !row.revoked && row.expires_at > now);
        Ok(valid.map(|row| row.host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Durability;
    use weft_model::limits;

    #[tokio::test]
    async fn whoever_guesses_a_token_takes_no_writers_turn() {
        const LONG: Duration = Duration::from_secs(20);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let store = Store::open(&file, Durability::Process, Arc::new(|| 0))
            .await
            .unwrap();
        let authority = Authority::open(&store).await.unwrap();
        let host: HostName = "h1".parse().unwrap();
        let token = authority.token(&host, LONG).await.unwrap();
        let (secret, _) = token.split_once('.').unwrap();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = hex(key.der_bytes());
        let other: HostName = "h2".parse().unwrap();
        // Nobody else can write meanwhile.
        let writer = store.write().await.unwrap();
        for (host, secret, key) in [
            (&host, "guessed", key.as_str()),
            (&other, secret, key.as_str()),
            (&host, secret, "no key"),
        ] {
            let joined = tokio::time::timeout(LONG, authority.join(host, secret, key)).await;
            assert!(joined.unwrap().unwrap().is_none(), "{host} {secret} {key}");
        }
        drop(writer);
        assert!(authority.join(&host, secret, &key).await.unwrap().is_some());
        assert!(authority.join(&host, secret, &key).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_oldest_of_too_many_certificates_does_not_count() {
        use std::sync::atomic::{AtomicI64, Ordering};
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weft.sqlite");
        let now = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&now);
        let clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let store = Store::open(&file, Durability::Process, clock);
        let authority = Authority::open(&store.await.unwrap()).await.unwrap();
        let [host, other] = ["h1", "h2"].map(|name| name.parse::<HostName>().unwrap());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = hex(key.der_bytes());
        let mut made = Vec::new();
        let certificate = async |host| {
            let signed = authority.renew(host, &key).await.unwrap().unwrap();
            fingerprint(&signed.certificate)
        };
        let others = certificate(&other).await;
        for _ in 0..limits::FEED_CERTIFICATES_PER_HOST_MAX + 2 {
            now.fetch_add(1_000_000, Ordering::Relaxed);
            made.push(certificate(&host).await);
        }
        let mut counts = Vec::new();
        for one in &made {
            counts.push(authority.host_of(one).await.unwrap().is_some());
        }
        let (first, rest) = counts.split_at(2);
        assert_eq!(first, [false, false]);
        assert!(rest.iter().all(|counts| *counts));
        assert!(authority.host_of(&others).await.unwrap().is_some());
    }
}
