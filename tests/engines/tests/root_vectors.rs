//! Every vector on the loaded programs, with policies interpreted and compiled.

use weft_tests_engines::vector::play_all;
use weft_tests_engines::{EbpfUnderTest, Policies, members};

fn play(policies: Policies) {
    let mut engine = EbpfUnderTest::new(&["provider1"], policies);
    let played = play_all(&mut engine);
    assert!(
        matches!(played, Ok(60..)),
        "{}",
        played.err().unwrap_or_default()
    );
}

#[test]
fn every_vector_holds_on_the_kernel_engine_with_interpreted_policies() {
    play(Policies::Interpreted);
}

#[test]
fn every_vector_holds_on_the_kernel_engine_with_compiled_policies() {
    play(Policies::Compiled);
}

#[test]
fn as_many_members_get_copies_as_the_limit_says() {
    let mut engine = EbpfUnderTest::new(&[], Policies::Interpreted);
    assert_eq!(members::limit_holds(&mut engine), Ok(()));
}
