//! `weft guest` with libvirt: a port goes into a domain's configuration, and into a running one, and out again.
//!
//! libvirtd runs in mounts of its own, so that the machine's own libvirt, if there is one, is not touched.

#![allow(
    clippy::unwrap_used,
    reason = "a test: helpers outside of its functions may panic too"
)]

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::weft::{Site, WeftOptions};
use weft_kit::{Lab, clock};
use weft_tests_system::vm::{self, Shell};

const READY_TIMEOUT: Duration = Duration::from_secs(30);
const PORTS: [&str; 2] = [
    "00000005-0000-4000-8000-000000000000",
    "00000005-0000-4000-8000-000000000001",
];
/// Starts libvirtd; its first argument is its folder.
const LIBVIRTD: &str = r#"
for folder in /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /etc/libvirt; do
    mkdir -p "$folder"
    mount -t tmpfs tmpfs "$folder"
done
mkdir -p /etc/libvirt/qemu
printf '%s\n' 'stdio_handler = "file"' 'user = "root"' 'group = "root"' 'dynamic_ownership = 0' 'remember_owner = 0' \
    'security_driver = "none"' 'namespaces = []' 'cgroup_controllers = []' >/etc/libvirt/qemu.conf
printf '%s\n' "unix_sock_dir = \"$0\"" 'auth_unix_rw = "none"' >"$0/libvirtd.conf"
exec libvirtd -f "$0/libvirtd.conf" -p "$0/libvirtd.pid"
"#;

/// A libvirt of the test's own.
struct Libvirt {
    uri: String,
    folder: PathBuf,
    process: Option<Process>,
}

impl Libvirt {
    fn start(lab: &Lab) -> Result<Self> {
        let folder = lab.directory().to_owned();
        let log = std::fs::File::create(folder.join("libvirtd.log"))?;
        let mut command = Command::new("unshare");
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-euc",
                LIBVIRTD,
            ])
            .arg(&folder)
            .stdout(Stdio::null())
            .stderr(log);
        let socket = folder.join("libvirt-sock");
        let libvirt = Self {
            uri: format!("qemu+unix:///system?socket={}", socket.display()),
            process: Some(lab.spawn(&mut command)?),
            folder,
        };
        clock::until("libvirtd", READY_TIMEOUT, || {
            Ok(libvirt.tried(&["version"])?.status.success().then_some(()))
        })
        .context("libvirtd and virsh (scripts/install.sh test)")?;
        Ok(libvirt)
    }

    fn tried(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("virsh");
        let command = command.args(["--connect", &self.uri]).args(arguments);
        command.stdin(Stdio::null()).output().context("virsh")
    }

    fn virsh(&self, arguments: &[&str]) -> Result<()> {
        let output = self.tried(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "virsh {arguments:?}: {said}");
        Ok(())
    }

    /// Defines a domain that has no interface yet.
    fn define(&self, name: &str, shared: bool) -> Result<()> {
        let file = self.folder.join(format!("{name}.xml"));
        std::fs::write(&file, self.domain(name, shared)?)?;
        self.virsh(&["define", file.to_str().context("a path")?])
    }

    fn domain(&self, name: &str, shared: bool) -> Result<String> {
        let image = vm::image()?;
        let memory = if shared {
            "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
        } else {
            ""
        };
        Ok(format!(
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <name>{name}</name><memory unit='MiB'>192</memory><vcpu>1</vcpu>{memory}\
             <os><type arch='x86_64' machine='pc'>hvm</type><kernel>{image}/kernel</kernel>\
             <initrd>{image}/initramfs</initrd><cmdline>console=ttyS0 quiet panic=-1 rdinit=/init</cmdline></os>\
             <features><acpi/><apic/></features><cpu mode='maximum'/>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <serial type='unix'><source mode='bind' path='{serial}'/></serial><memballoon model='none'/></devices>\
             <!-- QEMU 7.2 under TCG dies of vhost-user with MSI-X, and one that is plugged in later has no override -->\
             <qemu:commandline><qemu:arg value='-global'/><qemu:arg value='virtio-net-pci.vectors=0'/>\
             </qemu:commandline></domain>",
            image = image.display(),
            serial = self.serial(name).display(),
        ))
    }

    fn serial(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.serial"))
    }

    fn start_domain(&self, name: &str) -> Result<Shell> {
        self.virsh(&["start", name])?;
        let line = UnixStream::connect(self.serial(name))?;
        let mut shell = Shell::new(line.try_clone()?, line);
        shell.booted()?;
        Ok(shell)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        for name in ["one", "two", "private"] {
            // It may not be there, or not run.
            let _ended = self.tried(&["destroy", name]);
        }
        if let Some(process) = self.process.take() {
            let _stopped = process.stop(rustix::process::Signal::TERM);
        }
    }
}

/// `weft guest` with these words.
fn guest(site: &Site, libvirt: &Libvirt, arguments: &str) -> Result<(bool, String)> {
    let mut command = site.command(&format!("guest {arguments}"))?;
    command.arg("--socket").arg(&site.socket);
    let output = command.args(["--connect", &libvirt.uri]).output()?;
    let both = [output.stdout, output.stderr].concat();
    Ok((
        output.status.success(),
        String::from_utf8_lossy(&both).into_owned(),
    ))
}

fn done(site: &Site, libvirt: &Libvirt, arguments: &str) -> Result<String> {
    let (succeeded, said) = guest(site, libvirt, arguments)?;
    ensure!(succeeded, "weft guest {arguments}: {said}");
    Ok(said)
}

