//! One frame through the real stages, by BPF_PROG_TEST_RUN: for vectors, the differential test and benches. Nothing
//! leaves by a device; sessions, counters and events are as real as ever.

use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::{EventKind, Ingress, ingress};
use crate::stub::{CB_OFFSET, Fallback, stub};
use crate::sys::{self, Prog, ProgSpec, ProgType};
use std::os::fd::AsFd;
use std::time::Duration;
use weft_ebpf_common::constants::{copy, packet, stage, verdict};
use weft_ebpf_common::layout::NetworkRecord;
use weft_ebpf_common::policy::RULE_NONE;
use weft_model::{DropReason, NetworkId, PortId};
use zerocopy::FromBytes;

/// Bytes of `struct __sk_buff`.
const CONTEXT_BYTES: usize = 192;
/// Where `mark` is in it.
const MARK_AT: usize = 8;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped.
    Drop(DropReason),
    /// To a local guest.
    Deliver(PortId),
    /// Out of a physical network's interface.
    Uplink(NetworkId),
    /// To another host.
    Tunnel,
    /// Back to where it came from.
    Reply,
    /// Handed to the agent.
    Service(EventKind),
    /// To the members of its network alone.
    Multicast,
    /// Left to the host's own stack.
    Pass,
}

/// The result of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What became of the frame.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// Index of the rule of the last policy that was asked in its port's policy; none without a walk or a match.
    pub rule_index: Option<u32>,
    /// A session was there, and was evaluated again because something changed.
    pub stale: bool,
    /// The copies of a multicast frame that reach a member: each was run as the frame was.
    pub copies: Vec<(Verdict, Vec<u8>)>,
}

/// A context whose `cb` begins with `words`.
pub(crate) fn context(words: [u32; 3]) -> Vec<u8> {
    let mut context = vec![0; CONTEXT_BYTES];
    let cb = usize::from(CB_OFFSET.unsigned_abs());
    for (n, word) in words.into_iter().enumerate() {
        context[cb + 4 * n..cb + 4 * n + 4].copy_from_slice(&word.to_ne_bytes());
    }
    context
}

