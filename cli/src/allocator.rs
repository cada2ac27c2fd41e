//! The allocator, and that it hands memory back.
//!
//! Guarantees: what is freed goes back to the kernel at once, from whichever thread and of whatever size down to a few
//! pages, and no huge page keeps a handful of bytes resident. A login's password hash takes 7 MiB and the loading of the
//! programs 20 MiB, for moments: the C library's allocator keeps such pages in an arena for each thread, and this one,
//! left alone, for a second and then until that thread allocates again.
#![allow(
    unsafe_code,
    reason = "the allocator has no other way to set an option; the environment would have to be there before main"
)]

use std::ffi::{c_int, c_long};

/// `no_thp` among the crate's features is the other half.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, which libmimalloc-sys does not name.
const PURGE_DELAY: c_int = 15;

/// To be called first in `main`.
pub(crate) fn hand_back_at_once() {
    const MILLISECONDS: c_long = 0;
    // SAFETY: mimalloc takes any number for an option, at any time and from any thread, and ignores those it does not know.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, MILLISECONDS) };
}
