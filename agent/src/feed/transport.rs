//! HTTP to control: plain, or over TLS with this host's certificate.
//!
//! Guarantees: over TLS, only a server whose certificate the cloud's own authority signed is spoken to, under the name in the
//! URL; the system's authorities count for nothing.

use super::identity::Identity;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// Between a connection's start and its being there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that idle longer are closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error("{0} is no URL")]
    Url(String),
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Why there can be no client.
#[derive(Debug, thiserror::Error)]
#[error("cannot speak TLS to control")]
pub struct TlsError(#[from] rustls::Error);

type Http = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client, which changes when the host's certificate does.
pub(super) struct Transport {
    http: RwLock<Http>,
}

impl Transport {
    /// One that has a certificate to show, or none.
    pub(super) fn new(identity: Option<&Identity>) -> Result<Self, TlsError> {
        Ok(Self {
            http: RwLock::new(client(identity)?),
        })
    }

    /// Shows this certificate from the next connection on.
    pub(super) fn renew(&self, identity: &Identity) -> Result<(), TlsError> {
        let http = client(Some(identity))?;
        *self.http.write().unwrap_or_else(PoisonError::into_inner) = http;
        Ok(())
    }

    pub(super) async fn get(&self, url: &str) -> Result<Response<Incoming>, TransportError> {
        self.send(Method::GET, url, Vec::new()).await
    }

    pub(super) async fn post(
        &self,
        url: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, TransportError> {
        self.send(Method::POST, url, body).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, TransportError> {
        let no_url = || TransportError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_not_one| no_url())?;
        let request = Request::builder().method(method).uri(uri);
        let request = request
            .body(Full::from(body))
            .map_err(|_not_one| no_url())?;
        let http = {
            let http = self.http.read().unwrap_or_else(PoisonError::into_inner);
            http.clone()
        };
        Ok(http.request(request).await?)
    }
}

fn client(identity: Option<&Identity>) -> Result<Http, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut roots = RootCertStore::empty();
    let config = match identity {
        None => config.with_root_certificates(roots).with_no_client_auth(),
        Some(identity) => {
            roots.add(identity.authority())?;
            let config = config.with_root_certificates(roots);
            match identity.certificate() {
                None => config.with_no_client_auth(),
                Some(certificate) => {
                    config.with_client_auth_cert(vec![certificate], identity.key())?
                }
            }
        }
    };
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_nodelay(true);
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build(connector))
}
