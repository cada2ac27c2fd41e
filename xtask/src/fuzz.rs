//! Coverage-guided fuzzing of what guests can write (`vhost/fuzz`): each target for some seconds, with AddressSanitizer. Needs a
//! nightly compiler and cargo-fuzz; corpora stay beside the build, outside of the tree's history.

use crate::tree::Error;
use std::path::Path;
use std::process::Command;

const TARGETS: [&str; 3] = ["protocol", "ring_split", "ring_packed"];
/// Bytes of an input: more than the longest table or chain needs.
const INPUT_BYTES_MAX: u32 = 4_096;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only targets whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Fuzzes; true if nothing was found. A target that finds something says how to see it again.
pub(crate) fn run(arguments: &Arguments) -> Result<bool, Error> {
    let here = std::env::current_dir().map_err(at(Path::new(".")))?;
    let built = here.join("target/fuzz");
    let mut clean = true;
    for target in TARGETS
        .iter()
        .filter(|target| target.contains(&arguments.only))
    {
        let corpus = built.join("corpus").join(target);
        std::fs::create_dir_all(&corpus).map_err(at(&corpus))?;
        println!("{target}: {} s", arguments.seconds);
        let status = Command::new("cargo")
            .args(["+nightly", "fuzz", "run", "--target-dir"])
            .arg(&built)
            .arg(target)
            .arg(&corpus)
            .arg("--")
            .arg(format!("-max_total_time={}", arguments.seconds))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .current_dir(here.join("vhost"))
            .status()
            .map_err(|source| Error::Start {
                command: "cargo +nightly fuzz".to_owned(),
                source,
            })?;
        println!(
            "{target}: {}",
            if status.success() {
                "nothing found"
            } else {
                "FAILED"
            }
        );
        clean &= status.success();
    }
    Ok(clean)
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Read { path, source }
}
