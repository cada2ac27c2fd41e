//! The stock client: python-openstackclient from PyPI, at pinned versions, unmodified.

use super::{Cloud, Operator};
use crate::command::{output, run};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The client's version, and with it those of all that it needs (`constraints.txt`).
const REQUIREMENT: &str = "python-openstackclient==10.5.0";
const CONSTRAINTS: &str = include_str!("constraints.txt");

/// The client refused a line.
#[derive(Debug)]
pub struct StockError(pub String);

impl std::fmt::Display for StockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StockError {}

/// The client, installed, working inside one namespace.
#[derive(Clone, Debug)]
pub struct Stock {
    namespace: Namespace,
    program: PathBuf,
}

impl Stock {
    /// Installs the client into a virtual environment under `cache`, unless it is there.
    ///
    /// # Errors
    /// No Python, or PyPI cannot be reached.
    pub fn install(cache: &Path, namespace: &Namespace) -> Result<Self> {
        let venv = cache.join("openstackclient-10.5.0");
        let program = venv.join("bin/openstack");
        let done = venv.join("installed");
        if !done.exists() {
            std::fs::create_dir_all(cache)?;
            let constraints = cache.join("openstackclient.constraints.txt");
            std::fs::write(&constraints, CONSTRAINTS)?;
            let (venv, file) = (venv.display(), constraints.display());
            run(&format!("python3 -m venv --clear {venv}")).context("apt install python3-venv")?;
            run(&format!(
                "{venv}/bin/pip install -q --disable-pip-version-check -c {file} {REQUIREMENT}"
            ))?;
            std::fs::write(&done, REQUIREMENT)?;
        }
        Ok(Self {
            namespace: namespace.clone(),
            program,
        })
    }

    fn command(&self, cloud: &Cloud, line: &str) -> Result<Command> {
        let program = self
            .program
            .to_str()
            .context("the cache's path is not UTF-8")?;
        let mut command = self.namespace.command(program);
        command
            .envs(cloud.environment())
            .args(line.split_whitespace());
        if prints_a_resource(line) {
            command.args(["-f", "json"]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// What a line prints as JSON, for any command: `network list`, `catalog list`.
    ///
    /// # Errors
    /// The client fails, or prints something else.
    pub fn json(&self, cloud: &Cloud, line: &str) -> Result<Value> {
        let mut command = self.command(cloud, line)?;
        let text = output(command.args(["-f", "json"])).with_context(|| line.to_owned())?;
        serde_json::from_str(&text).with_context(|| format!("{line}: {text}"))
    }
}

/// Whether the client prints the resource for this line, and so takes `-f json`.
fn prints_a_resource(line: &str) -> bool {
    line.split_whitespace()
        .take(4)
        .any(|word| matches!(word, "create" | "show"))
}

impl Operator for Stock {
    fn is_quick(&self) -> bool {
        false
    }

    fn openstack(&mut self, cloud: &Cloud, line: &str) -> Result<Value> {
        let lines = [line.to_owned()];
        self.openstack_all(cloud, &lines)
            .map(|mut values| values.remove(0))
    }

    /// All at once: the client takes a second only to start.
    fn openstack_all(&mut self, cloud: &Cloud, lines: &[String]) -> Result<Vec<Value>> {
        let mut children = Vec::new();
        for line in lines {
            let child = self
                .command(cloud, line)?
                .spawn()
                .context("cannot start the client")?;
            children.push((line, child));
        }
        let mut values = Vec::new();
        for (line, child) in children {
            let output = child.wait_with_output()?;
            let text = String::from_utf8_lossy(&output.stdout);
            if !output.status.success() {
                let error = String::from_utf8_lossy(&output.stderr);
                bail!(StockError(format!("openstack {line}: {}", error.trim())));
            }
            values.push(match text.trim() {
                "" => Value::Null,
                text => serde_json::from_str(text).with_context(|| format!("{line}: {text}"))?,
            });
        }
        Ok(values)
    }
}
