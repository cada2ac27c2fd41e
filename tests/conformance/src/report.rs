//! The results: how many, by extension, and where they differ from neutron-server's.

use crate::reference::{Outcome, Reference, Test};
use crate::suite::{Done, Outcomes};
use anyhow::Result;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Characters of a reason in a table.
const REASON_CHARACTERS: usize = 160;

/// One test: what was expected and what came.
struct Row<'a> {
    name: &'a str,
    test: &'a Test,
    done: Done,
}

/// All results.
pub struct Report<'a> {
    rows: Vec<Row<'a>>,
}

/// How many tests came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    pass: usize,
    fail: usize,
    skip: usize,
}

impl Counts {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let mut counts = Self::default();
        for outcome in outcomes {
            match outcome {
                Outcome::Pass => counts.pass += 1,
                Outcome::Fail => counts.fail += 1,
                Outcome::Skip => counts.skip += 1,
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} pass, {} fail, {} skip",
            self.pass, self.fail, self.skip
        )
    }
}

impl<'a> Report<'a> {
    /// Every test of the reference has a row, whether it was run or not.
    pub fn new(reference: &'a Reference, outcomes: &Outcomes) -> Self {
        let rows = reference.tests.iter().map(|(name, test)| Row {
            name,
            test,
            done: outcomes.get(name).cloned().unwrap_or_else(|| Done {
                outcome: Outcome::Fail,
                reason: "it was not run".to_owned(),
                trace: String::new(),
            }),
        });
        Self {
            rows: rows.collect(),
        }
    }

    /// Whether every test that neutron-server passes passes.
    pub fn holds(&self) -> bool {
        self.worse().next().is_none()
    }

    /// Tests that neutron-server passes and Weft does not.
    fn worse(&self) -> impl Iterator<Item = &Row<'a>> {
        self.rows
            .iter()
            .filter(|row| row.test.reference == Outcome::Pass && row.done.outcome != Outcome::Pass)
    }

    /// `results.txt`, a line a test, and `failures.txt`, with traces.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (mut results, mut failures) = (String::new(), String::new());
        for Row { name, done, .. } in &self.rows {
            let word = word(done.outcome);
            writeln!(results, "{word}\t{name}\t{}", done.reason)?;
            if done.outcome == Outcome::Fail {
                writeln!(failures, "== {name}\n{}\n", done.trace.trim())?;
            }
        }
        std::fs::write(folder.join("results.txt"), results)?;
        std::fs::write(folder.join("failures.txt"), failures)?;
        Ok(())
    }

    /// The tables for people.
    pub fn print(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.extensions_text(&mut text);
        self.skips_text(&mut text);
        self.differences_text(&mut text);
        let here = Counts::of(self.rows.iter().map(|row| &row.done.outcome));
        let there = Counts::of(self.rows.iter().map(|row| &row.test.reference));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\n{} tests: weft {here}; neutron-server {there}; {} that neutron-server passes do not pass",
            self.rows.len(),
            self.worse().count()
        );
        text
    }

    fn extensions_text(&self, text: &mut String) {
        let mut by_extension: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            for alias in &row.test.extensions {
                by_extension.entry(alias).or_default().push(row);
            }
            if row.test.extensions.is_empty() {
                by_extension.entry("(none)").or_default().push(row);
            }
        }
        let _ = writeln!(
            text,
            "\n  pass  fail  skip  neutron passes  extension that the tests ask for"
        );
        for (alias, rows) in by_extension {
            let here = Counts::of(rows.iter().map(|row| &row.done.outcome));
            let there = Counts::of(rows.iter().map(|row| &row.test.reference));
            let Counts { pass, fail, skip } = here;
            let _ = writeln!(
                text,
                "{pass:>6}{fail:>6}{skip:>6}{:>16}  {alias}",
                there.pass
            );
        }
    }

    fn skips_text(&self, text: &mut String) {
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for row in self
            .rows
            .iter()
            .filter(|row| row.done.outcome == Outcome::Skip)
        {
            *reasons.entry(short(&row.done.reason)).or_default() += 1;
        }
        if !reasons.is_empty() {
            let _ = writeln!(text, "\nskipped because");
        }
        for (reason, count) in reasons {
            let _ = writeln!(text, "{count:>6}  {reason}");
        }
    }

    fn differences_text(&self, text: &mut String) {
        let told = |row: &&Row| {
            row.done.outcome != row.test.reference || row.done.outcome == Outcome::Fail
        };
        for row in self.rows.iter().filter(told) {
            let (here, there) = (word(row.done.outcome), word(row.test.reference));
            let _ = write!(text, "\n{here} (neutron: {there}) {}", row.name);
            if row.done.outcome != Outcome::Pass {
                let _ = write!(text, "\n    {}", short(&row.done.reason));
            }
        }
        text.push('\n');
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "fail",
        Outcome::Skip => "skip",
    }
}

fn short(reason: &str) -> String {
    reason.chars().take(REASON_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_neutron_passes_must_pass() {
        let reference =
            Reference::read(&["tempest.api.network.test_networks.".to_owned()]).unwrap();
        let all = |outcome| {
            let done = Done {
                outcome,
                reason: "why".to_owned(),
                trace: String::new(),
            };
            let names = reference.tests.keys().cloned();
            names.map(|name| (name, done.clone())).collect::<Outcomes>()
        };
        assert!(Report::new(&reference, &all(Outcome::Pass)).holds());
        for outcomes in [all(Outcome::Fail), all(Outcome::Skip), Outcomes::new()] {
            let report = Report::new(&reference, &outcomes);
            assert!(!report.holds());
            assert!(
                report
                    .text()
                    .contains("that neutron-server passes do not pass")
            );
        }
    }
}
