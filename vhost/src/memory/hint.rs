//! Hints to processor and kernel: they change how long something takes, never what it gives.

/// Tells the processor that a value will be read soon.
#[inline]
pub fn prefetch<T>(value: &T) {
    fetch(std::ptr::from_ref(value).cast());
}

#[inline]
pub(super) fn fetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch does not fault and has no effect that a program can see, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The same for a line that will be written: it is taken away from whoever has it.
#[inline]
pub(super) fn fetch_to_write(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: as above; processors without the instruction take it for one that does nothing.
        unsafe {
            std::arch::asm!("prefetchw [{0}]", in(reg) address, options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks the kernel to back a large table by huge pages: a random look-up then misses the TLB less. Nothing depends on it.
pub fn huge_pages_advise<T>(table: &[T], capacity: usize) {
    const HUGE_PAGE: usize = 2 << 20;
    let start = table.as_ptr().addr();
    let end = start.saturating_add(capacity.saturating_mul(size_of::<T>()));
    let (first, last) = (
        start.next_multiple_of(HUGE_PAGE),
        end / HUGE_PAGE * HUGE_PAGE,
    );
    if first >= last {
        return;
    }
    advised_pages_allow();
    let address = table.as_ptr().cast::<u8>().wrapping_add(first - start);
    // SAFETY: whole pages inside of one allocation of the caller's; this advice changes no content.
    let _advice = unsafe {
        rustix::mm::madvise(
            address.cast_mut().cast(),
            last - first,
            rustix::mm::Advice::LinuxHugepage,
        )
    };
}

/// A process that keeps huge pages off, as the `weft` command does for small allocations' sake, gets them where it asks for
/// them. Kernels before 6.18 know no such exception, and the tables then stay on small pages.
fn advised_pages_allow() {
    const EXCEPT_ADVISED: libc::c_ulong = 1 << 1;
    let (on, none): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: reads nothing: it was asked by the number alone.
    let off = unsafe { libc::prctl(libc::PR_GET_THP_DISABLE, none, none, none, none) };
    if off == 1 {
        // SAFETY: changes how memory is backed, never what is in it.
        let _refused =
            unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, EXCEPT_ADVISED, none, none) };
    }
}
