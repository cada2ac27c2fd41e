//! The API's peer: neutron-server with Keystone on MariaDB, started for a run and gone with it.

use super::http::Target;
use super::server::{memory_mib, token};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use weft_tests_conformance::python;

const SERVE: &str = include_str!("../../peers/neutron/serve.py");
const PASSWORD: &str = "lab";
/// A running neutron-server; ends with this value.
pub(crate) struct Peer {
    child: Child,
    said: Said,
    /// Where it is, as the administrator.
    pub(crate) target: Target,
    _folder: TempDir,
}

/// What `serve.py` says once all is up.
#[derive(Deserialize)]
struct Said {
    identity: String,
    network: String,
    processes: BTreeMap<String, u32>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input ends it and what it started.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Installs it unless it is there (two minutes), and starts it (half a minute).
    pub(crate) fn start() -> Result<Self> {
        install_packages()?;
        let this = std::env::current_exe()?;
        let cache = this.parent().and_then(Path::parent);
        let cache = cache.context("no target folder")?;
        let python = python::install(
            cache,
            "neutron",
            include_str!("../../peers/neutron/requirements.txt"),
            include_str!("../../peers/neutron/constraints.txt"),
        )?;
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("serve.py");
        std::fs::write(&script, SERVE)?;
        eprintln!("starting neutron-server, Keystone and MariaDB");
        let mut child = Command::new(python)
            .arg("-P")
            .arg(script)
            .arg(folder.path())
            .arg(PASSWORD)
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start neutron-server")?;
        let mut line = String::new();
        let output = child.stdout.take().context("no standard output")?;
        BufReader::new(output).read_line(&mut line)?;
        if line.is_empty() {
            child.wait()?;
            bail!("neutron-server does not start");
        }
        let said: Said = serde_json::from_str(&line)?;
        let mut target = Target::new(&said.network, "")?;
        target.token = token(&Target::new(&said.identity, "")?, "", "admin", PASSWORD)?;
        Ok(Self {
            child,
            said,
            target,
            _folder: folder,
        })
    }

    /// Mebibytes of each of its parts, their proportional shares, children with them.
    pub(crate) fn memory(&self) -> Result<Vec<(&str, f64)>> {
        let parts = self.said.processes.iter();
        parts
            .map(|(name, pid)| Ok((name.as_str(), tree_mib(*pid)?)))
            .collect()
    }
}

fn tree_mib(pid: u32) -> Result<f64> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut sum = memory_mib(pid)?;
    for child in children.split_whitespace() {
        sum += tree_mib(child.parse()?)?;
    }
    Ok(sum)
}

fn install_packages() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/install.sh");
    python::run(Command::new(script).arg("api"))?;
    Ok(())
}
