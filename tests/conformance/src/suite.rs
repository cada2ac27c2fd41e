//! Running the tests: a few Python processes that take one class after the other, the largest first.

use crate::cloud::Cloud;
use crate::reference::{Outcome, Reference};
use crate::server::PASSWORD;
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

const WORKER: &str = include_str!("../tempest/worker.py");
const CONFIG: &str = include_str!("../tempest/tempest.conf");
/// Seconds that one test may take.
const TEST_S_MAX: &str = "240";

/// What came of a test here.
#[derive(Clone, Debug, Deserialize)]
pub struct Done {
    /// What came of it.
    pub outcome: Outcome,
    /// Why it was skipped, or a failure's last line.
    pub reason: String,
    /// A failure's whole trace.
    pub trace: String,
}

/// By full name.
pub type Outcomes = BTreeMap<String, Done>;

/// tempest's configuration.
pub fn config(logs: &Path, cloud: &Cloud, public: &str, extensions: &[String]) -> String {
    let port_security = extensions.iter().any(|alias| alias == "port-security");
    CONFIG
        .replace("{logs}", &logs.display().to_string())
        .replace("{auth_url}", &cloud.auth_url)
        .replace("{password}", PASSWORD)
        .replace("{public_network}", public)
        .replace("{extensions}", &extensions.join(","))
        .replace(
            "{port_security}",
            if port_security { "true" } else { "false" },
        )
}

type Queue<'a> = Mutex<Vec<(&'a str, Vec<&'a str>)>>;

/// Runs all tests of `reference`.
pub fn run(python: &Path, logs: &Path, reference: &Reference, workers: u8) -> Result<Outcomes> {
    let mut classes: Vec<(&str, Vec<&str>)> = reference.classes().into_iter().collect();
    // Taken from the end.
    classes.sort_by_key(|(_, tests)| tests.len());
    let classes: Queue = Mutex::new(classes);
    std::fs::create_dir_all(logs.join("lock"))?;
    std::fs::write(logs.join("worker.py"), WORKER)?;
    let outcomes = Mutex::new(Outcomes::new());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|number| {
                scope.spawn({
                    let (classes, outcomes) = (&classes, &outcomes);
                    move || Worker::start(python, logs, number)?.work(classes, outcomes)
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(())
    })?;
    Ok(outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

/// One Python process.
struct Worker {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// One line of a worker.
#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    End {
        #[serde(rename = "end")]
        _class: String,
    },
    Test {
        test: String,
        #[serde(flatten)]
        done: Done,
    },
}

impl Worker {
    fn start(python: &Path, logs: &Path, number: u8) -> Result<Self> {
        let mut child = Command::new(python)
            .arg("-P")
            .arg(logs.join("worker.py"))
            .env("TEMPEST_CONFIG_DIR", logs)
            .env("TEMPEST_CONFIG", "tempest.conf")
            .env("OS_TEST_TIMEOUT", TEST_S_MAX)
            .env("PYTHONWARNINGS", "ignore")
            .current_dir(logs)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(logs.join(format!("worker-{number}.log")))?)
            .spawn()
            .context("cannot start a worker")?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self {
            child,
            orders,
            answers,
        })
    }

    fn work(mut self, classes: &Queue, outcomes: &Mutex<Outcomes>) -> Result<()> {
        let next = || classes.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some((class, tests)) = next() {
            let order = json!({ "class": class, "tests": tests });
            writeln!(self.orders, "{order}")?;
            self.orders.flush()?;
            let mut line = String::new();
            loop {
                line.clear();
                self.answers.read_line(&mut line)?;
                let answer = serde_json::from_str(&line);
                match answer
                    .with_context(|| format!("a worker in {class} said {line:?}; see its log"))?
                {
                    Answer::End { .. } => break,
                    Answer::Test { test, done } => {
                        let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                        outcomes.insert(test, done);
                    }
                }
            }
        }
        drop(self.orders);
        self.child.wait()?;
        Ok(())
    }
}
