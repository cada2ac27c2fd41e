//! Every vector on the reference engine; and every drop reason in a vector.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use weft_dataplane::ReferenceConfig;
use weft_model::DropReason;
use weft_tests_engines::ReferenceUnderTest;
use weft_tests_engines::vector::{VectorFile, reasons};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("tests/vectors is there")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| {
            path.extension().is_some_and(|e| e == "toml") && !path.ends_with("exceptions.toml")
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_vector_holds_on_the_reference_engine() {
    let mut engine = ReferenceUnderTest::new(ReferenceConfig::default());
    let (mut played, mut failures) = (0, Vec::new());
    for path in files() {
        let file = VectorFile::read(&path).unwrap();
        for case in file.cases() {
            played += 1;
            if let Err(error) = file.play(case, &mut engine) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                failures.push(format!("{name}: {}\n{error}", case.name));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {played} failed\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
    assert!(played > 0);
}

#[test]
fn every_drop_reason_has_a_vector_or_an_excuse() {
    let mut covered: BTreeSet<DropReason> = BTreeSet::new();
    for path in files() {
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
