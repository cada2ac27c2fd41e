//! All SQL of the control plane: one file per resource, and what every resource shares.
//!
//! Guarantees:
//! - every change goes through a [`WriteTx`]; a transaction is seen whole or not at all, and when
//!   [`WriteTx::commit`] has returned it survives the death of the process (and, with
//!   [`Durability::Full`], of the machine);
//! - writers are served one after the other, in the order they came, from a bounded queue;
//! - a transaction that changes what hosts must do takes the next revision, stamps its rows with it, names them
//!   in `changes`, and wakes whoever [`Store::subscribe`]d after it was committed.
//!
//! It does not know any rule of the API: that is `app`.

pub mod address_group;
pub mod address_scope;
pub mod agent;
pub mod auto_allocated_topology;
pub mod claimed_ip;
pub mod conntrack_helper;
mod control_state;
pub mod default_security_group_rule;
pub mod feed_certificate;
mod fixed_ip;
pub mod flavor;
pub mod floating_ip;
pub mod gateway;
pub mod identity;
mod json_text;
pub mod list;
pub mod local_ip;
pub mod log;
pub mod metering;
pub mod ndp_proxy;
pub mod network;
pub mod network_segment_range;
pub mod observer;
pub mod port;
pub mod port_binding;
pub mod port_forwarding;
pub mod qos_policy;
pub mod quota;
pub mod rbac_policy;
pub mod router;
pub mod row;
pub mod security_group;
pub mod security_groups_default_statefulness;
pub mod segment;
mod server_event;
pub mod sql;
pub mod subnet;
pub mod subnetpool;
pub mod trunk;
pub mod tunnel_host;

pub use control_state::{Change, How, changes_prune, changes_since, revision};
pub use json_text::JsonText;
pub use list::{Filter, ListQuery, Scope, Sort, Value};
pub use row::{Resource, Row, bump, delete, get, insert, list, tags_write, update};
pub use server_event::{ServerEvent, ServerEventKind};
pub use sql::Conn;

use observer::{Observer, Touched};
use sql::{Kind, Postgresql, Sqlite};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use weft_model::{Epoch, Revision};

/// Microseconds since 1970 (UTC), from whoever owns the clock.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Writers that wait at most; the next one is told to come back.
const WRITERS_WAITING_MAX: usize = 1_024;
/// How long a writer or reader waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to PostgreSQL of one server.
const CONNECTIONS_MAX: u32 = 16;
/// Connections that read at the same time.
const READERS_MAX: usize = 4;

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// The death of the process and of the machine: every commit reaches the disk.
    #[default]
    Full,
    /// The death of the process; a power cut may take the last moments (never the database's consistency).
    Process,
}

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A unique key is taken. The text names the table and columns.
    #[error("already there: {0}")]
    Conflict(String),
    /// Something refers to what was to be deleted, or what was referred to is gone.
    #[error("in use, or gone: {0}")]
    Reference(String),
    /// A text with the character U+0000, which no database keeps.
    #[error("a text has the character U+0000")]
    Nul,
    /// Too many writers wait, or the database did not answer in time. Asking again later may help.
    #[error("the database is busy")]
    Busy,
    /// Anything else: a defect, a full disk, a damaged file.
    #[error("the database failed")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The migrations could not be applied.
    #[error("cannot bring the database to this version's schema")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

/// What every store function answers.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// The database.
#[derive(Clone)]
pub struct Store(Arc<Inner>, Option<Arc<Observer>>);

struct Inner {
    database: Database,
    queue: Arc<Semaphore>,
    epoch: Epoch,
    nudge: watch::Sender<Revision>,
    clock: Clock,
    server_events: OnceLock<mpsc::Sender<ServerEvent>>,
    /// Hears of the commits of other servers.
    _listener: Option<AbortOnDropHandle<()>>,
}

/// What servers on one database say to each other.
pub struct Words(broadcast::Receiver<Arc<str>>);

