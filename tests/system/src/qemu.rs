//! A guest by QEMU's command line: virtio-net over vhost-user, under TCG, so that it works wherever QEMU does.

use crate::vm::{self, Shell};
use anyhow::{Context, Result};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// How a guest is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its MAC address.
    pub mac: String,
    /// Its vhost-user socket.
    pub socket: PathBuf,
    /// Whether it listens there, and Weft dials.
    pub listens: bool,
    /// Queue pairs of its device, and processors.
    pub queues: u16,
    /// More options of its device, as `csum=off`.
    pub device: Vec<String>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Options {
    /// One of the guests of [`vm::two_ports`] that dials.
    #[must_use]
    pub fn numbered(number: usize, socket: &Path) -> Self {
        Self::new(&format!("02:00:00:00:00:{number:02x}"), socket)
    }

    /// A guest that dials, with a stock device.
    #[must_use]
    pub fn new(mac: &str, socket: &Path) -> Self {
        Self {
            mac: mac.to_owned(),
            socket: socket.to_owned(),
            listens: false,
            queues: 1,
            device: Vec::new(),
            arguments: Vec::new(),
        }
    }
}

/// A guest, and its serial line.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    shell: Shell,
}

impl Guest {
    /// Starts a guest and waits for its shell.
    ///
    /// # Errors
    /// There is no QEMU or no image, or it did not boot.
    pub fn boot(options: &Options) -> Result<Self> {
        let mut guest = Self::start(options)?;
        guest.booted()?;
        Ok(guest)
    }

    /// Starts a guest and waits for nothing.
    ///
    /// # Errors
    /// There is no QEMU or no image.
    pub fn start(options: &Options) -> Result<Self> {
        let image = vm::image()?;
        let role = if options.listens {
            "server=on,wait=off"
        } else {
            "reconnect=1"
        };
        let chardev = format!("socket,id=c,path={},{role}", options.socket.display());
        let queues = options.queues;
        // QEMU 7.2 without KVM dies of a vhost device's own interrupts.
        let several = if queues > 1 { ",mq=on" } else { "" };
        let mut device = format!(
            "virtio-net-pci,netdev=n,mac={},vectors=0{several}",
            options.mac
        );
        let netdev = format!("vhost-user,id=n,chardev=c,queues={queues}");
        for option in &options.device {
            device = format!("{device},{option}");
        }
        let mut child = Command::new("qemu-system-x86_64")
            .args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", "192"])
            .args(["-smp", &queues.to_string()])
            .args(["-object", "memory-backend-memfd,id=m,size=192M,share=on"])
            .args(["-numa", "node,memdev=m", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-chardev", &chardev])
            .args(["-netdev", &netdev, "-device", &device])
            .args(&options.arguments)
            .arg("-kernel")
            .arg(image.join("kernel"))
            .arg("-initrd")
            .arg(image.join("initramfs"))
            .args(["-append", "console=ttyS0 quiet panic=-1 rdinit=/init"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("qemu-system-x86_64 (apt-get install qemu-system-x86)")?;
        let input = child.stdin.take().context("piped")?;
        let output = child.stdout.take().context("piped")?;
        let shell = Shell::new(input, output);
        Ok(Self { child, shell })
    }

    /// Kills it, as a host does that loses power.
    ///
    /// # Errors
    /// The system refused.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Deref for Guest {
    type Target = Shell;

    fn deref(&self) -> &Shell {
        &self.shell
    }
}

impl DerefMut for Guest {
    fn deref_mut(&mut self) -> &mut Shell {
        &mut self.shell
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
