//! Memory that a guest shares: mapped once, reached only through checked windows. The only unsafe code of this crate.
//!
//! Guarantees: no access leaves its mapping, whatever addresses and lengths a guest or its frontend tell; a mapping lives
//! as long as anything that can reach it. Reads of shared memory may see any value, and another one the next time: callers
//! copy once and check the copy. It knows nothing of rings or packets.
//!
//! [`Handle`] is a lock for what several workers share; it is here because it needs unsafe code too.
//!
//! A frontend that truncates the file behind a mapping loses it: `fault` puts zeros there and says so. A file that is too short
//! when it is mapped is refused.
#![allow(unsafe_code, reason = "shared memory is reached here and nowhere else")]

mod ahead;
mod fault;
mod hint;
mod mapping;
mod regions;
mod shared;
mod span;
mod sync;
mod window;

pub use ahead::{Ahead, Keeper};
pub use fault::lost_count;
pub use hint::{huge_pages_advise, prefetch};
pub use mapping::Mapping;
pub use regions::{MemoryError, Piece, REGIONS_MAX, Region, Regions};
pub use shared::{Handle, Reading, Writing};
pub use span::Span;
pub use window::Window;

/// A full fence; the models of rings and lock (tests/interleavings) have their own here.
pub use std::sync::atomic::fence;
