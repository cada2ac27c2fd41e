//! Who may do what: Neutron's default rules, in oslo.policy's own syntax, parsed once.
//!
//! A rule is a boolean expression over the caller's roles and project and the target's attributes. Unknown rules and
//! unreadable ones deny.

use super::attribute::Attributes;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};

/// What a token is scoped to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// One project: what all of the Networking API is for.
    #[default]
    Project,
    /// A domain.
    Domain,
    /// The cloud as a system.
    System,
    /// Nothing: it says who somebody is, and gives no role.
    None,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// The user's id.
    pub user_id: String,
    /// The project that the token is scoped to.
    pub project_id: String,
    /// Names of roles in that project, implied ones included.
    pub roles: Vec<String>,
    /// Names of the roles of the service that forwards the request (X-Service-Token).
    pub service_roles: Vec<String>,
    /// When the token ends, microseconds since 1970.
    pub expires_at: i64,
    /// What the token is scoped to.
    pub scope: Scope,
}

impl Caller {
    /// Whether it has a role.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|have| have == role)
    }

    /// Whether it administers everything.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
    }

    /// Whether the token is of a kind that the Networking API is for: Neutron's rules are all of the scope "project".
    #[must_use]
    pub fn may_network(&self) -> bool {
        !matches!(self.scope, Scope::Domain | Scope::System)
    }
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Check {
    Always,
    Never,
    Role(String),
    /// The forwarding service has this role.
    ServiceRole(String),
    Rule(String),
    /// The caller's project is what the target has under this key.
    Project(String),
    /// The target's attribute, as text, is this.
    Field(String, String),
    /// The target's attribute begins with this.
    FieldPrefix(String, String),
    Not(Box<Check>),
    And(Vec<Check>),
    Or(Vec<Check>),
}

/// All rules, by name.
pub struct Policy(HashMap<String, Check>);

/// Neutron's default rules.
const RULES: &str = include_str!("../../policy.yaml");

/// Rules that refer to rules at most so deep.
const DEPTH_MAX: usize = 16;

impl Default for Policy {
    fn default() -> Self {
        // The text is part of the program and its test reads it.
        let rules: BTreeMap<String, String> = serde_yaml_ng::from_str(RULES).unwrap_or_default();
        Self(
            rules
                .into_iter()
                .map(|(name, text)| (name, parse(&text)))
                .collect(),
        )
    }
}

impl Policy {
    /// Whether there is a rule of this name: attributes without one need no permission.
    #[must_use]
    pub fn has(&self, rule: &str) -> bool {
        self.0.contains_key(rule)
    }

    /// Whether the caller may, with this target.
    #[must_use]
    pub fn allows(&self, rule: &str, caller: &Caller, target: &Attributes) -> bool {
        self.rule(rule, caller, target, DEPTH_MAX)
    }

    fn rule(&self, rule: &str, caller: &Caller, target: &Attributes, depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else {
            return false;
        };
        self.0
            .get(rule)
            .is_some_and(|check| self.check(check, caller, target, depth))
    }

    fn check(&self, check: &Check, caller: &Caller, target: &Attributes, depth: usize) -> bool {
        let text = |key: &str| match target.get(key) {
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Bool(true)) => Some("True".to_owned()),
            Some(Value::Bool(false)) => Some("False".to_owned()),
            _ => None,
        };
        match check {
            Check::Always => true,
            Check::Never => false,
            Check::Role(role) => caller.has_role(role),
            Check::ServiceRole(role) => caller.service_roles.iter().any(|have| have == role),
            Check::Rule(rule) => self.rule(rule, caller, target, depth),
            Check::Project(key) => {
                !caller.project_id.is_empty() && text(key).as_ref() == Some(&caller.project_id)
            }
            Check::Field(key, value) => text(key).as_ref() == Some(value),
            Check::FieldPrefix(key, prefix) => text(key).is_some_and(|t| t.starts_with(prefix)),
            Check::Not(inner) => !self.check(inner, caller, target, depth),
            Check::And(all) => all
                .iter()
                .all(|check| self.check(check, caller, target, depth)),
            Check::Or(any) => any
                .iter()
                .any(|check| self.check(check, caller, target, depth)),
        }
    }
}

/// Reads an expression; what cannot be read denies.
fn parse(text: &str) -> Check {
    if text.trim().is_empty() {
        return Check::Always;
    }
    let mut tokens: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let opened = word.trim_start_matches('(');
        tokens.extend(std::iter::repeat_n("(", word.len() - opened.len()));
        let closed = opened.trim_end_matches(')');
        if !closed.is_empty() {
            tokens.push(closed);
        }
        tokens.extend(std::iter::repeat_n(")", opened.len() - closed.len()));
    }
    let mut rest = tokens.as_slice();
    match parse_or(&mut rest) {
        Some(check) if rest.is_empty() => check,
        _ => Check::Never,
    }
}

