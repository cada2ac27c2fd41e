//! Programs: loaded from instructions, run on a packet of the caller's, asked for their sizes.

use super::{
    Attr, Command, SysError, bpf, call_error, fd_u32, len_u32, name_text, object_name, own,
    pointer, pointer_mut,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes kept of the verifier's log: its end, which says why.
const LOG_BYTES: usize = 1 << 16;
/// Lines of the log that an error carries.
const LOG_LINES: usize = 24;
/// How often a load that was interrupted by a signal is tried.
const LOAD_TRIES_MAX: usize = 5;

/// One instruction (`struct bpf_insn`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Insn {
    /// Class, size or operation, mode or source.
    pub code: u8,
    /// Destination in the low four bits, source in the high four.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// Immediate.
    pub immediate: i32,
}

const _: () = assert!(size_of::<Insn>() == 8);

/// Kinds of program (`enum bpf_prog_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ProgType {
    /// A tc classifier: what tcx links take.
    SchedCls = 3,
    /// XDP.
    Xdp = 6,
}

/// What is to be loaded.
#[derive(Clone, Copy, Debug)]
pub struct ProgSpec<'a> {
    /// Shown by bpftool; 15 characters count.
    pub name: &'a str,
    /// Its kind.
    pub kind: ProgType,
    /// `enum bpf_attach_type`; 0 for programs that tail-call each other with those that aya loads for tc.
    pub expected_attach_type: u32,
    /// The instructions; maps are named by their descriptors (`BPF_PSEUDO_MAP_FD`).
    pub insns: &'a [Insn],
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgInfo {
    /// The kernel's number for it.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Bytes of instructions after the verifier's rewriting.
    pub xlated_bytes: u32,
    /// Instructions that the verifier looked at.
    pub verified_insns: u32,
}

/// A run of a program on data of the caller's.
#[derive(Clone, Copy, Debug, Default)]
pub struct TestRun<'a> {
    /// The frame.
    pub data: &'a [u8],
    /// The context (`struct __sk_buff`, `struct xdp_md`), or empty for zeros.
    pub context: &'a [u8],
    /// How often; 0 and 1 are once.
    pub repeat: u32,
    /// `BPF_F_TEST_*`.
    pub flags: u32,
    /// Frames at once, with [`TestRun::XDP_LIVE_FRAMES`].
    pub batch: u32,
}

impl TestRun<'_> {
    /// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program does with the frames is really done. No output then.
    pub const XDP_LIVE_FRAMES: u32 = 1 << 1;
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunOutput {
    /// What the program returned.
    pub value: u32,
    /// The frame afterwards.
    pub data: Vec<u8>,
    /// The context afterwards, if one was given.
    pub context: Vec<u8>,
    /// Mean time of one run.
    pub duration: Duration,
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}
// SAFETY: repr(C) without padding; as BPF_PROG_LOAD's member.
unsafe impl Attr for LoadAttr {}

#[repr(C)]
#[derive(Default)]
struct TestRunAttr {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    zero: u32,
}
// SAFETY: repr(C), padding is an explicit field; as BPF_PROG_TEST_RUN's member.
unsafe impl Attr for TestRunAttr {}

/// A loaded program.
#[derive(Debug)]
pub struct Prog {
    fd: OwnedFd,
}

impl Prog {
    /// Loads a program.
    ///
    /// # Errors
    /// [`SysError::Refused`] with the verifier's last lines, if it was that; EPERM, ENOMEM.
    pub fn load(spec: &ProgSpec<'_>) -> Result<Self, SysError> {
        let mut tries = 0;
        let source = loop {
            match load_once(spec, &mut []) {
                Ok(fd) => return Ok(Self { fd }),
                Err(error)
                    if error.raw_os_error() == Some(libc::EAGAIN) && tries < LOAD_TRIES_MAX =>
                {
                    tries += 1
                }
                Err(error) => break error,
            }
        };
        let mut log = vec![0; LOG_BYTES];
        if let Ok(fd) = load_once(spec, &mut log) {
            return Ok(Self { fd });
        }
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.trim_end_matches('\0').lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        Err(SysError::Refused {
            name: spec.name.to_owned(),
            insns: spec.insns.len(),
            source,
            log,
        })
    }

