//! The switch is killed under load and starts again: guests go on without a reset, and every descriptor comes back once and in its
//! order, with both kinds of rings. The guests are ours, and count.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use weft_kit::lab::Process;
use weft_kit::{Lab, WeftOptions, clock};
use weft_vhost::driver::Buffer;
use weft_vhost::frontend::{Frontend, FrontendConfig};
use weft_vhost::protocol::feature;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Times that the switch is killed, each after so long under load.
const KILLS: usize = 6;
const UNDER_LOAD: Duration = Duration::from_millis(150);
const RING: u16 = 256;
/// Bytes of a buffer, of the frame in it, and where its number is in that.
const BUFFER: u64 = 2_048;
const FRAME: u32 = 64;
const NUMBER_AT: usize = 42;
/// Frames that are taken from a ring at once: those may come twice.
const BATCH: u64 = 64;

/// The switch of two guests.
struct Switch<'a> {
    lab: &'a Lab,
    program: PathBuf,
    sockets: [PathBuf; 2],
    running: Option<Process>,
}

impl<'a> Switch<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
        Ok(Self {
            lab,
            program: WeftOptions::new(None)?.program,
            sockets,
            running: None,
        })
    }

    fn start(&mut self) -> Result<()> {
        let snapshot = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../perf-lab/snapshots/two-ports-policy.json");
        let log = self.lab.directory().join("weft.log");
        let log = File::options().append(true).create(true).open(log)?;
        let mut command = Command::new(&self.program);
        command.args(["run", "--snapshot"]).arg(snapshot);
        for (port, socket) in self.sockets.iter().enumerate() {
            command.arg("--socket");
            command.arg(format!("vm{port}={}", socket.display()));
        }
        command.stdout(Stdio::null()).stderr(log);
        self.running = Some(self.lab.spawn(&mut command)?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let running = self.running.take().context("it runs")?;
        running.stop(Signal::KILL)?;
        Ok(())
    }

    /// A guest's front-end dials until it is served.
    fn serve(&mut self, guest: &mut Counting, at: usize) -> Result<()> {
        clock::until("the switch to serve a guest", READY_TIMEOUT, || {
            Ok(guest.frontend.connect(&self.sockets[at]).ok())
        })
    }
}

/// A guest that counts what it offers and what comes back.
struct Counting {
    frontend: Frontend,
    /// Offered and not back yet, by queue: its id and where its buffer is.
    out: [VecDeque<(u16, u64)>; 2],
    free: [Vec<u64>; 2],
    back: [u64; 2],
}

