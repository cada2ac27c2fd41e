//! Guests on vhost-user sockets that need no machine: whole frames in and out, and a namespace whose `eth0` is such a device, so
//! that all that a guest of the kernel engine does can be done by one of the user engine.
//!
//! ```text
//!   guest's namespace:  eth0 ══ nic0 ── a thread ── rings ── vhost-user socket
//! ```

use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use weft_kit::capture::Capture;
use weft_kit::clock::{pause, until};
use weft_kit::{Guest, Lab, PortFacts, frame};
use weft_vhost::driver::Buffer;
use weft_vhost::frontend::{Frontend, FrontendConfig};
use weft_vhost::protocol::feature;

/// Descriptors of a ring.
const RING: u16 = 256;
/// Bytes of a buffer.
const BUFFER: u64 = 2_048;
/// Virtio's header.
const HEADER: usize = 12;
/// How long a socket may take to be there.
const SERVED_TIMEOUT: Duration = Duration::from_secs(30);
/// Frames that are carried one way before the other is looked at.
const BATCH: usize = 64;
/// How long nothing is looked at when nothing comes.
const IDLE: Duration = Duration::from_micros(300);

/// A guest's device: sends and receives whole frames, by each of its queue pairs.
#[derive(Debug)]
pub struct Device {
    frontend: Frontend,
    pairs: Vec<Pair>,
}

/// Where the buffers of a pair are.
#[derive(Debug)]
struct Pair {
    /// To be sent in.
    free: Vec<u64>,
    /// Being sent: the oldest last.
    sent: Vec<u64>,
    /// To be received into, always offered: the oldest last.
    receiving: Vec<u64>,
}

impl Device {
    /// A device of so many queue pairs that nobody serves yet, with a packed ring or split ones.
    ///
    /// # Errors
    /// The kernel gives no memory.
    pub fn new(pairs: u16, packed: bool) -> Result<Self> {
        let packed = if packed { feature::PACKED } else { 0 };
        let each = 2 * u64::from(RING) * BUFFER;
        let frontend = Frontend::new(FrontendConfig {
            features: feature::VERSION_1 | feature::NET_MERGEABLE | packed,
            pairs,
            ring_size: RING,
            inflight: false,
            buffer_bytes: usize::try_from(u64::from(pairs) * each)?,
        })?;
        let start = frontend.buffers();
        let mut device = Self {
            frontend,
            pairs: Vec::new(),
        };
        for pair in 0..u64::from(pairs) {
            let first = start + pair * each;
            let half = each / 2;
            let buffers = |first: u64| (0..u64::from(RING)).map(move |n| first + n * BUFFER);
            device.pairs.push(Pair {
                free: buffers(first + half).collect(),
                sent: Vec::new(),
                receiving: Vec::new(),
            });
            for address in buffers(first) {
                device.receive_into(usize::try_from(pair)?, address)?;
            }
        }
        Ok(device)
    }

    /// Dials a socket; when it returns, the device is served.
    ///
    /// # Errors
    /// Nobody listens, or it refuses.
    pub fn connect(&mut self, socket: &Path) -> Result<()> {
        Ok(self.frontend.connect(socket)?)
    }

    fn receive_into(&mut self, pair: usize, address: u64) -> Result<()> {
        let buffer = Buffer {
            address,
            bytes: u32::try_from(BUFFER)?,
            write: true,
        };
        let offered = self.frontend.offer(2 * pair, buffer)?;
        offered.context("there is room")?;
        let place = self.pairs.get_mut(pair).context("no such pair")?;
        place.receiving.insert(0, address);
        Ok(())
    }

