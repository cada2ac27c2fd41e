//! The command line.

use crate::config::{Config, ConfigError, DEFAULT_SOCKET};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use weft_agent::socket::{SESSIONS_DEFAULT, SESSIONS_MAX};
use weft_model::{HostName, NetworkId, PortId};

/// The networking of an OpenStack-style cloud: one control plane, and on every host programs in the kernel.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true)]
pub(crate) struct Arguments {
    /// Print JSON: answers as one value, logs as one value a line.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the control plane and this host's agent in one process.
    AllInOne(AllInOne),
    /// Run the control plane: the Networking API, identity, and the feed for agents.
    Server(Server),
    /// Run this host's agent.
    Agent(Agent),
    /// Run this host's engines from a snapshot file, without a control plane; reload when the file changes or on SIGHUP.
    Run(Run),
    /// Show what happens to a packet, stage by stage.
    Trace(Trace),
    /// Show what this host's agent is doing.
    Status(Ask),
    /// Show counters, and why packets were dropped.
    Stats(Stats),
    /// Show tracked connections.
    Sessions(Sessions),
    /// Capture frames of ports, physical networks and tunnels, as a pcapng file.
    Capture(Capture),
    /// Plug ports into guests under QEMU, or boot a small one: `weft guest --help`.
    #[command(disable_help_flag = true)]
    Guest {
        /// What the program weft-guest is told.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Print the environment that the openstack client needs, for `eval $(weft openrc)`.
    Openrc(Openrc),
    /// Say which hosts may join the feed.
    #[command(subcommand)]
    Feed(Feed),
    /// Deal with Keystone.
    #[command(subcommand)]
    Identity(Identity),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// What all daemons take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The configuration file; see docs/operating/config.md.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This host, as in binding:host_id.
    #[arg(long, value_name = "NAME")]
    host: Option<HostName>,
    /// What is logged: error, warn, info, debug, trace, or by target.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

/// What a control plane takes.
#[derive(Debug, Args)]
pub(crate) struct Control {
    /// Where the Networking API and identity listen.
    #[arg(long, value_name = "ADDRESS:PORT")]
    api_listen: Option<SocketAddr>,
    /// Where the feed listens for agents.
    #[arg(long, value_name = "ADDRESS:PORT")]
    feed_listen: Option<SocketAddr>,
    /// The SQLite file.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

/// What a host's side takes.
#[derive(Debug, Args)]
pub(crate) struct Host {
    /// Owns what is made in the kernel: <bpffs>/weft/<instance>.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// The BPF file system.
    #[arg(long, value_name = "PATH")]
    bpffs: Option<PathBuf>,
    /// A physical network and the interface that leads to it; may be repeated.
    #[arg(long, value_name = "NETWORK=INTERFACE", value_parser = physical_network)]
    physical_network: Vec<(String, String)>,
    /// Remove all that this instance made in the kernel when it ends.
    #[arg(long)]
    remove_on_exit: bool,
}

/// Where the agent is asked.
#[derive(Debug, Args)]
pub(crate) struct ControlSocket {
    /// The control socket.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AllInOne {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) control: Control,
    #[command(flatten)]
    pub(crate) host: Host,
    #[command(flatten)]
    pub(crate) control_socket: ControlSocket,
}

#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) control: Control,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) host: Host,
    #[command(flatten)]
    pub(crate) control_socket: ControlSocket,
    /// Where the server's feed is.
    #[arg(long, value_name = "URL")]
    pub(crate) feed_url: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) host: Host,
    /// The snapshot (JSON): all that this host must do.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: PathBuf,
    /// PORT=PATH: the vhost-user socket of a port, named by its id or dns_name; may be repeated, and runs the user engine
    /// alone, without the kernel's. underlay=PATH: the vhost-user socket of its link to other hosts. PATH: the control socket.
    #[arg(long, value_name = "PORT=PATH|PATH", value_parser = run_socket)]
    pub(crate) socket: Vec<RunSocket>,
    /// The interface that leads to other hosts, for the switch alone, by AF_XDP. Its tunnel address must not be the kernel's.
    #[arg(long, value_name = "INTERFACE", requires = "socket")]
    pub(crate) underlay: Option<String>,
    /// The CPUs that poll the vhost-user sockets, a thread each; by default one thread, anywhere.
    #[arg(
        long,
        value_name = "NUMBER,…",
        requires = "socket",
        value_delimiter = ','
    )]
    pub(crate) cpu: Vec<usize>,
    /// Where the vhost-user sockets' sessions are kept over a restart, best on a tmpfs such as /run; by default they are not.
    #[arg(long, value_name = "PATH", requires = "socket")]
    pub(crate) sessions_file: Option<PathBuf>,
}

