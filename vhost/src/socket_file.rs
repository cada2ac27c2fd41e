//! The file of a unix socket that we listen on.
//!
//! Guarantees: nothing but a socket that nobody listens on any more is ever replaced, and nothing but our own is removed at
//! the end. Between looking at a file and removing it there is a moment; whoever may write to the folder may use it.

use std::fs::{DirBuilder, FileType, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// A socket's file that we made; it goes when this is dropped, unless another one is in its place by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Its device and inode.
    made: (u64, u64),
}

fn number(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|there| there.file_type().is_socket() && number(&there) == self.made) {
            // Whoever removed it meanwhile did our work.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

fn name(kind: FileType) -> &'static str {
    if kind.is_file() {
        "an ordinary file"
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "no socket"
    }
}

/// Listens there, in place of a socket that somebody dead left.
///
/// # Errors
/// [`ErrorKind::AddrInUse`] if somebody listens there, [`ErrorKind::AlreadyExists`] if what is there is no socket, or what
/// the system said.
pub fn listen(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => remove_dead(path)?,
        Ok(there) => {
            let what = name(there.file_type());
            let text = format!(
                "{what} is there and is left alone; name another path for the socket, or remove it"
            );
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    let made = number(&std::fs::symlink_metadata(path)?);
    let path = path.to_owned();
    Ok((listener, SocketFile { path, made }))
}

/// Removes a socket that nobody listens on.
fn remove_dead(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            "somebody listens there already",
        )),
    }
}

/// Makes the folder of a socket, if it is missing, for its owner alone.
///
/// # Errors
/// The file system refused.
pub fn folder_make(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_no_socket_is_left_alone_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link, inner] = ["file", "link", "folder"].map(|name| folder.path().join(name));
        std::fs::write(&file, "precious").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        std::fs::create_dir(&inner).unwrap();
        for (path, what) in [
            (&file, "an ordinary file"),
            (&link, "a symbolic link"),
            (&inner, "a folder"),
        ] {
            let error = listen(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "precious");
        assert!(inner.is_dir());
    }

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (listener, made) = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(listener);
        drop(made);
        assert!(!path.exists(), "ours goes with us");
    }

    #[test]
    fn what_came_in_its_place_is_not_ours_to_remove() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let (_listener, made) = listen(&path).unwrap();
        std::fs::rename(&path, folder.path().join("aside.sock")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(made);
        assert!(path.exists(), "another one's socket");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(folder.path().join("aside.sock"), folder.path().join("b")).unwrap();
        let (_listener, made) = listen(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        drop(made);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_folder_that_is_missing_is_made_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.sock");
        folder_make(&path).unwrap();
        folder_make(&path).unwrap();
        let mode = std::fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o700);
        folder_make(Path::new("c.sock")).unwrap();
    }
}