impl Words {
    /// The next word; none once the store is closed.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            match self.0.recv().await {
                Ok(word) => return Some(word),
                // Whoever is too slow misses some: they may be lost anyway.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// The databases that a store may be in.
enum Database {
    Sqlite(Sqlite),
    Postgresql(Postgresql),
}

impl Database {
    async fn read(&self) -> Result<Conn> {
        Ok(Conn(match self {
            Self::Sqlite(sqlite) => Kind::Sqlite(sqlite.read().await?),
            Self::Postgresql(postgresql) => Kind::Postgresql(postgresql.read().await?),
        }))
    }

    async fn write(&self) -> Result<Conn> {
        Ok(Conn(match self {
            Self::Sqlite(sqlite) => Kind::Sqlite(sqlite.write().await?),
            Self::Postgresql(postgresql) => Kind::Postgresql(postgresql.write().await?),
        }))
    }
}

impl Store {
    /// Opens the database file (made if it is missing, in its folder) and brings it to this version's schema.
    ///
    /// # Errors
    /// [`StoreError::Database`] if the file cannot be opened, [`StoreError::Migrate`] if it is of another make.
    pub async fn open(file: &Path, durability: Durability, clock: Clock) -> Result<Self> {
        let nudge = watch::Sender::new(Revision(0));
        let sqlite = Sqlite::open(file, durability, READERS_MAX, TURN_TIMEOUT, nudge.clone())?;
        Self::with(Database::Sqlite(sqlite), nudge, clock).await
    }

    /// Connects to a PostgreSQL database (`postgresql://…`) and brings it to this version's schema.
    ///
    /// # Errors
    /// [`StoreError::Database`] if it cannot be reached, [`StoreError::Migrate`] if it is of another make.
    pub async fn connect(url: &str, durability: Durability, clock: Clock) -> Result<Self> {
        let nudge = watch::Sender::new(Revision(0));
        let postgresql = Postgresql::open(
            url,
            durability,
            CONNECTIONS_MAX,
            TURN_TIMEOUT,
            nudge.clone(),
        )
        .await?;
        Self::with(Database::Postgresql(postgresql), nudge, clock).await
    }

    async fn with(database: Database, news: watch::Sender<Revision>, clock: Clock) -> Result<Self> {
        let mut conn = database.write().await?;
        let (epoch, revision) = control_state::ensure(&mut conn).await?;
        conn.commit(None).await?;
        nudge(&news, revision);
        let listener = match &database {
            Database::Sqlite(_) => None,
            Database::Postgresql(postgresql) => {
                let listen = postgresql.clone().listen();
                Some(AbortOnDropHandle::new(tokio::spawn(listen)))
            }
        };
        let inner = Inner {
            database,
            queue: Arc::new(Semaphore::new(WRITERS_WAITING_MAX)),
            epoch,
            nudge: news,
            clock,
            server_events: OnceLock::new(),
            _listener: listener,
        };
        Ok(Self(Arc::new(inner), None))
    }

    /// The same store, which tells `observer` what is written through it.
    #[must_use]
    pub fn observed(&self, observer: Arc<Observer>) -> Self {
        Self(self.0.clone(), Some(observer))
    }

    /// The identity of this database; revisions of different epochs cannot be compared.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.epoch
    }

