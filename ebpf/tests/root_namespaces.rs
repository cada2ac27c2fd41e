//! The engine on real devices: guests and an outside in namespaces, joined by nothing but attached programs. Needs root,
//! ping and iperf3.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod common;

use common::{TestEngine, config, mac, network, port, snapshot};
use std::os::fd::AsFd;
use std::time::Duration;
use weft_ebpf::sys::{self, Insn, Prog, ProgSpec, ProgType, TcxDirection};
use weft_ebpf::{Engine, EventKind};
use weft_kit::clock::until;
use weft_kit::{Lab, Namespace};
use weft_model::MacAddress;

/// A host with three guests and an outside, addresses as in the snapshot.
struct Place {
    lab: Lab,
    host: Namespace,
    guests: Vec<Namespace>,
    outside: Namespace,
}

fn mac_text(n: u8) -> String {
    MacAddress(mac(n)).to_string()
}

fn place() -> Place {
    let lab = Lab::new("weft-ebpf").unwrap();
    let host = lab.namespace("host").unwrap();
    let mut guests = Vec::new();
    for (n, address, gateway) in [
        (1, "192.0.2.11/24", "192.0.2.1"),
        (2, "192.0.2.12/24", "192.0.2.1"),
        (3, "198.51.100.13/24", "198.51.100.1"),
    ] {
        let guest = lab.namespace(&format!("g{n}")).unwrap();
        lab.veth((&host, &format!("tap{n}")), (&guest, "eth0"))
            .unwrap();
        guest
            .run(&format!(
                "ip link set eth0 address {} mtu 1450",
                mac_text(n)
            ))
            .unwrap();
        guest
            .run(&format!("ip addr add {address} dev eth0"))
            .unwrap();
        guest
            .run(&format!("ip route add default via {gateway}"))
            .unwrap();
        guests.push(guest);
    }
    let outside = lab.namespace("out").unwrap();
    lab.veth((&host, "uplink0"), (&outside, "eth0")).unwrap();
    outside
        .run(&format!("ip link set eth0 address {}", mac_text(77)))
        .unwrap();
    outside.run("ip addr add 203.0.113.77/24 dev eth0").unwrap();
    Place {
        lab,
        host,
        guests,
        outside,
    }
}

fn ifindex(name: &str) -> u32 {
    let index = std::process::Command::new("ip")
        .args(["-o", "link", "show", "dev", name])
        .output()
        .unwrap();
    let text = String::from_utf8(index.stdout).unwrap();
    text.split(':').next().unwrap().parse().unwrap()
}

fn announce(engine: &mut TestEngine) {
    for name in ["tap1", "tap2", "tap3", "uplink0"] {
        engine.interface_added(name, ifindex(name)).unwrap();
    }
}

fn sees(from: &Namespace, to: &str) -> bool {
    from.outcome(&format!("ping -c 2 -i 0.2 -W 1 {to}"))
        .unwrap()
        .status
        .success()
}

/// TCP by iperf3 to a port; bytes a second of the receiver, or none.
fn tcp(lab: &Lab, from: &Namespace, to: (&Namespace, &str), port: u16) -> Option<f64> {
    let mut command = to.0.command("iperf3");
    command
        .args(["-s", "-1", "-p", &port.to_string()])
        .stdout(std::process::Stdio::null());
    let server = lab.spawn(&mut command).unwrap();
    let listens = || to.0.run("ss -ltn").unwrap().contains(&format!(":{port} "));
    until("iperf3 listens", Duration::from_secs(5), || {
        Ok(listens().then_some(()))
    })
    .unwrap();
    let out = from
        .outcome(&format!(
            "timeout 6 iperf3 -J -t 1 --connect-timeout 1500 -c {} -p {port}",
            to.1
        ))
        .unwrap();
    drop(server);
    let text = String::from_utf8(out.stdout).unwrap();
    let at = text.rfind("\"sum_received\"")?;
    let rest = &text[at..];
    let rate = rest
        .split("\"bits_per_second\":")
        .nth(1)?
        .split([',', '}'])
        .next()?
        .trim();
    rate.parse::<f64>().ok().filter(|rate| *rate > 0.0)
}

#[test]
fn guests_speak_through_the_programs() {
    let place = place();
    let (lab, g) = (&place.lab, &place.guests);
    place
        .host
        .enter(|| {
            let mut engine = TestEngine::open();
            announce(&mut engine);
            engine.apply(&snapshot()).unwrap();
            assert!(engine.port_attached(port(1)));
            assert!(sees(&g[0], "192.0.2.12"), "same network");
            assert!(sees(&g[0], "198.51.100.13"), "routed");
            assert!(sees(&g[0], "192.0.2.1"), "the router itself");
            let rate = tcp(lab, &g[0], (&g[1], "192.0.2.12"), 22).expect("bridged TCP");
            println!("bridged TCP: {:.1} Gbit/s", rate / 1e9);
            let rate = tcp(lab, &g[0], (&g[2], "198.51.100.13"), 22).expect("routed TCP");
            println!("routed TCP: {:.1} Gbit/s", rate / 1e9);
            assert!(
                tcp(lab, &g[0], (&g[1], "192.0.2.12"), 23).is_none(),
                "no rule for 23"
            );

            // Nobody answers for the outside's MAC but it: an unknown neighbour reaches the agent.
            assert!(!sees(&g[0], "203.0.113.77"));
            assert!(
                engine
                    .events()
                    .iter()
                    .any(|e| e.kind == EventKind::NeighbourNeeded)
            );
            engine
                .neighbour_put(
                    network(3),
                    "203.0.113.77".parse().unwrap(),
                    MacAddress(mac(77)),
                )
                .unwrap();
            assert!(sees(&g[0], "203.0.113.77"), "SNAT");
            let rate =
                tcp(lab, &g[0], (&place.outside, "203.0.113.77"), 5001).expect("TCP by SNAT");
            println!("SNAT TCP: {:.1} Gbit/s", rate / 1e9);
            assert!(
                sees(&place.outside, "203.0.113.12"),
                "floating IP, resolved by ARP"
            );
            let rate = tcp(lab, &place.outside, (&g[1], "203.0.113.12"), 22)
                .expect("TCP to a floating IP");
            println!("floating IP TCP: {:.1} Gbit/s", rate / 1e9);
            assert!(tcp(lab, &place.outside, (&g[1], "203.0.113.12"), 23).is_none());
            for (id, counters) in engine.counters().unwrap().ports {
                println!("{id}: {counters:?}");
            }
        })
        .unwrap();
    place.lab.close().unwrap();
}

