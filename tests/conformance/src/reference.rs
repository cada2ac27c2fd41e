//! What neutron-server makes of each test, and which extensions each asks for: `reference.txt`.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;

/// The part of the suites that CI runs, a text that names contain a line.
pub fn part() -> impl Iterator<Item = String> {
    lines(include_str!("../part.txt")).map(str::to_owned)
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// What came of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It does not concern this server.
    Skip,
}

/// One test.
#[derive(Debug)]
pub struct Test {
    /// What neutron-server makes of it.
    pub reference: Outcome,
    /// The extensions that it asks for.
    pub extensions: Vec<String>,
}

/// All tests, by full name.
#[derive(Debug)]
pub struct Reference {
    /// `module.Class.test`.
    pub tests: BTreeMap<String, Test>,
}

impl Reference {
    /// Reads the list, and keeps the tests whose names contain one of `only`; all if that is empty.
    pub fn read(only: &[String]) -> Result<Self> {
        let tests = parse(include_str!("../reference.txt"))?.into_iter();
        let wanted =
            |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
        let tests: BTreeMap<String, Test> = tests.filter(|(name, _)| wanted(name)).collect();
        if tests.is_empty() {
            bail!("no test's name contains any of {only:?}");
        }
        Ok(Self { tests })
    }

    /// The tests' names without their class, by class.
    pub fn classes(&self) -> BTreeMap<&str, Vec<&str>> {
        let mut classes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (class, test) in self.tests.keys().filter_map(|name| name.rsplit_once('.')) {
            classes.entry(class).or_default().push(test);
        }
        classes
    }
}

fn parse(text: &str) -> Result<BTreeMap<String, Test>> {
    let mut tests = BTreeMap::new();
    let mut class: Vec<&str> = Vec::new();
    for line in lines(text) {
        let words: Vec<&str> = line.split(' ').collect();
        let reference = match words[0] {
            "+" => Outcome::Pass,
            "!" => Outcome::Fail,
            "-" => Outcome::Skip,
            _ => {
                class = words;
                continue;
            }
        };
        let (Some(name), Some((class, common))) = (words.get(1), class.split_first()) else {
            bail!("reference.txt: {line}");
        };
        let extensions = common
            .iter()
            .chain(&words[2..])
            .map(|alias| (*alias).to_owned());
        let test = Test {
            reference,
            extensions: extensions.collect(),
        };
        let twice = tests.insert(format!("{class}.{name}"), test);
        if twice.is_some() {
            return Err(anyhow::anyhow!("{class}.{name} stands twice")).context("reference.txt");
        }
    }
    Ok(tests)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_whole() {
        let all = Reference::read(&[]).unwrap();
        let count = |outcome| {
            all.tests
                .values()
                .filter(|test| test.reference == outcome)
                .count()
        };
        assert_eq!(
            (
                count(Outcome::Pass),
                count(Outcome::Fail),
                count(Outcome::Skip)
            ),
            (971, 6, 39)
        );
        assert_eq!(all.classes().values().map(Vec::len).sum::<usize>(), 1_016);
        let agent = "neutron_tempest_plugin.api.admin.test_agent_availability_zone.AgentAvailabilityZoneTestCase.test_agents_availability_zone";
        assert_eq!(all.tests[agent].extensions, ["agent", "availability_zone"]);
    }

    #[test]
    fn a_part_is_chosen_by_name() {
        let only = ["tempest.api.network.test_networks.".to_owned()];
        let some = Reference::read(&only).unwrap();
        assert!(some.tests.keys().all(|name| name.contains(&only[0])));
        assert!(Reference::read(&["nothing like that".to_owned()]).is_err());
        for part in part() {
            Reference::read(&[part]).unwrap();
        }
    }
}