fn refused(site: &Site, libvirt: &Libvirt, arguments: &str, why: &str) -> Result<()> {
    let (succeeded, said) = guest(site, libvirt, arguments)?;
    ensure!(!succeeded && said.contains(why), "{arguments}: {said}");
    Ok(())
}

fn listed(site: &Site, libvirt: &Libvirt) -> Result<Vec<(String, String)>> {
    let text = done(site, libvirt, "list --json")?;
    let rows: Vec<Value> = serde_json::from_str(&text)?;
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mut pairs: Vec<(String, String)> = rows
        .iter()
        .map(|row| (field(row, "domain"), field(row, "port_id")))
        .collect();
    pairs.sort();
    Ok(pairs)
}

fn site(lab: &Lab, sockets: &[PathBuf; 2]) -> Result<(Site, PathBuf)> {
    let host = lab.namespace("host")?;
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    let site = Site::new(lab, &host, &options)?;
    let file = lab.directory().join("snapshot.json");
    let snapshot = vm::two_ports(sockets, ["client", "server"])?;
    std::fs::write(&file, serde_json::to_vec(&snapshot)?)?;
    Ok((site, file))
}

fn without_device(shell: &mut Shell) -> Result<()> {
    clock::until("the device to go", READY_TIMEOUT, || {
        let (_, status) = shell.tried("ip link show eth0")?;
        Ok((status != 0).then_some(()))
    })
}

fn with_device(shell: &mut Shell) -> Result<()> {
    clock::until("the device to come", READY_TIMEOUT, || {
        let (_, status) = shell.tried("ip link set eth0 up")?;
        Ok((status == 0).then_some(()))
    })
}

#[test]
fn ports_are_plugged_into_domains_and_out_again() -> Result<()> {
    let lab = Lab::new("weft-virt")?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let (site, file) = site(&lab, &sockets)?;
    let weft = vm::switch(&lab, &site, &file)?;
    let libvirt = Libvirt::start(&lab)?;
    libvirt.define("one", true)?;
    libvirt.define("two", true)?;
    libvirt.define("private", false)?;
    let [first, second] = PORTS;

    refused(
        &site,
        &libvirt,
        &format!("attach nobody {first}"),
        "no domain nobody",
    )?;
    let unknown = "attach one 99999999-0000-0000-0000-000000000000";
    refused(&site, &libvirt, unknown, "is it bound here")?;
    let private = format!("attach private {first}");
    refused(&site, &libvirt, &private, "does not share its memory")?;

    // Into the configuration of one that is shut off; a try changes nothing.
    let shown = done(&site, &libvirt, &format!("attach one {first} --dry-run"))?;
    ensure!(shown.contains(sockets[0].to_str().unwrap()), "{shown}");
    ensure!(listed(&site, &libvirt)?.is_empty());
    done(&site, &libvirt, &format!("attach one {first}"))?;
    refused(&site, &libvirt, &format!("attach one {first}"), "already")?;
    let mut one = libvirt.start_domain("one")?;
    one.dhcp("10.0.0.1/24")?;

    // Into one that runs: Weft dials, and the guest's side listens.
    let mut two = libvirt.start_domain("two")?;
    without_device(&mut two)?;
    done(&site, &libvirt, &format!("attach two {second}"))?;
    with_device(&mut two)?;
    two.dhcp("10.0.0.2/24")?;
    one.ping("10.0.0.2")?;
    two.ping("10.0.0.1")?;
    let pair = |domain: &str, port: &str| (domain.to_owned(), port.to_owned());
    let listed_now = listed(&site, &libvirt)?;
    ensure!(listed_now == [pair("one", first), pair("two", second)]);

    done(&site, &libvirt, &format!("detach two {second}"))?;
    without_device(&mut two)?;
    refused(
        &site,
        &libvirt,
        &format!("detach two {second}"),
        "does not have",
    )?;
    ensure!(listed(&site, &libvirt)? == [pair("one", first)]);
    // And once more: the switch takes a new front-end on the same socket.
    done(&site, &libvirt, &format!("attach two {second}"))?;
    with_device(&mut two)?;
    two.dhcp("10.0.0.2/24")?;
    one.ping("10.0.0.2")?;

    drop((one, two, libvirt));
    let status = weft.stop(rustix::process::Signal::TERM)?;
    ensure!(status.success(), "{status}: {}", site.log_end());
    Ok(())
}

#[test]
fn a_small_guest_boots_on_a_port() -> Result<()> {
    let lab = Lab::new("weft-boot")?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let (site, file) = site(&lab, &sockets)?;
    let _weft = vm::switch(&lab, &site, &file)?;
    let boot = |port: &str, image: &Path| -> Result<std::process::Child> {
        let mut command = site.command(&format!("guest run {port}"))?;
        command.arg("--socket").arg(&site.socket);
        command.arg("--image").arg(image);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(command.spawn()?)
    };
    let image = vm::image()?;
    let mut children = Vec::new();
    let mut shells = Vec::new();
    for port in PORTS {
        let mut child = boot(port, &image)?;
        let input = child.stdin.take().context("piped")?;
        let output = child.stdout.take().context("piped")?;
        shells.push(Shell::new(input, output));
        children.push(child);
    }
    for (shell, address) in shells.iter_mut().zip(["10.0.0.1/24", "10.0.0.2/24"]) {
        shell.booted()?;
        shell.dhcp(address)?;
    }
    shells[0].ping("10.0.0.2")?;
    for (shell, child) in shells.iter_mut().zip(&mut children) {
        shell.tell("poweroff -f")?;
        clock::until("the guest's end", READY_TIMEOUT, || Ok(child.try_wait()?))?;
    }
    Ok(())
}
