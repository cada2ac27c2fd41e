//! Who may do what: Neutron's default rules, in oslo.policy's own syntax, parsed once.
//!
//! A rule is a boolean expression over the caller's roles and project and the target's attributes. Unknown rules deny.
//! An operator's file of rules takes the place of those that it names; it is refused whole if one of them is wrong.

use super::attribute::Attributes;
use super::policy_syntax;
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

    fn id(&self, who: Who) -> &str {
        match who {
            Who::Project => &self.project_id,
            Who::User => &self.user_id,
        }
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

/// Something about the caller that a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// Its project.
    Project,
    /// Itself.
    User,
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Check {
    Always,
    Never,
    Role(String),
    /// The forwarding service has this role.
    ServiceRole(String),
    Rule(String),
    /// This of the caller is what the target has under this key.
    Same(Who, String),
    /// This of the caller is this id.
    Is(Who, String),
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

/// Why an operator's rules are refused, all of them.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is no map of rules.
    #[error("it is no YAML map of rule names to texts: {0}")]
    Yaml(String),
    /// A rule cannot be used.
    #[error("at {rule}: {reason}")]
    Rule {
        /// Which.
        rule: String,
        /// Why not.
        reason: String,
    },
}

impl Default for Policy {
    fn default() -> Self {
        // The text is part of the program and its test reads it.
        let rules: BTreeMap<String, String> = serde_yaml_ng::from_str(RULES).unwrap_or_default();
        let read = |text: &str| policy_syntax::read(text).unwrap_or(Check::Never);
        Self(
            rules
                .into_iter()
                .map(|(name, text)| (name, read(&text)))
                .collect(),
        )
    }
}

impl Policy {
    /// The default rules with an operator's in their place: a YAML map in oslo's form.
    ///
    /// # Errors
    /// [`PolicyError`]; then none of them holds.
    pub fn overridden(yaml: &str) -> Result<Self, PolicyError> {
        let refused = |rule: &str, reason: String| PolicyError::Rule {
            rule: rule.to_owned(),
            reason,
        };
        let rules: Option<BTreeMap<String, serde_yaml_ng::Value>> =
            serde_yaml_ng::from_str(yaml).map_err(|error| PolicyError::Yaml(error.to_string()))?;
        let mut policy = Self::default();
        for (name, text) in rules.unwrap_or_default() {
            let text = text.as_str().ok_or_else(|| {
                refused(&name, "expected a text such as \"role:admin\"".to_owned())
            })?;
            let check = policy_syntax::read(text).map_err(|reason| refused(&name, reason))?;
            policy.0.insert(name, check);
        }
        for (name, check) in policy.0.iter().collect::<BTreeMap<_, _>>() {
            policy
                .references(check, DEPTH_MAX)
                .map_err(|reason| refused(name, reason))?;
        }
        Ok(policy)
    }

    /// Whether all rules that a check leads to exist, and end.
    fn references(&self, check: &Check, depth: usize) -> Result<(), String> {
        match check {
            Check::Rule(name) => {
                let depth = depth.checked_sub(1);
                let depth = depth.ok_or_else(|| {
                    format!("it leads to itself, or over more than {DEPTH_MAX} rules")
                })?;
                let check = self.0.get(name);
                self.references(
                    check.ok_or_else(|| format!("there is no rule {name:?}"))?,
                    depth,
                )
            }
            Check::Not(inner) => self.references(inner, depth),
            Check::And(checks) | Check::Or(checks) => checks
                .iter()
                .try_for_each(|check| self.references(check, depth)),
            _ => Ok(()),
        }
    }

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
            Check::Same(who, key) => {
                let id = caller.id(*who);
                !id.is_empty() && text(key).as_deref() == Some(id)
            }
            Check::Is(who, id) => !id.is_empty() && caller.id(*who) == id,
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
            let check = policy_syntax::read(&text);
            assert!(check.is_ok(), "{name}: {text}: {check:?}");
        }
        Policy::overridden(RULES).unwrap();
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
    fn an_operators_rules_take_the_place_of_the_default_ones() {
        let text = "create_network: role:reader and project_id:%(project_id)s\nmine: user_id:u1\n\"get_network\": rule:mine\n";
        let policy = Policy::overridden(text).unwrap();
        let target = target(&json!({"project_id": "p1"}));
        assert!(policy.allows("create_network", &caller("p1", &["reader"]), &target));
        assert!(!policy.allows("create_network", &caller("p2", &["admin"]), &target));
        assert!(!policy.allows("get_network", &caller("p1", &["admin"]), &target));
        let user = Caller {
            user_id: "u1".to_owned(),
            ..Caller::default()
        };
        assert!(policy.allows("get_network", &user, &target));
        assert!(policy.allows("create_subnet", &caller("p1", &["admin"]), &target));
        for nothing in ["", "# a comment only\n", "{}"] {
            Policy::overridden(nothing).unwrap();
        }
    }

    #[test]
    fn wrong_rules_are_refused_whole() {
        for (text, reason) in [
            ("create_network: role:a and", "at create_network: it ends"),
            (
                "create_network: rule:nobody",
                "at create_network: there is no rule \"nobody\"",
            ),
            ("a: rule:b\nb: rule:a", "at a: it leads to itself"),
            ("admin_only: rule:create_network", "leads to itself"),
            (
                "create_network: [[\"role:admin\"]]",
                "at create_network: expected a text",
            ),
            ("create_network:", "at create_network: expected a text"),
            ("- role:admin", "no YAML map"),
            ("a: b: c", "no YAML map"),
        ] {
            let refused = Policy::overridden(text).err().unwrap().to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
