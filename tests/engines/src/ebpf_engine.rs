//! The kernel engine under test: every frame goes through the loaded programs by BPF_PROG_TEST_RUN. Needs root.
//!
//! Nothing is attached; maps and programs live in a bpffs of their own, which goes when the engine does. A reset empties
//! the maps that packets write, and loads anew only for other limits. The kernel takes no frames in a test run that are
//! shorter than 15 bytes, or than the IP header that their EtherType promises: decoding answers those.

use crate::engine::{EngineUnderTest, Limits, Meters, Observed, SessionSeen, in_order};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use weft_dataplane::flow::key::{Ingress, SessionKey, Tuple};
use weft_dataplane::stage::decode;
use weft_dataplane::{Copy, Decision, GuestVlan, Service, Verdict};
use weft_ebpf::{Engine, EngineConfig, EventKind, sys};
use weft_model::{DropReason, HostSnapshot, MacAddress, NetworkId};

/// Maps that packets or the agent fill, emptied by a reset.
const HASHES: &[&str] = &["sessions", "fragments", "neighbours"];
/// Arrays likewise.
const ARRAYS: &[&str] = &["quotas", "buckets", "copy_buckets", "log_buckets"];
/// Polls of the policy compiler before it is given up.
const POLLS_MAX: usize = 10_000_000;

/// Ports of a snapshot under test.
const PORTS_MAX: u32 = 64;
/// Uplinks and the underlay, that stand before the ports in some arrays.
const UPLINKS_MAX: u32 = weft_ebpf::UPLINKS_MAX;
/// Physical networks of a snapshot under test.
const UPLINKS_USED: u32 = 64;

/// Which of the two ways to evaluate policies is under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policies {
    /// The interpreter, which enforces a change at once.
    Interpreted,
    /// The programs that the compiler makes in the background: every change is waited for.
    Compiled,
}

/// The kernel engine under test.
pub struct EbpfUnderTest {
    engine: Option<Engine>,
    limits: Option<Limits>,
    policies: Policies,
    bpffs: PathBuf,
    folder: PathBuf,
    physical_networks: BTreeMap<String, String>,
    snapshot: Option<Arc<HostSnapshot>>,
}

