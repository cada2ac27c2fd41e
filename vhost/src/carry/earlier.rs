//! The file that a process before has left: read once, and believed as far as it can be checked.
//!
//! Guarantees: nothing is read that the file's size does not bear out, no more memory is taken than for its names (2 MiB), whatever
//! stands in it. What is no such file, or one of another boot, version or owner, is refused as a whole; a session that is spoilt, alone.

use super::KeepError;
use super::layout::{
    self, HEADER_WORDS, MAGIC, NAME_WORDS, NAMES, NAMES_AT, NAMES_BYTES, SESSION_WORDS,
    SESSIONS_AT, VERSION, WORD_BYTES,
};
use super::mirror::SESSIONS_END;
use crate::engine::Carried;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use uuid::Uuid;
use weft_dataplane::Ingress;
use weft_model::limits::SESSIONS_KEPT_MAX;

/// Sessions read at once.
const STEP: usize = 512;

/// Its sessions, to be read.
#[derive(Debug)]
pub(super) struct Earlier {
    file: File,
    sessions: usize,
    salt: u64,
    names: Vec<Option<Ingress>>,
}

/// A file that was found.
#[derive(Debug)]
pub(super) enum Found {
    /// None, or an empty one.
    Nothing,
    /// One that is refused, and why.
    Refused(&'static str),
    /// One to be read.
    Sessions(Earlier),
}

impl Earlier {
    /// Looks at what is at this path.
    pub(super) fn open(path: &Path, boot: Uuid) -> Result<Found, KeepError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::NOENT) => return Ok(Found::Nothing),
            Err(rustix::io::Errno::LOOP) => return Err(KeepError::Foreign),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let about = rustix::fs::fstat(&file).map_err(io::Error::from)?;
        if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
            return Err(KeepError::Foreign);
        }
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(KeepError::InUse),
            locked => locked.map_err(io::Error::from)?,
        }
        let mut file = File::from(file);
        let bytes = usize::try_from(about.st_size).unwrap_or(usize::MAX);
        if bytes == 0 {
            return Ok(Found::Nothing);
        }
        let mut header = [0; HEADER_WORDS];
        if !words(&mut file, &mut header)? || header.first() != Some(&MAGIC) {
            return Err(KeepError::Foreign);
        }
        let others = Mode::RWXG | Mode::RWXO;
        if about.st_uid != rustix::process::geteuid().as_raw()
            || Mode::from_raw_mode(about.st_mode).intersects(others)
        {
            return Ok(Found::Refused(
                "others than the one who runs this may write to it",
            ));
        }
        Self::checked(file, &header, bytes, boot)
    }

    fn checked(
        mut file: File,
        header: &[u64; HEADER_WORDS],
        bytes: usize,
        boot: Uuid,
    ) -> Result<Found, KeepError> {
        let [_, version, sessions, .., salt] = *header;
        if version != VERSION {
            return Ok(Found::Refused("another version of Weft wrote it"));
        }
        match layout::boot_of(header) {
            None => return Ok(Found::Refused("it is spoilt")),
            Some(of) if of != boot => {
                return Ok(Found::Refused("it is of another host, or of another boot"));
            }
            Some(_same) => {}
        }
        let sessions = usize::try_from(sessions).unwrap_or(usize::MAX);
        let most = usize::try_from(SESSIONS_KEPT_MAX).unwrap_or(usize::MAX);
        if sessions > most || layout::file_bytes(sessions) != Some(bytes) {
            return Ok(Found::Refused("it is cut off, or spoilt"));
        }
        file.seek(SeekFrom::Start(offset(NAMES_AT)))?;
        let mut all = vec![0; NAMES_BYTES / WORD_BYTES];
        if !words(&mut file, &mut all)? {
            return Ok(Found::Refused("it is cut off"));
        }
        let (all, _) = all.as_chunks::<NAME_WORDS>();
        let name = |(number, words): (usize, &layout::Name)| {
            let sealed = layout::is_sealed(salt, SESSIONS_END + number, words);
            sealed.then(|| layout::name_read(words)).flatten()
        };
        Ok(Found::Sessions(Self {
            file,
            sessions,
            salt,
            names: all.iter().enumerate().map(name).take(NAMES).collect(),
        }))
    }

    /// All of its sessions, one after the other; none for one that is spoilt.
    pub(super) fn each(mut self, mut take: impl FnMut(Option<Carried<Ingress>>)) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset(SESSIONS_AT)))?;
        let mut some = vec![0; STEP * SESSION_WORDS];
        let mut at = 0;
        while at < self.sessions {
            let count = STEP.min(self.sessions - at);
            let part = some.get_mut(..count * SESSION_WORDS).unwrap_or_default();
            if !words(&mut self.file, part)? {
                // Somebody cut it off meanwhile.
                take(None);
                break;
            }
            let (part, _) = part.as_chunks::<SESSION_WORDS>();
            for (at, words) in (at..).zip(part) {
                if words.first() != Some(&0) {
                    take(self.session(at, words));
                }
            }
            at += count;
        }
        Ok(())
    }

    fn session(&self, at: usize, words: &layout::Session) -> Option<Carried<Ingress>> {
        if !layout::is_sealed(self.salt, at, words) {
            return None;
        }
        let session = layout::session_read(words)?;
        session.named(|place| self.names.get(place.at()).copied().flatten())
    }
}

fn offset(at: usize) -> u64 {
    u64::try_from(at).unwrap_or(u64::MAX)
}

/// Reads so many words; false if there are not as many.
fn words(file: &mut File, into: &mut [u64]) -> io::Result<bool> {
    let mut bytes = vec![0; into.len() * WORD_BYTES];
    match file.read_exact(&mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        read => read?,
    }
    let (chunks, _) = bytes.as_chunks::<WORD_BYTES>();
    for (word, chunk) in into.iter_mut().zip(chunks) {
        *word = u64::from_le_bytes(*chunk);
    }
    Ok(true)
}
