//! The lab's sender and sinks, each a process of its own in the namespace it belongs to.
//!
//! The sender is an XDP program run by BPF_PROG_TEST_RUN with live frames: no socket, no skb, so that what it costs is
//! small, equal for every path compared, and measured by itself. The sink counts before the stack sees a packet.

use anyhow::{Context, Result, ensure};
use aya::maps::{Array, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::xdp::XdpMode;
use aya::programs::{SchedClassifier, TcAttachType, TestRunAttrs, TestRunOptions, Xdp};
use aya::{Ebpf, TestRun};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use weft_model::MacAddress;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

static PROGRAMS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lab.bpf.o"));

const FRAME_BYTES: usize = 60;
/// Frames of one system call: some tens of milliseconds.
const FRAMES_PER_CALL: u32 = 65_536;
/// Frames that the kernel moves at once (the default, and NAPI's weight).
const BATCH: u32 = 64;

/// What the sender sends: UDP over IPv4, 60 bytes, the source port counting up over `flows`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Stream {
    /// The device in this namespace that the frames leave by.
    #[arg(long)]
    pub(crate) device: String,
    #[arg(long)]
    pub(crate) source_mac: MacAddress,
    #[arg(long)]
    pub(crate) destination_mac: MacAddress,
    #[arg(long)]
    pub(crate) source: Ipv4Addr,
    #[arg(long)]
    pub(crate) destination: Ipv4Addr,
    /// The server's port.
    #[arg(long)]
    pub(crate) service_port: u16,
    /// From the server to the client.
    #[arg(long)]
    pub(crate) reply: bool,
    /// How many client ports, a power of two.
    #[arg(long, default_value_t = 1)]
    pub(crate) flows: u32,
    /// How long.
    #[arg(long, default_value_t = 500)]
    pub(crate) milliseconds: u64,
}

impl Stream {
    /// As arguments of the lab's own `send`.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut words = vec!["send".to_owned()];
        let options = [
            ("--device", self.device.clone()),
            ("--source-mac", self.source_mac.to_string()),
            ("--destination-mac", self.destination_mac.to_string()),
            ("--source", self.source.to_string()),
            ("--destination", self.destination.to_string()),
            ("--service-port", self.service_port.to_string()),
            ("--flows", self.flows.to_string()),
            ("--milliseconds", self.milliseconds.to_string()),
        ];
        words.extend(
            options
                .into_iter()
                .flat_map(|(name, value)| [name.to_owned(), value]),
        );
        words.extend(self.reply.then(|| "--reply".to_owned()));
        words
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) frames: u64,
    pub(crate) nanoseconds: u64,
}

impl Sent {
    /// Nanoseconds a frame.
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    pub(crate) fn ns(self) -> f64 {
        self.nanoseconds as f64 / self.frames.max(1) as f64
    }
}

/// `struct template` of programs/lab.bpf.c: frame, ifindex, flows, first port, its place, padding, count.
const TEMPLATE_BYTES: usize = FRAME_BYTES + 4 + 4 + 4 + 8 + 8;
const SENT_AT: usize = TEMPLATE_BYTES - 8;
/// The first source port of a stream.
const FLOW_FIRST: u32 = 1_024;

