//! `weft capture`: frames as they pass ports, physical networks and the underlay, in the pcapng format.
//!
//! Guarantees: it sees what guests sent before anything was decided about it, and what was sent to them; it holds up no
//! packet: what a reader does not take in time is lost and counted in the file; captures, interfaces and bytes are bounded. With
//! `why`, frames that come in have the reference engine's verdict as a comment, with the rule: which packet died of what.
//!
//! While an interface is captured on, frames for a guest in another namespace pass the host's end of its veth, where they are seen.
//! 802.1Q tags that the kernel keeps beside a frame are not shown. Frames of vhost-user guests are copied by the engine's thread.

mod device;
pub(crate) mod pcapng;

use crate::clock;
use crate::question::Ground;
use crate::socket::CaptureRequest;
use bytes::Bytes;
use device::Devices;
use pcapng::{Packet, Way};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;
use tokio::sync::mpsc;
use weft_dataplane::{Ingress, Outcome, Reference, ReferenceConfig, Verdict};

/// Captures at a time.
pub(crate) const CAPTURES_MAX: usize = 4;
/// Interfaces of one capture.
pub(crate) const PLACES_MAX: usize = 256;
/// Blocks on their way to whoever reads.
const BLOCKS_MAX: usize = 4_096;
/// Frames of vhost-user guests on their way to the capture.
const TAPPED_MAX: usize = 1_024;
/// Frames a second that are explained.
const EXPLAINED_PER_S: u32 = 500;
/// How long is waited for a frame before the end is looked for, and how long if there are two places to wait at.
const TURN: Duration = Duration::from_millis(50);
const TURN_SHORT: Duration = Duration::from_millis(5);

/// Where frames are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As the rest of Weft names it: `port …`, `network …`, `underlay`.
    pub(crate) name: String,
    /// The device.
    pub(crate) interface: String,
    /// For the reference engine.
    pub(crate) ingress: Ingress,
}

/// Frames of vhost-user guests, as the engine's thread shows them.
#[derive(Debug)]
pub(crate) struct Taps {
    frames: Receiver<Tapped>,
    lost: Arc<[AtomicU64]>,
    /// Whether anybody shows frames here.
    used: Arc<AtomicBool>,
}

/// A frame that was shown.
#[derive(Debug)]
struct Tapped {
    at: usize,
    way: Way,
    time_ns: u64,
    frame: Vec<u8>,
}

