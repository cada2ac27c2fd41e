//! What passes an interface, recorded by tcpdump: tags stand in the frames, as on the wire. (The kernel takes them out of what a
//! packet socket reads, and tells them beside: [`crate::capture`] does not see them.)

use crate::lab::{Lab, Process};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes of a pcap file's header, and of the one in front of each frame.
const FILE_HEADER_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 16;
/// Where in the latter the frame's bytes are counted.
const LENGTH_AT: usize = 8;
/// A pcap file of this machine, in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A recording under way.
#[derive(Debug)]
pub struct Recording {
    process: Process,
    path: PathBuf,
    /// Bytes of the file that [`Recording::take`] has given.
    taken: usize,
}

impl Recording {
    /// Records what passes an interface from now on.
    ///
    /// # Errors
    /// There is no such interface, or no tcpdump.
    pub fn start(lab: &Lab, namespace: &Namespace, interface: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = lab.directory().join(format!("recording{number}.pcap"));
        let mut command = namespace.command("tcpdump");
        command.args([
            "-n",
            "-U",
            "--immediate-mode",
            "-Z",
            "root",
            "-i",
            interface,
        ]);
        command.arg("-w").arg(&path);
        let mut process = lab.spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
        let words = process.child().stderr.take().context("no pipe")?;
        let mut said = Vec::new();
        for line in BufReader::new(words).lines() {
            let line = line?;
            if line.contains("listening on") {
                return Ok(Self {
                    process,
                    path,
                    taken: 0,
                });
            }
            said.push(line);
        }
        bail!("tcpdump on {interface}: {}", said.join("; "))
    }

    /// The frames that were recorded since the last time, in order; it goes on.
    ///
    /// # Errors
    /// What was recorded cannot be read.
    pub fn take(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut file = std::fs::File::open(&self.path)?;
        if self.taken == 0 {
            let mut header = Vec::new();
            file.by_ref()
                .take(u64::try_from(FILE_HEADER_BYTES)?)
                .read_to_end(&mut header)?;
            if header.len() < FILE_HEADER_BYTES {
                return Ok(Vec::new());
            }
            ensure!(word(&header, 0)? == MAGIC, "it is no pcap file");
            self.taken = FILE_HEADER_BYTES;
        }
        file.seek(SeekFrom::Start(u64::try_from(self.taken)?))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // The last one may be half written: it is the next time's.
        let (frames, read) = frames(&bytes)?;
        self.taken += read;
        Ok(frames)
    }

    /// Ends it, and gives the frames that were not taken yet, in order.
    ///
    /// # Errors
    /// What was recorded cannot be read.
    pub fn end(mut self) -> Result<Vec<Vec<u8>>> {
        self.process.signal(Signal::INT)?;
        self.process.wait(END_TIMEOUT)?;
        let frames = self.take()?;
        let bytes = std::fs::metadata(&self.path)?.len();
        ensure!(
            bytes == u64::try_from(self.taken)?,
            "{} is cut",
            self.path.display()
        );
        Ok(frames)
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map(|word| u32::from_ne_bytes(*word))
        .context("it is cut")
}

/// The frames that are whole, and how many bytes they take.
fn frames(bytes: &[u8]) -> Result<(Vec<Vec<u8>>, usize)> {
    let mut frames = Vec::new();
    let mut at = 0;
    while bytes.len() >= at + FRAME_HEADER_BYTES {
        let length = usize::try_from(word(bytes, at + LENGTH_AT)?)?;
        let start = at + FRAME_HEADER_BYTES;
        let Some(frame) = bytes.get(start..start + length) else {
            break;
        };
        frames.push(frame.to_vec());
        at = start + length;
    }
    Ok((frames, at))
}