    /// Takes over an open program.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens a program by the kernel's number for it.
    ///
    /// # Errors
    /// ENOENT if there is none of this number.
    pub fn from_id(id: u32) -> Result<Self, SysError> {
        super::object::fd_by_id(Command::ProgFdById, id).map(Self::from_fd)
    }

    /// What the kernel says of it.
    ///
    /// # Errors
    /// The descriptor is not a program's.
    pub fn info(&self) -> Result<ProgInfo, SysError> {
        let mut raw = [0u8; 232];
        let mut attr = super::map::InfoAttr {
            bpf_fd: fd_u32(self.fd.as_fd()),
            info_len: len_u32(raw.len()),
            info: pointer_mut(&mut raw),
        };
        // SAFETY: info points to info_len bytes that outlive the call; its pointers and counts are zero.
        let result = unsafe { bpf(Command::ObjInfo, &mut attr) };
        result.map_err(call_error("program info", ""))?;
        let word = |at: usize| u32::from_ne_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let mut name = [0; 16];
        name.copy_from_slice(&raw[64..80]);
        Ok(ProgInfo {
            id: word(4),
            name: name_text(&name),
            jited_bytes: word(16),
            xlated_bytes: word(20),
            verified_insns: word(216),
        })
    }

    /// Runs it on a frame (BPF_PROG_TEST_RUN).
    ///
    /// # Errors
    /// EINVAL for a frame shorter than 14 bytes or a context with fields that may not be set.
    pub fn test_run(&self, run: &TestRun<'_>) -> Result<TestRunOutput, SysError> {
        let live = run.flags & TestRun::XDP_LIVE_FRAMES != 0;
        // A program may add headers: 256 bytes more than it got.
        let mut data = vec![0; if live { 0 } else { run.data.len() + 256 }];
        let mut context = vec![0; if live { 0 } else { run.context.len() }];
        let pointer_or_null = |bytes: &[u8]| if bytes.is_empty() { 0 } else { pointer(bytes) };
        let mut attr = TestRunAttr {
            prog_fd: fd_u32(self.fd.as_fd()),
            data_size_in: len_u32(run.data.len()),
            data_size_out: len_u32(data.len()),
            data_in: pointer_or_null(run.data),
            data_out: if live { 0 } else { pointer_mut(&mut data) },
            repeat: run.repeat,
            ctx_size_in: len_u32(run.context.len()),
            ctx_size_out: len_u32(context.len()),
            ctx_in: pointer_or_null(run.context),
            ctx_out: if context.is_empty() {
                0
            } else {
                pointer_mut(&mut context)
            },
            flags: run.flags,
            batch_size: run.batch,
            ..TestRunAttr::default()
        };
        // SAFETY: each pointer goes with the length of the slice it was taken from, and all outlive the call.
        let result = unsafe { bpf(Command::ProgTestRun, &mut attr) };
        result.map_err(call_error("program test run", ""))?;
        data.truncate(attr.data_size_out as usize);
        context.truncate(attr.ctx_size_out as usize);
        let duration = Duration::from_nanos(attr.duration.into());
        Ok(TestRunOutput {
            value: attr.retval,
            data,
            context,
            duration,
        })
    }
}

impl AsFd for Prog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn load_once(spec: &ProgSpec<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let license = c"Dual MIT/GPL";
    let mut attr = LoadAttr {
        prog_type: spec.kind as u32,
        insn_cnt: len_u32(spec.insns.len()),
        insns: spec.insns.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: len_u32(log.len()),
        log_buf: if log.is_empty() { 0 } else { pointer_mut(log) },
        prog_name: object_name(spec.name),
        expected_attach_type: spec.expected_attach_type,
        ..LoadAttr::default()
    };
    // SAFETY: insns, license and log point to what their lengths say (the license is zero-terminated) and outlive the call.
    unsafe { bpf(Command::ProgLoad, &mut attr) }.map(own)
}
