//! The house rules that a machine can check: dependencies point one way, files say what they are, nothing is too
//! long, unsafe code stays in its rooms, no left-over marks, no binaries, and every drop reason has its vector.
//!
//! It does not format or lint: rustfmt and clippy do.

use crate::tree::{self, Error, File};
use std::collections::{BTreeMap, BTreeSet};

/// Lines of code of a file before its tests.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 80;
/// Where `unsafe` may be written.
const UNSAFE_ROOMS: &[&str] = &[
    "ebpf/src/sys/",
    "vhost/src/memory/",
    // What the models of that one check by.
    "tests/interleavings/src/memory/",
    // One call: an option of the allocator.
    "cli/src/allocator.rs",
];
/// Which of our crates each crate may depend on (ARCHITECTURE.md, "The rooms").
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("weft-model", &[]),
    ("weft-wire", &[]),
    ("weft-ebpf-common", &[]),
    ("weft-dataplane", &["weft-model", "weft-wire"]),
    ("weft-ebpf", &["weft-model", "weft-ebpf-common"]),
    ("weft-vhost", &["weft-model", "weft-wire", "weft-dataplane"]),
    ("weft-control", &["weft-model"]),
    (
        "weft-agent",
        &[
            "weft-model",
            "weft-wire",
            "weft-dataplane",
            "weft-ebpf",
            "weft-vhost",
        ],
    ),
    ("weft-guest", &["weft-model", "weft-agent"]),
    (
        "weft",
        &[
            "weft-model",
            "weft-control",
            "weft-agent",
            "weft-ebpf",
            "weft-vhost",
            "weft-dataplane",
        ],
    ),
];

/// Prints what breaks a rule; true if nothing does.
pub(crate) fn run() -> Result<bool, Error> {
    let files = tree::files()?;
    let mut broken = Vec::new();
    for file in &files {
        match &file.text {
            None => broken.push(format!("{}: a binary file", file.path)),
            Some(text) => file_rules(&file.path, text, &mut broken),
        }
    }
    dependency_rules(&files, &mut broken)?;
    vector_rules(&files, &mut broken);
    for line in &broken {
        println!("{line}");
    }
    println!("tidy: {} files, {} rules broken", files.len(), broken.len());
    Ok(broken.is_empty())
}

fn file_rules(path: &str, text: &str, broken: &mut Vec<String>) {
    let source = path.ends_with(".rs");
    let c = path.ends_with(".c") || path.ends_with(".h");
    if !source && !c {
        return;
    }
    let lines: Vec<&str> = text.lines().collect();
    if source && !lines.first().is_some_and(|l| l.starts_with("//!")) {
        broken.push(format!(
            "{path}: opens without a word (//!) on what it guarantees"
        ));
    }
    if c && !lines
        .first()
        .is_some_and(|l| l.contains("SPDX-License-Identifier: GPL-2.0 OR Apache-2.0"))
    {
        broken.push(format!(
            "{path}: opens without SPDX-License-Identifier: GPL-2.0 OR Apache-2.0"
        ));
    }
    let test = path.starts_with("tests/")
        || path.starts_with("benches/")
        || path.contains("/tests")
        || path.ends_with("_tests.rs");
    // A test module in the file ends the code; an item that only tests see does not.
    let tests_at = lines
        .windows(2)
        .position(|l| l[0] == "#[cfg(test)]" && l[1].starts_with("mod ") && l[1].ends_with('{'))
        .unwrap_or(lines.len());
    if !test && tests_at > FILE_LINES_MAX {
        broken.push(format!(
            "{path}: {tests_at} lines of code, more than {FILE_LINES_MAX}"
        ));
    }
    if source && !test {
        function_rules(path, &lines[..tests_at], broken);
    }
    let this = path.ends_with("xtask/src/tidy.rs");
    for (number, line) in lines.iter().enumerate() {
        let at = || format!("{path}:{}", number + 1);
        let marks = [
            "todo!(",
            "unimplemented!(",
            "dbg!(",
            "#[ignore",
            "FIXME",
            "XXX",
        ];
        if !this && marks.iter().any(|mark| line.contains(mark)) {
            broken.push(format!("{}: a left-over mark: {}", at(), line.trim()));
        }
        let may = UNSAFE_ROOMS.iter().any(|room| path.starts_with(room));
        let code = line.split("//").next().unwrap_or_default();
        if source && !this && !may && (code.contains("unsafe {") || code.contains("unsafe fn")) {
            broken.push(format!("{}: unsafe outside its rooms", at()));
        }
    }
}