/// A resource's id.
fn id<T: FromStr>(text: &str) -> Result<T, String> {
    let wrong = |_wrong| "expected a whole UUID".to_owned();
    text.parse().map_err(wrong)
}

/// What `weft run` takes as a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunSocket {
    /// A port's.
    Port(String, PathBuf),
    /// The control socket.
    Control(PathBuf),
}

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// The agent's control socket.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// Only this port.
    #[arg(long, value_name = "ID", value_parser = id::<PortId>)]
    pub(crate) port: Option<PortId>,
    /// Show it again every so many seconds, with rates, until interrupted.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1",
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) watch: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Sessions {
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// How many at most.
    #[arg(long, value_name = "NUMBER", default_value_t = SESSIONS_DEFAULT,
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=SESSIONS_MAX as u64))]
    pub(crate) limit: usize,
}

/// A packet to trace: a frame, or addresses.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    weft trace --port 5a1e… --to 192.0.2.20 --proto tcp --dport 22\n  \
    weft trace --network 77c0… --from 198.51.100.7 --to 203.0.113.20 --proto icmp\n  \
    weft trace --port 5a1e… --frame fa163e000001fa163e0000020800…")]
pub(crate) struct Trace {
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// The guest's port that the packet comes from.
    #[arg(long, value_name = "ID", value_parser = id::<PortId>, required_unless_present = "network")]
    pub(crate) port: Option<PortId>,
    /// The physical network that the packet comes from.
    #[arg(long, value_name = "ID", value_parser = id::<NetworkId>, conflicts_with = "port")]
    pub(crate) network: Option<NetworkId>,
    /// The whole frame in hex digits, from the Ethernet header on.
    #[arg(long, value_name = "HEX", required_unless_present = "to", conflicts_with_all = ["to", "from", "proto", "sport", "dport"])]
    pub(crate) frame: Option<String>,
    /// The destination address.
    #[arg(long, value_name = "IP")]
    pub(crate) to: Option<IpAddr>,
    /// The source address; by default the port's first of that family.
    #[arg(long, value_name = "IP")]
    pub(crate) from: Option<IpAddr>,
    /// The protocol: tcp, udp, sctp, dccp, udplite, icmp (ICMPv6 for IPv6 addresses), or a number.
    #[arg(long, value_name = "PROTOCOL", default_value = "icmp")]
    pub(crate) proto: String,
    /// The source port (ICMP: the identifier).
    #[arg(long, value_name = "PORT", default_value_t = 40_000)]
    pub(crate) sport: u16,
    /// The destination port.
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) dport: u16,
}

