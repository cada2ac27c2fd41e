//! The weft process under test: its configuration, its start and end, its own words, and what it left in the kernel.

use crate::clock::until;
use crate::command::{outcome, output, run};
use crate::lab::{Lab, PINS_DIR, Process};
use crate::namespace::Namespace;
use crate::openstack::Cloud;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The API's address inside the host's namespace.
pub const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9696);
/// The longest that the process may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest that the kernel may take to free what was let go.
const FREED_TIMEOUT: Duration = Duration::from_secs(10);
/// The administrator's password, good for one run in a namespace that nobody else can reach.
const ADMIN_PASSWORD: &str = "only-for-this-run";

/// How to start it.
#[derive(Clone, Debug)]
pub struct WeftOptions {
    /// The binary.
    pub program: PathBuf,
    /// Physical networks and the interfaces that lead to them.
    pub physical_networks: Vec<(String, String)>,
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
        let file = |name: &str| lab.directory().join(name);
        let site = Self {
            name: lab.run().to_owned(),
            host: host.clone(),
            config: file("weft.toml"),
            socket: file("agent.sock"),
            log: file("weft.log"),
            program: options.program.clone(),
        };
        std::fs::write(&site.config, site.config_text(lab.directory(), options))?;
        Ok(site)
    }

    fn config_text(&self, directory: &Path, options: &WeftOptions) -> String {
        let networks: Vec<String> = options
            .physical_networks
            .iter()
            .map(|(network, interface)| format!("{network} = \"{interface}\""))
            .collect();
        format!(
            "host = \"{name}\"\ninstance = \"{name}\"\n\n\
             [api]\nlisten = \"{API}\"\n\n\
             [store]\npath = \"{store}\"\n\n\
             [identity]\nadmin_password = \"{ADMIN_PASSWORD}\"\n\n\
             [agent]\nsocket = \"{socket}\"\nremove_on_stop = {remove}\n\
             physical_networks = {{ {networks} }}\n",
            name = self.name,
            store = directory.join("weft.sqlite").display(),
            socket = self.socket.display(),
            remove = options.remove_on_stop,
            networks = networks.join(", "),
        )
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

    /// What it holds in the kernel now: by its open files, its pins, and what hangs on these.
    ///
    /// # Errors
    /// The process is gone, or bpftool fails.
    pub fn kernel_objects(&self) -> Result<KernelObjects> {
        KernelObjects::of(self.id(), &self.site.pins())
    }
}

/// Programs, maps and links by their ids, which the kernel does not give twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelObjects {
    /// `prog`, `map` or `link`, and the id.
    pub ids: BTreeSet<(&'static str, u64)>,
}

impl KernelObjects {
    /// What a process holds by its open files, what is pinned below `pins`, and what hangs on these.
    ///
    /// # Errors
    /// The process is gone, or bpftool fails.
    pub fn of(process: u32, pins: &Path) -> Result<Self> {
        let mut objects = Self::default();
        for entry in std::fs::read_dir(format!("/proc/{process}/fdinfo"))? {
            // A file may be closed while the list is read.
            let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
            for (key, kind) in [
                ("prog_id:", "prog"),
                ("map_id:", "map"),
                ("link_id:", "link"),
            ] {
                let id = text
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
                objects.ids.extend(id.map(|id| (kind, id)));
            }
        }
        for pin in pins_below(pins) {
            for kind in ["prog", "map", "link"] {
                let shown = run(&format!("bpftool -j {kind} show pinned {}", pin.display()));
                let id = shown
                    .ok()
                    .and_then(|text| serde_json::from_str::<Value>(&text).ok()?["id"].as_u64());
                objects.ids.extend(id.map(|id| (kind, id)));
            }
        }
        objects.add_what_uses_them()?;
        Ok(objects)
    }

    /// Programs that use our maps, and links of our programs: held by the kernel alone.
    fn add_what_uses_them(&mut self) -> Result<()> {
        for program in list("prog")? {
            let maps = program["map_ids"].as_array().cloned().unwrap_or_default();
            let ours = maps
                .iter()
                .filter_map(Value::as_u64)
                .any(|id| self.ids.contains(&("map", id)));
            self.ids.extend(
                program["id"]
                    .as_u64()
                    .filter(|_| ours)
                    .map(|id| ("prog", id)),
            );
        }
        for link in list("link")? {
            let ours = link["prog_id"]
                .as_u64()
                .is_some_and(|id| self.ids.contains(&("prog", id)));
            self.ids
                .extend(link["id"].as_u64().filter(|_| ours).map(|id| ("link", id)));
        }
        Ok(())
    }

    /// How many there are of a kind.
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.ids.iter().filter(|(other, _)| *other == kind).count()
    }

    /// Those that are still there.
    ///
    /// # Errors
    /// bpftool cannot be run.
    pub fn left(&self) -> Result<Vec<String>> {
        let mut left = Vec::new();
        for (kind, id) in &self.ids {
            let mut command = Command::new("bpftool");
            let shown = outcome(command.args(["-j", kind, "show", "id", &id.to_string()]))?;
            if shown.status.success() {
                left.push(format!("{kind} {id}"));
            }
        }
        Ok(left)
    }

    /// Waits until none of them is there any more: the kernel frees some of them a little later.
    ///
    /// # Errors
    /// Some are still there: says which.
    pub fn wait_until_gone(&self) -> Result<()> {
        until(
            "the kernel to free programs and maps",
            FREED_TIMEOUT,
            || Ok(self.left()?.is_empty().then_some(())),
        )
        .with_context(|| format!("left: {}", self.left().unwrap_or_default().join(", ")))
    }
}

fn list(kind: &str) -> Result<Vec<Value>> {
    let text = run(&format!("bpftool -j {kind} show"))?;
    Ok(serde_json::from_str::<Value>(&text)?
        .as_array()
        .cloned()
        .unwrap_or_default())
}

fn pins_below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.flatten().map(|entry| entry.path());
    paths
        .flat_map(|path| {
            if path.is_dir() {
                pins_below(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}
