//! Boots a small guest on a port: Debian's cloud kernel, unpacked (QEMU starts it by PVH), and a static busybox.
//!
//! Guarantees: the guest ends with this command; nothing of it stays but its image in the folder that was named.

use crate::{Run, output, port};
use anyhow::{Context, Result, ensure};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use weft_agent::socket::PortState;
use weft_model::VhostUserMode;

/// What makes the image, when it is not there.
const IMAGE_SCRIPT: &str = include_str!("../../scripts/guest-image.sh");

/// What runs a guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Accelerator {
    /// The processor.
    Kvm,
    /// QEMU's own translator: slow, and everywhere.
    Tcg,
}

/// Becomes QEMU; comes back only with an error, or from a dry run.
pub(crate) fn run(run: &Run) -> ExitCode {
    match start(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(run: &Run) -> Result<()> {
    let port = port::one(&run.agent.socket, run.port)?;
    if !run.dry_run {
        image(&run.image)?;
    }
    let accelerator = run.accel.unwrap_or_else(best);
    let arguments = arguments(run, &port, accelerator);
    output::complain(&format!("qemu-system-x86_64 {}", quoted(&arguments)));
    if run.dry_run {
        return Ok(());
    }
    output::complain(&format!(
        "port {} of MAC address {}; the guest has `udhcpc -i eth0 -s /bin/dhcp-bound`, `ip`, `ping`, `nc`; `poweroff -f` ends it",
        port.port_id, port.mac_address
    ));
    let error = Command::new("qemu-system-x86_64").args(&arguments).exec();
    Err(error).context("qemu-system-x86_64 (apt-get install qemu-system-x86)")
}

/// Makes the image if it is not there.
fn image(folder: &Path) -> Result<()> {
    if folder.join("kernel").is_file() && folder.join("initramfs").is_file() {
        return Ok(());
    }
    output::complain(&format!(
        "making the guest's image in {} (Debian's cloud kernel and busybox)",
        folder.display()
    ));
    let status = Command::new("/bin/sh")
        .args(["-c", IMAGE_SCRIPT, "guest-image.sh"])
        .arg(folder)
        .status()
        .context("/bin/sh")?;
    ensure!(status.success(), "the image was not made: {status}");
    Ok(())
}

/// KVM where the processor itself has it: elsewhere, as inside of some guests, KVM may be there and be slower than TCG.
fn best() -> Accelerator {
    let of_processor = ["/sys/module/kvm_intel", "/sys/module/kvm_amd"];
    if Path::new("/dev/kvm").exists() && of_processor.iter().any(|path| Path::new(path).exists()) {
        Accelerator::Kvm
    } else {
        Accelerator::Tcg
    }
}

fn arguments(run: &Run, port: &PortState, accelerator: Accelerator) -> Vec<String> {
    let memory = run.memory;
    let (accelerator, device) = match accelerator {
        Accelerator::Kvm => ("kvm", ""),
        // QEMU 7.2 under TCG dies of vhost-user with MSI-X.
        Accelerator::Tcg => ("tcg", ",vectors=0"),
    };
    // QEMU reads a comma as the end of a value, and two as one.
    let interface = port.interface.replace(',', ",,");
    let mut arguments: Vec<String> = [
        "-M",
        "q35",
        "-accel",
        accelerator,
        "-cpu",
        "max",
        "-smp",
        "1",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "mon:stdio",
    ]
    .map(str::to_owned)
    .to_vec();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    add("-m", memory.to_string());
    let backend = match port.vhost_user {
        Some(mode) => {
            add(
                "-object",
                format!("memory-backend-memfd,id=memory,size={memory}M,share=on"),
            );
            add("-numa", "node,memdev=memory".to_owned());
            let role = match mode {
                VhostUserMode::Client => "reconnect=1",
                VhostUserMode::Server => "server=on,wait=off",
            };
            add(
                "-chardev",
                format!("socket,id=socket,path={interface},{role}"),
            );
            "vhost-user,id=port,chardev=socket".to_owned()
        }
        None => format!("tap,id=port,ifname={interface},script=no,downscript=no"),
    };
    add("-netdev", backend);
    add(
        "-device",
        format!(
            "virtio-net-pci,netdev=port,mac={}{device}",
            port.mac_address
        ),
    );
    add("-kernel", run.image.join("kernel").display().to_string());
    add("-initrd", run.image.join("initramfs").display().to_string());
    add(
        "-append",
        "console=ttyS0 quiet panic=-1 rdinit=/init".to_owned(),
    );
    arguments
}

/// As a shell reads it.
fn quoted(arguments: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:=".contains(c);
    let quoted = arguments.iter().map(|argument| {
        if argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn port(interface: &str, vhost_user: Option<VhostUserMode>) -> PortState {
        PortState {
            port_id: weft_model::PortId::random(),
            network_id: weft_model::NetworkId::random(),
            interface: interface.to_owned(),
            vhost_user,
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            fixed_ips: Vec::new(),
            status: weft_model::PortStatus::Active,
            reason: String::new(),
        }
    }

    fn line(port: &PortState, accelerator: Accelerator) -> String {
        let text = format!("guest run {} --memory 128", port.port_id);
        let parsed = crate::Arguments::parse_from(text.split(' '));
        let crate::Command::Run(run) = parsed.command else {
            panic!("run")
        };
        quoted(&arguments(&run, port, accelerator))
    }

    #[test]
    fn a_port_is_plugged_in_as_its_engine_serves_it() {
        let client = line(
            &port("/run/a,b", Some(VhostUserMode::Client)),
            Accelerator::Tcg,
        );
        assert!(client.contains("path=/run/a,,b,reconnect=1"), "{client}");
        assert!(client.contains("size=128M,share=on"), "{client}");
        assert!(client.contains("vectors=0"), "{client}");
        let server = line(
            &port("/run/a", Some(VhostUserMode::Server)),
            Accelerator::Kvm,
        );
        assert!(server.contains("server=on,wait=off"), "{server}");
        assert!(!server.contains("vectors"), "{server}");
        let tap = line(&port("tap0", None), Accelerator::Kvm);
        assert!(tap.contains("tap,id=port,ifname=tap0"), "{tap}");
        assert!(!tap.contains("memfd"), "{tap}");
    }

    #[test]
    fn a_shown_line_can_be_given_to_a_shell() {
        let text = ["a b", "it's", "plain=1"].map(str::to_owned);
        assert_eq!(quoted(&text), r"'a b' 'it'\''s' plain=1");
    }
}
