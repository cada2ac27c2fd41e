//! tcx links: a program on a device's ingress or egress for as long as the link (or its pin) lives.

use super::{Attr, Command, SysError, bpf, call_error, fd_u32, len_u32, own, pointer_mut};
use std::os::fd::{BorrowedFd, OwnedFd};

/// Which hook of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TcxDirection {
    /// `BPF_TCX_INGRESS`: what the device receives.
    Ingress = 46,
    /// `BPF_TCX_EGRESS`: what leaves by it.
    Egress = 47,
}

/// What the kernel says of a tcx link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The kernel's number for it.
    pub id: u32,
    /// The program's.
    pub prog_id: u32,
    /// The device; 0 once it is gone or the link is detached.
    pub ifindex: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct CreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    zero: u32,
    expected_revision: u64,
}
// SAFETY: repr(C), padding is an explicit field; as BPF_LINK_CREATE's member with `tcx`.
unsafe impl Attr for CreateAttr {}

#[repr(C)]
#[derive(Default)]
struct UpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}
// SAFETY: repr(C) without padding; as BPF_LINK_UPDATE's member, whose first word is BPF_LINK_DETACH's too.
unsafe impl Attr for UpdateAttr {}

/// Attaches a program at the end of a device's hook. The device is one of this thread's network namespace.
///
/// # Errors
/// ENODEV if there is no such device; EINVAL if the program is not a classifier.
pub fn link_create_tcx(
    prog: BorrowedFd<'_>,
    ifindex: u32,
    direction: TcxDirection,
) -> Result<OwnedFd, SysError> {
    let mut attr = CreateAttr {
        prog_fd: fd_u32(prog),
        target_ifindex: ifindex,
        attach_type: direction as u32,
        ..CreateAttr::default()
    };
    // SAFETY: the argument holds no pointers.
    let result = unsafe { bpf(Command::LinkCreate, &mut attr) };
    result.map(own).map_err(call_error(
        "tcx link create",
        format!("ifindex {ifindex} {direction:?}"),
    ))
}

/// Puts another program into a link, between two packets.
///
/// # Errors
/// ENOLINK if the device is gone.
pub fn link_update(link: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = UpdateAttr {
        link_fd: fd_u32(link),
        new_prog_fd: fd_u32(prog),
        ..UpdateAttr::default()
    };
    // SAFETY: the argument holds no pointers.
    let result = unsafe { bpf(Command::LinkUpdate, &mut attr) };
    result.map(drop).map_err(call_error("link update", ""))
}

/// Detaches a link, also where a pin or another process still holds it.
///
/// # Errors
/// ENOLINK if the device is gone.
pub fn link_detach(link: BorrowedFd<'_>) -> Result<(), SysError> {
    let mut attr = UpdateAttr {
        link_fd: fd_u32(link),
        ..UpdateAttr::default()
    };
    // SAFETY: the argument holds no pointers.
    let result = unsafe { bpf(Command::LinkDetach, &mut attr) };
    result.map(drop).map_err(call_error("link detach", ""))
}

/// Asks for a tcx link's program and device.
///
/// # Errors
/// The descriptor is not a link's.
pub fn link_info(link: BorrowedFd<'_>) -> Result<LinkInfo, SysError> {
    let mut raw = [0u8; 24];
    let mut attr = super::map::InfoAttr {
        bpf_fd: fd_u32(link),
        info_len: len_u32(raw.len()),
        info: pointer_mut(&mut raw),
    };
    // SAFETY: info points to info_len bytes that outlive the call.
    let result = unsafe { bpf(Command::ObjInfo, &mut attr) };
    result.map_err(call_error("link info", ""))?;
    let word =
        |n: usize| u32::from_ne_bytes([raw[4 * n], raw[4 * n + 1], raw[4 * n + 2], raw[4 * n + 3]]);
    Ok(LinkInfo {
        id: word(1),
        prog_id: word(2),
        ifindex: word(4),
        attach_type: word(5),
    })
}
