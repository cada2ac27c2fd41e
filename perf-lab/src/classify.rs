//! What the number of rules costs a flow's first packet: the compiled classifier alone, by BPF_PROG_TEST_RUN, over
//! 4,096 mixed tuples, with the rule sets that tenants write and those that classifiers dislike, in both families.

use crate::figures::{Bar, spread};
use anyhow::{Context, Result};
use std::time::Duration;
use weft_ebpf::policy::harness::{Harness, Tuple};
use weft_ebpf::policy::sets::{self, Shape};
use weft_kit::clock;
use weft_model::EtherType;

/// Rules of the large policy.
const RULES: u32 = 10_000;
/// Different packets asked in turn.
const TUPLES: u32 = 4_096;
/// Packets of one round.
const REPEAT: u32 = 400_000;
/// The longest that the kernel may take to load a compiled policy.
const COMPILE_TIMEOUT: Duration = Duration::from_secs(120);

/// A policy in force, and what it is asked.
struct Asked {
    harness: Harness,
    slot: u32,
    tuples: Vec<Tuple>,
}

impl Asked {
    fn load(shape: Shape, ethertype: EtherType, rules: u32) -> Result<Self> {
        let mut harness = Harness::load()?;
        let members = sets::members(ethertype, RULES);
        let policy = sets::policy(shape, ethertype, rules);
        let tuples = sets::tuples(&sets::policy(shape, ethertype, RULES), &members, TUPLES);
        let slot = harness.enforce(policy, &members)?;
        let compiled = rules > 16;
        clock::until("the compiled policy", COMPILE_TIMEOUT, || {
            let reports = harness.table.poll()?;
            if let Some(error) = reports.into_iter().find_map(|report| report.result.err()) {
                return Err(error).context("the compiled policy was refused");
            }
            Ok((!compiled || harness.is_compiled(slot)?).then_some(()))
        })?;
        Ok(Self {
            harness,
            slot,
            tuples,
        })
    }

    #[allow(clippy::cast_precision_loss, reason = "nanoseconds far below 2^52")]
    fn ns(&self) -> Result<f64> {
        Ok(self
            .harness
            .time(self.slot, &self.tuples, REPEAT)?
            .as_nanos() as f64)
    }
}

/// One bar a shape and family: 10,000 rules against one.
pub(crate) fn bars(rounds: usize) -> Result<Vec<Bar>> {
    let shapes = [
        ("as tenants write them", Shape::Services),
        ("hostile", Shape::Hostile),
    ];
    let families = [("IPv4", EtherType::Ipv4), ("IPv6", EtherType::Ipv6)];
    let mut bars = Vec::new();
    for (words, shape) in shapes {
        for (family, ethertype) in families {
            let one = Asked::load(shape, ethertype, 1)?;
            let many = Asked::load(shape, ethertype, RULES)?;
            let mut over = Vec::new();
            let (mut base, mut full) = (Vec::new(), Vec::new());
            for _ in 0..rounds.max(1) {
                base.push(one.ns()?);
                full.push(many.ns()?);
                over.push(full[full.len() - 1] - base[base.len() - 1]);
            }
            let cost = spread(&over).median;
            bars.push(Bar {
                name: format!("first packet, 10,000 {family} rules {words}, over one rule's cost"),
                bar: "≤ 120 ns".to_owned(),
                figure: format!(
                    "{} ns (one rule {}, all {})",
                    spread(&over),
                    spread(&base),
                    spread(&full)
                ),
                holds: cost <= 120.0,
                rounds: over,
            });
        }
    }
    Ok(bars)
}
