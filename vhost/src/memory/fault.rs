//! SIGBUS: a front-end truncated the file behind a mapping, or the host has no page left for it.
//!
//! Guarantees: whoever touches such memory goes on, with zeros in the place of the whole mapping, which is marked as lost; its
//! port is then shut down by whoever polls it. A SIGBUS elsewhere is handed to whoever handled it before us, or ends the
//! process as ever. The handler takes no lock and allocates nothing.

use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Mappings that are watched at most; one more is refused.
const MAPPINGS_MAX: usize = 4_096;

/// A mapping that is watched.
struct Slot {
    taken: AtomicBool,
    /// Zero while it is being set up or taken away.
    base: AtomicUsize,
    bytes: AtomicUsize,
    lost: AtomicBool,
}

static SLOTS: [Slot; MAPPINGS_MAX] = [const {
    Slot {
        taken: AtomicBool::new(false),
        base: AtomicUsize::new(0),
        bytes: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
    }
}; MAPPINGS_MAX];
static LOST: AtomicU64 = AtomicU64::new(0);
static INSTALL: Once = Once::new();
/// Who handled SIGBUS before us; leaked, once.
static BEFORE: AtomicPtr<libc::sigaction> = AtomicPtr::new(std::ptr::null_mut());

/// How many mappings were lost since the process started: a number to look at often.
#[must_use]
pub fn lost_count() -> u64 {
    LOST.load(Ordering::Relaxed)
}

/// A watched range of addresses.
#[derive(Debug)]
pub(super) struct Watch(usize);

impl Watch {
    /// Watches a range that was mapped, until dropped.
    pub(super) fn new(base: usize, bytes: usize) -> io::Result<Self> {
        INSTALL.call_once(install);
        let free = SLOTS
            .iter()
            .position(|slot| !slot.taken.swap(true, Ordering::AcqRel));
        let at = free.ok_or_else(|| io::Error::other("too many mappings of guests' memory"))?;
        if let Some(slot) = SLOTS.get(at) {
            slot.lost.store(false, Ordering::Relaxed);
            slot.bytes.store(bytes, Ordering::Relaxed);
            slot.base.store(base, Ordering::Release);
        }
        Ok(Self(at))
    }

    /// Whether the file behind it was truncated.
    pub(super) fn is_lost(&self) -> bool {
        SLOTS
            .get(self.0)
            .is_some_and(|slot| slot.lost.load(Ordering::Relaxed))
    }
}

impl Watch {
    /// Watches it no longer; it must not be touched any more.
    pub(super) fn end(&self) {
        if let Some(slot) = SLOTS.get(self.0) {
            slot.base.store(0, Ordering::Release);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
        if let Some(slot) = SLOTS.get(self.0) {
            slot.taken.store(false, Ordering::Release);
        }
    }
}

fn install() {
    // SAFETY: all zeros are a valid sigaction: the default action, no flags, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: as above.
    let mut before: Box<libc::sigaction> = Box::new(unsafe { std::mem::zeroed() });
    // SAFETY: both point to sigactions of ours; the handler does only what a handler may.
    let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut *before) };
    if done == 0 {
        BEFORE.store(Box::into_raw(before), Ordering::Release);
    }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel hands over a siginfo that is valid for the call.
    let info_ref = unsafe { &*info };
    // SAFETY: SIGBUS has an address.
    let address = unsafe { info_ref.si_addr() }.addr();
    let hit = SLOTS.iter().find(|slot| {
        let base = slot.base.load(Ordering::Acquire);
        base != 0 && address.wrapping_sub(base) < slot.bytes.load(Ordering::Relaxed)
    });
    if let Some(slot) = hit
        && zeros_map(slot).is_ok()
    {
        if !slot.lost.swap(true, Ordering::Relaxed) {
            LOST.fetch_add(1, Ordering::Release);
        }
        return;
    }
    hand_on(signal, info, context);
}

/// Puts zeros of our own where the file was.
fn zeros_map(slot: &Slot) -> rustix::io::Result<()> {
    let base = slot.base.load(Ordering::Acquire);
    // SAFETY: the range is a mapping of ours, which somebody is using: its owner keeps it. What was in it is lost already,
    // and readers are prepared for any content.
    unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::without_provenance_mut(base),
            slot.bytes.load(Ordering::Relaxed),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )?
    };
    Ok(())
}

/// Does what would have been done without us.
fn hand_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.load(Ordering::Acquire);
    // SAFETY: null, or what `install` leaked.
    let before = unsafe { before.as_ref() };
    if let Some(before) = before
        && before.sa_flags & libc::SA_SIGINFO != 0
    {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: with SA_SIGINFO the kernel would have called this address with these arguments.
        let handler = unsafe { std::mem::transmute::<usize, Handler>(before.sa_sigaction) };
        return handler(signal, info, context);
    }
    // The instruction is tried again when we return, and ends the process.
    // SAFETY: setting a signal to its default is allowed in a handler.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
