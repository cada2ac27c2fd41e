//! Starting and stopping the control plane: store, listeners, background tasks.
//!
//! This is the one place of the crate that reads the machine's clock; everything else is given the time.

use crate::app::App;
use crate::app::policy::{Policy, PolicyError};
use crate::config::{ControlConfig, Database};
use crate::connection::BoundedListener;
use crate::feed::{self, AuthorityError, Hub};
use crate::http;
use crate::identity::{Authority, Identity, IdentityError, IdentityMode, Keystone};
use crate::nova::Nova;
use crate::realize;
use crate::remote::RemoteError;
use crate::store::{Durability, Store, StoreError};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use weft_model::limits;

/// Bytes of a policy file.
const POLICY_BYTES_MAX: u64 = 1 << 20;

/// Why the control plane could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address is taken or not this machine's.
    #[error("cannot listen on {address} ({what})")]
    Listen {
        /// What for.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The database's folder cannot be made.
    #[error("cannot make the folder of the database {}", path.display())]
    Folder {
        /// The database's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The database.
    #[error("cannot open the database {database}")]
    Store {
        /// Which.
        database: Database,
        /// Why.
        source: StoreError,
    },
    /// The built-in identity's first rows.
    #[error("cannot prepare the built-in identity")]
    Identity(#[from] IdentityError),
    /// Another service cannot be spoken to.
    #[error("cannot speak to another service")]
    Remote(#[from] RemoteError),
    /// The file of rules cannot be read.
    #[error("cannot read the policy file {}", path.display())]
    PolicyRead {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A rule in it is wrong.
    #[error("cannot use the policy file {}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        source: PolicyError,
    },
    /// The feed's certificates.
    #[error("cannot prepare the feed's certificates")]
    Authority(#[from] AuthorityError),
    /// A listener broke.
    #[error("a listener broke")]
    Serve(#[source] std::io::Error),
}

/// A control plane that listens, but serves nobody yet.
pub struct Control {
    server: Arc<http::Server>,
    nova: Option<Nova>,
    store: Store,
    hub: Arc<Hub>,
    trials: realize::TrialRequests,
    closing: CancellationToken,
    api: TcpListener,
    feed: TcpListener,
    api_address: SocketAddr,
    feed_address: SocketAddr,
    /// Who signs, and the server's names; none for a feed without TLS.
    feed_tls: Option<(feed::Authority, Vec<String>)>,
    admin_password: Option<String>,
}

#[allow(clippy::disallowed_methods, reason = "this is the owner of the clock")]
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// The rules, with those of the file in their place.
fn policy_read(path: PathBuf) -> Result<Policy, ServeError> {
    use std::io::Read as _;
    let read = || {
        let mut text = String::new();
        let file = std::fs::File::open(&path)?;
        file.take(POLICY_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > POLICY_BYTES_MAX {
            let message = format!("it is larger than {POLICY_BYTES_MAX} bytes");
            return Err(std::io::Error::new(
                std::io::ErrorKind::FileTooLarge,
                message,
            ));
        }
        Ok(text)
    };
    let text = match read() {
        Ok(text) => text,
        Err(source) => return Err(ServeError::PolicyRead { path, source }),
    };
    let policy = match Policy::overridden(&text) {
        Ok(policy) => policy,
        Err(source) => return Err(ServeError::Policy { path, source }),
    };
    let unasked = policy.unasked();
    if !unasked.is_empty() {
        tracing::warn!(
            "{}: nothing asks these rules, by these names: {}",
            path.display(),
            unasked.join(", ")
        );
    }
    Ok(policy)
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen {
        what,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Opens a database as a server would, and makes it if it is missing: for commands that change it.
///
/// # Errors
/// [`ServeError::Store`], [`ServeError::Folder`].
pub async fn store_open(database: Database, durability: Durability) -> Result<Store, ServeError> {
    let store = match &database {
        Database::Postgresql(url) => Store::connect(url, durability, Arc::new(now)).await,
        Database::Sqlite(path) => {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder {
                std::fs::create_dir_all(folder).map_err(|source| ServeError::Folder {
                    path: path.clone(),
                    source,
                })?;
            }
            Store::open(path, durability, Arc::new(now)).await
        }
    };
    store.map_err(|source| ServeError::Store { database, source })
}

impl Control {
    /// Opens the database, makes what is missing, and listens.
    ///
    /// # Errors
    /// [`ServeError`]; then nothing is left open.
    pub async fn bind(config: ControlConfig) -> Result<Self, ServeError> {
        let database = config.database;
        let store = store_open(database.clone(), config.durability).await?;
        let region = config.identity.region.clone();
        let nova = match config.nova.notify {
            true => Some(Nova::new(config.nova, region, &store, Arc::new(now))?),
            false => None,
        };
        let (authority, admin_password) = match config.identity.mode {
            IdentityMode::Builtin => {
                let identity = Identity::new(store.clone(), config.identity);
                let admin_password = identity.bootstrap().await?;
                (Authority::Builtin(Box::new(identity)), admin_password)
            }
            IdentityMode::Keystone => {
                let keystone = Keystone::new(config.identity.keystone, Arc::new(now))?;
                (Authority::Keystone(keystone), None)
            }
        };
        let policy = match config.policy_file {
            Some(path) => policy_read(path)?,
            None => Policy::default(),
        };
        let (api, api_address) = listen("the API", config.api_listen).await?;
        let (feed, feed_address) = listen("the feed", config.feed_listen).await?;
        let feed_tls = match config.feed_tls_names.is_empty() {
            true => {
                if !feed_address.ip().is_loopback() {
                    tracing::warn!(
                        "feed.listen is {feed_address} and feed.tls_names is empty: whoever reaches it can pose as any host"
                    );
                }
                None
            }
            false => Some((feed::Authority::open(&store).await?, config.feed_tls_names)),
        };
        let app = App::new(store.clone(), policy, config.network).await;
        let app = app.map_err(|source| ServeError::Store { database, source })?;
        let hub = Arc::new(Hub::new(store.epoch()));
        let (ask, trials) = realize::trials();
        let closing = CancellationToken::new();
        let server = Arc::new(http::Server::new(
            app,
            authority,
            config.public_url,
            (hub.clone(), ask),
            closing.clone(),
        ));
        Ok(Self {
            server,
            nova,
            store,
            hub,
            trials,
            closing,
            api,
            feed,
            api_address,
            feed_address,
            feed_tls,
            admin_password,
        })
    }

    /// Where the API listens: the configured address, with the port that was chosen for port 0.
    #[must_use]
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Where the feed listens.
    #[must_use]
    pub fn feed_address(&self) -> SocketAddr {
        self.feed_address
    }

    /// Who signs the feed's certificates; none for a feed without TLS.
    #[must_use]
    pub fn feed_authority(&self) -> Option<&feed::Authority> {
        self.feed_tls.as_ref().map(|(authority, _)| authority)
    }

    /// The password of the user `admin`, if this start made it up: to be shown once, for nobody can read it again.
    #[must_use]
    pub fn admin_password(&self) -> Option<&str> {
        self.admin_password.as_deref()
    }

    /// The database, for tests and tools in the same process.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Serves until `shutdown` is cancelled; requests that have begun are answered.
    ///
    /// # Errors
    /// [`ServeError::Serve`].
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let hub = self.hub;
        let authority = self
            .feed_tls
            .as_ref()
            .map(|(authority, _)| authority.clone());
        let feed_router =
            feed::router(hub.clone(), self.store.clone(), authority, shutdown.clone());
        let api_router = http::router(self.server);
        let idle = Duration::from_secs(limits::API_IDLE_S);
        let listener = BoundedListener::new(self.api, limits::API_CONNECTIONS_MAX, idle);
        // Each part is a task of its own: what one computes keeps no other waiting.
        let mut parts = JoinSet::new();
        let (stop, closing) = (shutdown.clone(), self.closing);
        parts.spawn(async move {
            let stop = async move {
                stop.cancelled().await;
                // Streams have no end of their own.
                closing.cancel();
            };
            axum::serve(listener, api_router)
                .with_graceful_shutdown(stop)
                .await
        });
        let (listener, stop, tls) = (self.feed, shutdown.clone(), self.feed_tls);
        parts.spawn(async move {
            match &tls {
                Some((authority, names)) => {
                    feed::serve_tls(listener, feed_router, (authority, names), stop).await
                }
                None => feed::serve(listener, feed_router, stop).await,
            }
        });
        let (store, stop, with, trials) = (&self.store, &shutdown, &hub, self.trials);
        let (of, seen, end) = (store.clone(), with.clone(), stop.clone());
        parts.spawn(async move {
            realize::run(of, &seen, trials, end).await;
            Ok(())
        });
        let (of, seen, end) = (store.clone(), with.clone(), stop.clone());
        parts.spawn(async move {
            feed::agent::run(of, &seen, end).await;
            Ok(())
        });
        let (of, seen, end) = (store.clone(), with.clone(), stop.clone());
        parts.spawn(async move {
            feed::wait::answer(of, &seen, end).await;
            Ok(())
        });
        if let Some(nova) = self.nova {
            let end = stop.clone();
            parts.spawn(async move {
                nova.run(end).await;
                Ok(())
            });
        }
        let done = all_ended(parts, &shutdown).await;
        self.store.close().await;
        done.map_err(ServeError::Serve)
    }
}

/// Waits until all have ended; the first that fails ends the others. Answers why it did.
async fn all_ended(
    mut parts: JoinSet<std::io::Result<()>>,
    shutdown: &CancellationToken,
) -> std::io::Result<()> {
    let mut done = Ok(());
    while let Some(part) = parts.join_next().await {
        let ended = match part.map_err(JoinError::try_into_panic) {
            Ok(ended) => ended,
            Err(Ok(panic)) => std::panic::resume_unwind(panic),
            Err(Err(cancelled)) => Err(std::io::Error::other(cancelled)),
        };
        if ended.is_err() {
            shutdown.cancel();
        }
        done = done.and(ended);
    }
    done
}

/// Binds and serves, for callers that need nothing in between.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(config: ControlConfig, shutdown: CancellationToken) -> Result<(), ServeError> {
    Control::bind(config).await?.run(shutdown).await
}