fn text(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

impl EbpfUnderTest {
    /// For snapshots with these physical networks. Loads nothing yet.
    #[must_use]
    pub fn new(physical_networks: &[&str], policies: Policies) -> Self {
        let mapped = |(n, name): (usize, &&str)| ((*name).to_owned(), format!("weft-none{n}"));
        Self {
            engine: None,
            limits: None,
            policies,
            bpffs: PathBuf::new(),
            folder: PathBuf::new(),
            physical_networks: physical_networks.iter().enumerate().map(mapped).collect(),
            snapshot: None,
        }
    }

    fn engine(&mut self) -> Result<&mut Engine, String> {
        self.engine
            .as_mut()
            .ok_or_else(|| "the engine was not reset yet".to_owned())
    }

    /// Waits until every policy is a program.
    fn settle(&mut self) -> Result<(), String> {
        let engine = self.engine()?;
        for _ in 0..POLLS_MAX {
            for report in engine.poll().map_err(text)? {
                if let Err(error) = &report.result {
                    return Err(format!("a policy was not compiled: {error}"));
                }
            }
            if engine.is_settled() {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err("the policy compiler does not come to an end".to_owned())
    }

    /// As if just opened: no snapshot, nothing that packets left behind.
    fn empty(&mut self) -> Result<(), String> {
        let host = "host".parse().map_err(|e| format!("{e}"))?;
        let nothing = HostSnapshot::empty(host, uuid::Uuid::nil().into());
        self.engine()?.apply(&nothing).map_err(text)?;
        let layout = std::fs::read_dir(&self.folder)
            .map_err(text)?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .find(|path| path.join("sessions").exists())
            .ok_or("the engine pinned no maps")?;
        for name in HASHES {
            let map = sys::obj_get_map(&layout.join(name)).map_err(text)?;
            for key in map.keys(usize::MAX).map_err(text)? {
                map.delete(&key).map_err(text)?;
            }
        }
        for name in ARRAYS {
            let map = sys::obj_get_map(&layout.join(name)).map_err(text)?;
            let zero = vec![0; map.value_bytes()];
            let first = 0..map.info().entries_max.min(UPLINKS_USED);
            let ports = UPLINKS_MAX - 1..map.info().entries_max.max(UPLINKS_MAX - 1);
            for index in first.chain(ports) {
                map.set(index, &zero).map_err(text)?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        self.limits = None;
        let Some(engine) = self.engine.take() else {
            return Ok(());
        };
        engine.close(true).map_err(text)?;
        // The mount point: gone already, or empty now.
        match std::fs::remove_dir(&self.bpffs) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(text(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for EbpfUnderTest {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            // A destructor can only tell: the test's own result stands.
            let _told = std::io::Write::write_all(&mut std::io::stderr(), error.as_bytes());
        }
    }
}

fn frame_bytes_min(frame: &[u8]) -> usize {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => 34,
        Some([0x86, 0xdd]) => 54,
        _ => 15,
    }
}

fn run(
    engine: &mut Engine,
    ingress: Ingress,
    frame: &[u8],
    now_s: u32,
) -> Result<weft_ebpf::TestRun, String> {
    let from = match ingress {
        Ingress::Port(id) => weft_ebpf::Ingress::Port(id),
        Ingress::Network(id) => weft_ebpf::Ingress::Network(id),
        Ingress::Underlay => return engine.test_run_underlay(frame, now_s).map_err(text),
    };
    engine.test_run(from, frame, now_s).map_err(text)
}

fn our_ingress(ingress: weft_ebpf::Ingress) -> Ingress {
    match ingress {
        weft_ebpf::Ingress::Port(id) => Ingress::Port(id),
        weft_ebpf::Ingress::Network(id) => Ingress::Network(id),
    }
}

fn verdict(said: weft_ebpf::Verdict, frame: Vec<u8>) -> Result<Verdict, String> {
    Ok(match said {
        weft_ebpf::Verdict::Multicast => Verdict::Multicast,
        weft_ebpf::Verdict::Drop(reason) => Verdict::Drop(reason),
        weft_ebpf::Verdict::Deliver(port) => Verdict::Deliver { port, frame },
        weft_ebpf::Verdict::Uplink(network) => Verdict::Uplink { network, frame },
        weft_ebpf::Verdict::Tunnel => Verdict::Tunnel { frame },
        weft_ebpf::Verdict::Reply => Verdict::Reply { frame },
        weft_ebpf::Verdict::Pass => Verdict::Pass,
        weft_ebpf::Verdict::Service(kind) => Verdict::Service(match kind {
            EventKind::Dhcp => Service::Dhcp,
            EventKind::Dhcpv6 => Service::Dhcpv6,
            EventKind::Ra => Service::Ra,
            EventKind::Neighbour => Service::Neighbour,
            EventKind::Claim => Service::Claim,
            other => return Err(format!("{other:?} is no service")),
        }),
    })
}

fn decision(event: weft_ebpf::LogEvent) -> Decision {
    Decision {
        port_id: event.port_id,
        direction: event.direction,
        allowed: event.allowed,
        tuple: Tuple {
            protocol: event.protocol,
            source: event.source.0,
            destination: event.destination.0,
            source_port: event.source.1,
            destination_port: event.destination.1,
            vlan: GuestVlan(event.vlan),
        },
        icmp: event.icmp,
    }
}

/// What an event stands for beside a verdict.
fn copy(event: &weft_ebpf::Event) -> Option<Copy> {
    match event.kind {
        EventKind::Neighbour => Some(Copy::Neighbour),
        EventKind::Claim => Some(Copy::Claim),
        EventKind::NeighbourNeeded => event.next_hop.map(Copy::NeighbourNeeded),
        EventKind::TtlExceeded => Some(Copy::TtlExceeded),
        EventKind::MtuExceeded => Some(Copy::MtuExceeded(event.mtu)),
        EventKind::Dhcp | EventKind::Dhcpv6 | EventKind::Ra => None,
    }
}

impl EngineUnderTest for EbpfUnderTest {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn reset(&mut self, limits: Limits) -> Result<(), String> {
        self.snapshot = None;
        if self.limits == Some(limits) {
            return self.empty();
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        self.close()?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("weft-engines-{}-{number}", std::process::id());
        let mut config = EngineConfig::new("test");
        config.bpffs = std::env::temp_dir().join(folder);
        config.sessions_max = limits.sessions_max;
        config.sessions_per_port_max = limits.sessions_per_port_max;
        config.ports_max = PORTS_MAX;
        config.physical_networks = self.physical_networks.clone();
        self.bpffs.clone_from(&config.bpffs);
        self.folder = config.bpffs.join("weft/test");
        self.engine = Some(Engine::open(config).map_err(text)?);
        self.limits = Some(limits);
        Ok(())
    }

    fn apply(&mut self, snapshot: &Arc<HostSnapshot>) -> Result<(), String> {
        self.engine()?.apply(snapshot).map_err(text)?;
        self.snapshot = Some(Arc::clone(snapshot));
        match self.policies {
            Policies::Interpreted => Ok(()),
            Policies::Compiled => self.settle(),
        }
    }

    fn neighbour_put(
        &mut self,
        network: NetworkId,
        address: IpAddr,
        mac: MacAddress,
    ) -> Result<(), String> {
        self.engine()?
            .neighbour_put(network, address, mac)
            .map_err(text)
    }

    fn process(&mut self, ingress: Ingress, frame: &[u8], now_s: u32) -> Result<Observed, String> {
        let observed = |verdict| Observed {
            verdict,
            copy: None,
            copies: vec![],
            logs: Some(vec![]),
            rules: vec![],
            words: vec![],
        };
        if frame.len() < frame_bytes_min(frame) {
            let up = |id| {
                let port = self.snapshot.as_ref().and_then(|s| s.ports.get(id));
                port.is_some_and(|port| port.admin_state_up)
            };
            return Ok(observed(match (ingress, decode::process(frame)) {
                (Ingress::Underlay, _) => Verdict::Pass,
                (Ingress::Port(id), _) if !up(&id) => Verdict::Drop(DropReason::PortDown),
                (Ingress::Port(_), Err(reason)) => Verdict::Drop(reason),
                (Ingress::Network(_), Err(_)) => Verdict::Pass,
                (_, Ok(packet)) => return Err(format!("cannot be run, and decodes: {packet:?}")),
            }));
        }
        let engine = self.engine()?;
        let run = run(engine, ingress, frame, now_s)?;
        let copies = engine.events().iter().filter_map(copy).collect::<Vec<_>>();
        let to_members = run.copies.into_iter();
        let to_members = to_members.map(|(said, frame)| verdict(said, frame));
        let to_members = in_order(to_members.collect::<Result<_, String>>()?);
        let logs = engine.log_events().into_iter().map(decision);
        let logs = Some(logs.collect());
        let observed = |verdict| Observed {
            logs,
            copies: to_members,
            ..observed(verdict)
        };
        let verdict = verdict(run.verdict, run.frame)?;
        match (&copies[..], &verdict) {
            // A service is an event itself.
            (_, Verdict::Service(_)) | ([], _) => Ok(observed(verdict)),
            ([copy], _) => Ok(Observed {
                copy: Some(*copy),
                ..observed(verdict)
            }),
            (many, _) => Err(format!("one frame made {} events", many.len())),
        }
    }

    fn meters(&mut self) -> Result<Option<Meters>, String> {
        let counters = self.engine()?.counters().map_err(text)?;
        let mut meters = counters.metering_labels;
        meters.retain(|_, metered| metered.packets > 0);
        Ok(Some(meters))
    }

    fn sessions(&mut self) -> Result<BTreeSet<SessionSeen>, String> {
        let views = self.engine()?.sessions(usize::MAX).map_err(text)?;
        let seen = |view: weft_ebpf::SessionView| {
            let forward = Tuple {
                protocol: view.protocol,
                source: view.source.0,
                destination: view.destination.0,
                source_port: view.source.1,
                destination_port: view.destination.1,
                vlan: GuestVlan(view.vlan),
            };
            let translated = Tuple {
                protocol: view.protocol,
                source: view.source_translated.0,
                destination: view.destination_translated.0,
                source_port: view.source_translated.1,
                destination_port: view.destination_translated.1,
                vlan: GuestVlan(view.vlan),
            };
            SessionSeen {
                forward: SessionKey {
                    ingress: our_ingress(view.ingress),
                    tuple: forward,
                },
                reply: SessionKey {
                    ingress: our_ingress(view.reply_ingress),
                    tuple: translated.reversed(),
                },
            }
        };
        Ok(views.into_iter().map(seen).collect())
    }
}
