//! A `weft server` on loopback with a database of its own, configured as the suites expect a cloud to be.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The administrator's password: the server listens on loopback, for one run.
pub const PASSWORD: &str = "only-for-this-run";
/// How often it is looked at while it starts, and how long between two looks: half a minute.
const LOOKS: usize = 600;
const PAUSE: Duration = Duration::from_millis(50);

/// What the suites take for granted: names of physical networks, VLANs to choose from, and quotas that their tests fit in.
const CONFIG: &str = r#"host = "conformance-1"
[api]
listen = "127.0.0.1:0"
[feed]
listen = "127.0.0.1:0"
[store]
path = "weft.sqlite"
[network]
dns_domain = "openstackgate.local."
physical_networks = ["public", "physnet1", "physnet2"]
vlan_ranges = { physnet1 = { first = 100, last = 1000 } }
quotas = { router = 30, floatingip = 60 }
"#;

/// `[identity]` for the built-in one.
#[must_use]
pub fn builtin() -> String {
    format!("[identity]\nadmin_password = \"{PASSWORD}\"\n")
}

/// The weft binary: the given one, else the one that `WEFT` names, else that of this build.
///
/// # Errors
/// There is none: says how to build it.
pub fn program(named: Option<&Path>) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let beside = this
        .ancestors()
        .map(|folder| folder.join("weft"))
        .find(|path| path.is_file());
    let named = named.map(Path::to_owned);
    let program = named
        .or_else(|| std::env::var_os("WEFT").map(PathBuf::from))
        .or(beside);
    let program = program.context("no weft binary: build it with `cargo build -p weft`")?;
    program
        .canonicalize()
        .with_context(|| program.display().to_string())
}

/// A running server.
pub struct Server {
    /// The Networking API's URL.
    pub api: String,
    /// The feed's URL.
    pub feed: String,
    child: Child,
}

impl Server {
    /// Starts it, with its database and log in `folder`, and waits until it listens. `identity` is `[identity]` of its
    /// configuration.
    ///
    /// # Errors
    /// It ends, or does not listen: with its log.
    pub fn start(program: &Path, folder: &Path, identity: &str) -> Result<Self> {
        std::fs::write(folder.join("weft.toml"), format!("{CONFIG}{identity}"))?;
        let log = folder.join("weft.log");
        let mut child = Command::new(program)
            .args(["server", "--json", "--config", "weft.toml"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| program.display().to_string())?;
        for _ in 0..LOOKS {
            let said = std::fs::read_to_string(&log)?;
            if let Some((api, feed)) = addresses(&said) {
                return Ok(Self { api, feed, child });
            }
            if let Some(status) = child.try_wait()? {
                bail!("weft server ended with {status}: {said}");
            }
            std::thread::park_timeout(PAUSE);
        }
        child.kill()?;
        bail!("weft server does not listen: see {}", log.display())
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// It has ended by itself, or ends badly.
    pub fn stop(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("weft server ended by itself with {status}");
        }
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("weft server ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _ended = self.child.kill();
    }
}

/// Where it listens, once it has said so.
fn addresses(log: &str) -> Option<(String, String)> {
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let url = |line: &Value, key: &str| {
        line[key]
            .as_str()
            .map(|address| format!("http://{address}"))
    };
    lines.find_map(|line: Value| url(&line, "api").zip(url(&line, "feed")))
}
