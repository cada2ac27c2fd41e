//! The reference engine against the loaded programs, on random histories. `WEFT_DIFFERENTIAL_FRAMES` asks for more frames
//! than the default, `WEFT_DIFFERENTIAL_SEED` for others.

use weft_dataplane::ReferenceConfig;
use weft_tests_engines::differential::{Pair, run};
use weft_tests_engines::generate_snapshot::PHYSICAL_NETWORKS;
use weft_tests_engines::{EbpfUnderTest, Policies, ReferenceUnderTest};

const FRAMES: usize = 10_000;

fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number in the environment variable"))
}

fn differential(seed: u64, policies: Policies) {
    let frames =
        asked("WEFT_DIFFERENTIAL_FRAMES").map_or(FRAMES, |n| usize::try_from(n).expect("fits"));
    let seed = asked("WEFT_DIFFERENTIAL_SEED").unwrap_or(seed);
    let mut reference = ReferenceUnderTest::new(ReferenceConfig::default());
    let mut ebpf = EbpfUnderTest::new(PHYSICAL_NETWORKS, policies);
    let mut pair = Pair {
        a: &mut reference,
        b: &mut ebpf,
    };
    let tally = run(seed, frames, &mut pair);
    let after = tally.frames;
    if let Some(found) = tally.found {
        let vector = found.vector(&mut pair);
        assert!(vector.is_empty(), "after {after} frames: {vector}");
    }
    assert!(after >= frames, "only {after} frames were compared");
}

#[test]
fn reference_and_programs_agree_with_interpreted_policies() {
    differential(1_000_000, Policies::Interpreted);
}

#[test]
fn reference_and_programs_agree_with_compiled_policies() {
    differential(2_000_000, Policies::Compiled);
}
