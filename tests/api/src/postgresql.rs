//! A PostgreSQL of the tests' own: apt's server on a temporary folder, reached by a unix socket only.
//!
//! Guarantees: every [`Database`] is new and empty, and is dropped with its value; one cluster serves all test
//! processes that run at the same time, and the last one's end stops and removes it, however it ends. The system's own
//! cluster, if there is one, is neither used nor touched. The server keeps nothing safe from a power cut: no test pulls
//! the plug, and tests are many.

use std::fs::{self, File};
use std::io::{self, Error};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where Debian keeps the server's programs, a folder a version.
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Whom the server runs as when the tests are root's, which it refuses to be.
const SERVER_USER: &str = "postgres";
/// The database's user.
const USER: &str = "weft";
/// Not for safety: every fsync is left out.
const SETTINGS: &str = "-c listen_addresses='' -c fsync=off -c full_page_writes=off -c autovacuum=off \
    -c max_connections=300 -c shared_buffers=64MB";

/// A database, dropped with this value.
pub struct Database {
    /// For `[store] url`.
    pub url: String,
    name: String,
}

impl Database {
    /// Makes one, and the cluster if it does not run.
    ///
    /// # Panics
    /// If PostgreSQL's server is not installed, or does not start.
    pub fn create() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = CLUSTER.get_or_init(|| {
            Cluster::join().expect("PostgreSQL's server (scripts/install.sh test installs it)")
        });
        let folder = folder.data();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("weft_{}_{number}", id());
        sql(&folder, &format!("CREATE DATABASE {name}")).expect("a database");
        Self {
            url: format!("postgresql:///{name}?host={}&user={USER}", folder.display()),
            name,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(cluster) = CLUSTER.get() {
            // One that stays goes with the cluster.
            let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
            let _ = sql(&cluster.data(), &drop);
        }
    }
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();

struct Cluster {
    folder: PathBuf,
    /// Held, shared, until the process ends: whoever gets it alone stops the server.
    _users: File,
}

impl Cluster {
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the cluster unless it runs.
    fn join() -> io::Result<Self> {
        // The socket's path must be short.
        let folder = std::env::temp_dir().join("weft-tests-postgresql");
        fs::create_dir_all(&folder)?;
        let lock = |name: &str| File::create(folder.join(name));
        let starting = lock("starting")?;
        starting.lock()?;
        let users = lock("users")?;
        users.lock_shared()?;
        let cluster = Self {
            _users: users,
            folder,
        };
        let socket = cluster.data().join(".s.PGSQL.5432");
        if UnixStream::connect(socket).is_err() {
            cluster.start()?;
        }
        Ok(cluster)
    }

    fn start(&self) -> io::Result<()> {
        let data = self.data();
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data)?;
        let as_server = if rustix::process::geteuid().is_root() {
            run(Command::new("chown").arg(SERVER_USER).arg(&data))?;
            format!("setpriv --reuid={SERVER_USER} --regid={SERVER_USER} --init-groups ")
        } else {
            String::new()
        };
        let programs = programs()?;
        let (data, programs) = (data.display(), programs.display());
        shell(&format!(
            "{as_server}{programs}/initdb --username={USER} --auth=trust --no-sync --locale=C --encoding=UTF8 {data}"
        ))?;
        shell(&format!(
            "{as_server}{programs}/pg_ctl start --wait --pgdata={data} --log={data}/log \
             --options=\"-k {data} {SETTINGS}\""
        ))?;
        // Waits until no test process is left; a session of its own, for Ctrl-C is for the tests.
        let users = self.folder.join("users");
        let stop = format!(
            "cd / && exec flock {} sh -c '{as_server}{programs}/pg_ctl stop --mode=immediate --pgdata={data}; rm -rf {data}'",
            users.display()
        );
        let watch = Command::new("setsid")
            .args(["sh", "-c", &stop])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        watch.map(drop)
    }
}

/// The newest version's programs.
fn programs() -> io::Result<PathBuf> {
    let versions = fs::read_dir(PROGRAMS)?.filter_map(|entry| {
        let path = entry.ok()?.path().join("bin");
        path.join("initdb").exists().then_some(path)
    });
    let newest = versions.max();
    newest.ok_or_else(|| Error::other(format!("no initdb in {PROGRAMS}/*/bin")))
}

fn sql(folder: &Path, statement: &str) -> io::Result<()> {
    let mut psql = Command::new("psql");
    psql.arg("--host").arg(folder);
    run(psql.args([
        "--username",
        USER,
        "--dbname=postgres",
        "--no-psqlrc",
        "--command",
        statement,
    ]))
}

fn shell(line: &str) -> io::Result<()> {
    run(Command::new("sh").args(["-c", &format!("cd / && {line}")]))
}

fn run(command: &mut Command) -> io::Result<()> {
    // Not by a pipe: the server would keep it open.
    let done = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| Error::other(format!("{command:?}: {error}")))?;
    if done.success() {
        Ok(())
    } else {
        Err(Error::other(format!("{command:?}: {done}")))
    }
}