/// What is captured, and for how long.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --port, --network and --underlay: all that this host has. Examples:\n  \
    weft capture --port 5a1e… --why --write vm.pcapng\n  \
    weft capture --port 5a1e… | tcpdump -nr - icmp"
)]
pub(crate) struct Capture {
    #[command(flatten)]
    pub(crate) ask: Ask,
    /// A guest's port; may be repeated.
    #[arg(long, value_name = "ID", value_parser = id::<PortId>)]
    pub(crate) port: Vec<PortId>,
    /// The interface of a physical network, by a network on it; may be repeated.
    #[arg(long, value_name = "ID", value_parser = id::<NetworkId>)]
    pub(crate) network: Vec<NetworkId>,
    /// The interface that leads to other hosts.
    #[arg(long)]
    pub(crate) underlay: bool,
    /// The file; without one it goes to standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    /// Bytes of a frame that are kept.
    #[arg(long, value_name = "BYTES", default_value_t = 65_600, value_parser = clap::value_parser!(u32).range(14..=65_600))]
    pub(crate) bytes: u32,
    /// End after so many frames.
    #[arg(long, value_name = "FRAMES", default_value_t = u64::MAX, hide_default_value = true,
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Comment each frame that comes in with what becomes of it, as `weft trace` would say: delivered where, or dropped by what.
    #[arg(long)]
    pub(crate) why: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Openrc {
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// Put the Networking API into Keystone's catalogue, as the admin of the OS_ environment or as the configured user.
    Register(Register),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Feed {
    /// Print a token with which the agent of a host joins once; on a server, for it goes to the database.
    Token(FeedToken),
    /// Take back a host's certificates and tokens: its streams end within seconds, and it must join anew.
    Revoke(FeedRevoke),
}

#[derive(Debug, Args)]
pub(crate) struct FeedToken {
    /// The host, as in binding:host_id.
    pub(crate) host: HostName,
    /// Seconds for which the token may be used.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600, value_parser = clap::value_parser!(u32).range(1..=2_592_000))]
    pub(crate) valid: u32,
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct FeedRevoke {
    /// The host, as in binding:host_id.
    pub(crate) host: HostName,
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The configuration file of the server.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The API's URL; by default api.public_url, or where it listens.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
}

fn physical_network(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((network, interface)) if !network.is_empty() && !interface.is_empty() => {
            Ok((network.to_owned(), interface.to_owned()))
        }
        _ => Err("expected NETWORK=INTERFACE, such as provider=eth1".to_owned()),
    }
}

impl Run {
    /// The ports' sockets, and the control socket.
    #[allow(clippy::type_complexity, reason = "a list of pairs and an option")]
    pub(crate) fn sockets(&self) -> anyhow::Result<(Vec<(String, PathBuf)>, Option<PathBuf>)> {
        let (mut ports, mut control) = (Vec::new(), None);
        for socket in &self.socket {
            match socket {
                RunSocket::Port(port, path) => ports.push((port.clone(), path.clone())),
                RunSocket::Control(path) if control.is_none() => control = Some(path.clone()),
                RunSocket::Control(path) => anyhow::bail!(
                    "--socket {}: a second control socket; a port's socket is given as PORT=PATH",
                    path.display()
                ),
            }
        }
        Ok((ports, control))
    }
}

fn run_socket(text: &str) -> Result<RunSocket, String> {
    match text.split_once('=') {
        Some((port, path)) if !port.is_empty() && !path.is_empty() => {
            Ok(RunSocket::Port(port.to_owned(), path.into()))
        }
        None if !text.is_empty() => Ok(RunSocket::Control(text.into())),
        _ => Err(
            "expected PORT=PATH, such as vm0=/run/weft/vm0.sock, or the control socket's PATH"
                .to_owned(),
        ),
    }
}

impl Common {
    fn load(self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.config.as_deref())?;
        set(&mut config.host, self.host);
        set(&mut config.log, self.log);
        Ok(config)
    }
}

impl Control {
    fn set(self, config: &mut Config) {
        set(&mut config.api.listen, self.api_listen);
        set(&mut config.feed.listen, self.feed_listen);
        set(&mut config.store.path, self.store);
    }
}

impl Host {
    fn set(self, config: &mut Config) {
        set(&mut config.instance, self.instance);
        set(&mut config.agent.bpffs, self.bpffs);
        config.agent.physical_networks.extend(self.physical_network);
        config.agent.remove_on_stop |= self.remove_on_exit;
    }
}

fn set<T>(field: &mut T, flag: Option<T>) {
    if let Some(flag) = flag {
        *field = flag;
    }
}

/// The file's values under the flags', checked.
pub(crate) fn config(
    common: Common,
    control: Option<Control>,
    host: Option<(Host, Option<PathBuf>)>,
    feed_url: Option<String>,
) -> Result<Config, ConfigError> {
    let mut config = common.load()?;
    if let Some(control) = control {
        control.set(&mut config);
    }
    if let Some((host, control_socket)) = host {
        host.set(&mut config);
        set(&mut config.agent.socket, control_socket);
    }
    if feed_url.is_some() {
        config.feed.url = feed_url;
    }
    let value = |(field, expected)| ConfigError::Value {
        path: Path::new("the command line").to_owned(),
        field,
        expected,
    };
    config.check().map_err(value)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_go_before_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = "host = \"a\"\n[agent.physical_networks]\none = \"eth1\"\ntwo = \"eth2\"\n";
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let line = format!(
            "weft all-in-one --config {} --host b --api-listen 127.0.0.1:1 --store /x/y \
             --physical-network two=eth9 --remove-on-exit --instance i --json",
            file.path().display()
        );
        let arguments = parse(&line).unwrap();
        assert!(arguments.json);
        let Command::AllInOne(args) = arguments.command else {
            panic!("all-in-one")
        };
        let config = config(
            args.common,
            Some(args.control),
            Some((args.host, args.control_socket.socket)),
            None,
        )
        .unwrap();
        assert_eq!((config.host.as_str(), config.instance.as_str()), ("b", "i"));
        assert_eq!(config.api.listen.port(), 1);
        assert_eq!(config.store.path, Path::new("/x/y"));
        let networks: Vec<_> = config.agent.physical_networks.into_iter().collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(networks, [pair("one", "eth1"), pair("two", "eth9")]);
        assert!(config.agent.remove_on_stop);
    }

