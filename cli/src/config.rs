//! The configuration file (TOML), documented in docs/operating/config.md.
//!
//! Guarantees: a file with a mistake is refused whole, with its name, the path of the field and what was expected; all
//! that a file does not say has a default, so that no file at all is a valid configuration.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use weft_agent::service::dhcp::LEASE_S_DEFAULT;
use weft_control::app::config::NetworkConfig;
use weft_control::identity::{IdentityConfig, IdentityMode, TOKEN_CACHE_S_MAX};
use weft_control::store::Durability;
use weft_control::{Database, NovaConfig};
use weft_model::{HostName, VhostUserHost, VhostUserMode, limits};

/// Bytes of a configuration file.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Characters of an instance's name: it is a directory under the BPF file system.
const INSTANCE_CHARS_MAX: usize = 32;
/// Bytes of an interface's name (IFNAMSIZ without its end).
const INTERFACE_BYTES_MAX: usize = 15;
/// Bytes of a unix socket's path (sun_path without its end).
const SOCKET_BYTES_MAX: usize = 107;

/// Seconds of a DHCP lease: shorter ones make guests ask all the time.
const DHCP_LEASE_S_MIN: u32 = 60;

/// What `store.url` may be.
const POSTGRESQL_URL: &str = "postgresql://user:password@host:port/database, or postgresql:///database?host=/the/socket's/folder";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} is larger than {CONFIG_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{}, line {line}: not TOML: {message}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        message: String,
    },
    #[error("{}, line {line}: at {field}: {message}", path.display())]
    Field {
        path: PathBuf,
        line: usize,
        field: String,
        message: String,
    },
    #[error("{}: at {field}: expected {expected}", path.display())]
    Value {
        path: PathBuf,
        field: String,
        expected: String,
    },
}

/// Everything that can be set.
// No Debug: it holds a password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// This host, as in `binding:host_id`.
    pub(crate) host: HostName,
    /// Owns what the kernel engine makes: `<bpffs>/weft/<instance>`.
    pub(crate) instance: String,
    /// What is logged: `info`, or by target: `warn,weft_agent=debug`.
    pub(crate) log: String,
    pub(crate) api: Api,
    pub(crate) feed: Feed,
    pub(crate) store: Store,
    pub(crate) network: NetworkConfig,
    /// Without an `admin_password` the first start makes one and keeps it beside the database.
    pub(crate) identity: IdentityConfig,
    pub(crate) nova: NovaConfig,
    pub(crate) agent: Agent,
}

/// `[api]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Api {
    /// Where the Networking API and identity listen.
    pub(crate) listen: SocketAddr,
    /// The URL that clients reach it by, for the catalogue; by default the one that each request came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    /// Rules in the place of the default ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy_file: Option<PathBuf>,
}

/// `[feed]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Feed {
    /// Where the server listens for agents.
    pub(crate) listen: SocketAddr,
    /// Where the agent finds the servers, with commas between them; by default the address above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// What agents know this server by; with any, the feed speaks TLS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tls_names: Vec<String>,
    /// Where an agent keeps its certificate, and looks for a token to join with.
    pub(crate) identity_folder: PathBuf,
}

/// `[store]`
// No Debug: the URL may hold a password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Store {
    /// The SQLite file, unless there is a `url`.
    pub(crate) path: PathBuf,
    /// The PostgreSQL database, which several servers may share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// `full`: a commit survives a power cut; `process`: it survives Weft's own death.
    pub(crate) durability: Durability,
}

