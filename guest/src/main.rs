//! `weft guest`: plugs ports of Weft into domains of libvirt, and boots small guests to try things out.
//!
//! Guarantees: it asks this host's agent how a port is to be plugged in and never makes that up; a domain's configuration is
//! changed only by libvirt, and only by one `<interface>`; what it hands to libvirt or QEMU is shown. A program of its own,
//! which `weft guest` starts, because it alone is linked with libvirt (docs/adr/0009).

mod domain;
mod interface;
mod output;
mod port;
mod run;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use weft_model::PortId;

/// Guests under QEMU on ports of this host: plug them in by libvirt, or boot a small one to try things out.
///
/// A port is one that is bound to this host (`openstack port set --host NAME PORT`), or of the file that `weft run` runs.
#[derive(Debug, Parser)]
#[command(name = "weft guest", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plug a port into a domain: at once if it runs, and into its configuration if it has one.
    Attach(Plug),
    /// Take a port out of a domain again.
    Detach(Plug),
    /// Show the domains that have ports of this host.
    List(List),
    /// Boot a small guest on a port, with a shell on its serial line: Debian's cloud kernel and busybox.
    ///
    /// `poweroff -f` ends it: the shell is its first process, so there is no init that plain `poweroff` could ask.
    Run(Run),
}

/// Whom to ask about ports.
#[derive(Debug, Args)]
struct Agent {
    /// The agent's control socket.
    #[arg(long, value_name = "PATH", default_value = weft_agent::socket::PATH_DEFAULT)]
    socket: PathBuf,
}

/// Which libvirt.
#[derive(Debug, Args)]
struct Libvirt {
    /// libvirt's URI.
    #[arg(long, value_name = "URI", default_value = "qemu:///system")]
    connect: String,
}

#[derive(Debug, Args)]
struct Plug {
    /// The domain's name.
    #[arg(value_parser = domain_name)]
    domain: String,
    /// The port's id.
    port: PortId,
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    libvirt: Libvirt,
    /// Queue pairs of a vhost-user port, 1 to 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    queues: u8,
    /// Show the XML, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    agent: Agent,
    #[command(flatten)]
    libvirt: Libvirt,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Run {
    /// The port's id.
    port: PortId,
    #[command(flatten)]
    agent: Agent,
    /// Where the guest's kernel and initramfs are; they are made there if they are not (as root, from Debian's packages).
    #[arg(long, value_name = "FOLDER", default_value = "/var/cache/weft/guest")]
    image: PathBuf,
    /// The guest's memory in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 192, value_parser = clap::value_parser!(u32).range(96..=65_536))]
    memory: u32,
    /// What runs the guest; by default KVM where the processor has it, else TCG.
    #[arg(long)]
    accel: Option<run::Accelerator>,
    /// Show QEMU's command line, and start nothing.
    #[arg(long)]
    dry_run: bool,
}

fn domain_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 255 {
        return Err("expected a domain's name, as `virsh list --all` shows it".to_owned());
    }
    Ok(text.to_owned())
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Attach(plug) => domain::attach(&plug),
        Command::Detach(plug) => domain::detach(&plug),
        Command::List(list) => domain::list(&list),
        Command::Run(run) => return run::run(&run),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn mistakes_are_refused() {
        let port = PortId::random();
        for bad in [
            "attach d".to_owned(),
            "attach d tap0".to_owned(),
            format!("attach d {port} --queues 0"),
            format!("attach d {port} --queues 9"),
            format!("run {port} --memory 1"),
            format!("run {port} --accel xen"),
        ] {
            let line = format!("guest {bad}");
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{bad}");
        }
        let name = "d".repeat(256);
        assert!(domain_name(&name).is_err());
    }
}
