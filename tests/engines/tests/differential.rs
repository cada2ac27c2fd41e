//! The differential machinery on the reference engine against itself, and against itself with planted mistakes.

use std::collections::BTreeSet;
use weft_dataplane::ReferenceConfig;
use weft_dataplane::mutant::Mutant;
use weft_model::DropReason;
use weft_tests_engines::ReferenceUnderTest;
use weft_tests_engines::differential::{self, Pair, run, verdicts};
use weft_tests_engines::generate::history;
use weft_tests_engines::vector::reasons;

/// Frames after which a planted mistake counts as missed; the kernel engine is compared over as many, in two tests.
const FRAMES: usize = 20_000;

fn engine(mutant: Option<Mutant>) -> ReferenceUnderTest {
    ReferenceUnderTest::new(ReferenceConfig {
        mutant,
        ..ReferenceConfig::default()
    })
}

#[test]
fn the_reference_agrees_with_itself() {
    let (mut a, mut b) = (engine(None), engine(None));
    let mut pair = Pair {
        a: &mut a,
        b: &mut b,
    };
    let tally = run(1, 2_000, &mut pair);
    assert!(
        tally.frames >= 2_000,
        "{}",
        tally.found.map(|f| f.vector(&mut pair)).unwrap_or_default()
    );
}

#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let (mut a, mut b) = (engine(None), engine(Some(*mutant)));
        let tally = run(
            1,
            FRAMES,
            &mut Pair {
                a: &mut a,
                b: &mut b,
            },
        );
        if tally.found.is_none() {
            missed.push(mutant);
        }
    }
    assert!(
        missed.is_empty(),
        "{} of {} live: {missed:?}",
        missed.len(),
        Mutant::ALL.len()
    );
}

#[test]
fn what_is_found_is_shrunk_to_a_vector_that_can_be_read() {
    let (mut a, mut b) = (engine(None), engine(Some(Mutant::PortRangeEnd)));
    let mut pair = Pair {
        a: &mut a,
        b: &mut b,
    };
    let found = run(1, FRAMES, &mut pair)
        .found
        .expect("the mistake is found");
    let vector = found.vector(&mut pair);
    let frames = vector.lines().filter(|line| line.contains(" => ")).count();
    assert_eq!(frames, 1, "one frame is enough to show it:\n{vector}");
    let refused = vector.contains("=> drop security_group");
    let copied = vector.contains("=> multicast") || vector.contains("copies to members");
    assert!(refused || copied, "{vector}");
}

#[test]
fn random_histories_meet_nearly_every_end_of_the_pipeline() {
    // Bursts of services beyond the bucket, full host tables and rogue router advertisements are the vectors' part.
    let rare = [
        DropReason::ServiceRateLimit,
        DropReason::SessionTableFull,
        DropReason::NeighbourUnresolved,
        DropReason::QosRateLimit,
        DropReason::UplinkMissing,
        DropReason::EngineError,
        DropReason::GuestQueueFull,
        DropReason::MulticastUnsupported,
        DropReason::MulticastRateLimit,
    ];
    let mut met: BTreeSet<DropReason> = BTreeSet::new();
    let mut forwarded = [0, 0, 0, 0, 0];
    for seed in 1..=500 {
        let case = history(seed, differential::FRAMES, ReferenceConfig::default());
        for verdict in verdicts(&case, &mut engine(None)).unwrap() {
            met.extend(reasons(&verdict));
            let words = [
                " => deliver",
                " => uplink",
                " => reply",
                " => service",
                " => pass",
            ];
            for (count, word) in forwarded.iter_mut().zip(words) {
                *count += usize::from(verdict.starts_with(word));
            }
        }
    }
    let missed: Vec<_> = DropReason::ALL
        .iter()
        .filter(|r| !met.contains(r) && !rare.contains(r))
        .collect();
    assert!(missed.is_empty(), "no history meets {missed:?}");
    assert!(
        forwarded.iter().all(|count| *count > 50),
        "deliver, uplink, reply, service, pass: {forwarded:?}"
    );
}