    #[test]
    fn a_socket_of_run_is_a_port_s_or_the_control_socket() {
        let line = "weft run --snapshot f --socket vm0=/a --socket /b --socket vm1=/c=d --cpu 1,0";
        let Command::Run(run) = parse(line).unwrap().command else {
            panic!("run")
        };
        let port = |name: &str, path: &str| RunSocket::Port(name.to_owned(), path.into());
        let wanted = [
            port("vm0", "/a"),
            RunSocket::Control("/b".into()),
            port("vm1", "/c=d"),
        ];
        assert_eq!((run.socket, run.cpu), (wanted.to_vec(), vec![1, 0]));
    }

    #[test]
    fn mistakes_on_the_command_line_are_refused() {
        let port = PortId::random();
        for bad in [
            "weft".to_owned(),
            "weft sing".to_owned(),
            "weft all-in-one --host a/b".to_owned(),
            "weft all-in-one --physical-network eth1".to_owned(),
            "weft run".to_owned(),
            "weft run --snapshot f --socket vm0=".to_owned(),
            "weft run --snapshot f --cpu 1".to_owned(),
            "weft stats --watch 0".to_owned(),
            "weft trace --to 192.0.2.1".to_owned(),
            format!("weft trace --port {port}"),
            format!("weft trace --port {port} --frame 00 --to 192.0.2.1"),
            format!("weft trace --port {port} --network {port} --to 192.0.2.1"),
            format!("weft trace --port {port} --to 192.0.2.256"),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
        let Command::AllInOne(args) = parse("weft all-in-one --instance ..").unwrap().command
        else {
            panic!("all-in-one")
        };
        let refused = config(
            args.common,
            Some(args.control),
            Some((args.host, args.control_socket.socket)),
            None,
        )
        .err()
        .unwrap();
        assert!(
            refused.to_string().contains("at instance: expected"),
            "{refused}"
        );
    }
}