fn template(stream: &Stream, ifindex: u32) -> Result<[u8; TEMPLATE_BYTES]> {
    let link = Link {
        source: stream.source_mac.0,
        destination: stream.destination_mac.0,
    };
    let ports = udp::Repr {
        source_port: 0,
        destination_port: 0,
    };
    let payload = [0u8; FRAME_BYTES - 42];
    let mut frame = frame::udp(
        link,
        Ip::new(stream.source, stream.destination),
        ports,
        &payload,
    );
    ensure!(
        frame.len() == FRAME_BYTES,
        "the frame has {} bytes",
        frame.len()
    );
    // The source port changes: no checksum (RFC 768), or conntrack would call the packets invalid.
    frame[40..42].fill(0);
    let (service_at, flow_at) = if stream.reply { (34, 36u32) } else { (36, 34) };
    frame[service_at..service_at + 2].copy_from_slice(&stream.service_port.to_be_bytes());
    let mut t = [0u8; TEMPLATE_BYTES];
    t[..FRAME_BYTES].copy_from_slice(&frame);
    for (word, value) in [ifindex, stream.flows, FLOW_FIRST, flow_at]
        .into_iter()
        .enumerate()
    {
        let at = FRAME_BYTES + 4 * word;
        t[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    Ok(t)
}

/// Sends for the stream's time and prints [`Sent`] as JSON.
#[allow(
    clippy::disallowed_methods,
    reason = "a measuring program owns its clock"
)]
pub(crate) fn send(stream: &Stream) -> Result<()> {
    ensure!(
        stream.flows.is_power_of_two() && stream.flows <= 32_768,
        "--flows: a power of two up to 32768"
    );
    let device = stream.device.as_str();
    // Not /sys/class/net: that is the mount namespace's view, not this network namespace's.
    let index =
        nix::net::if_::if_nametoindex(device).with_context(|| format!("device {device}"))?;
    let mut programs = Ebpf::load(PROGRAMS)?;
    let map = programs.map_mut("templates").context("map templates")?;
    let mut templates: Array<_, [u8; TEMPLATE_BYTES]> = Array::try_from(map)?;
    templates.set(0, template(stream, index)?, 0)?;
    let program: &mut Xdp = programs
        .program_mut("lab_send")
        .context("lab_send")?
        .try_into()?;
    program.load()?;
    let start = Instant::now();
    let limit = Duration::from_millis(stream.milliseconds);
    let mut busy = Duration::ZERO;
    while start.elapsed() < limit {
        let mut options = TestRunOptions::new();
        options.data_in = Some(&[0; FRAME_BYTES]);
        options.repeat = FRAMES_PER_CALL;
        options.attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        // The kernel's own mean of one frame: without making and freeing the call's pages, which waits for RCU.
        busy += program.test_run(options)?.duration * FRAMES_PER_CALL;
    }
    let nanoseconds = u64::try_from(busy.as_nanos())?;
    let map = programs.map("templates").context("map templates")?;
    let templates: Array<_, [u8; TEMPLATE_BYTES]> = Array::try_from(map)?;
    let t = templates.get(&0, 0)?;
    let frames = u64::from_ne_bytes(t[SENT_AT..].try_into()?);
    println!(
        "{}",
        serde_json::to_string(&Sent {
            frames,
            nanoseconds
        })?
    );
    Ok(())
}

/// What a device does with what arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arrival {
    /// XDP lets it pass to the stack: what a veth needs to take frames from an XDP redirect.
    Pass,
    /// The same by generic XDP.
    PassGeneric,
    /// XDP counts and drops it: the sender's own cost.
    Drop,
    /// XDP takes it out of VXLAN and sends it to another device.
    Decapsulate,
    /// The same by generic XDP.
    DecapsulateGeneric,
    /// tcx counts and drops it: the end of a path.
    Sink,
}

impl Arrival {
    /// The program, and how it is attached; none is a tcx program.
    fn program(self) -> (&'static str, Option<XdpMode>) {
        match self {
            Self::Pass => ("lab_pass", Some(XdpMode::Driver)),
            Self::PassGeneric => ("lab_pass", Some(XdpMode::Skb)),
            Self::Drop => ("lab_drop", Some(XdpMode::Driver)),
            Self::Decapsulate => ("lab_decapsulate", Some(XdpMode::Driver)),
            Self::DecapsulateGeneric => ("lab_decapsulate", Some(XdpMode::Skb)),
            Self::Sink => ("lab_sink", None),
        }
    }
}

/// Attaches to the device, then prints the count for every line read, until standard input ends. `to` is the device that
/// decapsulated frames go to.
pub(crate) fn hold(device: &str, arrival: Arrival, to: Option<&str>) -> Result<()> {
    let mut programs = Ebpf::load(PROGRAMS)?;
    if let Some(to) = to {
        let index = nix::net::if_::if_nametoindex(to).with_context(|| format!("device {to}"))?;
        let map = programs.map_mut("targets").context("map targets")?;
        Array::<_, u32>::try_from(map)?.set(0, index, 0)?;
    }
    let (name, mode) = arrival.program();
    let program = programs.program_mut(name).context(name)?;
    if let Some(mode) = mode {
        let program: &mut Xdp = program.try_into()?;
        program.load()?;
        program.attach(device, mode)?;
    } else {
        let program: &mut SchedClassifier = program.try_into()?;
        program.load()?;
        let options = TcAttachOptions::TcxOrder(aya::programs::LinkOrder::first());
        program.attach_with_options(device, TcAttachType::Ingress, options)?;
    }
    let counted = programs.map("counted").context("map counted")?;
    let counted: PerCpuArray<_, u64> = PerCpuArray::try_from(counted)?;
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("{}", counted.get(&0, 0)?.iter().sum::<u64>());
        std::io::stdout().flush()?;
    }
    Ok(())
}
