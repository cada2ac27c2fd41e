//! The policy compiler, from rules to instructions, and the classifier's two executions for a first packet.
//!
//! The second part asks the kernel (BPF_PROG_TEST_RUN) and needs root; without it, it says so and is left out.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Duration;
use weft_ebpf::policy::harness::{Harness, instructions};
use weft_ebpf::policy::sets::{Shape, policy, tuples};
use weft_model::EtherType;

const COUNTS: [u32; 4] = [10, 100, 1_000, 10_000];
const SHAPES: [Shape; 2] = [Shape::Services, Shape::Hostile];

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile/policy");
    group.sample_size(10);
    for shape in SHAPES {
        for count in COUNTS {
            let rules = policy(shape, EtherType::Ipv4, count);
            let id = BenchmarkId::new(format!("{shape:?}"), count);
            group.bench_with_input(id, &rules, |bencher, rules| {
                bencher.iter(|| {
                    instructions(black_box(rules)).expect("the generator places its labels")
                });
            });
        }
    }
}

fn classify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify/policy");
    for shape in SHAPES {
        for count in [1, 10, 1_000, 10_000] {
            let mut harness = match Harness::load() {
                Ok(harness) => harness,
                Err(error) => {
                    eprintln!("classify/policy is left out: {error}");
                    return;
                }
            };
            let rules = policy(shape, EtherType::Ipv4, count);
            let asked = tuples(&rules, &BTreeSet::new(), 4_096);
            let slot = harness
                .enforce(rules, &BTreeSet::new())
                .expect("the harness is loaded");
            while !harness.table.is_settled() {
                harness.table.poll().expect("the harness is loaded");
            }
            let id = BenchmarkId::new(format!("{shape:?}"), count);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|rounds| {
                    // One round is a thousand packets, so that the call itself does not count.
                    let repeat = u32::try_from(rounds.saturating_mul(1_000)).unwrap_or(10_000_000);
                    let mean = harness
                        .time(slot, &asked, repeat)
                        .expect("the harness is loaded");
                    Duration::from_nanos(u64::try_from(mean.as_nanos()).unwrap_or(0) * rounds)
                });
            });
        }
    }
}

criterion_group!(benches, compile, classify);
criterion_main!(benches);