/// `[agent]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Agent {
    /// The control socket, which `weft status`, `stats` and `trace` ask.
    pub(crate) socket: PathBuf,
    /// The BPF file system.
    pub(crate) bpffs: PathBuf,
    /// Physical networks, and the interfaces that lead to them.
    pub(crate) physical_networks: BTreeMap<String, String>,
    /// The interface that leads to other hosts: tunnels go out and come in there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) underlay: Option<String>,
    /// This host's address there; other hosts send to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_ip: Option<IpAddr>,
    /// Whether ending removes programs, maps and links; without it packets go on while Weft is away.
    pub(crate) remove_on_stop: bool,
    /// Sessions of the host.
    pub(crate) sessions_max: u32,
    /// Sessions that one port may hold.
    pub(crate) sessions_per_port_max: u32,
    /// Memberships of security groups that there is room for.
    pub(crate) group_members_max: u32,
    /// Guest ports of the host.
    pub(crate) ports_max: u32,
    /// Seconds of a DHCP lease.
    pub(crate) dhcp_lease_s: u32,
    /// Guests by vhost-user.
    pub(crate) vhost_user: VhostUser,
}

/// `[agent.vhost_user]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VhostUser {
    /// The folder of the sockets of guests that are bound to this host from now on; without it they get taps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) socket_folder: Option<String>,
    /// Whether the guest's front-end listens on its socket; else Weft does.
    pub(crate) guest_listens: bool,
    /// The CPUs that poll the guests' rings, a thread each; without any it is one thread, anywhere.
    pub(crate) cpus: Vec<usize>,
    /// Where sessions are kept over a restart; empty: nowhere. Without it beside the control socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sessions_file: Option<PathBuf>,
}

impl VhostUser {
    /// Where sessions are kept over a restart, if they are. `socket` is the control socket.
    pub(crate) fn sessions_file(&self, socket: &Path) -> Option<PathBuf> {
        match &self.sessions_file {
            Some(path) if path.as_os_str().is_empty() => None,
            Some(path) => Some(path.clone()),
            None => Some(socket.with_extension("sessions")),
        }
    }

    /// As the server is told.
    pub(crate) fn host(&self) -> Option<VhostUserHost> {
        Some(VhostUserHost {
            socket_folder: self.socket_folder.clone()?,
            mode: if self.guest_listens {
                VhostUserMode::Server
            } else {
                VhostUserMode::Client
            },
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host: host_name(),
            instance: "weft".to_owned(),
            log: "info".to_owned(),
            api: Api::default(),
            feed: Feed::default(),
            store: Store::default(),
            network: NetworkConfig::default(),
            identity: IdentityConfig::default(),
            nova: NovaConfig::default(),
            agent: Agent::default(),
        }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 9696).into(),
            public_url: None,
            policy_file: None,
        }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 9697).into(),
            url: None,
            tls_names: Vec::new(),
            identity_folder: "/var/lib/weft/feed".into(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            path: "/var/lib/weft/weft.sqlite".into(),
            url: None,
            durability: Durability::Full,
        }
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            socket: DEFAULT_SOCKET.into(),
            bpffs: "/sys/fs/bpf".into(),
            physical_networks: BTreeMap::new(),
            underlay: None,
            tunnel_ip: None,
            remove_on_stop: false,
            sessions_max: limits::SESSIONS_MAX_DEFAULT,
            sessions_per_port_max: limits::SESSIONS_PER_PORT_MAX_DEFAULT,
            group_members_max: limits::GROUP_MEMBERS_MAX_DEFAULT,
            ports_max: 1_024,
            dhcp_lease_s: LEASE_S_DEFAULT,
            vhost_user: VhostUser::default(),
        }
    }
}

/// Where the agent's control socket is, unless the configuration says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/weft/agent.sock";

/// The system's name, or `localhost` if it has none that a host can have here.
fn host_name() -> HostName {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let fallback = || "localhost".parse().expect("it is a host name");
    name.trim().parse().unwrap_or_else(|_bad| fallback())
}

