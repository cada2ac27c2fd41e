//! Every vector on the reference engine; and every drop reason in a vector.

use std::collections::BTreeSet;
use std::path::Path;
use weft_dataplane::ReferenceConfig;
use weft_model::DropReason;
use weft_tests_engines::vector::{VectorFile, files, play_all, reasons};
use weft_tests_engines::{ReferenceUnderTest, UserUnderTest, members};

#[test]
fn every_vector_holds_on_the_reference_engine() {
    let mut engine = ReferenceUnderTest::new(ReferenceConfig::default());
    let played = play_all(&mut engine);
    assert!(
        matches!(played, Ok(60..)),
        "{}",
        played.err().unwrap_or_default()
    );
}

#[test]
fn every_drop_reason_has_a_vector_or_an_excuse() {
    let mut covered: BTreeSet<DropReason> = BTreeSet::new();
    for path in files().unwrap() {
        for case in VectorFile::read(&path).unwrap().cases() {
            covered.extend(reasons(&case.script));
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/exceptions.toml");
    let excuses: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    for reason in DropReason::ALL {
        let excused = excuses.get(reason.name()).and_then(|why| why.as_str());
        match (covered.contains(reason), excused) {
            (false, None) => panic!("{reason} has neither a vector nor an excuse"),
            (true, Some(_)) => panic!("{reason} has a vector: its excuse is not true any more"),
            (_, why) => assert!(why.is_none_or(|why| why.len() > 20), "{reason}: why not?"),
        }
    }
}

#[test]
fn as_many_members_get_copies_as_the_limit_says() {
    let mut engine = ReferenceUnderTest::new(ReferenceConfig::default());
    assert_eq!(members::limit_holds(&mut engine), Ok(()));
    assert_eq!(members::limit_holds(&mut UserUnderTest::new(false)), Ok(()));
}
