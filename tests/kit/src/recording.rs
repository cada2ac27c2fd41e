//! What passes an interface, recorded by tcpdump: tags stand in the frames, as on the wire. (The kernel takes them out of what a
//! packet socket reads, and tells them beside: [`crate::capture`] does not see them.)

use crate::lab::{Lab, Process};
use crate::namespace::Namespace;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a pcap file's header, and of the one in front of each frame.
const FILE_HEADER_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 16;
/// Where in the latter the frame's bytes are counted.
const LENGTH_AT: usize = 8;
/// A pcap file of this machine, in microseconds.
const MAGIC: u32 = 0xa1b2_c3d4;

/// A recording under way.
#[derive(Debug)]
pub struct Recording {
    process: Process,
    path: PathBuf,
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
                return Ok(Self { process, path });
            }
            said.push(line);
        }
        bail!("tcpdump on {interface}: {}", said.join("; "))
    }

    /// Ends it, and gives the frames in order.
    ///
    /// # Errors
    /// What was recorded cannot be read.
    pub fn end(self) -> Result<Vec<Vec<u8>>> {
        self.process.stop(Signal::INT)?;
        let bytes = std::fs::read(&self.path)?;
        frames(&bytes).with_context(|| self.path.display().to_string())
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    word.map(|word| u32::from_ne_bytes(*word))
        .context("it is cut")
}

fn frames(bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    ensure!(word(bytes, 0)? == MAGIC, "it is no pcap file");
    let mut frames = Vec::new();
    let mut at = FILE_HEADER_BYTES;
    while at < bytes.len() {
        let length = usize::try_from(word(bytes, at + LENGTH_AT)?)?;
        let start = at + FRAME_HEADER_BYTES;
        let frame = bytes.get(start..start + length);
        frames.push(frame.context("it is cut")?.to_vec());
        at = start + length;
    }
    Ok(frames)
}
