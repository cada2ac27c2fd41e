//! The weft process under test: its configuration, its start and end, its own words, and what it left in the kernel.

use crate::clock::until;
use crate::command::output;
use crate::kernel::KernelObjects;
use crate::lab::{Lab, PINS_DIR, Process};
use crate::namespace::Namespace;
use crate::openstack::Cloud;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The API's address inside the host's namespace.
pub const API: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9696);
/// The longest that the process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The administrator's password, good for one run in a namespace that nobody else can reach.
const ADMIN_PASSWORD: &str = "only-for-this-run";

/// How to start it.
#[derive(Clone, Debug)]
pub struct WeftOptions {
    /// The binary.
    pub program: PathBuf,
    /// Physical networks and the interfaces that lead to them.
    pub physical_networks: Vec<(String, String)>,
    /// The interface towards other hosts, and the host's address there.
    pub underlay: Option<(String, IpAddr)>,
    /// Where the server listens for agents, which find it there: of an instance in several namespaces.
    pub feed: Option<SocketAddr>,
    /// Other servers of the same cloud, which its agents may ask as well.
    pub feed_also: Vec<SocketAddr>,
    /// The servers' PostgreSQL; otherwise SQLite in the lab's folder.
    pub store_url: Option<String>,
    /// Whether guests are attached by vhost-user, with sockets in the lab's folder.
    pub vhost_user: bool,
    /// Whether it removes its programs and maps when it ends.
    pub remove_on_stop: bool,
}

impl WeftOptions {
    /// The given binary, else the one that `WEFT` names, else that of this build; with the physical network `provider`
    /// on `uplink0`, and nothing left when it ends.
    ///
    /// # Errors
    /// There is none: says how to build it.
    pub fn new(program: Option<PathBuf>) -> Result<Self> {
        let beside = std::env::current_exe()?.ancestors().find_map(|directory| {
            let program = directory.join("weft");
            program.is_file().then_some(program)
        });
        let named = std::env::var_os("WEFT").map(PathBuf::from);
        let program = program.or(named).or(beside);
        let program = program.context("no weft binary: build it with `cargo build -p weft`")?;
        ensure!(program.is_file(), "{} is no file", program.display());
        let physical_networks = vec![("provider".to_owned(), "uplink0".to_owned())];
        Ok(Self {
            program,
            physical_networks,
            underlay: None,
            feed: None,
            feed_also: Vec::new(),
            store_url: None,
            vhost_user: false,
            remove_on_stop: true,
        })
    }
}

/// Where one instance keeps its things, and how to talk to it; whether it runs or not.
#[derive(Clone, Debug)]
pub struct Site {
    /// The name of the instance and of the host.
    pub name: String,
    /// The host's namespace.
    pub host: Namespace,
    /// Its configuration file.
    pub config: PathBuf,
    /// The agent's control socket.
    pub socket: PathBuf,
    /// What it says while it runs.
    pub log: PathBuf,
    program: PathBuf,
}

