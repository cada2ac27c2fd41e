//! Memory that is made ready before it is needed, by a thread that has nothing else to do: whoever is first to touch a page waits
//! for the kernel to find and clear it, and on a virtual machine perhaps for its host too.
//!
//! Guarantees: it never changes what memory holds, nor what anybody finds there; so little is ready ahead of what is used that an
//! idle table costs no more than that.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};

/// Places that are ready ahead of those in use.
const AHEAD: usize = 32_768;
/// Places that are made ready at once.
const STEP: usize = 8_192;
const PAGE: usize = 4_096;

/// A part of the memory, by its address: so many bytes for each place.
#[derive(Clone, Copy, Debug)]
struct Part {
    address: usize,
    place_bytes: usize,
}

/// Memory that is taken into use from its beginning on, place by place.
#[derive(Debug, Default)]
pub struct Ahead {
    parts: Vec<Part>,
    places: usize,
    used: AtomicUsize,
    /// Who makes it ready.
    thread: OnceLock<Thread>,
    stop: AtomicBool,
}

impl Ahead {
    /// Of so many places, which have their parts in these tables.
    pub fn new(places: usize, parts: &[(usize, usize)]) -> Self {
        let part = |(address, place_bytes): &(usize, usize)| Part {
            address: *address,
            place_bytes: *place_bytes,
        };
        Self {
            parts: parts.iter().map(part).collect(),
            places,
            used: AtomicUsize::new(0),
            thread: OnceLock::new(),
            stop: AtomicBool::new(false),
        }
    }

    /// Says how many places are in use. Somebody is told now and then only.
    #[inline]
    pub fn use_up_to(&self, used: usize) {
        if used.is_multiple_of(STEP) {
            self.used.store(used, Relaxed);
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    /// How many places are to be ready.
    fn wanted(&self) -> usize {
        self.places
            .min(self.used.load(Relaxed).saturating_add(AHEAD))
    }

    /// Makes ready what is to be, until it is told to stop.
    fn run(&self) {
        let mut ready = 0;
        while !self.stop.load(Relaxed) {
            // What is in use was touched by its user.
            ready = ready.max(self.used.load(Relaxed));
            let wanted = self.wanted();
            if ready >= wanted {
                std::thread::park();
                continue;
            }
            let to = wanted.min(ready + STEP);
            for part in &self.parts {
                let [from, to] = [ready, to].map(|place| part.address + place * part.place_bytes);
                populate(from, to);
            }
            ready = to;
        }
    }
}

/// The thread; it ends with this.
#[derive(Debug)]
pub struct Keeper {
    ahead: Arc<Ahead>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn start(ahead: Arc<Ahead>) -> std::io::Result<Self> {
        let work = Arc::clone(&ahead);
        let thread = std::thread::Builder::new()
            .name("weft-ahead".to_owned())
            .spawn(move || work.run())?;
        // There is one keeper; another one's places stay as they are.
        let _second = ahead.thread.set(thread.thread().clone());
        Ok(Self {
            ahead,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.ahead.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has said so itself.
            let _panicked = thread.join();
        }
    }
}

/// Lets the kernel find pages for what is between these addresses, of an allocation that is there.
fn populate(from: usize, to: usize) {
    // Page by page, without gaps between two calls; of the first page somebody else may have a part.
    let [from, to] = [from, to].map(|address| address / PAGE * PAGE);
    if from >= to {
        return;
    }
    let address = std::ptr::without_provenance_mut(from);
    // SAFETY: pages that are found are those that the first write would have found: no content changes, whoever reads or writes
    // meanwhile, and whatever is there. Kernels before 5.14 refuse it, and the first write finds them as ever.
    let _refused =
        unsafe { rustix::mm::madvise(address, to - from, rustix::mm::Advice::LinuxPopulateWrite) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PLACE_BYTES: usize = 64;

    /// Pages that are there, of a table's room.
    fn resident(table: &Vec<[u64; PLACE_BYTES / 8]>) -> usize {
        let from = table.as_ptr().addr().next_multiple_of(PAGE);
        let bytes = table.capacity() * PLACE_BYTES - PAGE;
        let mut pages = vec![0u8; bytes.div_ceil(PAGE)];
        let address = std::ptr::without_provenance_mut(from);
        // SAFETY: writes a byte for each page of what is asked for, of which `pages` has as many.
        let done = unsafe { libc::mincore(address, bytes, pages.as_mut_ptr()) };
        assert_eq!(done, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn so_much_is_ready_ahead_of_what_is_used_and_content_stays() {
        let places = 4 * AHEAD;
        let mut table: Vec<[u64; PLACE_BYTES / 8]> = Vec::with_capacity(places);
        table.push([7; 8]);
        let ahead = Arc::new(Ahead::new(places, &[(table.as_ptr().addr(), PLACE_BYTES)]));
        let keeper = Keeper::start(Arc::clone(&ahead)).unwrap();
        // One page more or less: the table does not begin with one.
        let pages = |places: usize| places * PLACE_BYTES / PAGE - 1;
        let wait = |places: usize| {
            for _ in 0..1_000 {
                if resident(&table) >= pages(places) {
                    return true;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
            false
        };
        assert!(wait(AHEAD), "{} pages", resident(&table));
        assert!(
            resident(&table) <= pages(AHEAD) + 2,
            "{} pages",
            resident(&table)
        );
        ahead.use_up_to(STEP - 1);
        ahead.use_up_to(2 * STEP);
        assert!(wait(AHEAD + 2 * STEP), "{} pages", resident(&table));
        drop(keeper);
        assert_eq!(table, [[7; 8]]);
    }
}
