//! Two switches, each alone on its host, joined by AF_XDP at both ends: every kind of tunnel, over both families, with several queues of
//! the guests and of the wire and several workers. Both guests are ours: what one sends the other compares byte for byte.

use crate::{GUEST, OTHER, TIMEOUT, Wire, payload, queues_of};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use weft_kit::lab::Process;
use weft_kit::{Lab, Namespace, WeftOptions, clock};
use weft_tests_system::vhost_guest::Device;
use weft_wire::frame::{self, Ip, Link};
use weft_wire::udp;

/// Queue pairs of each guest, and queues of the wire.
const PAIRS: u16 = 2;
const QUEUES: u32 = 4;
/// Flows, by their source ports, and datagrams of each, each way.
const FLOWS: u16 = 16;
const FIRST: u16 = 4_000;
const ROUNDS: u16 = 25;

/// A host with a switch and a guest: the first one's or the second one's.
struct Side {
    host: Namespace,
    guest: Device,
    own: (Ipv4Addr, [u8; 6]),
    far: (Ipv4Addr, [u8; 6]),
    snapshot: PathBuf,
    socket: PathBuf,
    log: PathBuf,
}

/// The lab's snapshot of two hosts with this kind of tunnel; of the second host if `second`.
fn snapshot(kind: &str, tunnels: [&str; 2], second: bool) -> Result<Value> {
    let ready = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../perf-lab/snapshots/two-hosts-policy.json");
    let mut all: Value = serde_json::from_slice(&std::fs::read(ready)?)?;
    let networks = all["networks"].as_object_mut().context("networks")?;
    for network in networks.values_mut() {
        network["segment"]["network_type"] = json!(kind);
        network["mtu"] = json!(1_430);
    }
    for (host, tunnel_ip) in ["lab", "lab-2"].into_iter().zip(tunnels) {
        all["tunnel_hosts"][host]["tunnel_ip"] = json!(tunnel_ip);
    }
    if !second {
        return Ok(all);
    }
    let only = |table: &Value| -> Result<(String, Value)> {
        let table = table.as_object().context("a table")?;
        let (id, one) = table.iter().next().context("one in it")?;
        Ok((id.clone(), one.clone()))
    };
    let (id, mut port) = only(&all["ports"])?;
    let (far_id, far) = only(&all["remote_ports"])?;
    let mut remote = far.clone();
    for key in ["mac_address", "fixed_ips"] {
        remote[key] = port[key].clone();
        port[key] = far[key].clone();
    }
    remote["host"] = json!("lab");
    all["host"] = json!("lab-2");
    all["ports"] = json!({ far_id: port });
    all["remote_ports"] = json!({ id: remote });
    Ok(all)
}

impl Side {
    fn new(
        lab: &Lab,
        host: &Namespace,
        kind: &str,
        tunnels: [&str; 2],
        second: bool,
    ) -> Result<Self> {
        let name = if second { "second" } else { "first" };
        let file = |end: &str| lab.directory().join(format!("{name}.{end}"));
        let side = Self {
            host: host.clone(),
            guest: Device::new(PAIRS, second)?,
            own: if second { OTHER } else { GUEST },
            far: if second { GUEST } else { OTHER },
            snapshot: file("json"),
            socket: file("sock"),
            log: file("log"),
        };
        let snapshot = snapshot(kind, tunnels, second)?;
        std::fs::write(&side.snapshot, serde_json::to_vec(&snapshot)?)?;
        Ok(side)
    }

    fn start(&self, lab: &Lab) -> Result<Process> {
        let program = WeftOptions::new(None)?.program;
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = self.host.command(&program.display().to_string());
        command.args(["run", "--snapshot"]).arg(&self.snapshot);
        let socket = format!("vm0={}", self.socket.display());
        command.args(["--socket", &socket, "--underlay", "eth0", "--cpu", "0,1"]);
        lab.spawn(command.stdout(Stdio::null()).stderr(log))
    }

    fn serve(&mut self) -> Result<()> {
        clock::until("the switch to serve the guest", TIMEOUT, || {
            Ok(self.guest.connect(&self.socket).ok())
        })
        .with_context(|| std::fs::read_to_string(&self.log).unwrap_or_default())
    }

    /// Datagram so many of a flow, as it leaves this side.
    fn datagram(&self, flow: u16, round: u16) -> Vec<u8> {
        let link = Link {
            source: self.own.1,
            destination: self.far.1,
        };
        let ports = udp::Repr {
            source_port: FIRST + flow,
            destination_port: FIRST + flow,
        };
        frame::udp(
            link,
            Ip::new(self.own.0, self.far.0),
            ports,
            &payload(flow * ROUNDS + round),
        )
    }

