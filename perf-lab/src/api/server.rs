//! A `weft server` of the lab's own, on a folder that goes with it.

use super::http::{Client, Target};
use super::seed::Database;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// Of whoever the lab makes.
pub(crate) const PASSWORD: &str = "lab";
/// Flushes that are timed.
const FLUSHES: usize = 50;

/// A running server; killed with this value.
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    database: Database,
    /// Where it is, as the administrator.
    pub(crate) target: Target,
    /// Where its feed is: `host:port`.
    pub(crate) feed: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// On a new SQLite file.
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let database = Database::Sqlite(file(folder.path()));
        Self::new(folder, database)
    }

    /// On an empty database.
    pub(crate) fn start_on(database: Database) -> Result<Self> {
        Self::new(tempfile::tempdir()?, database)
    }

    fn new(folder: TempDir, database: Database) -> Result<Self> {
        let (child, url, feed) = spawn(folder.path(), &database)?;
        let target = Target::new(&url, "")?;
        let mut server = Self {
            child,
            folder,
            database,
            target,
            feed,
        };
        server.target.token = token(&server.target, "/identity/v3", "admin", PASSWORD)?;
        // A project of its own size: the lab measures no quota.
        let mut client = Client::new(&server.target);
        let project = client.get("/identity/v3/projects?name=admin")?;
        let project = project["projects"][0]["id"]
            .as_str()
            .context("no project")?;
        let quota = json!({ "quota": unlimited() });
        client.put(&format!("/v2.0/quotas/{project}"), &quota)?;
        Ok(server)
    }

    /// Ends it and starts it again, with `between` done to its folder.
    pub(crate) fn restart(mut self, between: impl FnOnce(&Path) -> Result<()>) -> Result<Self> {
        self.child.kill()?;
        self.child.wait()?;
        between(self.folder.path())?;
        let (child, url, feed) = spawn(self.folder.path(), &self.database)?;
        self.child = child;
        self.feed = feed;
        let token = self.target.token.clone();
        self.target = Target::new(&url, &token)?;
        Ok(self)
    }

    /// Another server on the same database, which has to read everything anew.
    pub(crate) fn beside(&self) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let database = self.database.clone();
        let (child, url, feed) = spawn(folder.path(), &database)?;
        let target = Target::new(&url, &self.target.token)?;
        Ok(Self {
            child,
            folder,
            database,
            target,
            feed,
        })
    }

    /// Mebibytes of the process, its proportional share.
    pub(crate) fn memory_mib(&self) -> Result<f64> {
        memory_mib(self.child.id())
    }

    /// The database.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Mebibytes of a process, its proportional share.
pub(crate) fn memory_mib(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no Pss")?.parse::<f64>()? / 1_024.0)
}

/// The quota of a project without limits.
pub(crate) fn unlimited() -> Value {
    json!({ "network": -1, "subnet": -1, "port": -1, "security_group": -1, "security_group_rule": -1 })
}

/// A token of the user `name` for the project of the same name, from the identity under `path`.
pub(crate) fn token(target: &Target, path: &str, name: &str, password: &str) -> Result<String> {
    let domain = json!({ "id": "default" });
    let user = json!({ "name": name, "domain": domain, "password": password });
    let body = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": user } },
        "scope": { "project": { "name": name, "domain": domain } },
    } });
    let mut client = Client::new(target);
    let answer = client.send("POST", &format!("{path}/auth/tokens"), &body.to_string())?;
    answer.token.context("no token")
}

/// Starts the program beside this one, on a database; answers the API's URL, and the feed's address.
fn spawn(folder: &Path, database: &Database) -> Result<(Child, String, String)> {
    let config = folder.join("weft.toml");
    let store = database.config();
    let listen = "listen = \"127.0.0.1:0\"";
    let toml = format!(
        "[api]\n{listen}\n[feed]\n{listen}\n[store]\n{store}\n[identity]\nadmin_password = \"{PASSWORD}\"\n",
    );
    std::fs::write(&config, toml)?;
    let this = std::env::current_exe()?;
    let program = this.parent().context("no folder")?.join("weft");
    let mut child = Command::new(&program)
        .args(["server", "--config"])
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.display().to_string())?;
    let mut lines = BufReader::new(child.stderr.take().context("no output")?).lines();
    let mut said = String::new();
    for line in lines.by_ref() {
        let line = line?;
        let word = |name| {
            let (_, rest) = line.split_once(name)?;
            Some(rest.split(' ').next()?.to_owned())
        };
        if let Some((address, feed)) = word(" api=").zip(word(" feed=")) {
            // What it says further goes on to ours.
            std::thread::spawn(move || {
                for line in lines.map_while(Result::ok) {
                    let _ = writeln!(std::io::stderr(), "{line}");
                }
            });
            return Ok((child, format!("http://{address}"), feed));
        }
        said.push_str(&line);
    }
    anyhow::bail!("weft server did not start: {said}")
}

/// SQLite's file in a server's folder.
pub(crate) fn file(folder: &Path) -> PathBuf {
    folder.join("weft.sqlite")
}

/// Milliseconds that the folder's disk takes to make a written page safe, each time.
pub(crate) fn flushes_ms(folder: &Path) -> Result<Vec<f64>> {
    const PAGE: u64 = 4_096;
    let file = std::fs::File::create(folder.join("flush"))?;
    let page = [1; 4_096];
    let place = |n: usize| n as u64 * PAGE;
    for n in 0..FLUSHES {
        file.write_all_at(&page, place(n))?;
    }
    file.sync_all()?;
    (0..FLUSHES)
        .map(|n| {
            let flush = || {
                file.write_all_at(&page, place(n))?;
                Ok(file.sync_data()?)
            };
            Ok(super::load::timed(flush)?.1)
        })
        .collect()
}