    /// Wakes after every committed transaction that took a revision, of any server; holds the newest one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.0.nudge.subscribe()
    }

    /// What all servers on this database say to each other from now on, this one's own words too; none if there can be no
    /// others.
    #[must_use]
    pub fn words(&self) -> Option<Words> {
        match &self.0.database {
            Database::Sqlite(_) => None,
            Database::Postgresql(postgresql) => Some(Words(postgresql.words())),
        }
    }

    /// Says something to all servers on this database, of at most 8,000 bytes. It may be lost.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn say_word(&self, word: &str) -> Result<()> {
        match &self.0.database {
            Database::Sqlite(_) => Ok(()),
            Database::Postgresql(postgresql) => postgresql.say(word).await,
        }
    }

    /// From now on, what happens to servers' ports is said here. Only the first listener counts.
    pub fn server_events_to(&self, listener: mpsc::Sender<ServerEvent>) {
        let _second = self.0.server_events.set(listener);
    }

    fn hears_server_events(&self) -> bool {
        self.0.server_events.get().is_some()
    }

    /// Now, as microseconds since 1970 (UTC).
    #[must_use]
    pub fn now(&self) -> i64 {
        (self.0.clock)()
    }

    /// A view of the data as it is now; all reads on it see the same state.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if no connection gets free in time.
    pub async fn read(&self) -> Result<ReadTx> {
        Ok(ReadTx(self.0.database.read().await?))
    }

    /// Waits for this writer's turn and begins its transaction. Dropping it undoes everything.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if too many wait.
    pub async fn write(&self) -> Result<WriteTx> {
        let permit = self
            .0
            .queue
            .clone()
            .try_acquire_owned()
            .map_err(|_full| StoreError::Busy)?;
        Ok(WriteTx {
            conn: self.0.database.write().await?,
            now: (self.0.clock)(),
            revision: None,
            touched: Vec::new(),
            announced: Vec::new(),
            store: self.clone(),
            _permit: permit,
        })
    }

    /// Closes all connections; what was committed is in the file.
    pub async fn close(&self) {
        match &self.0.database {
            Database::Sqlite(sqlite) => sqlite.close(),
            Database::Postgresql(postgresql) => postgresql.close().await,
        }
    }
}

/// One view of the data, for reading.
pub struct ReadTx(Conn);

impl ReadTx {
    /// The connection, for the read functions.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.0
    }
}

/// A transaction that writes.
pub struct WriteTx {
    conn: Conn,
    now: i64,
    revision: Option<i64>,
    touched: Vec<Touched>,
    announced: Vec<ServerEvent>,
    store: Store,
    _permit: OwnedSemaphorePermit,
}

impl WriteTx {
    /// The connection, for the read functions and for statements that take no revision.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// When the transaction began: all its rows get the same time.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.now
    }

    /// Names a row as changed (or deleted) and answers the transaction's revision, taking it on the first call.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn touch(&mut self, resource: Resource, id: &str) -> Result<i64> {
        self.touch_as(resource, id, How::Changed, None).await
    }

    /// [`WriteTx::touch`], for a row of which it is known how it changes and whose it is.
    pub(super) async fn touch_as(
        &mut self,
        resource: Resource,
        id: &str,
        how: How,
        project_id: Option<&str>,
    ) -> Result<i64> {
        let revision = match self.revision {
            Some(revision) => revision,
            None => control_state::revision_take(&mut self.conn).await?,
        };
        self.revision = Some(revision);
        self.touched.push(Touched {
            resource,
            id: id.to_owned(),
            how,
            project_id: project_id.map(str::to_owned),
        });
        Ok(revision)
    }

    /// Makes it all true, and wakes whoever waits for changes.
    ///
    /// # Errors
    /// [`StoreError::Database`]; then nothing was written.
    pub async fn commit(mut self) -> Result<()> {
        let touched = observer::merged(std::mem::take(&mut self.touched));
        let watcher = self.store.1.clone();
        if let Some(inspect) = watcher.as_ref().and_then(|observer| observer.inspect()) {
            inspect(&mut self.conn, &touched).await?;
        } else {
            if let Some(revision) = self.revision {
                control_state::changes_insert(&mut self.conn, revision, &touched).await?;
            }
            self.conn.commit(self.revision).await?;
            self.store.say(std::mem::take(&mut self.announced));
        }
        if let Some(observer) = watcher {
            observer.note(self.revision, touched);
        }
        Ok(())
    }
}

/// Wakes whoever waits for changes, if this revision is news.
fn nudge(nudge: &watch::Sender<Revision>, revision: Revision) {
    nudge.send_if_modified(|newest| {
        let newer = *newest < revision;
        *newest = revision.max(*newest);
        newer
    });
}
