//! The file that sessions are written to: mapped, so that what was written is there whoever dies next.
//!
//! Guarantees: it is in the place of an earlier one only when it has all that was taken over from there. A session is written again
//! only if it has changed, so that a look at those that have not costs no write. Nobody else can read or write it.

use super::KeepError;
use super::layout::{
    self, HEADER_WORDS, NAME_WORDS, NAMES, NAMES_AT, NAMES_BYTES, SESSION_BYTES, SESSION_WORDS,
    SESSIONS_AT, WORD_BYTES,
};
use crate::engine::{Carried, Place};
use crate::memory::{Mapping, Window};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use uuid::Uuid;
use weft_dataplane::Ingress;

/// The file, as it is written.
#[derive(Debug)]
pub(super) struct Mirror {
    path: PathBuf,
    /// Where it is until it is in its place.
    temporary: Option<PathBuf>,
    mapping: Arc<Mapping>,
    header: Window,
    names: Window,
    sessions: Window,
    salt: u64,
    /// Held for its lock.
    file: OwnedFd,
}

impl Mirror {
    /// A new one, beside its place.
    pub(super) fn create(
        path: &Path,
        sessions: usize,
        boot: Uuid,
        salt: u64,
    ) -> Result<Self, KeepError> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let bytes = layout::file_bytes(sessions).ok_or(KeepError::Sessions)?;
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(KeepError::Io(error));
            }
            _ => {}
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::open(&temporary, flags | OFlags::CLOEXEC, mode);
        let file = file.map_err(io::Error::from)?;
        let lock = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        lock.map_err(io::Error::from)?;
        let length = u64::try_from(bytes).map_err(io::Error::other)?;
        rustix::fs::ftruncate(&file, length).map_err(io::Error::from)?;
        let mapping = Arc::new(Mapping::of_file(&file, bytes)?);
        let part = |at, bytes| {
            let window = Window::new(&mapping, at, bytes);
            window.ok_or_else(|| io::Error::other("a part of the file is outside of it"))
        };
        let mirror = Self {
            path: path.to_owned(),
            temporary: Some(temporary),
            header: part(0, HEADER_WORDS * WORD_BYTES)?,
            names: part(NAMES_AT, NAMES_BYTES)?,
            sessions: part(SESSIONS_AT, sessions * SESSION_BYTES)?,
            mapping,
            salt,
            file,
        };
        let sessions = u64::try_from(sessions).map_err(io::Error::other)?;
        write(
            mirror.header.u64s(),
            0,
            &layout::header(sessions, boot, salt),
        );
        Ok(mirror)
    }

    /// Puts it in its place.
    pub(super) fn install(&mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            std::fs::rename(temporary, &self.path)?;
        }
        self.temporary = None;
        Ok(())
    }

    /// Whether it is only memory, as far as whoever writes there can tell.
    pub(super) fn is_on_tmpfs(&self) -> bool {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        let about = rustix::fs::fstatfs(&self.file);
        about.is_ok_and(|about| u64::try_from(about.f_type) == Ok(TMPFS_MAGIC))
    }

    /// Where sessions are in memory, and bytes of each.
    pub(super) fn memory(&self) -> (usize, usize) {
        (self.mapping.address() + SESSIONS_AT, SESSION_BYTES)
    }

    /// Whether what is written goes nowhere: the file was truncated, or there is no memory for it.
    pub(super) fn is_lost(&self) -> bool {
        self.mapping.is_lost()
    }

    /// Forgets all names and sessions.
    pub(super) fn forget(&mut self) {
        self.salt = self.salt.wrapping_add(1);
        write(self.header.u64s(), HEADER_WORDS - 1, &[self.salt]);
    }

    /// Whose number that is.
    pub(super) fn name_put(&self, number: usize, ingress: Option<Ingress>) {
        let mut words = ingress.and_then(layout::name).unwrap_or_default();
        if words != [0; NAME_WORDS] {
            layout::seal(self.salt, SESSIONS_END + number, &mut words);
        }
        if number < NAMES {
            write(self.names.u64s(), number * NAME_WORDS, &words);
        }
    }

    /// What is at a place of the session table.
    pub(super) fn put(&self, at: usize, session: Option<&Carried<Place>>) {
        let all = self.sessions.u64s();
        let Some(from) = at.checked_mul(SESSION_WORDS) else {
            return;
        };
        let first = all.get(from).map(|word| u64::from_le(word.load(Relaxed)));
        match session {
            None if first == Some(0) => {}
            None => write(all, from, &[0]),
            Some(session) => {
                let mut words = layout::session(session);
                layout::seal(self.salt, at, &mut words);
                if first != words.first().copied() {
                    write(all, from, &words);
                }
            }
        }
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // The next one to start removes it, too.
            let _gone = std::fs::remove_file(temporary);
        }
    }
}

/// Names are sealed as what stands behind all sessions that there can be.
pub(super) const SESSIONS_END: usize = 1 << 32;

fn write(to: &[AtomicU64], from: usize, words: &[u64]) {
    for (to, word) in to.iter().skip(from).zip(words) {
        to.store(word.to_le(), Relaxed);
    }
}