fn parse_or(tokens: &mut &[&str]) -> Option<Check> {
    let mut any = vec![parse_and(tokens)?];
    while let Some(("or", rest)) = tokens.split_first().map(|(first, rest)| (*first, rest)) {
        *tokens = rest;
        any.push(parse_and(tokens)?);
    }
    if any.len() == 1 {
        any.pop()
    } else {
        Some(Check::Or(any))
    }
}

fn parse_and(tokens: &mut &[&str]) -> Option<Check> {
    let mut all = vec![parse_one(tokens)?];
    while let Some(("and", rest)) = tokens.split_first().map(|(first, rest)| (*first, rest)) {
        *tokens = rest;
        all.push(parse_one(tokens)?);
    }
    if all.len() == 1 {
        all.pop()
    } else {
        Some(Check::And(all))
    }
}

fn parse_one(tokens: &mut &[&str]) -> Option<Check> {
    let (first, rest) = tokens.split_first()?;
    *tokens = rest;
    match *first {
        "(" => {
            let check = parse_or(tokens)?;
            let (closing, rest) = tokens.split_first()?;
            *tokens = rest;
            (*closing == ")").then_some(check)
        }
        "not" => Some(Check::Not(Box::new(parse_one(tokens)?))),
        "@" => Some(Check::Always),
        "!" => Some(Check::Never),
        word => parse_word(word),
    }
}

fn parse_word(word: &str) -> Option<Check> {
    let (kind, what) = word.split_once(':')?;
    match kind {
        "role" => Some(Check::Role(what.to_owned())),
        "service_roles" => Some(Check::ServiceRole(what.to_owned())),
        "rule" => Some(Check::Rule(what.to_owned())),
        "project_id" | "tenant_id" => {
            let key = what.strip_prefix("%(")?.strip_suffix(")s")?;
            Some(Check::Project(key.replace("tenant_id", "project_id")))
        }
        "field" => {
            // field:networks:router:external=True: the attribute's name may hold a colon.
            let (_resource, condition) = what.split_once(':')?;
            let (attribute, value) = condition.split_once('=')?;
            Some(match value.strip_prefix("~^") {
                Some(prefix) => Check::FieldPrefix(attribute.to_owned(), prefix.to_owned()),
                None => Check::Field(attribute.to_owned(), value.to_owned()),
            })
        }
        _ => Some(Check::Never),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn caller(project: &str, roles: &[&str]) -> Caller {
        Caller {
            project_id: project.to_owned(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            ..Caller::default()
        }
    }

    fn target(value: &Value) -> Attributes {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn every_rule_can_be_read() {
        let rules: BTreeMap<String, String> = serde_yaml_ng::from_str(RULES).unwrap();
        assert!(rules.len() > 300, "{}", rules.len());
        for (name, text) in rules {
            assert!(
                text == "!" || parse(&text) != Check::Never,
                "{name}: {text}"
            );
        }
    }

    #[test]
    fn owner_and_roles() {
        let policy = Policy::default();
        let mine = target(&json!({"project_id": "p1"}));
        let others = target(&json!({"project_id": "p2"}));
        assert!(policy.allows(
            "create_network",
            &caller("p1", &["member", "reader"]),
            &mine
        ));
        assert!(!policy.allows("create_network", &caller("p1", &["reader"]), &mine));
        assert!(!policy.allows("create_network", &caller("p1", &["member"]), &others));
        assert!(policy.allows("create_network", &caller("p1", &["admin"]), &others));
        let shared = target(&json!({"project_id": "p2", "shared": true}));
        assert!(policy.allows("get_network", &caller("p1", &["reader"]), &shared));
        assert!(!policy.allows("get_network", &caller("p1", &["reader"]), &others));
    }

    #[test]
    fn only_services_delete_a_guests_port_of_theirs() {
        let policy = Policy::default();
        let member = caller("p1", &["member"]);
        let plain = target(&json!({"project_id": "p1", "device_owner": ""}));
        let guest = target(&json!({"project_id": "p1", "device_owner": "compute:nova"}));
        assert!(policy.allows("delete_port", &member, &plain));
        assert!(!policy.allows("delete_port", &member, &guest));
    }

    #[test]
    fn what_cannot_be_read_denies() {
        for text in [
            "role:a and",
            "(role:a",
            "nonsense",
            "role:a role:b",
            "project_id:x",
        ] {
            assert_eq!(parse(text), Check::Never, "{text}");
        }
    }
}
