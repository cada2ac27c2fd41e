//! Streams between two real guests that leave checksums and segments to their device, or do not: all data arrives as it was sent.
//!
//! `make test-vm` runs this.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;
use weft_kit::Lab;
use weft_kit::weft::{Site, WeftOptions};
use weft_tests_system::qemu::{Guest, Options};
use weft_tests_system::vm;

/// What a guest's device has not.
const NOTHING: &[&str] = &[];
const NO_SEGMENTS: &[&str] = &[
    "host_tso4=off",
    "host_tso6=off",
    "guest_tso4=off",
    "guest_tso6=off",
];
const NO_OFFLOADS: &[&str] = &["csum=off", "guest_csum=off"];
/// Of the lab's snapshot, and one of our own in it.
const NETWORK_ID: &str = "00000002-0000-4000-8000-000000000000";
const SUBNET_ID: &str = "00000003-0000-4000-8000-000000000006";
/// About 0.9 MB.
const LINES: usize = 150_000;

/// The word of this length that a command said, beside its shell's prompt.
fn word(lines: &[String], length: usize) -> Result<String> {
    let words = lines.iter().flat_map(|line| line.split_whitespace());
    let mut words = words.filter(|word| word.len() == length);
    let word = words.next().with_context(|| format!("{lines:?}"))?;
    Ok(word.to_owned())
}

fn boot(number: usize, socket: &Path, without: &[&str]) -> Result<Guest> {
    let mut options = Options::numbered(number, socket);
    options.device = without.iter().map(|&option| option.to_owned()).collect();
    if without == NO_OFFLOADS {
        // Segments need checksums.
        let more = NO_SEGMENTS.iter().map(|&option| option.to_owned());
        options.device.extend(more);
    }
    let mut guest = Guest::boot(&options)?;
    guest.run(&format!("ip address add 10.0.0.{number}/24 dev eth0"))?;
    guest.run(&format!(
        "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad; ip address add fd00::{number}/64 dev eth0"
    ))?;
    // CSUM and HOST_TSO4, as they were negotiated.
    let bits = guest.run("cat /sys/bus/virtio/devices/virtio0/features")?;
    let bits = word(&bits, 64)?;
    let bit = |at| bits.chars().nth(at);
    let expected = |on| Some(if on { '1' } else { '0' });
    ensure!(bit(0) == expected(without != NO_OFFLOADS), "{bits:?}");
    ensure!(bit(11) == expected(without == NOTHING), "{bits:?}");
    Ok(guest)
}

/// Sends lines from one guest to the other, and compares what was sent with what came.
fn stream(from: &mut Guest, to: &mut Guest, address: &str) -> Result<()> {
    // With an input that never ends: at its end it would hang up.
    to.tell("[ -e /tmp/quiet ] || mkfifo /tmp/quiet; nc -l -p 22 <> /tmp/quiet | md5sum")?;
    // Until it listens, the connection is refused by the guest itself.
    from.run(&format!(
        "seq 1 {LINES} > /tmp/sent; for try in 1 2 3 4 5; do nc {address} 22 < /tmp/sent && break; sleep 1; done"
    ))?;
    let sent = from.run("md5sum < /tmp/sent")?;
    let came = to.run("true")?;
    let (sent, came) = (word(&sent, 32)?, word(&came, 32)?);
    ensure!(sent == came, "{address}: sent {sent:?}, came {came:?}");
    Ok(())
}

/// Bytes of the packets that came from a guest so far, and how many.
fn sent(site: &Site, number: usize) -> Result<[u64; 2]> {
    let stats = site.ask("stats")?;
    let traffic = &stats["ports"][number - 1]["traffic"];
    let count = |key| traffic[key].as_u64().context("stats");
    Ok([count("rx_bytes")?, count("rx_packets")?])
}

#[test]
fn streams_arrive_whole_whatever_the_guests_leave_to_their_device() -> Result<()> {
    let lab = Lab::new("weft-vm")?;
    let host = lab.namespace("host")?;
    let mut options = WeftOptions::new(None)?;
    options.physical_networks.clear();
    let site = Site::new(&lab, &host, &options)?;
    let sockets = [0, 1].map(|n| lab.directory().join(format!("{n}.sock")));
    let file = lab.directory().join("snapshot.json");
    let mut snapshot = vm::two_ports(&sockets, ["client", "client"])?;
    let (network, subnet) = (NETWORK_ID, SUBNET_ID);
    snapshot["subnets"][subnet] = json!({
        "network_id": network, "cidr": "fd00::/64", "gateway_ip": null, "enable_dhcp": false,
    });
    let ports = snapshot["ports"].as_object_mut().context("ports")?;
    for (number, port) in (1..).zip(ports.values_mut()) {
        port["port_security_enabled"] = json!(false);
        port["security_groups"] = json!([]);
        let fixed_ips = port["fixed_ips"].as_array_mut().context("fixed_ips")?;
        fixed_ips.push(json!({"subnet_id": subnet, "ip_address": format!("fd00::{number}")}));
    }
    std::fs::write(&file, serde_json::to_vec(&snapshot)?)?;
    let running = vm::switch(&lab, &site, &file)?;

    for pair in [
        [NOTHING, NOTHING],
        [NOTHING, NO_OFFLOADS],
        [NO_SEGMENTS, NOTHING],
        [NO_SEGMENTS, NO_OFFLOADS],
    ] {
        let mut one = boot(1, &sockets[0], pair[0])?;
        let mut two = boot(2, &sockets[1], pair[1])?;
        for address in ["10.0.0.2", "fd00::2"] {
            let before = sent(&site, 1)?;
            stream(&mut one, &mut two, address).with_context(|| format!("{pair:?}"))?;
            let after = sent(&site, 1)?;
            let [bytes, packets] = [0, 1].map(|at| after[at] - before[at]);
            let whole = bytes / packets.max(1) > 1_514;
            ensure!(
                whole == (pair[0] == NOTHING),
                "{pair:?}: {bytes} bytes in {packets} packets"
            );
        }
        for address in ["10.0.0.1", "fd00::1"] {
            stream(&mut two, &mut one, address).with_context(|| format!("{pair:?}, back"))?;
        }
    }
    let status = running.stop(Signal::TERM)?;
    ensure!(
        status.success(),
        "weft run ended with {status}: {}",
        site.log_end()
    );
    Ok(())
}
