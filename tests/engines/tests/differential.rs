//! The differential machinery on the reference engine against itself, and against itself with planted mistakes.

use weft_dataplane::ReferenceConfig;
use weft_dataplane::mutant::Mutant;
use weft_tests_engines::ReferenceUnderTest;
use weft_tests_engines::differential::{Pair, run};

fn engine(mutant: Option<Mutant>) -> ReferenceUnderTest {
    ReferenceUnderTest::new(ReferenceConfig {
        mutant,
        ..ReferenceConfig::default()
    })
}

#[test]
fn the_reference_agrees_with_itself() {
    let tally = run(
        1,
        2_000,
        &mut Pair {
            a: &mut engine(None),
            b: &mut engine(None),
        },
    );
    assert!(tally.found.is_none(), "{}", tally.found.unwrap_or_default());
    assert!(tally.frames >= 2_000);
}

#[test]
fn every_planted_mistake_is_found() {
    let mut missed = Vec::new();
    for mutant in Mutant::ALL {
        let tally = run(
            1,
            20_000,
            &mut Pair {
                a: &mut engine(None),
                b: &mut engine(Some(*mutant)),
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
