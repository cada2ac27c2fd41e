//! Who this host is to control: a key that never leaves it, a short certificate, and the authority that signed both sides'.
//!
//! Guarantees: only the owner reads the file; it is replaced whole or not at all; a token is used once and then removed; the
//! certificate is renewed at the start and long before it ends. What a token says of the authority is believed, and nothing else
//! is: a token is a secret that the operator carried here.

use super::transport::{TlsError, Transport, TransportError};
use super::{Backoff, FeedConfig, REPORT_TIMEOUT, excerpt, sentence};
use http_body_util::{BodyExt, Limited};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// The file's name in the folder.
const FILE: &str = "identity.json";
/// A token's: `weft feed token HOST` prints one.
const TOKEN: &str = "token";
/// How often is looked for a token.
const TOKEN_EVERY: Duration = Duration::from_secs(2);
/// Bytes of either file, and of the server's answer.
const BYTES_MAX: u64 = 64 << 10;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is none of ours.
    #[error("{}: {what}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A key cannot be made.
    #[error("cannot make a key")]
    Key(#[from] rcgen::Error),
    /// The certificates do not serve.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Control does not give one.
    #[error("control gives no certificate: {0}")]
    Refused(String),
}

/// The host's key, and what control signed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// PKCS#8, in hexadecimal, as all here.
    key: String,
    authority: String,
    certificate: Option<String>,
}

#[derive(Deserialize)]
struct Signed {
    certificate: String,
    renew_after_s: u64,
}

impl Identity {
    fn new(authority: &str) -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        Ok(Self {
            key: hex(&key.serialize_der()),
            authority: authority.to_owned(),
            certificate: None,
        })
    }

    /// The one that is kept; none if this host never joined.
    pub(super) fn load(folder: &Path) -> Result<Option<Self>, IdentityError> {
        let path = folder.join(FILE);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let unreadable = |what: String| IdentityError::Unreadable {
            path: path.clone(),
            what,
        };
        let identity: Self =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let fields = [&identity.key, &identity.authority];
        if fields
            .into_iter()
            .chain(&identity.certificate)
            .any(|text| unhex(text).is_none())
        {
            return Err(unreadable("not in hexadecimal".to_owned()));
        }
        Ok(Some(identity))
    }

    fn store(&self, folder: &Path) -> Result<(), IdentityError> {
        let path = folder.join(FILE);
        let next = folder.join(format!("{FILE}.next"));
        let text = serde_json::to_string(self).map_err(|error| IdentityError::Unreadable {
            path: path.clone(),
            what: error.to_string(),
        })?;
        let written = || {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&next)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&next, &path)
        };
        written().map_err(|source| IdentityError::File {
            path: path.clone(),
            source,
        })
    }

    pub(super) fn authority(&self) -> CertificateDer<'static> {
        unhex(&self.authority).unwrap_or_default().into()
    }

    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        self.certificate.as_deref().and_then(unhex).map(Into::into)
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        let bytes = unhex(&self.key).unwrap_or_default();
        PrivatePkcs8KeyDer::from(bytes).into()
    }

    /// A point of P-256, as control wants it.
    fn public_key(&self) -> Result<String, IdentityError> {
        let bytes = unhex(&self.key).unwrap_or_default();
        Ok(hex(KeyPair::try_from(bytes)?.der_bytes()))
    }
}

/// Keeps the certificate fresh for ever, and joins whenever there is a token.
pub(super) async fn keep(
    config: &FeedConfig,
    transport: &Transport,
    mut identity: Option<Identity>,
) {
    let mut backoff = Backoff::new(config);
    // Renewed at the start: how old the certificate is, is not kept.
    let mut due = Instant::now();
    let mut said = None;
    loop {
        match once(config, transport, &mut identity, due).await {
            Ok(Some(renew_after)) => {
                due = Instant::now() + renew_after;
                said = None;
                backoff.reset();
            }
            Ok(None) => {
                if identity.is_none() && said.is_none() {
                    let text = format!(
                        "this host has no certificate: put what `weft feed token {}` prints on a server into {}",
                        config.host,
                        config.identity_folder.join(TOKEN).display()
                    );
                    tracing::warn!(host = %config.host, "{text}");
                    said = Some(text);
                }
            }
            Err(error) => {
                let text = sentence(&error);
                if said.as_ref() != Some(&text) {
                    tracing::warn!(host = %config.host, "{text}; trying again");
                }
                said = Some(text);
                config.failed();
                backoff.wait().await;
                continue;
            }
        }
        tokio::time::sleep(TOKEN_EVERY.min(config.backoff_max)).await;
    }
}

