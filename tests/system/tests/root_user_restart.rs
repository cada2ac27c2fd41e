//! The switch is killed under load and starts again: guests go on without a reset, and every descriptor comes back once and in its
//! order, with both kinds of rings; what is let in by its session alone goes on. The guests are ours, and count.

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
    sessions_file: Option<PathBuf>,
    running: Option<Process>,
}

impl<'a> Switch<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
        Ok(Self {
            lab,
            program: WeftOptions::new(None)?.program,
            sockets,
            sessions_file: Some(lab.directory().join("sessions")),
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
        if let Some(file) = &self.sessions_file {
            command.arg("--sessions-file").arg(file);
        }
        for (port, socket) in self.sockets.iter().enumerate() {
            command.arg("--socket");
            command.arg(format!("vm{port}={}", socket.display()));
        }
        command.stdout(Stdio::null()).stderr(log);
        self.running = Some(self.lab.spawn(&mut command)?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let running = self.running.take().context("it runs")?;
        running.stop(signal)?;
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
        self.send_from([1, 2], [2_000; 2], number)
    }

    /// The same from one guest's address and port to the other's.
    fn send_from(&mut self, [from, to]: [u8; 2], ports: [u16; 2], number: u64) -> Result<bool> {
        let Some(address) = self.free[1].pop() else {
            return Ok(false);
        };
        let link = Link {
            source: [2, 0, 0, 0, 0, from],
            destination: [2, 0, 0, 0, 0, to],
        };
        let [source, destination] = [from, to].map(|n| std::net::Ipv4Addr::new(10, 0, 0, n));
        let ports = udp::Repr {
            source_port: ports[0],
            destination_port: ports[1],
        };
        let mut payload = number.to_le_bytes().to_vec();
        payload.resize(usize::try_from(FRAME)? - NUMBER_AT, 0);
        let frame = frame::udp(link, Ip::new(source, destination), ports, &payload);
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

/// Connections, from these ports on: nothing may be sent there but answers.
const ASKERS: u16 = 200;
const ASKER: u16 = 100;
/// Where sessions are in the file, and bytes of each, of which the first eight are never zero (vhost/src/carry/layout.rs).
const SESSIONS_AT: usize = 4_096 + (2 << 20);
const SESSION_BYTES: usize = 128;

/// The first guest asks, the switch ends, and the second one answers into the next one. How many answers come.
fn answered(kept: bool, signal: Signal) -> Result<usize> {
    let lab = Lab::new("weft-user-restart")?;
    let mut switch = Switch::new(&lab)?;
    if !kept {
        switch.sessions_file = None;
    }
    switch.start()?;
    let mut guests = [Counting::new(false)?, Counting::new(false)?];
    for (at, guest) in guests.iter_mut().enumerate() {
        guest.receive_offer()?;
        switch.serve(guest, at)?;
    }
    let [asker, other] = &mut guests;
    for number in 0..ASKERS {
        ensure!(asker.send_from([1, 2], [ASKER + number, 2_000], number.into())?);
    }
    let mut asked = 0;
    clock::until("the questions to come", READY_TIMEOUT, || {
        asked += other.collect(0)?.len();
        Ok((asked == usize::from(ASKERS)).then_some(()))
    })?;
    other.receive_offer()?;
    if let Some(file) = &switch.sessions_file {
        // A kill takes what is not written yet.
        clock::until("all sessions to be written", READY_TIMEOUT, || {
            let bytes = std::fs::read(file)?;
            let sessions = bytes.get(SESSIONS_AT..).context("no sessions")?;
            let written = sessions.chunks(SESSION_BYTES);
            let written = written.filter(|session| session[..8] != [0; 8]);
            Ok((written.count() == usize::from(ASKERS)).then_some(()))
        })?;
    }
    switch.end(signal)?;
    switch.start()?;
    for (at, guest) in guests.iter_mut().enumerate() {
        switch.serve(guest, at)?;
    }
    let [asker, other] = &mut guests;
    other.collect(1)?;
    for number in 0..ASKERS {
        ensure!(other.send_from([2, 1], [2_000, ASKER + number], number.into())?);
    }
    // One that may come in any case, behind all others.
    ensure!(other.send_from([2, 1], [2_000, 2_000], u64::MAX)?);
    let mut came = Vec::new();
    clock::until("the last one", READY_TIMEOUT, || {
        came.extend(asker.collect(0)?);
        Ok((came.last() == Some(&u64::MAX)).then_some(()))
    })?;
    Ok(came.len() - 1)
}

#[test]
fn answers_go_on_by_their_sessions_alone() -> Result<()> {
    let all = usize::from(ASKERS);
    ensure!(answered(true, Signal::KILL)? == all, "killed");
    ensure!(answered(true, Signal::TERM)? == all, "stopped");
    ensure!(answered(false, Signal::KILL)? == 0, "without a file");
    Ok(())
}