#[test]
fn a_restart_stops_no_packet_and_a_lost_device_no_snapshot() {
    let place = place();
    let g = &place.guests;
    place
        .host
        .enter(|| {
            let config = config(|_config| {});
            std::fs::create_dir(&config.bpffs).unwrap();
            let bpffs = config.bpffs.to_str().unwrap().to_owned();
            weft_kit::command::run(&format!("mount -t bpf bpf {bpffs}")).unwrap();
            let mut other_sizes = config.clone();
            other_sizes.sessions_max += 1;
            let mut engine = TestEngine(Some(Engine::open(config.clone()).unwrap()));
            announce(&mut engine);
            engine.apply(&snapshot()).unwrap();
            assert!(sees(&g[0], "192.0.2.12"));
            engine.0.take().unwrap().close(false).unwrap();
            assert!(sees(&g[0], "198.51.100.13"), "nobody runs, packets pass");

            let mut engine = TestEngine(Some(Engine::open(config).unwrap()));
            assert!(sees(&g[0], "192.0.2.12"), "new programs, old stubs");
            announce(&mut engine);
            engine.apply(&snapshot()).unwrap();
            assert!(engine.port_attached(port(1)));
            assert!(sees(&g[0], "192.0.2.12"), "taken over");
            assert_eq!(links(&bpffs), 4, "the same links, not more");

            engine.0.take().unwrap().close(false).unwrap();
            let mut engine = TestEngine(Some(Engine::open(other_sizes).unwrap()));
            announce(&mut engine);
            assert!(
                sees(&g[0], "192.0.2.12"),
                "the old one forwards until the new one does"
            );
            engine.apply(&snapshot()).unwrap();
            assert!(sees(&g[0], "192.0.2.12"), "replaced");
            assert_eq!(links(&bpffs), 4, "the old links are gone");

            place.host.run("ip link del tap1").unwrap();
            let mut changed = snapshot();
            changed.security_group_rules.clear();
            engine.apply(&changed).unwrap();
            engine.interface_removed("tap1");
            assert!(!engine.port_attached(port(1)));
            engine.interface_added("tap1", 4_000).unwrap();
            assert!(!engine.port_attached(port(1)), "gone before we came to it");

            engine.0.take().unwrap().close(true).unwrap();
            assert!(!sees(&g[1], "198.51.100.13"), "nothing forwards any more");
            assert!(!std::path::Path::new(&bpffs).join("weft").exists());
            weft_kit::command::run(&format!("umount {bpffs}")).unwrap();
            std::fs::remove_dir(bpffs).unwrap();
        })
        .unwrap();
    place.lab.close().unwrap();
}

/// A program that lets everything pass to the next one of its device.
fn passing() -> Prog {
    let insn = |code, immediate| Insn {
        code,
        registers: 0,
        offset: 0,
        immediate,
    };
    // r0 = TCX_NEXT; exit
    Prog::load(&ProgSpec {
        name: "passing",
        kind: ProgType::SchedCls,
        expected_attach_type: 0,
        insns: &[insn(0xb4, -1), insn(0x95, 0)],
    })
    .unwrap()
}

/// The kernel takes 64 programs on a device: somebody else has filled one of ours.
#[test]
fn a_device_that_the_kernel_refuses_holds_back_nothing_else_and_is_tried_again() {
    let place = place();
    let g = &place.guests;
    place
        .host
        .enter(|| {
            let index = ifindex("tap2");
            let fill = || sys::link_create_tcx(passing().as_fd(), index, TcxDirection::Ingress);
            let full: Vec<_> = std::iter::from_fn(|| fill().ok()).collect();
            assert!(!full.is_empty());
            let mut engine = TestEngine::open();
            announce(&mut engine);
            engine.apply(&snapshot()).unwrap();
            let attached = [1, 2, 3].map(|n| engine.port_attached(port(n)));
            assert_eq!(attached, [true, false, true]);
            let faults: Vec<u32> = engine.device_faults().keys().copied().collect();
            assert_eq!(faults, [index]);
            assert!(sees(&g[0], "198.51.100.13"), "the others go on");

            drop(full);
            engine.devices_retry();
            assert!(engine.device_faults().is_empty());
            assert!(engine.port_attached(port(2)));
            assert!(sees(&g[0], "192.0.2.12"));
        })
        .unwrap();
    place.lab.close().unwrap();
}

/// Links that the engine in this bpffs has pinned.
fn links(bpffs: &str) -> usize {
    let instance = std::fs::read_dir(format!("{bpffs}/weft/test")).unwrap();
    let layouts = instance.map(|layout| layout.unwrap().path().join("links"));
    layouts
        .map(|links| std::fs::read_dir(links).unwrap().count())
        .sum()
}
