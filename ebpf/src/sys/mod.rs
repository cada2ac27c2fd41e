//! The seam to bpf(2), and to the ioctls of taps: the only unsafe code of this crate.
//!
//! Guarantees: every file descriptor is owned (closed once, close-on-exec by the kernel's doing); no buffer is handed
//! to the kernel that is shorter than what the kernel will read or write; an error names the operation, the object
//! and the errno, and a refused program carries the verifier's last lines.
//!
//! It does not know what any map or program is for, keeps no state, and retries nothing but EAGAIN of a program load.
#![allow(unsafe_code, reason = "the system call is made here and nowhere else")]

mod btf;
mod link;
mod map;
mod object;
mod prog;
mod tap;

pub use btf::btf_by_id;
pub use link::{LinkInfo, TcxDirection, link_create_tcx, link_detach, link_info, link_update};
pub use map::{BatchCursor, Entry, Map, MapInfo, MapSpec, MapType, MapTypes, UpdateMode};
pub use object::{
    ObjectKind, next_id, obj_get_link, obj_get_map, obj_get_prog, obj_pin, possible_cpus,
};
pub use prog::{Insn, Prog, ProgInfo, ProgSpec, ProgType, TestRun, TestRunOutput};
pub use tap::tap_open;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// What the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum SysError {
    /// The system call failed.
    #[error("{operation} {object}: {source}")]
    Call {
        /// The command, such as `map update`.
        operation: &'static str,
        /// Which object, as far as known.
        object: String,
        /// The errno.
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error("the verifier refused program {name} of {insns} instructions ({source}):\n{log}")]
    Refused {
        /// The program's name.
        name: String,
        /// How many instructions it has.
        insns: usize,
        /// The errno.
        source: io::Error,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A key, value or buffer is not of the size that the object has: a mistake of the caller.
    #[error("{operation} {object}: {got} bytes given, {want} expected")]
    Size {
        /// The command.
        operation: &'static str,
        /// Which object.
        object: String,
        /// Bytes given.
        got: usize,
        /// Bytes that the kernel would read or write.
        want: usize,
    },
}

impl SysError {
    /// The errno, if the kernel said one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Call { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Size { .. } => None,
        }
    }
}

/// bpf(2)'s commands that are used here (`enum bpf_cmd` of linux/bpf.h).
#[derive(Clone, Copy)]
#[repr(i32)]
enum Command {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ObjGet = 7,
    ProgTestRun = 10,
    ProgNextId = 11,
    MapNextId = 12,
    ProgFdById = 13,
    MapFdById = 14,
    ObjInfo = 15,
    BtfFdById = 19,
    MapLookupBatch = 24,
    MapUpdateBatch = 26,
    MapDeleteBatch = 27,
    LinkCreate = 28,
    LinkUpdate = 29,
    LinkNextId = 31,
    LinkDetach = 34,
}

/// A command's argument: a `repr(C)` prefix of `union bpf_attr`, in which what is left out counts as zero.
///
/// # Safety
/// The type must be `repr(C)`, without padding bytes that are uninitialised, and laid out as the union's member.
unsafe trait Attr {}

/// Makes the system call.
///
/// # Safety
/// Each pointer in `attr` must point to memory that is valid for what the command reads and writes there.
unsafe fn bpf<A: Attr>(command: Command, attr: &mut A) -> io::Result<i64> {
    // SAFETY: attr is a live repr(C) value of the size given; its pointers are the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Takes over a descriptor that the kernel has just returned.
fn own(result: i64) -> OwnedFd {
    let fd = RawFd::try_from(result).unwrap_or(-1);
    // SAFETY: bpf(2) returned this descriptor to us alone, and a descriptor fits in RawFd.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn call_error(
    operation: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(io::Error) -> SysError {
    let object = object.into();
    move |source| SysError::Call {
        operation,
        object,
        source,
    }
}

/// A descriptor as `union bpf_attr` wants it.
fn fd_u32(fd: std::os::fd::BorrowedFd<'_>) -> u32 {
    use std::os::fd::AsRawFd;
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// An object's name as the kernel takes it: 15 characters of `[A-Za-z0-9_.]`, others become `_`.
fn object_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    for (slot, byte) in out.iter_mut().take(15).zip(name.bytes()) {
        *slot = if byte.is_ascii_alphanumeric() || byte == b'.' {
            byte
        } else {
            b'_'
        };
    }
    out
}

fn name_text(name: &[u8; 16]) -> String {
    String::from_utf8_lossy(name)
        .trim_end_matches('\0')
        .to_owned()
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn pointer(slice: &[u8]) -> u64 {
    slice.as_ptr().expose_provenance() as u64
}

fn pointer_mut(slice: &mut [u8]) -> u64 {
    slice.as_mut_ptr().expose_provenance() as u64
}
