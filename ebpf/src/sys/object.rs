//! What programs, maps and links have in common: pins in a bpffs, and the kernel's numbers.

use super::{Attr, Command, Map, Prog, SysError, bpf, call_error, own};
use std::ffi::CString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Kinds of object that have numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// Programs.
    Prog,
    /// Maps.
    Map,
    /// Links.
    Link,
}

#[repr(C)]
struct PinAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}
// SAFETY: repr(C) without padding; as BPF_OBJ_PIN's and BPF_OBJ_GET's member.
unsafe impl Attr for PinAttr {}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
}
// SAFETY: repr(C) without padding; as the BPF_*_GET_*_ID member.
unsafe impl Attr for IdAttr {}

fn path_text(operation: &'static str, path: &Path) -> Result<CString, SysError> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(std::io::Error::from)
        .map_err(call_error(operation, path.display().to_string()))
}

/// Pins an object under a path of a bpffs, so that it outlives this process.
///
/// # Errors
/// EEXIST if the path is taken, EPERM if it is not in a bpffs.
pub fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), SysError> {
    let text = path_text("pin", path)?;
    let pathname = text.as_ptr().expose_provenance() as u64;
    let mut attr = PinAttr {
        pathname,
        bpf_fd: super::fd_u32(fd),
        file_flags: 0,
    };
    // SAFETY: pathname points to a zero-terminated text that outlives the call.
    let result = unsafe { bpf(Command::ObjPin, &mut attr) };
    result
        .map(drop)
        .map_err(call_error("pin", path.display().to_string()))
}

fn obj_get(path: &Path) -> Result<OwnedFd, SysError> {
    let text = path_text("open pin", path)?;
    let pathname = text.as_ptr().expose_provenance() as u64;
    let mut attr = PinAttr {
        pathname,
        bpf_fd: 0,
        file_flags: 0,
    };
    // SAFETY: pathname points to a zero-terminated text that outlives the call.
    let result = unsafe { bpf(Command::ObjGet, &mut attr) };
    result
        .map(own)
        .map_err(call_error("open pin", path.display().to_string()))
}

/// Opens a pinned map.
///
/// # Errors
/// ENOENT if the path is not there; EINVAL if it is not a map's.
pub fn obj_get_map(path: &Path) -> Result<Map, SysError> {
    Map::from_fd(obj_get(path)?)
}

/// Opens a pinned program.
///
/// # Errors
/// ENOENT if the path is not there.
pub fn obj_get_prog(path: &Path) -> Result<Prog, SysError> {
    obj_get(path).map(Prog::from_fd)
}

/// Opens a pinned link.
///
/// # Errors
/// ENOENT if the path is not there.
pub fn obj_get_link(path: &Path) -> Result<OwnedFd, SysError> {
    obj_get(path)
}

/// The smallest number above `after` that an object of this kind has.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn next_id(kind: ObjectKind, after: u32) -> Result<Option<u32>, SysError> {
    let command = match kind {
        ObjectKind::Prog => Command::ProgNextId,
        ObjectKind::Map => Command::MapNextId,
        ObjectKind::Link => Command::LinkNextId,
    };
    let mut attr = IdAttr {
        id: after,
        ..IdAttr::default()
    };
    // SAFETY: the argument holds no pointers.
    match unsafe { bpf(command, &mut attr) } {
        Ok(_) => Ok(Some(attr.next_id)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(call_error("next id", format!("{kind:?}"))(error)),
    }
}

pub(super) fn fd_by_id(command: Command, id: u32) -> Result<OwnedFd, SysError> {
    let mut attr = IdAttr {
        id,
        ..IdAttr::default()
    };
    // SAFETY: the argument holds no pointers.
    let result = unsafe { bpf(command, &mut attr) };
    result
        .map(own)
        .map_err(call_error("open by id", id.to_string()))
}

/// How many CPUs the machine can ever have: what a per-CPU value is long.
///
/// # Errors
/// /sys is not there.
pub fn possible_cpus() -> Result<usize, SysError> {
    const PATH: &str = "/sys/devices/system/cpu/possible";
    let text = std::fs::read_to_string(PATH).map_err(call_error("read", PATH))?;
    let last = text
        .trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|n| n.parse::<usize>().ok());
    last.map(|n| n + 1).ok_or_else(|| {
        let source = std::io::Error::other(format!("not a list of CPUs: {text:?}"));
        SysError::Call {
            operation: "read",
            object: PATH.to_owned(),
            source,
        }
    })
}