impl Config {
    /// Reads and checks a file, or gives the defaults.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        if std::fs::metadata(path).map_err(read)?.len() > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLarge {
                path: path.to_owned(),
            });
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, path)
    }

    /// Reads and checks a text; `path` is only for the message.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let line = |error: &toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start);
            text.bytes()
                .take(start)
                .filter(|byte| *byte == b'\n')
                .count()
                + 1
        };
        let toml = toml::Deserializer::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line(&error),
            message: error.message().to_owned(),
        })?;
        let config: Self =
            serde_path_to_error::deserialize(toml).map_err(|error| ConfigError::Field {
                path: path.to_owned(),
                line: line(error.inner()),
                field: error.path().to_string(),
                message: error.inner().message().replace(
                    "invalid socket address syntax",
                    "expected an address and a port, such as 0.0.0.0:9696",
                ),
            })?;
        config
            .check()
            .map_err(|(field, expected)| ConfigError::Value {
                path: path.to_owned(),
                field,
                expected,
            })?;
        Ok(config)
    }

    /// The first value that is well-formed and wrong: where, and what was expected.
    pub(crate) fn check(&self) -> Result<(), (String, String)> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = &self.instance;
        if !(1..=INSTANCE_CHARS_MAX).contains(&name.len())
            || !name.chars().all(good)
            || name.starts_with('.')
        {
            return wrong(
                "instance",
                "1 to 32 characters out of A-Z a-z 0-9 - _ . (no . first)",
            );
        }
        if self
            .log
            .parse::<tracing_subscriber::filter::Targets>()
            .is_err()
        {
            return wrong(
                "log",
                "a level such as info, or target=level, with commas between",
            );
        }
        if self.feed.url.as_ref().is_some_and(|url| !same_scheme(url)) {
            return wrong(
                "feed.url",
                "http://host:port or https://host:port, several of one kind with commas between",
            );
        }
        if self
            .api
            .public_url
            .as_ref()
            .is_some_and(|url| !url.starts_with("http"))
        {
            return wrong("api.public_url", "http://… or https://…");
        }
        let network = self.network.check();
        network.map_err(|(field, expected)| (format!("network.{field}"), expected))?;
        for name in &self.feed.tls_names {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            if name.parse::<IpAddr>().is_err() && (name.is_empty() || !name.chars().all(good)) {
                return wrong("feed.tls_names", "names of hosts, or addresses");
            }
        }
        if self.identity.token_lifetime_s == 0 {
            return wrong("identity.token_lifetime_s", "at least 1");
        }
        if self.identity.mode == IdentityMode::Keystone
            && let Err((field, expected)) = self.identity.keystone.check()
        {
            return wrong(&format!("identity.keystone.{field}"), expected);
        }
        self.store.check()?;
        if self.store.url.is_some()
            && self.identity.mode == IdentityMode::Builtin
            && self.identity.admin_password.is_none()
        {
            // A password that one server makes up is of no use to the others.
            return wrong(
                "identity.admin_password",
                "a password, because store.url is set",
            );
        }
        if !["public", "internal", "admin"].contains(&self.nova.interface.as_str()) {
            return wrong("nova.interface", "public, internal or admin");
        }
        if self.identity.keystone.token_cache_s > TOKEN_CACHE_S_MAX {
            let expected = format!("0 to {TOKEN_CACHE_S_MAX}");
            return wrong("identity.keystone.token_cache_s", &expected);
        }
        if self.nova.notify && self.nova.auth.password.is_empty() {
            return wrong("nova.auth.password", "the password of nova.auth.username");
        }
        if self.identity.admin_password.as_deref() == Some("") {
            return wrong("identity.admin_password", "at least one character");
        }
        self.agent.check()
    }

    /// Where the agent finds the feed, if it is not told.
    pub(crate) fn feed_url(&self, listen: SocketAddr) -> String {
        let here = here(listen);
        let here = match self.feed.tls_names.first() {
            None => format!("http://{here}"),
            Some(name) => match name.parse::<IpAddr>() {
                Ok(ip) => format!("https://{}", SocketAddr::new(ip, listen.port())),
                Err(_a_name) => format!("https://{name}:{}", listen.port()),
            },
        };
        self.feed.url.clone().unwrap_or(here)
    }
}

/// Where a server that listens there is found from this host: one that listens everywhere is here too.
pub(crate) fn here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Whether all of the URLs are plain, or all with TLS.
fn same_scheme(urls: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| urls.split(',').all(|url| url.trim().starts_with(scheme)))
}