/// Joins if there is a token, renews if it is time; in how long to renew again.
async fn once(
    config: &FeedConfig,
    transport: &Transport,
    identity: &mut Option<Identity>,
    due: Instant,
) -> Result<Option<Duration>, IdentityError> {
    let folder = &config.identity_folder;
    let file = folder.join(TOKEN);
    if let Some(text) = read(&file)? {
        let (secret, authority) = text
            .trim()
            .split_once('.')
            .filter(|(_, authority)| unhex(authority).is_some())
            .ok_or_else(|| IdentityError::Unreadable {
                path: file.clone(),
                what: "expected what `weft feed token` prints".to_owned(),
            })?;
        let mut new = Identity::new(authority)?;
        let joining = Transport::new(Some(&new))?;
        let body = serde_json::json!({ "token": secret, "public_key": new.public_key()? });
        let signed = ask(config, &joining, "join", &body).await?;
        new.certificate = Some(signed.certificate);
        new.store(folder)?;
        std::fs::remove_file(&file).map_err(|source| IdentityError::File { path: file, source })?;
        transport.renew(&new)?;
        *identity = Some(new);
        tracing::info!(host = %config.host, "this host has joined");
        return Ok(Some(Duration::from_secs(signed.renew_after_s)));
    }
    let Some(old) = identity.as_ref().filter(|_| Instant::now() >= due) else {
        return Ok(None);
    };
    let mut new = Identity::new(&old.authority)?;
    let body = serde_json::json!({ "public_key": new.public_key()? });
    let signed = ask(config, transport, "renew", &body).await?;
    new.certificate = Some(signed.certificate);
    new.store(folder)?;
    transport.renew(&new)?;
    *identity = Some(new);
    tracing::info!(host = %config.host, "this host's certificate is renewed");
    Ok(Some(Duration::from_secs(signed.renew_after_s)))
}

async fn ask(
    config: &FeedConfig,
    transport: &Transport,
    what: &str,
    body: &serde_json::Value,
) -> Result<Signed, IdentityError> {
    let refused = |text: String| IdentityError::Refused(text);
    let asked = async {
        let answer = transport
            .post(&config.address(what), body.to_string().into_bytes())
            .await
            .map_err(|error: TransportError| refused(sentence(&error)))?;
        let status = answer.status();
        let limit = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
        let bytes = Limited::new(answer.into_body(), limit).collect().await;
        let bytes = bytes
            .map_err(|error| refused(error.to_string()))?
            .to_bytes();
        if !status.is_success() {
            return Err(refused(format!("{status}: {}", excerpt(&bytes))));
        }
        let signed: Signed =
            serde_json::from_slice(&bytes).map_err(|error| refused(error.to_string()))?;
        match unhex(&signed.certificate) {
            Some(_) => Ok(signed),
            None => Err(refused("a certificate that is none".to_owned())),
        }
    };
    match tokio::time::timeout(REPORT_TIMEOUT, asked).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err(refused("no answer".to_owned())),
    }
}

/// A file's text; none if it is not there.
fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let failed = |source| IdentityError::File {
        path: path.to_owned(),
        source,
    };
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut text = String::new();
    file.take(BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(failed)?;
    Ok(Some(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| (0..text.len()).step_by(2).map(pair).collect())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_is_kept_for_its_owner_alone_and_read_again() {
        let folder = std::env::temp_dir().join(format!("weft-identity-{}", uuid::Uuid::new_v4()));
        assert!(Identity::load(&folder).unwrap().is_none());
        let mut identity = Identity::new("00ff").unwrap();
        identity.certificate = Some("0102".to_owned());
        identity.store(&folder).unwrap();
        let again = Identity::load(&folder).unwrap().unwrap();
        assert_eq!(again.key, identity.key);
        assert_eq!(again.certificate().unwrap().as_ref(), [1, 2]);
        assert_eq!(again.public_key().unwrap().len(), 2 * 65);
        let mode = std::fs::metadata(folder.join(FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        for bad in [
            "",
            "{}",
            "{\"key\":\"0g\",\"authority\":\"\",\"certificate\":null}",
        ] {
            std::fs::write(folder.join(FILE), bad).unwrap();
            assert!(Identity::load(&folder).is_err(), "{bad:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        for bad in ["0", "+1", "0g", "é0"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
        assert_eq!(unhex(&hex(&[1, 2, 254])), Some(vec![1, 2, 254]));
    }
}
