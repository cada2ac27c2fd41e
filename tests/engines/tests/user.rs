//! Every vector on the user engine, and random histories against the reference engine; by headers, and by whole frames.
//! `WEFT_DIFFERENTIAL_FRAMES` asks for more frames than the default, `WEFT_DIFFERENTIAL_SEED` for others.

use weft_dataplane::ReferenceConfig;
use weft_tests_engines::differential::{Pair, run};
use weft_tests_engines::vector::play_all;
use weft_tests_engines::{ReferenceUnderTest, UserUnderTest};

const FRAMES: usize = 20_000;

fn asked(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().expect("a number in the environment variable"))
}

fn play(whole: bool) {
    let played = play_all(&mut UserUnderTest::new(whole));
    assert!(
        matches!(played, Ok(60..)),
        "{}",
        played.err().unwrap_or_default()
    );
}

fn differential(seed: u64, whole: bool) -> usize {
    let frames =
        asked("WEFT_DIFFERENTIAL_FRAMES").map_or(FRAMES, |n| usize::try_from(n).expect("fits"));
    let seed = asked("WEFT_DIFFERENTIAL_SEED").unwrap_or(seed);
    let mut reference = ReferenceUnderTest::new(ReferenceConfig::default());
    let mut user = UserUnderTest::new(whole);
    let mut pair = Pair {
        a: &mut reference,
        b: &mut user,
    };
    let tally = run(seed, frames, &mut pair);
    let after = tally.frames;
    if let Some(found) = tally.found {
        let vector = found.vector(&mut pair);
        assert!(vector.is_empty(), "after {after} frames: {vector}");
    }
    assert!(after >= frames, "only {after} frames were compared");
    user.quick()
}

#[test]
fn every_vector_holds_by_headers() {
    play(false);
}

#[test]
fn every_vector_holds_by_whole_frames() {
    play(true);
}

#[test]
fn reference_and_headers_agree() {
    let quick = differential(3_000_000, false);
    assert!(
        quick > FRAMES / 20,
        "only {quick} frames took the quick way"
    );
}

#[test]
fn reference_and_whole_frames_agree() {
    assert_eq!(differential(4_000_000, true), 0);
}