impl Store {
    fn check(&self) -> Result<(), (String, String)> {
        if self.path.as_os_str().is_empty() {
            return wrong("store.path", "a file's path");
        }
        let good = |url: &str| url.starts_with("postgresql://") || url.starts_with("postgres://");
        match &self.url {
            Some(url) if !good(url) => wrong("store.url", POSTGRESQL_URL),
            _ => Ok(()),
        }
    }

    /// Where all rows are.
    pub(crate) fn database(&self) -> Database {
        match &self.url {
            Some(url) => Database::Postgresql(url.clone()),
            None => Database::Sqlite(self.path.clone()),
        }
    }
}

impl Agent {
    fn check(&self) -> Result<(), (String, String)> {
        let agent = self;
        if !(1..=SOCKET_BYTES_MAX).contains(&agent.socket.as_os_str().len()) {
            return wrong("agent.socket", "a path of 1 to 107 bytes");
        }
        let is_name = |interface: &String| {
            (1..=INTERFACE_BYTES_MAX).contains(&interface.len())
                && interface.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        };
        if agent.underlay.as_ref().is_some_and(|name| !is_name(name)) {
            return wrong("agent.underlay", "an interface's name of 1 to 15 bytes");
        }
        if agent.underlay.is_some() != agent.tunnel_ip.is_some() {
            return wrong("agent.tunnel_ip", "both underlay and tunnel_ip, or neither");
        }
        let own = |ip: IpAddr| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast();
        if agent.tunnel_ip.is_some_and(|ip| !own(ip)) {
            return wrong("agent.tunnel_ip", "an address that other hosts can reach");
        }
        for (network, interface) in &agent.physical_networks {
            if !is_name(interface) {
                let field = format!("agent.physical_networks.{network}");
                return wrong(&field, "an interface's name of 1 to 15 bytes");
            }
            let mut others = agent.physical_networks.iter();
            if others.any(|(other, taken)| other < network && taken == interface) {
                let field = format!("agent.physical_networks.{network}");
                return wrong(&field, "an interface that no other physical network has");
            }
        }
        let folder = agent.vhost_user.socket_folder.as_deref();
        let good = |folder: &str| {
            folder.starts_with('/') && folder.len() <= limits::SOCKET_FOLDER_BYTES_MAX
        };
        if !folder.is_none_or(good) {
            let expected = format!(
                "an absolute path of at most {} bytes",
                limits::SOCKET_FOLDER_BYTES_MAX
            );
            return wrong("agent.vhost_user.socket_folder", &expected);
        }
        let sessions_file = agent.vhost_user.sessions_file.as_deref();
        if !sessions_file.is_none_or(|path| path.as_os_str().is_empty() || path.is_absolute()) {
            let expected = "an absolute path on a tmpfs, or nothing between the quotes";
            return wrong("agent.vhost_user.sessions_file", expected);
        }
        if agent.sessions_max == 0 {
            return wrong("agent.sessions_max", "at least 1");
        }
        if !(1..=agent.sessions_max).contains(&agent.sessions_per_port_max) {
            return wrong("agent.sessions_per_port_max", "1 to agent.sessions_max");
        }
        let members_max = usize::try_from(agent.group_members_max).unwrap_or(usize::MAX);
        if !(1..=limits::GROUP_MEMBERS_PER_HOST_MAX).contains(&members_max) {
            let expected = format!("1 to {}", limits::GROUP_MEMBERS_PER_HOST_MAX);
            return wrong("agent.group_members_max", &expected);
        }
        if agent.dhcp_lease_s < DHCP_LEASE_S_MIN {
            return wrong(
                "agent.dhcp_lease_s",
                &format!("at least {DHCP_LEASE_S_MIN}"),
            );
        }
        let ports_max = usize::try_from(agent.ports_max).unwrap_or(usize::MAX);
        if !(1..=limits::PORTS_PER_HOST_MAX).contains(&ports_max) {
            return wrong(
                "agent.ports_max",
                &format!("1 to {}", limits::PORTS_PER_HOST_MAX),
            );
        }
        Ok(())
    }
}