impl Counting {
    fn new(packed: bool) -> Result<Self> {
        let frontend = Frontend::new(FrontendConfig {
            features: feature::VERSION_1
                | feature::NET_MERGEABLE
                | if packed { feature::PACKED } else { 0 },
            pairs: 1,
            ring_size: RING,
            inflight: true,
            buffer_bytes: usize::try_from(2 * u64::from(RING) * BUFFER)?,
        })?;
        let start = frontend.buffers();
        let buffers = |queue: u64| {
            let first = start + queue * u64::from(RING) * BUFFER;
            (0..u64::from(RING)).map(|n| first + n * BUFFER).collect()
        };
        Ok(Self {
            free: [buffers(0), buffers(1)],
            frontend,
            out: [VecDeque::new(), VecDeque::new()],
            back: [0; 2],
        })
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let memory = self.frontend.memory();
        let words = bytes.chunks(2);
        for (at, word) in (usize::try_from(at)?..).step_by(2).zip(words) {
            let word = u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            memory.u16_put(at, word, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Offers all buffers that are free to be received into.
    fn receive_offer(&mut self) -> Result<()> {
        while let Some(address) = self.free[0].pop() {
            let buffer = Buffer {
                address,
                bytes: u32::try_from(BUFFER)?,
                write: true,
            };
            let id = self.frontend.offer(0, buffer)?.context("there is room")?;
            self.out[0].push_back((id, address));
        }
        Ok(())
    }

    /// Sends a frame with a number, if a buffer is free.
    fn send(&mut self, number: u64) -> Result<bool> {
        let Some(address) = self.free[1].pop() else {
            return Ok(false);
        };
        let link = Link {
            source: [2, 0, 0, 0, 0, 1],
            destination: [2, 0, 0, 0, 0, 2],
        };
        let addresses = Ip::new(
            std::net::Ipv4Addr::new(10, 0, 0, 1),
            std::net::Ipv4Addr::new(10, 0, 0, 2),
        );
        let ports = udp::Repr {
            source_port: 2_000,
            destination_port: 2_000,
        };
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(usize::try_from(FRAME)? - NUMBER_AT, 0);
        let frame = frame::udp(link, addresses, ports, &payload);
        self.put(address, &[0; 12])?;
        self.put(address + 12, &frame)?;
        let buffer = Buffer {
            address,
            bytes: 12 + FRAME,
            write: false,
        };
        let id = self.frontend.offer(1, buffer)?.context("there is room")?;
        self.out[1].push_back((id, address));
        Ok(true)
    }

    /// Takes what came back, and gives the numbers of frames that were received.
    fn collect(&mut self, queue: usize) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        loop {
            let ring = self.frontend.ring(queue).context("a ring")?;
            let came = ring.collect();
            ensure!(
                ring.strays() == 0,
                "something came back twice in queue {queue}"
            );
            let Some((id, bytes)) = came else {
                return Ok(numbers);
            };
            let (offered, address) = self.out[queue].pop_front().context("it was offered")?;
            ensure!(
                offered == id,
                "{id} came back before {offered} in queue {queue}"
            );
            self.back[queue] += 1;
            self.free[queue].push(address);
            if queue == 0 {
                ensure!(bytes == 12 + FRAME, "{bytes} bytes");
                let at = usize::try_from(address)? + 12 + NUMBER_AT;
                let word = |n: usize| {
                    let memory = self.frontend.memory();
                    u64::from(memory.u16(at + 2 * n, std::sync::atomic::Ordering::Relaxed))
                };
                numbers.push(word(0) | word(1) << 16 | word(2) << 32 | word(3) << 48);
            }
        }
    }
}

/// What was sent and received.
#[derive(Default)]
struct Seen {
    sent: u64,
    last: Option<u64>,
    received: u64,
    twice: u64,
    missing: u64,
}

impl Seen {
    fn take(&mut self, numbers: &[u64]) -> Result<()> {
        for number in numbers {
            ensure!(*number < self.sent, "frame {number} was never sent");
            let next = self.last.map_or(0, |last| last + 1);
            if *number < next {
                self.twice += 1;
            } else {
                self.received += 1;
                self.missing += number - next;
                self.last = Some(*number);
            }
        }
        Ok(())
    }
}

fn load(guests: &mut [Counting; 2], seen: &mut Seen, length: Duration) -> Result<()> {
    let end = clock::now() + length;
    while clock::now() < end {
        let [one, two] = &mut *guests;
        while one.send(seen.sent)? {
            seen.sent += 1;
        }
        one.collect(1)?;
        seen.take(&two.collect(0)?)?;
        two.receive_offer()?;
    }
    Ok(())
}

fn killed_under_load(packed: bool) -> Result<()> {
    let lab = Lab::new("weft-user-restart")?;
    let mut switch = Switch::new(&lab)?;
    switch.start()?;
    let mut guests = [Counting::new(packed)?, Counting::new(packed)?];
    let mut seen = Seen::default();
    for guest in &mut guests {
        guest.receive_offer()?;
    }
    // The receiver first, so that only what is under way when the switch dies can be lost.
    for at in [1, 0] {
        switch.serve(&mut guests[at], at)?;
    }
    for _ in 0..KILLS {
        load(&mut guests, &mut seen, UNDER_LOAD)?;
        switch.kill()?;
        // While nobody serves them guests go on until their rings are full.
        load(&mut guests, &mut seen, Duration::from_millis(5))?;
        switch.start()?;
        for at in [1, 0] {
            switch.serve(&mut guests[at], at)?;
        }
    }
    load(&mut guests, &mut seen, UNDER_LOAD)?;
    clock::until("all that was sent to come back", READY_TIMEOUT, || {
        guests[0].collect(1)?;
        seen.take(&guests[1].collect(0)?)?;
        guests[1].receive_offer()?;
        Ok(guests[0].out[1].is_empty().then_some(()))
    })?;
    let Seen {
        sent,
        received,
        twice,
        missing,
        ..
    } = seen;
    eprintln!(
        "packed {packed}: {sent} sent, {received} received, {twice} twice, {missing} missing"
    );
    ensure!(guests[0].back[1] == sent, "each buffer came back");
    // Rings that went round after every start.
    let rounds = u64::try_from(KILLS + 1)? * u64::from(RING);
    ensure!(received > rounds, "{received} received");
    ensure!(twice <= BATCH * u64::try_from(KILLS)?, "{twice} twice");
    Ok(())
}

#[test]
fn split_rings_outlive_a_killed_switch() -> Result<()> {
    killed_under_load(false)
}

#[test]
fn packed_rings_outlive_a_killed_switch() -> Result<()> {
    killed_under_load(true)
}
