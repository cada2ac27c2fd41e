//! What the host must have, and what to do where it has not.

use crate::error::EngineError;
use rustix::fs::{FlockOperation, StatFs, flock, statfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Tries to lock an instance's directory while others remove it.
const LOCK_TRIES: usize = 64;

/// Something that the kernel engine needs and this host lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    /// What it is.
    pub what: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// The first kernel with tcx links.
const KERNEL_MIN: (u32, u32) = (6, 6);

/// What this host lacks for the kernel engine; nothing if it can run.
#[must_use]
pub fn check_host() -> Vec<MissingFeature> {
    let mut missing = Vec::new();
    if !rustix::process::geteuid().is_root() {
        missing.push(MissingFeature {
            what: "root",
            remedy: "run as root: programs are loaded and attached to devices",
        });
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    if kernel_version(&release).is_none_or(|version| version < KERNEL_MIN) {
        missing.push(MissingFeature {
            what: "tcx links",
            remedy: "run Linux 6.6 or newer",
        });
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems
        .lines()
        .any(|line| line.split_whitespace().any(|word| word == "bpf"))
    {
        missing.push(MissingFeature {
            what: "bpffs",
            remedy: "run a kernel with CONFIG_BPF_SYSCALL",
        });
    }
    let jit = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    if jit.trim() == "0" {
        missing.push(MissingFeature {
            what: "the BPF JIT",
            remedy: "sysctl net.core.bpf_jit_enable=1",
        });
    }
    missing
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What was made to have a bpffs: what the engine removes when it removes everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mounted {
    mounted: bool,
    directory: bool,
}

impl Mounted {
    /// Unmounts and removes what was made.
    pub(crate) fn undo(self, path: &Path) -> Result<(), EngineError> {
        let io = |what: &str, source| EngineError::Io {
            what: format!("{what} {}", path.display()),
            source,
        };
        if self.mounted {
            unmount(path, UnmountFlags::DETACH).map_err(|e| io("unmount", e.into()))?;
        }
        if self.directory {
            std::fs::remove_dir(path).map_err(|e| io("remove", e))?;
        }
        Ok(())
    }
}

/// Makes sure that a bpffs is mounted at `path`; says what that took.
pub(crate) fn bpffs_mount(path: &Path) -> Result<Mounted, EngineError> {
    let io = |what: &str, error: Errno| EngineError::Io {
        what: format!("{what} {}", path.display()),
        source: error.into(),
    };
    let directory = !path.exists();
    std::fs::create_dir_all(path).map_err(|source| EngineError::Io {
        what: format!("create directory {}", path.display()),
        source,
    })?;
    let StatFs { f_type, .. } = statfs(path).map_err(|e| io("look at", e))?;
    if u64::try_from(f_type).is_ok_and(|t| t & 0xffff_ffff == BPF_FS_MAGIC) {
        return Ok(Mounted {
            mounted: false,
            directory: false,
        });
    }
    mount("bpf", path, "bpf", MountFlags::empty(), None).map_err(|e| io("mount a bpffs at", e))?;
    Ok(Mounted {
        mounted: true,
        directory,
    })
}

/// Takes an instance, whose pins are in this directory, for as long as the descriptor is open: the kernel gives it back at any
/// death. The lock is on the directory itself, so that it is where the pins are, in whatever network namespace.
pub(crate) fn instance_lock(directory: &Path, instance: &str) -> Result<OwnedFd, EngineError> {
    let io = |what: &str, source| EngineError::Io {
        what: format!("{what} {}", directory.display()),
        source,
    };
    for _ in 0..LOCK_TRIES {
        std::fs::create_dir_all(directory).map_err(|e| io("create directory", e))?;
        let lock = match File::open(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened.map_err(|e| io("open", e))?,
        };
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                return Err(EngineError::Taken {
                    instance: instance.to_owned(),
                    directory: directory.to_owned(),
                });
            }
            locked => locked.map_err(|e| io("lock", e.into()))?,
        }
        // Who had it may have removed the directory when it ended.
        let held = lock.metadata().map_err(|e| io("look at", e))?.ino();
        if std::fs::metadata(directory).is_ok_and(|there| there.ino() == held) {
            return Ok(lock.into());
        }
    }
    let text = "others made and removed it again and again";
    Err(io("lock", std::io::Error::other(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(kernel_version("6.18.44-x\n"), Some((6, 18)));
        assert_eq!(kernel_version("6.6"), Some((6, 6)));
        assert_eq!(kernel_version("what"), None);
    }
}