    /// Sends a frame, if a buffer is free.
    ///
    /// # Errors
    /// There is no such pair, or the frame does not fit a buffer.
    pub fn send(&mut self, pair: usize, frame: &[u8]) -> Result<bool> {
        let queue = 2 * pair + 1;
        let place = self.pairs.get_mut(pair).context("no such pair")?;
        while let Some(_back) = self.frontend.ring(queue).context("a ring")?.collect() {
            place.free.push(place.sent.pop().context("it was sent")?);
        }
        let Some(address) = place.free.pop() else {
            return Ok(false);
        };
        place.sent.insert(0, address);
        let bytes = [&[0; HEADER], frame].concat();
        anyhow::ensure!(u64::try_from(bytes.len())? <= BUFFER, "a frame too long");
        let memory = self.frontend.memory();
        for (at, word) in (usize::try_from(address)?..)
            .step_by(2)
            .zip(bytes.chunks(2))
        {
            let word = u16::from_le_bytes([word[0], word.get(1).copied().unwrap_or(0)]);
            memory.u16_put(at, word, Ordering::Relaxed);
        }
        let buffer = Buffer {
            address,
            bytes: u32::try_from(bytes.len())?,
            write: false,
        };
        let offered = self.frontend.offer(queue, buffer)?;
        offered.context("there is room")?;
        Ok(true)
    }

    /// A frame that came by a pair.
    ///
    /// # Errors
    /// There is no such pair, or something came that was not offered.
    pub fn receive(&mut self, pair: usize) -> Result<Option<Vec<u8>>> {
        let ring = self.frontend.ring(2 * pair).context("a ring")?;
        let Some((_, bytes)) = ring.collect() else {
            return Ok(None);
        };
        let place = self.pairs.get_mut(pair).context("no such pair")?;
        let address = place.receiving.pop().context("it was offered")?;
        let start = usize::try_from(address)?;
        let end = start + usize::try_from(bytes)?;
        let memory = self.frontend.memory();
        let words = (start..end).step_by(2);
        let words = words.map(|at| memory.u16(at, Ordering::Relaxed));
        let all: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
        self.receive_into(pair, address)?;
        Ok(all.get(HEADER..end - start).map(<[u8]>::to_vec))
    }
}

/// The device of a namespace; it goes when it is dropped.
#[derive(Debug)]
pub struct Nic {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Nic {
    /// Plugs a guest into a vhost-user socket: its `eth0` is down, as [`Guest::plug`] leaves it. Waits until it is served.
    ///
    /// # Errors
    /// The system refuses, or nobody serves the socket in time.
    pub fn plug(lab: &Lab, name: &str, port: PortFacts, socket: &Path) -> Result<(Guest, Self)> {
        let namespace = lab.namespace(name)?;
        let mac = &port.mac;
        namespace.run(&format!(
            "ip link add nic0 type veth peer name eth0 address {mac}"
        ))?;
        // What is behind the rings speaks for itself alone, and in frames of the wire: checksummed, and no longer than the MTU.
        namespace.sysctl("ipv6/conf/nic0/disable_ipv6", "1")?;
        for end in ["eth0", "nic0"] {
            namespace.run(&format!("ethtool -K {end} tx off gro off"))?;
        }
        namespace.run("ip link set nic0 up")?;
        let capture = Capture::open_polled(&namespace, "nic0")?;
        let mut device = Device::new(1, false)?;
        until("a vhost-user port to be served", SERVED_TIMEOUT, || {
            Ok(device.connect(socket).ok())
        })?;
        let own = frame::mac(mac)?;
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::spawn(move || carry(device, capture, own, &flag));
        let guest = Guest {
            name: name.to_owned(),
            namespace,
            port,
        };
        let thread = Some(thread);
        Ok((guest, Self { stop, thread }))
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Err(error))) => eprintln!("a guest's device: {error:#}"),
            Some(Err(_panic)) => eprintln!("a guest's device panicked"),
            Some(Ok(Ok(()))) | None => {}
        }
    }
}

/// Carries frames between the rings and the namespace. What is seen there that the guest did not send was put there by us.
fn carry(mut device: Device, mut capture: Capture, own: [u8; 6], stop: &AtomicBool) -> Result<()> {
    let mut waiting: Option<Vec<u8>> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut moved = false;
        for _ in 0..BATCH {
            let frame = match waiting.take() {
                Some(frame) => Some(frame),
                None => capture.take()?,
            };
            let Some(frame) = frame else { break };
            moved = true;
            if frame.get(6..12) == Some(&own[..]) && !device.send(0, &frame)? {
                waiting = Some(frame);
                break;
            }
        }
        for _ in 0..BATCH {
            let Some(frame) = device.receive(0)? else {
                break;
            };
            capture.send(&frame)?;
            moved = true;
        }
        if !moved {
            pause(IDLE);
        }
    }
    Ok(())
}
