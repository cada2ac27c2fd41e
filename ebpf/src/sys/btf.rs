//! Types (BTF) of what is loaded: the kernel keeps them beside maps and programs.

use super::map::InfoAttr;
use super::{Command, SysError, bpf, call_error, fd_u32, len_u32, object::fd_by_id, pointer_mut};
use std::os::fd::{AsFd, BorrowedFd};

/// Bytes of types that are read at most: an object of ours has a tenth of it.
const BTF_BYTES_MAX: u32 = 1 << 20;

#[repr(C)]
#[derive(Default)]
struct BtfInfo {
    btf: u64,
    btf_size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel_btf: u32,
}

/// The types that have this number, as the kernel took them (Documentation/bpf/btf.rst).
///
/// # Errors
/// ENOENT if there are none of this number; they are larger than 1 MiB.
pub fn btf_by_id(id: u32) -> Result<Vec<u8>, SysError> {
    let fd = fd_by_id(Command::BtfFdById, id)?;
    let wanted = btf_info(fd.as_fd(), &mut [])?;
    if wanted > BTF_BYTES_MAX {
        return Err(SysError::Size {
            operation: "types",
            object: id.to_string(),
            got: BTF_BYTES_MAX as usize,
            want: wanted as usize,
        });
    }
    let mut bytes = vec![0; wanted as usize];
    let written = btf_info(fd.as_fd(), &mut bytes)?;
    bytes.truncate(written as usize);
    Ok(bytes)
}

/// Reads types into `bytes` as far as there is room; says how many there are.
fn btf_info(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<u32, SysError> {
    let mut info = BtfInfo {
        btf: pointer_mut(bytes),
        btf_size: len_u32(bytes.len()),
        ..BtfInfo::default()
    };
    let mut attr = InfoAttr {
        bpf_fd: fd_u32(fd),
        info_len: len_u32(size_of::<BtfInfo>()),
        info: std::ptr::from_mut(&mut info).expose_provenance() as u64,
    };
    // SAFETY: info points to a struct bpf_btf_info of info_len bytes, which names `btf_size` bytes that may be written; both
    // outlive the call.
    let result = unsafe { bpf(Command::ObjInfo, &mut attr) };
    result.map_err(call_error("types", ""))?;
    Ok(info.btf_size)
}
