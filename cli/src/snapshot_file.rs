//! The snapshot of `weft run`: read from a file, and again when the file changes.
//!
//! Guarantees: a file with a mistake is refused whole and named; at the start that is the end, later the last good
//! snapshot stays in force. It looks at the file twice a second, whichever way an editor replaces it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use weft_model::{HostSnapshot, Revision, SnapshotFileError};

/// Between two looks at the file.
const LOOK: Duration = Duration::from_millis(500);

/// What tells one content of a file from the next without reading it: device, inode, bytes, and the last change's
/// seconds and nanoseconds.
type Stamp = (u64, u64, u64, i64, i64);

/// A snapshot file that is followed.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    path: PathBuf,
    stamp: Option<Stamp>,
    snapshot: watch::Sender<Option<Arc<HostSnapshot>>>,
}

impl SnapshotFile {
    /// Reads the file for the first time.
    pub(crate) fn open(path: PathBuf) -> Result<Self, SnapshotFileError> {
        // Taken before the file is read: a change in between is seen as one.
        let stamp = stamp(&path);
        let first = HostSnapshot::from_file(&path)?;
        Ok(Self {
            path,
            stamp,
            snapshot: watch::Sender::new(Some(Arc::new(first))),
        })
    }

    /// The newest good snapshot.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Arc<HostSnapshot>>> {
        self.snapshot.subscribe()
    }

    /// Reads the file whenever it changes or `reloads` says so, until `shutdown`.
    pub(crate) async fn follow(
        &mut self,
        mut reloads: mpsc::Receiver<()>,
        shutdown: CancellationToken,
    ) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(()) = reloads.recv() => self.reload(),
                _ = looks.tick() => {
                    let now = stamp(&self.path);
                    // A file that is gone for a moment is being replaced.
                    if now.is_some() && now != self.stamp {
                        self.reload();
                    }
                }
            }
        }
    }

    fn reload(&mut self) {
        self.stamp = stamp(&self.path);
        match HostSnapshot::from_file(&self.path) {
            Ok(next) => self.take(next),
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::error!("the snapshot is refused, the last one stays in force: {error:#}");
            }
        }
    }

    /// A file may keep its revision while it is edited; what is in force needs a new one for a new content.
    fn take(&mut self, mut next: HostSnapshot) {
        self.snapshot.send_if_modified(|have| {
            if let Some(have) = have.as_ref().filter(|have| have.epoch == next.epoch) {
                let revision = next.revision;
                next.revision = have.revision;
                if **have == next {
                    tracing::info!(
                        revision = have.revision.0,
                        "the snapshot is read again, and says the same"
                    );
                    return false;
                }
                next.revision = revision.max(Revision(have.revision.0 + 1));
            }
            tracing::info!(revision = next.revision.0, "the snapshot is read again");
            *have = Some(Arc::new(next));
            true
        });
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.size(),
        data.mtime(),
        data.mtime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{Epoch, Network, NetworkId, NetworkType, Segment};

    const DEADLINE: Duration = Duration::from_secs(20);

    fn snapshot(revision: u64, mtu: u32) -> HostSnapshot {
        let epoch: Epoch = "00000000-0000-4000-8000-000000000001".parse().unwrap();
        let mut snapshot = HostSnapshot::empty("h1".parse().unwrap(), epoch);
        snapshot.revision = Revision(revision);
        let segment = Segment {
            network_type: NetworkType::Local,
            physical_network: None,
            segmentation_id: None,
        };
        let network = Network {
            segment,
            mtu,
            external: false,
            dns_domain: String::new(),
            transit: None,
            vlan_transparent: false,
        };
        let id: NetworkId = "00000000-0000-4000-8000-000000000002".parse().unwrap();
        snapshot.networks.insert(id, network);
        snapshot
    }

    fn write(path: &Path, snapshot: &HostSnapshot) {
        std::fs::write(path, serde_json::to_vec(snapshot).unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_changed_file_is_read_and_a_bad_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.json");
        write(&path, &snapshot(5, 1_500));
        let mut file = SnapshotFile::open(path.clone()).unwrap();
        let mut newest = file.subscribe();
        let (reload, reloads) = mpsc::channel(1);
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let task = tokio::spawn(async move { file.follow(reloads, stop).await });
        let mut until = async |mtu: u32| {
            let good = |have: &Option<Arc<HostSnapshot>>| {
                have.as_ref()
                    .is_some_and(|have| have.networks.values().all(|n| n.mtu == mtu))
            };
            let found = tokio::time::timeout(DEADLINE, newest.wait_for(good)).await;
            found
                .expect("in time")
                .unwrap()
                .as_ref()
                .unwrap()
                .revision
                .0
        };
        assert_eq!(until(1_500).await, 5);
        // The revision was not edited: it moves all the same. A larger one is taken as it is.
        write(&path, &snapshot(5, 1_400));
        assert_eq!(until(1_400).await, 6);
        write(&path, &snapshot(9, 1_300));
        assert_eq!(until(1_300).await, 9);
        // What does not validate is refused; on request it is read at once.
        write(&path, &snapshot(10, 7));
        reload.send(()).await.unwrap();
        let moved = folder.path().join("next");
        write(&moved, &snapshot(10, 1_200));
        std::fs::rename(&moved, &path).unwrap();
        assert_eq!(until(1_200).await, 10);
        shutdown.cancel();
        task.await.unwrap();
    }

    #[test]
    fn the_first_file_must_be_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot.json");
        let missing = SnapshotFile::open(path.clone()).unwrap_err();
        assert!(missing.to_string().contains("snapshot.json"), "{missing}");
        write(&path, &snapshot(1, 7));
        let refused = SnapshotFile::open(path).unwrap_err().to_string();
        assert!(refused.contains("mtu: expected 68 to 65535"), "{refused}");
    }
}
