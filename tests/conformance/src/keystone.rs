//! A real Keystone from PyPI, on loopback with a SQLite file, and a user in it that Weft asks it as.

use crate::cloud::Cloud;
use crate::python;
use crate::server::PASSWORD;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SERVE: &str = include_str!("../keystone/serve.py");
/// The password of the user `neutron`.
const SERVICE_PASSWORD: &str = "of-the-service";

/// A running Keystone; ends when dropped.
pub struct Keystone {
    /// Its address, ending in `/v3`.
    pub url: String,
    child: Child,
}

impl Keystone {
    /// Installs it under `cache` unless it is there, and starts it with its things in `folder`.
    ///
    /// # Errors
    /// PyPI cannot be reached, or Keystone does not start: see its logs in `folder`.
    pub fn start(cache: &Path, folder: &Path) -> Result<Self> {
        let python = python::install(
            cache,
            "keystone",
            include_str!("../keystone/requirements.txt"),
            include_str!("../keystone/constraints.txt"),
        )?;
        std::fs::create_dir_all(folder)?;
        let script = folder.join("serve.py");
        std::fs::write(&script, SERVE)?;
        let mut child = Command::new(python)
            .arg("-P")
            .arg(script)
            .arg(folder)
            .arg(PASSWORD)
            .env("PYTHONWARNINGS", "ignore")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.join("serve.log"))?)
            .spawn()
            .context("cannot start Keystone")?;
        let said = child.stdout.take().context("no standard output")?;
        let mut url = String::new();
        BufReader::new(said).read_line(&mut url)?;
        if url.is_empty() {
            child.wait()?;
            bail!("Keystone does not start: see {}", folder.display());
        }
        let url = url.trim().to_owned();
        Ok(Self { url, child })
    }

    /// Makes the user that Weft asks as.
    ///
    /// # Errors
    /// Keystone refuses.
    pub fn prepare(&self) -> Result<()> {
        let admin = Cloud::admin(&self.url, "", PASSWORD)?;
        admin.user("neutron", SERVICE_PASSWORD, "service", "service")?;
        Ok(())
    }

    /// `[identity]` of Weft's configuration.
    #[must_use]
    pub fn config(&self, token_cache_s: u32) -> String {
        format!(
            "[identity]\nmode = \"keystone\"\n[identity.keystone]\nauth_url = \"{}\"\n\
             password = \"{SERVICE_PASSWORD}\"\ntoken_cache_s = {token_cache_s}\n",
            self.url
        )
    }

    /// Puts Weft into the catalogue by its own command; what that says.
    ///
    /// # Errors
    /// The command fails.
    pub fn register(&self, weft: &Path, config: &Path, api: &str) -> Result<String> {
        python::run(
            Command::new(weft)
                .args(["identity", "register", "--url", api, "--config"])
                .arg(config)
                .env("OS_USERNAME", "admin")
                .env("OS_PASSWORD", PASSWORD)
                .env("OS_PROJECT_NAME", "admin"),
        )
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        // It keeps nothing that is worth an orderly end.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
