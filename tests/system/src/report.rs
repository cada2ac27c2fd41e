//! What was done, expected and seen, for people; and whether all of it was right.
//!
//! A check is never left out silently: a chapter that could not go on is itself a check that failed.

use std::fmt::{Display, Write as _};
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};
use weft_kit::clock::now;

/// One thing that was expected, and what happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The chapter's number.
    pub chapter: usize,
    /// What was looked at.
    pub what: String,
    /// What should be seen.
    pub expected: String,
    /// What was seen.
    pub happened: String,
    /// Whether it is as expected.
    pub holds: bool,
}

/// Prints as it goes, and keeps all checks.
#[derive(Debug)]
pub struct Report {
    checks: Vec<Check>,
    chapter: usize,
    colour: bool,
    started: Instant,
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

impl Report {
    /// An empty report; coloured if standard output is a terminal.
    #[must_use]
    pub fn new() -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self {
            checks: Vec::new(),
            chapter: 0,
            colour,
            started: now(),
        }
    }

    /// Begins a chapter.
    pub fn chapter(&mut self, number: usize, of: usize, title: &str) {
        self.chapter = number;
        self.heading(&format!("[{number}/{of}] {title}"));
    }

    /// Begins what comes after all chapters.
    pub fn epilogue(&mut self, title: &str) {
        self.chapter += 1;
        self.heading(title);
    }

    fn heading(&self, title: &str) {
        let at = self.started.elapsed().as_secs_f64();
        let at = self.paint("2", &format!("{at:.1} s"));
        self.line(&format!("\n{}  {at}", self.paint("1", title)));
    }

    /// A remark.
    pub fn remark(&self, text: &str) {
        self.line(&format!("    {}", self.paint("2", text)));
    }

    /// A command as it would be typed, by whom, and how long it took.
    pub fn command(&self, who: &str, command: &str, took: Duration) {
        let prompt = self.paint("36", &format!("{who}$"));
        let took = self.paint("2", &format!("{} ms", took.as_millis()));
        self.line(&format!("  {prompt} {command}  {took}"));
    }

    /// A check of something that should equal something.
    pub fn equal(&mut self, what: &str, expected: impl Display, happened: impl Display) {
        let (expected, happened) = (expected.to_string(), happened.to_string());
        let holds = expected == happened;
        self.check(what, expected, happened, holds);
    }

    /// A check of anything.
    pub fn check(
        &mut self,
        what: &str,
        expected: impl Display,
        happened: impl Display,
        holds: bool,
    ) {
        let (expected, happened) = (expected.to_string(), happened.to_string());
        let mark = self.mark(holds);
        let seen = match (holds, expected == happened) {
            (true, true) => happened.clone(),
            (true, false) => format!("{happened} {}", self.paint("2", &format!("({expected})"))),
            (false, _) => format!("{happened}, expected: {expected}"),
        };
        self.line(&format!("    {mark} {what}: {seen}"));
        let (chapter, what) = (self.chapter, what.to_owned());
        self.checks.push(Check {
            chapter,
            what,
            expected,
            happened,
            holds,
        });
    }

    /// A chapter that could not go on.
    pub fn failure(&mut self, error: &anyhow::Error) {
        self.check(
            "the chapter is carried out",
            "to its end",
            format!("{error:#}"),
            false,
        );
    }

    /// All checks so far.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// Those that do not hold, in words; empty if all is well. A report without checks is not well.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        if self.checks.is_empty() {
            return vec!["nothing was checked".to_owned()];
        }
        let failed = self.checks.iter().filter(|check| !check.holds);
        failed
            .map(|check| {
                let Check {
                    chapter,
                    what,
                    expected,
                    happened,
                    ..
                } = check;
                format!("[{chapter}] {what}: expected {expected}, happened: {happened}")
            })
            .collect()
    }

    /// Prints the table of all checks and the sum.
    pub fn table(&self) {
        let width = |text: fn(&Check) -> &str, most: usize| {
            self.checks
                .iter()
                .map(|check| text(check).chars().count())
                .max()
                .unwrap_or(0)
                .min(most)
        };
        let (what, expected) = (width(|c| &c.what, 60), width(|c| &c.expected, 40));
        let mut text = String::from("\n");
        let head = format!(
            "    # {:what$}  {:expected$}  happened",
            "check", "expected"
        );
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", self.paint("1", &head));
        for check in &self.checks {
            let Check {
                chapter,
                what: check_what,
                expected: wanted,
                happened,
                holds,
            } = check;
            let (mark, check_what) = (self.mark(*holds), cut(check_what, what));
            let (wanted, happened) = (cut(wanted, expected), cut(happened, 60));
            let _ = writeln!(
                text,
                "  {mark} {chapter} {check_what:what$}  {wanted:expected$}  {happened}"
            );
        }
        let failed = self.failures().len();
        let seconds = self.started.elapsed().as_secs_f64();
        let sum = format!(
            "{} checks, {failed} failed, {seconds:.1} s",
            self.checks.len()
        );
        let _ = write!(
            text,
            "\n{}",
            self.paint(if failed == 0 { "1;32" } else { "1;31" }, &sum)
        );
        self.line(&text);
    }

    fn mark(&self, holds: bool) -> String {
        if holds {
            self.paint("32", "✓")
        } else {
            self.paint("1;31", "✗")
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    #[allow(clippy::print_stdout, reason = "printing is this module's purpose")]
    fn line(&self, text: &str) {
        println!("{text}");
        // A reader who went away is noticed by the next line at the latest.
        let _ = std::io::stdout().flush();
    }
}

/// A text's first line, cut to `most` characters.
fn cut(text: &str, most: usize) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= most {
        return line.to_owned();
    }
    line.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_well_only_if_every_check_holds() {
        let mut report = Report::new();
        assert_eq!(report.failures().len(), 1, "an empty report proves nothing");
        report.equal("one", 1, 1);
        assert!(report.failures().is_empty());
        report.equal("two", 2, 3);
        report.failure(&anyhow::anyhow!("no route"));
        assert_eq!(
            report.failures(),
            [
                "[0] two: expected 2, happened: 3",
                "[0] the chapter is carried out: expected to its end, happened: no route"
            ]
        );
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd\nrest", 4), "abcd");
    }
}
