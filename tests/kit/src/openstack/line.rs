//! An `openstack` line taken apart: its words and its options.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// Options without a value.
const FLAGS: &[&str] = &[
    "dhcp",
    "disable",
    "disable-port-security",
    "disable-snat",
    "enable",
    "enable-port-security",
    "enable-snat",
    "egress",
    "external",
    "ingress",
    "internal",
    "no-dhcp",
    "no-security-group",
    "share",
    "transparent-vlan",
];

/// Whether an option has no value: `--port` has one, but not for `unset`.
fn is_flag(words: &[&str], option: &str) -> bool {
    FLAGS.contains(&option) || (option == "port" && words.contains(&"unset"))
}

/// A line taken apart.
#[derive(Debug)]
pub(super) struct Line<'a> {
    /// What is no option: the command, then names.
    pub(super) words: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    pub(super) fn parse(line: &'a str) -> Result<Self> {
        let (mut words, mut options) = (Vec::new(), Vec::new());
        let mut parts = line.split_whitespace();
        while let Some(part) = parts.next() {
            match part.strip_prefix("--") {
                None => words.push(part),
                Some(flag) if is_flag(&words, flag) => options.push((flag, "")),
                Some(option) => match option.split_once('=') {
                    Some(pair) => options.push(pair),
                    None => {
                        let value = parts.next();
                        options.push((
                            option,
                            value.with_context(|| format!("{part} wants a value"))?,
                        ));
                    }
                },
            }
        }
        Ok(Self { words, options })
    }

    /// The one name behind the command's words.
    pub(super) fn name(&self, command_words: usize) -> Result<&'a str> {
        match self.words.get(command_words..) {
            Some([name]) => Ok(name),
            _ => bail!("expected one name in {:?}", self.words),
        }
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == flag)
    }

    pub(super) fn get(&self, option: &str) -> Option<&'a str> {
        self.options
            .iter()
            .find(|(name, _)| *name == option)
            .map(|(_, value)| *value)
    }

    pub(super) fn all(&self, option: &str) -> Vec<&'a str> {
        self.options
            .iter()
            .filter(|(name, _)| *name == option)
            .map(|(_, value)| *value)
            .collect()
    }

    /// Every option's name.
    pub(super) fn option_names(&self) -> impl Iterator<Item = &'a str> {
        self.options.iter().map(|(name, _)| *name)
    }
}

/// `start=a,end=b` as an object.
pub(super) fn pairs(text: &str) -> Result<Value> {
    let mut object = json!({});
    for pair in text.split(',') {
        let (key, value) = pair
            .split_once('=')
            .with_context(|| format!("{pair}: expected key=value"))?;
        object[key] = json!(value);
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = Line::parse("network create --external --mtu 1400 --name=x provider1").unwrap();
        assert_eq!(line.words, ["network", "create", "provider1"]);
        assert_eq!(line.name(2).unwrap(), "provider1");
        assert!(line.has("external") && !line.has("share"));
        assert_eq!(line.get("mtu"), Some("1400"));
        assert_eq!(line.get("name"), Some("x"));
        assert!(Line::parse("network create --mtu").is_err());
        let line = Line::parse("floating ip unset --port 203.0.113.5").unwrap();
        assert_eq!(line.name(3).unwrap(), "203.0.113.5");
    }

    #[test]
    fn pairs_become_an_object() {
        assert_eq!(
            pairs("start=a,end=b").unwrap(),
            json!({"start": "a", "end": "b"})
        );
        assert!(pairs("start").is_err());
    }
}