    /// The next UDP frame, on whichever pair.
    fn receive(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        for pair in 0..usize::from(PAIRS) {
            let came = self.guest.receive(pair)?;
            if let Some(came) = came.filter(|came| came.get(23) == Some(&17)) {
                return Ok(Some((pair, came)));
            }
        }
        Ok(None)
    }
}

/// A round of all flows: each datagram arrives, whole and once. Gives the pairs that they came on.
fn round(from: &mut Side, to: &mut Side, round: u16) -> Result<BTreeSet<usize>> {
    let mut left: BTreeSet<Vec<u8>> = BTreeSet::new();
    for flow in 0..FLOWS {
        let frame = from.datagram(flow, round);
        let sent = from.guest.send(usize::from(flow % PAIRS), &frame)?;
        ensure!(sent, "a buffer is free");
        left.insert(frame);
    }
    let mut pairs = BTreeSet::new();
    clock::until("all datagrams of a round", TIMEOUT, || {
        while let Some((pair, came)) = to.receive()? {
            pairs.insert(pair);
            ensure!(left.remove(&came), "what nobody sent, or twice: {came:x?}");
        }
        Ok(left.is_empty().then_some(()))
    })?;
    Ok(pairs)
}

/// The first packet finds the other host by ARP or ND, and is lost meanwhile.
fn find(from: &mut Side, to: &mut Side) -> Result<()> {
    let frame = from.datagram(0, 0);
    clock::until("the other host to be found", TIMEOUT, || {
        let sent = from.guest.send(0, &frame)?;
        ensure!(sent, "a buffer is free");
        clock::pause(std::time::Duration::from_millis(20));
        Ok(to.receive()?.map(drop))
    })?;
    // What was sent twice comes late.
    let quiet = std::time::Duration::from_millis(100);
    let end = clock::now() + quiet;
    while clock::now() < end {
        to.receive()?;
    }
    Ok(())
}

fn tunnel(kind: &str, tunnels: [&str; 2]) -> Result<()> {
    let lab = Lab::new("weft-xdp2")?;
    let hosts = [lab.namespace("host1")?, lab.namespace("host2")?];
    let wire = Wire {
        queues: QUEUES,
        ..Wire::default()
    };
    wire.join(&hosts[0], &hosts[1])?;
    let mut one = Side::new(&lab, &hosts[0], kind, tunnels, false)?;
    let mut two = Side::new(&lab, &hosts[1], kind, tunnels, true)?;
    let running = [one.start(&lab)?, two.start(&lab)?];
    one.serve()?;
    two.serve()?;
    find(&mut one, &mut two)?;
    find(&mut two, &mut one)?;
    let mut pairs = [BTreeSet::new(), BTreeSet::new()];
    for number in 0..ROUNDS {
        pairs[1].extend(round(&mut one, &mut two, number)?);
        pairs[0].extend(round(&mut two, &mut one, number)?);
    }
    let queues = [queues_of(&hosts[0])?, queues_of(&hosts[1])?];
    eprintln!("{kind} {tunnels:?}: pairs {pairs:?}, queues {queues:?}");
    for counts in &queues {
        let used = counts.iter().filter(|count| **count > 0).count();
        ensure!(used > 1, "{kind}: all on one queue: {queues:?}");
    }
    for pairs in &pairs {
        ensure!(pairs.len() > 1, "{kind}: all on one pair: {pairs:?}");
    }
    for (running, side) in running.into_iter().zip([&one, &two]) {
        let status = running.stop(Signal::TERM)?;
        let log = std::fs::read_to_string(&side.log).unwrap_or_default();
        ensure!(status.success(), "{status}: {log}");
    }
    Ok(())
}

const V4: [&str; 2] = ["172.16.0.1", "172.16.0.2"];
const V6: [&str; 2] = ["fd00:16::1", "fd00:16::2"];

#[test]
fn geneve_leads_from_switch_to_switch() -> Result<()> {
    tunnel("geneve", V4)?;
    tunnel("geneve", V6)
}

#[test]
fn gre_leads_from_switch_to_switch() -> Result<()> {
    tunnel("gre", V4)?;
    tunnel("gre", V6)
}

#[test]
fn vxlan_leads_from_switch_to_switch() -> Result<()> {
    tunnel("vxlan", V4)?;
    tunnel("vxlan", V6)
}