/// A value that is well-formed and wrong.
fn wrong(field: &str, expected: &str) -> Result<(), (String, String)> {
    Err((field.to_owned(), expected.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = Config::parse(text, Path::new("weft.toml")).err().unwrap();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    #[test]
    fn no_file_and_an_empty_one_are_the_defaults() {
        assert!(Config::load(None).unwrap() == Config::default());
        assert!(Config::parse("", Path::new("weft.toml")).unwrap() == Config::default());
        Config::default().check().unwrap();
        let url = |listen: &str| Config::default().feed_url(listen.parse().unwrap());
        assert_eq!(
            (url("0.0.0.0:1"), url("[::]:2")),
            ("http://127.0.0.1:1".into(), "http://[::1]:2".into())
        );
    }

    #[test]
    fn the_documented_example_parses_and_says_the_defaults() {
        let text = include_str!("../../docs/operating/config.md");
        let start = text.find("```toml\n").expect("an example") + "```toml\n".len();
        let example = &text[start..start + text[start..].find("```").expect("its end")];
        let config = Config::parse(example, Path::new("config.md")).unwrap();
        // What an example must choose itself; everything else it says is the default.
        let mut default = Config {
            host: "compute-1".parse().unwrap(),
            ..Config::default()
        };
        default.identity.admin_password = Some("change-me".to_owned());
        default.agent.physical_networks = [("provider".to_owned(), "eth1".to_owned())].into();
        let text = |config: &Config| toml::to_string_pretty(config).unwrap();
        assert_eq!(text(&config), text(&default));
        // No field goes undocumented.
        let fields = toml::Table::try_from(&config).unwrap();
        for (name, value) in &fields {
            assert!(example.contains(name), "{name} is not in the example");
            for name in value.as_table().into_iter().flat_map(toml::Table::keys) {
                assert!(example.contains(name), "{name} is not in the example");
            }
        }
    }

    #[test]
    fn a_mistake_is_named_with_file_field_and_what_was_expected() {
        let long = "x".repeat(33);
        let cases = [
            (
                "host = \"a b\"",
                "weft.toml, line 1: at host: \"a b\" is not a host name",
            ),
            (
                "[api]\nlisten = 9696",
                "weft.toml, line 2: at api.listen: invalid type: integer `9696`",
            ),
            (
                "[api]\nlisten = \"localhost\"",
                "at api.listen: expected an address and a port",
            ),
            (
                "[agent]\nsoket = \"x\"",
                "at agent.soket: unknown field `soket`, expected one of `socket`",
            ),
            (
                "[agent]\nremove_on_stop = \"yes\"",
                "at agent.remove_on_stop: invalid type: string \"yes\", expected a boolean",
            ),
            (
                "[agent.physical_networks]\nprovider = 7",
                "at agent.physical_networks.provider: invalid type",
            ),
            (
                "[agent.physical_networks]\nprovider = \"a/b\"",
                "at agent.physical_networks.provider: expected an interface's name",
            ),
            (
                "[agent.physical_networks]\na = \"eth1\"\nb = \"eth1\"",
                "at agent.physical_networks.b: expected an interface that no other",
            ),
            (
                "[agent]\nsessions_max = -1",
                "at agent.sessions_max: invalid value: integer `-1`, expected u32",
            ),
            (
                "[agent]\nsessions_max = 5",
                "at agent.sessions_per_port_max: expected 1 to agent.sessions_max",
            ),
            (
                "[agent.vhost_user]\nsessions_file = \"run\"",
                "at agent.vhost_user.sessions_file: expected an absolute path",
            ),
            (
                "[agent.vhost_user]\nsocket_folder = \"run\"",
                "at agent.vhost_user.socket_folder: expected an absolute path",
            ),
            (
                "[agent]\ndhcp_lease_s = 59",
                "at agent.dhcp_lease_s: expected at least 60",
            ),
            (
                "[agent]\nports_max = 4097",
                "at agent.ports_max: expected 1 to 4096",
            ),
            (
                "[agent]\ngroup_members_max = 0",
                "at agent.group_members_max: expected 1 to 1048576",
            ),
            (
                "[agent]\ngroup_members_max = 1048577",
                "at agent.group_members_max: expected 1 to 1048576",
            ),
            (
                "[store]\npath = \"\"",
                "at store.path: expected a file's path",
            ),
            (
                "[store]\nurl = \"mysql://db/weft\"",
                "at store.url: expected postgresql://user:password@host:port/database, or",
            ),
            (
                "[store]\nurl = \"postgresql:///weft\"",
                "at identity.admin_password: expected a password, because store.url is set",
            ),
            (
                "[store]\ndurability = \"maybe\"",
                "at store.durability: unknown variant `maybe`, expected `full` or `process`",
            ),
            (
                "instance = \"../x\"",
                "at instance: expected 1 to 32 characters",
            ),
            (
                &format!("instance = \"{long}\""),
                "at instance: expected 1 to 32 characters",
            ),
            (
                "[feed]\nurl = \"ftp://x\"",
                "at feed.url: expected http://host:port or https://host:port, several of one kind with commas between",
            ),
            (
                "[network]\nmtu = 67",
                "at network.mtu: expected 68 to 65535",
            ),
            (
                "[network]\ntunnel_id_range = { first = 5, last = 4 }",
                "at network.tunnel_id_range: expected",
            ),
            (
                "[network.vlan_ranges]\np = { first = 0, last = 4 }",
                "at network.vlan_ranges.p: expected",
            ),
            (
                "[network]\nphysical_networks = [\"q\"]\nvlan_ranges = { p = { first = 1, last = 4 } }",
                "at network.vlan_ranges.p: expected one of network.physical_networks",
            ),
            (
                "[network]\ndns_domain = \"bad domain!\"",
                "at network.dns_domain: expected a domain",
            ),
            (
                "[network.quotas]\nprot = 5",
                "at network.quotas.prot: expected one of floatingip",
            ),
            (
                "[network.quotas]\nport = -7",
                "at network.quotas.port: expected -1",
            ),
            (
                "[nova]\ninterface = \"foo\"",
                "at nova.interface: expected public",
            ),
            (
                "[feed]\ntls_names = [\"bad name!\"]",
                "at feed.tls_names: expected",
            ),
            (
                "[identity.keystone]\ntoken_cache_s = 500",
                "at identity.keystone.token_cache_s: expected 0 to 300",
            ),
            (
                "[network]\ndefault_network_type = \"token-ring\"",
                "at network.default_network_type: unknown variant",
            ),
            (
                "[identity]\ntoken_lifetime_s = 0",
                "at identity.token_lifetime_s: expected",
            ),
            ("[api]\npublic_url = \"x\"", "at api.public_url: expected"),
            ("log = \"a=b=c\"", "at log: expected a level"),
            ("host = ", "weft.toml, line 1: not TOML: "),
            (
                "[nonsense]",
                "unknown field `nonsense`, expected one of `host`",
            ),
        ];
        for (text, expected) in cases {
            let error = error(text).replace('\n', " ");
            assert!(
                error.contains(expected),
                "{text:?} gave {error:?}, not {expected:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_missing_or_too_large_is_named() {
        let missing = Config::load(Some(Path::new("/nonexistent/weft.toml")))
            .err()
            .unwrap();
        assert_eq!(missing.to_string(), "cannot read /nonexistent/weft.toml");
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(CONFIG_BYTES_MAX + 1).unwrap();
        assert!(matches!(
            Config::load(Some(file.path())),
            Err(ConfigError::TooLarge { .. })
        ));
        file.as_file().set_len(0).unwrap();
        assert!(Config::load(Some(file.path())).unwrap() == Config::default());
    }
}