/// `cb` of a context.
pub(crate) fn cb(context: &[u8]) -> [u32; 5] {
    let cb = usize::from(CB_OFFSET.unsigned_abs());
    std::array::from_fn(|n| {
        let at = context.get(cb + 4 * n..cb + 4 * n + 4);
        at.and_then(|b| b.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    })
}

impl Engine {
    /// Runs one frame, at the time `now_s` of a clock in seconds that the caller owns. The kernel refuses frames shorter
    /// than 15 bytes.
    ///
    /// # Errors
    /// The ingress is not in the snapshot in force, or the kernel refuses the run.
    pub fn test_run(
        &mut self,
        from: Ingress,
        frame: &[u8],
        now_s: u32,
    ) -> Result<TestRun, EngineError> {
        let (name, slot) = self.entry(from)?;
        self.program_run(name, slot, frame, now_s)
    }

    /// The same of a frame from the underlay.
    ///
    /// # Errors
    /// The kernel refuses the run.
    pub fn test_run_underlay(&mut self, frame: &[u8], now_s: u32) -> Result<TestRun, EngineError> {
        self.program_run("weft_underlay", 0, frame, now_s)
    }

    fn program_run(
        &mut self,
        name: &'static str,
        slot: u32,
        frame: &[u8],
        now_s: u32,
    ) -> Result<TestRun, EngineError> {
        let (verdict, cb, data) = self.run_once(name, slot, frame, now_s, 0)?;
        let mut copies = Vec::new();
        if cb[3] & packet::COPIED != 0 {
            // A guest's frame goes out with a tag, its copies as it came.
            let inner = if name == "weft_guest" { frame } else { &data };
            for index in 0..self.members(cb[4]) {
                let mark = copy::MARK | cb[4] << copy::NETWORK_SHIFT | index;
                let (verdict, _, data) = self.run_once(name, slot, inner, now_s, mark)?;
                if matches!(verdict, Verdict::Deliver(_) | Verdict::Tunnel) {
                    copies.push((verdict, data));
                }
            }
        }
        Ok(TestRun {
            verdict,
            frame: data,
            rule_index: (cb[2] != RULE_NONE).then_some(cb[2]),
            stale: cb[3] & packet::STALE != 0,
            copies,
        })
    }

    /// How many members the network in a slot has.
    fn members(&self, network: u32) -> u32 {
        let record = self.loaded.maps.networks.lookup(&network.to_ne_bytes());
        let record = record.ok().flatten();
        let record = record.and_then(|bytes| NetworkRecord::read_from_bytes(&bytes).ok());
        record.map_or(0, |record| record.members)
    }

    fn run_once(
        &self,
        name: &'static str,
        slot: u32,
        frame: &[u8],
        now_s: u32,
        mark: u32,
    ) -> Result<(Verdict, [u32; 5], Vec<u8>), EngineError> {
        let program = self
            .loaded
            .programs
            .get(name)
            .ok_or(EngineError::Missing { name })?;
        let mut context = context([slot, 1, now_s]);
        if let Some(at) = context.get_mut(MARK_AT..MARK_AT + 4) {
            at.copy_from_slice(&mark.to_ne_bytes());
        }
        let run = sys::TestRun {
            data: frame,
            context: &context,
            repeat: 1,
            ..sys::TestRun::default()
        };
        let output = program.test_run(&run)?;
        let cb = cb(&output.context);
        let verdict = self.verdict(cb).ok_or_else(|| EngineError::Unknown {
            what: format!(
                "verdict {cb:x?} of a test run (return value {})",
                output.value
            ),
        })?;
        Ok((verdict, cb, output.data))
    }

    /// Mean time of one run out of `repeat`. Each run enters anew, but works on the frame that the one before left behind:
    /// measure flows whose frames do not change (bridged ones), or count the TTL.
    ///
    /// # Errors
    /// As [`Engine::test_run`].
    pub fn test_run_repeat(
        &mut self,
        from: Ingress,
        frame: &[u8],
        now_s: u32,
        repeat: u32,
    ) -> Result<Duration, EngineError> {
        let (_, slot) = self.entry(from)?;
        let index = if matches!(from, Ingress::Port(_)) {
            stage::GUEST
        } else {
            stage::UPLINK
        };
        let insns = stub(
            self.loaded.maps.stages.as_fd(),
            index,
            [slot, 1, now_s],
            Fallback::Drop,
        );
        let spec = ProgSpec {
            name: "weft_bench",
            kind: ProgType::SchedCls,
            expected_attach_type: 0,
            insns: &insns,
        };
        let program = Prog::load(&spec)?;
        let output = program.test_run(&sys::TestRun {
            data: frame,
            repeat,
            ..sys::TestRun::default()
        })?;
        Ok(output.duration)
    }

    fn entry(&self, from: Ingress) -> Result<(&'static str, u32), EngineError> {
        match from {
            Ingress::Port(port) => Ok(("weft_guest", self.port_slot(port)?)),
            Ingress::Network(network) => {
                let network_there = self
                    .snapshot
                    .as_ref()
                    .and_then(|s| s.networks.get(&network));
                let wire = network_there.and_then(|n| n.segment.physical_network.as_ref());
                let number = wire.and_then(|wire| self.slots.wires.get(wire));
                let unknown = || EngineError::Unknown {
                    what: format!("physical network {network}"),
                };
                Ok(("weft_uplink", *number.ok_or_else(unknown)?))
            }
        }
    }

    fn verdict(&self, cb: [u32; 5]) -> Option<Verdict> {
        let what = cb[0] >> 8;
        Some(match cb[0] & 0xff {
            verdict::DROP => Verdict::Drop(DropReason::from_number(u8::try_from(what).ok()?)?),
            verdict::DELIVER | verdict::UPLINK => match ingress(cb[1], &self.slots)? {
                Ingress::Port(port) => Verdict::Deliver(port),
                Ingress::Network(network) => Verdict::Uplink(network),
            },
            verdict::TUNNEL => Verdict::Tunnel,
            verdict::REPLY => Verdict::Reply,
            verdict::SERVICE => Verdict::Service(EventKind::from_number(what)?),
            verdict::MULTICAST => Verdict::Multicast,
            verdict::PASS => Verdict::Pass,
            _ => return None,
        })
    }
}