impl Site {
    /// Writes the configuration.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn new(lab: &Lab, host: &Namespace, options: &WeftOptions) -> Result<Self> {
        Self::named(lab, host, lab.run().to_owned(), "weft", options)
    }

    /// The same for one of several hosts of a lab, which is `<run>-<host>`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn of_host(
        lab: &Lab,
        namespace: &Namespace,
        host: &str,
        options: &WeftOptions,
    ) -> Result<Self> {
        let name = format!("{}-{host}", lab.run());
        Self::named(lab, namespace, name, host, options)
    }

    fn named(
        lab: &Lab,
        host: &Namespace,
        name: String,
        prefix: &str,
        options: &WeftOptions,
    ) -> Result<Self> {
        let file = |name: &str| lab.directory().join(format!("{prefix}{name}"));
        let site = Self {
            name,
            host: host.clone(),
            config: file(".toml"),
            socket: file(".sock"),
            log: file(".log"),
            program: options.program.clone(),
        };
        std::fs::write(&site.config, site.config_text(lab.directory(), options))?;
        Ok(site)
    }

    fn config_text(&self, directory: &Path, options: &WeftOptions) -> String {
        let underlay = options
            .underlay
            .as_ref()
            .map(|(interface, ip)| format!("underlay = \"{interface}\"\ntunnel_ip = \"{ip}\"\n"));
        let feed = options.feed.map(|feed| {
            let servers = std::iter::once(&feed).chain(&options.feed_also);
            let urls: Vec<String> = servers.map(|server| format!("http://{server}")).collect();
            let urls = urls.join(",");
            format!("[feed]\nlisten = \"{feed}\"\nurl = \"{urls}\"\n\n")
        });
        let store = match &options.store_url {
            Some(url) => format!("url = \"{url}\""),
            None => format!("path = \"{}\"", directory.join("weft.sqlite").display()),
        };
        let networks: Vec<String> = options
            .physical_networks
            .iter()
            .map(|(network, interface)| format!("{network} = \"{interface}\""))
            .collect();
        format!(
            "host = \"{name}\"\ninstance = \"{name}\"\n\n\
             [api]\nlisten = \"{API}\"\n\n{feed}\
             [store]\n{store}\n\n\
             [identity]\nadmin_password = \"{ADMIN_PASSWORD}\"\n\n\
             [agent]\nsocket = \"{socket}\"\nremove_on_stop = {remove}\n\
             {underlay}{vhost_user}physical_networks = {{ {networks} }}\n",
            vhost_user = match options.vhost_user {
                true => format!("vhost_user = {{ socket_folder = {directory:?} }}\n"),
                false => String::new(),
            },
            underlay = underlay.unwrap_or_default(),
            feed = feed.unwrap_or_default(),
            name = self.name,
            socket = self.socket.display(),
            remove = options.remove_on_stop,
            networks = networks.join(", "),
        )
    }

    /// One more setting of the agent; counts from its next start.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn agent_set(&self, setting: &str) -> Result<()> {
        // The agent's section is the last one.
        let mut config = std::fs::File::options().append(true).open(&self.config)?;
        Ok(writeln!(config, "{setting}")?)
    }

    /// The administrator's login.
    #[must_use]
    pub fn admin(&self) -> Cloud {
        Cloud {
            auth_url: format!("http://{API}/identity/v3"),
            username: "admin".to_owned(),
            password: ADMIN_PASSWORD.to_owned(),
            project: "admin".to_owned(),
        }
    }

    /// A weft command inside the host's namespace.
    ///
    /// # Errors
    /// The binary's path is not UTF-8.
    pub fn command(&self, arguments: &str) -> Result<Command> {
        let program = self
            .program
            .to_str()
            .context("the binary's path is not UTF-8")?;
        let mut command = self.host.command(program);
        command.args(arguments.split_whitespace());
        Ok(command)
    }

    /// What a question to the agent (`status`, `stats`, `trace …`) answers, as JSON.
    ///
    /// # Errors
    /// The command fails, or prints something else.
    pub fn ask(&self, arguments: &str) -> Result<Value> {
        let mut command = self.command(arguments)?;
        let text = output(command.arg("--json").arg("--socket").arg(&self.socket))?;
        serde_json::from_str(&text).with_context(|| format!("weft {arguments}: not JSON: {text}"))
    }

    /// The end of its log, for reports.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Starts `weft <role>` (`all-in-one`, `server`, `agent`) and waits until it is ready.
    ///
    /// # Errors
    /// It ends at once, or is not ready in time: with the end of its log.
    pub fn start(&self, lab: &Lab, role: &str) -> Result<Weft> {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let mut command = self.command(role)?;
        command.arg("--config").arg(&self.config);
        command
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log));
        let mut process = lab.spawn(&mut command)?;
        let ready = until("weft to be ready", READY_TIMEOUT, || {
            ensure!(process.is_running()?, "weft {role} ended at once");
            Ok(self.is_ready(role).then_some(()))
        });
        ready.with_context(|| format!("its log ends:\n{}", self.log_end()))?;
        Ok(Weft {
            site: self.clone(),
            process,
        })
    }

    fn is_ready(&self, role: &str) -> bool {
        let api = || {
            self.host
                .tcp_connect(API, Duration::from_millis(200))
                .is_ok()
        };
        let agent = || self.ask("status").is_ok();
        (role == "agent" || api()) && (role == "server" || agent())
    }

    /// Where its pins are.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        Path::new(PINS_DIR).join(&self.name)
    }
}

/// A running weft.
#[derive(Debug)]
pub struct Weft {
    /// Where its things are.
    pub site: Site,
    process: Process,
}

impl Weft {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its resident memory in KiB.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory_kib(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(Duration::from_secs(5)).map(drop)
    }

    /// Stops it as an administrator does.
    ///
    /// # Errors
    /// It does not end in time, or not with status 0.
    pub fn stop(self) -> Result<()> {
        let status = self.process.stop(Signal::TERM)?;
        if !status.success() {
            bail!(
                "weft ended with {status}; its log ends:\n{}",
                self.site.log_end()
            );
        }
        Ok(())
    }

    /// What it holds in the kernel now.
    ///
    /// # Errors
    /// As [`KernelObjects::of`].
    pub fn kernel_objects(&self) -> Result<KernelObjects> {
        KernelObjects::of(self.id())
    }
}