fn function_rules(path: &str, lines: &[&str], broken: &mut Vec<String>) {
    let mut open: Option<(usize, String)> = None;
    for (number, line) in lines.iter().enumerate() {
        let indent: String = line.chars().take_while(|c| *c == ' ').collect();
        match &open {
            None if opens_function(line) => open = Some((number, indent)),
            Some((start, at)) if *line == format!("{at}}}") => {
                if number - start > FUNCTION_LINES_MAX {
                    let name = lines[*start].trim();
                    broken.push(format!(
                        "{path}:{}: {} lines: {name}",
                        start + 1,
                        number - start
                    ));
                }
                open = None;
            }
            _ => {}
        }
    }
}

fn opens_function(line: &str) -> bool {
    let mut words = line.split_whitespace().skip_while(|w| {
        w.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\""].contains(w)
    });
    words.next() == Some("fn") && !line.trim_end().ends_with([';', '}'])
}

fn dependency_rules(files: &[File], broken: &mut Vec<String>) -> Result<(), Error> {
    let rules: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    for file in files.iter().filter(|f| f.path.ends_with("Cargo.toml")) {
        let Some(text) = &file.text else { continue };
        let manifest: toml::Table = toml::from_str(text).map_err(|source| Error::Manifest {
            path: file.path.clone().into(),
            source,
        })?;
        let Some(name) = manifest
            .get("package")
            .and_then(|p| p.get("name")?.as_str())
        else {
            continue;
        };
        let Some(may) = rules.get(name) else { continue };
        let names = manifest.get("dependencies").and_then(toml::Value::as_table);
        let ours = names
            .into_iter()
            .flat_map(toml::Table::keys)
            .filter(|n| n.starts_with("weft"));
        for dependency in ours.filter(|n| !may.contains(&n.as_str())) {
            broken.push(format!(
                "{}: {name} must not depend on {dependency}",
                file.path
            ));
        }
    }
    Ok(())
}

/// Every reason of `model/src/drop_reason.rs` stands in a vector, or in the list of exceptions beside them.
fn vector_rules(files: &[File], broken: &mut Vec<String>) {
    let text_of = |path: &str| {
        files
            .iter()
            .find(|f| f.path == path)
            .and_then(|f| f.text.clone())
    };
    let Some(reasons) = text_of("model/src/drop_reason.rs") else {
        return;
    };
    let vectors: String = files
        .iter()
        .filter(|f| f.path.starts_with("tests/vectors/"))
        .filter_map(|f| f.text.as_deref())
        .collect();
    let names: BTreeSet<&str> = reasons
        .lines()
        .filter(|l| l.trim_start().starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|l| l.split('"').nth(1))
        .collect();
    for name in names.iter().filter(|n| !vectors.contains(**n)) {
        broken.push(format!(
            "model/src/drop_reason.rs: {name} has no vector in tests/vectors"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<String> {
        let mut broken = Vec::new();
        file_rules(path, text, &mut broken);
        broken
    }

    #[test]
    fn finds_a_file_without_a_word_and_a_long_function() {
        let long = format!(
            "//! Says.\nfn f() {{\n{}}}\n",
            "    x();\n".repeat(FUNCTION_LINES_MAX)
        );
        assert_eq!(
            broken("agent/src/a.rs", "//! Says.\n"),
            Vec::<String>::new()
        );
        assert_eq!(broken("agent/src/a.rs", "use x;\n").len(), 1);
        assert_eq!(broken("agent/src/a.rs", &long).len(), 1);
    }

    #[test]
    fn finds_unsafe_outside_its_rooms() {
        let text = "//! Says.\nfn f() { unsafe { g() } }\n";
        assert_eq!(broken("agent/src/a.rs", text).len(), 1);
        assert_eq!(broken("ebpf/src/sys/a.rs", text), Vec::<String>::new());
    }
}