impl Taps {
    /// For so many places, and what makes a tap for one of them.
    pub(crate) fn new(places: usize) -> (Self, impl Fn(usize) -> weft_vhost::worker::Tap) {
        let (sender, frames) = sync_channel(TAPPED_MAX);
        let lost: Arc<[AtomicU64]> = (0..places).map(|_| AtomicU64::new(0)).collect();
        let used = Arc::new(AtomicBool::new(false));
        let taps = Self {
            frames,
            lost: Arc::clone(&lost),
            used: Arc::clone(&used),
        };
        let tap = move |at: usize| -> weft_vhost::worker::Tap {
            used.store(true, Ordering::Relaxed);
            let (sender, lost) = (sender.clone(), Arc::clone(&lost));
            Arc::new(move |way, frame| {
                let tapped = Tapped {
                    at,
                    way: match way {
                        weft_vhost::worker::Way::FromGuest => Way::In,
                        weft_vhost::worker::Way::ToGuest => Way::Out,
                    },
                    time_ns: clock::wall_ns(),
                    frame: frame.to_vec(),
                };
                if sender.try_send(tapped).is_err()
                    && let Some(lost) = lost.get(at)
                {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        (taps, tap)
    }
}

impl Place {
    /// Whether it is a vhost-user guest's, which has no device.
    fn is_socket(&self) -> bool {
        self.interface.starts_with('/')
    }
}

/// What a capture stands on.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) places: Vec<Place>,
    pub(crate) taps: Taps,
    pub(crate) ground: Ground,
}

/// Starts a capture in a thread of its own; it ends when the receiver is dropped, or by the request's limits.
pub(crate) fn start(plan: Plan, request: CaptureRequest) -> Result<mpsc::Receiver<Bytes>, String> {
    let each = plan.places.iter().enumerate();
    let each = each.filter(|(_, place)| !place.is_socket());
    let names: Vec<(usize, &str)> = each
        .map(|(at, place)| (at, place.interface.as_str()))
        .collect();
    let devices = Devices::open(&names)?;
    let (blocks, reader) = mpsc::channel(BLOCKS_MAX);
    let capture = Capture {
        lost: vec![0; plan.places.len()],
        explain: request.why.then(|| Explain::new(&plan.ground)),
        left: request.count,
        places: plan.places,
        taps: plan.taps,
        request,
        blocks,
    };
    // Not one of the runtime's threads: it waits for frames as long as somebody reads.
    let thread = std::thread::Builder::new().name("weft-capture".to_owned());
    let spawned = thread.spawn(move || capture.run(devices));
    spawned.map_err(|error| format!("no thread for a capture: {error}"))?;
    Ok(reader)
}

struct Capture {
    places: Vec<Place>,
    taps: Taps,
    request: CaptureRequest,
    blocks: mpsc::Sender<Bytes>,
    /// Frames that nobody took in time, by place.
    lost: Vec<u64>,
    explain: Option<Explain>,
    /// Frames that are still wanted.
    left: u64,
}

impl Capture {
    fn run(mut self, mut devices: Devices) {
        let mut head = pcapng::section();
        for place in &self.places {
            let kept = u32::try_from(self.request.bytes_max).unwrap_or(u32::MAX);
            head.extend(pcapng::interface(&place.interface, &place.name, kept));
        }
        if self.blocks.try_send(Bytes::from(head)).is_err() {
            return;
        }
        let turn = match self.taps.used.load(Ordering::Relaxed) {
            true => TURN_SHORT,
            false => TURN,
        };
        let seconds = self.request.seconds.saturating_mul(1_000);
        let end = clock::now().saturating_add(seconds);
        while !self.blocks.is_closed() && clock::now() < end && self.left > 0 {
            let taken = devices.next(turn, |at, way, time_ns, length, data| {
                self.take(at, way, time_ns, length, data)
            });
            if let Err(error) = taken {
                tracing::warn!("a capture ends: {error}");
                return;
            }
            self.tapped();
        }
    }

    /// Takes what the user engine's thread showed.
    fn tapped(&mut self) {
        while self.left > 0
            && let Ok(tapped) = self.taps.frames.try_recv()
        {
            let Tapped {
                at,
                way,
                time_ns,
                frame,
            } = tapped;
            let lost = self.taps.lost.get(at);
            let lost = lost.map_or(0, |lost| lost.swap(0, Ordering::Relaxed));
            if let Some(all) = self.lost.get_mut(at) {
                *all += lost;
            }
            self.take(at, way, time_ns, frame.len(), &frame);
        }
    }

    /// Writes a frame; false if no more are wanted.
    fn take(&mut self, at: usize, way: Way, time_ns: u64, length: usize, data: &[u8]) -> bool {
        let Some((place, lost)) = self.places.get(at).zip(self.lost.get_mut(at)) else {
            return true;
        };
        let explain = self.explain.as_mut().filter(|_| way == Way::In);
        let comment = explain.and_then(|explain| explain.frame(place.ingress, data, length));
        let block = pcapng::packet(&Packet {
            interface: u32::try_from(at).unwrap_or(u32::MAX),
            time_ns,
            way,
            length,
            data: data.get(..self.request.bytes_max).unwrap_or(data),
            lost: *lost,
            comment: comment.as_deref(),
        });
        if self.blocks.try_send(Bytes::from(block)).is_ok() {
            *lost = 0;
            self.left = self.left.saturating_sub(1);
        } else {
            *lost += 1;
        }
        self.left > 0
    }
}

/// The reference engine beside the capture: it sees the frames that come in, and keeps the sessions that they would open.
struct Explain {
    reference: Reference,
    second: u64,
    left: u32,
}

impl Explain {
    fn new(ground: &Ground) -> Self {
        let mut reference = Reference::new(ReferenceConfig::default());
        reference.apply(Arc::clone(&ground.snapshot));
        for (network, address, mac) in &ground.neighbours {
            reference.neighbour_put(*network, *address, *mac);
        }
        Self {
            reference,
            second: 0,
            left: 0,
        }
    }

    /// What becomes of a frame; none for one that is cut, or if there were too many this second.
    fn frame(&mut self, ingress: Ingress, data: &[u8], length: usize) -> Option<String> {
        let second = clock::now() / 1_000;
        if second != self.second {
            (self.second, self.left) = (second, EXPLAINED_PER_S);
        }
        if data.len() < length || self.left == 0 {
            return None;
        }
        self.left -= 1;
        let now_s = u32::try_from(second).unwrap_or(u32::MAX);
        Some(sentence(&self.reference.process(ingress, data, now_s)))
    }
}

fn sentence(outcome: &Outcome) -> String {
    let verdict = match &outcome.verdict {
        Verdict::Drop(reason) => format!("dropped: {reason}: {}", reason.sentence()),
        Verdict::Deliver { port, .. } => format!("delivered to port {port}"),
        Verdict::Uplink { network, .. } => format!("out of the interface of network {network}"),
        Verdict::Tunnel { .. } => "by a tunnel to another host".to_owned(),
        Verdict::Reply { .. } => "answered to where it came from".to_owned(),
        Verdict::Service(service) => format!("handed to the agent's service {}", service.name()),
        Verdict::Multicast => "copied to the members of its network".to_owned(),
        Verdict::Pass => "not Weft's: left to the host's own stack".to_owned(),
    };
    let rules: Vec<String> = outcome
        .steps
        .iter()
        .filter_map(|step| Some(format!("{} by rule {}", step.stage, step.rule?)))
        .collect();
    match rules.is_empty() {
        true => verdict,
        false => format!("{verdict} ({})", rules.join(", ")),
    }
}
