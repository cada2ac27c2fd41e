//! Who may do what: Neutron's default rules, in oslo.policy's own syntax, parsed once.
//!
//! A rule is a boolean expression over the caller's roles and project and the target's attributes. Unknown rules deny.
//! An operator's file of rules takes the place of those that it names; it is refused whole if one of them is wrong.

use super::attribute::Attributes;
use super::policy_syntax;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a rule looks at beside the caller.
pub trait Target {
    /// An attribute that is a text or a truth value, as text.
    fn text(&self, key: &str) -> Option<Cow<'_, str>>;
}

impl Target for Attributes {
    fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        match self.get(key) {
            Some(Value::String(text)) => Some(text.into()),
            Some(Value::Bool(true)) => Some("True".into()),
            Some(Value::Bool(false)) => Some("False".into()),
            _ => None,
        }
    }
}

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

impl Check {
    /// Adds the rules that it names.
    fn rules<'a>(&'a self, names: &mut BTreeSet<&'a str>) {
        match self {
            Self::Rule(name) => {
                names.insert(name);
            }
            Self::Not(inner) => inner.rules(names),
            Self::And(checks) | Self::Or(checks) => checks.iter().for_each(|c| c.rules(names)),
            _ => {}
        }
    }
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
        let unread = |error: serde_yaml_ng::Error| PolicyError::Yaml(error.to_string());
        // A mapping has no name twice.
        let rules: Option<serde_yaml_ng::Mapping> =
            serde_yaml_ng::from_str(yaml).map_err(unread)?;
        let mut policy = Self::default();
        for (name, text) in rules.unwrap_or_default() {
            let name: String = serde_yaml_ng::from_value(name).map_err(unread)?;
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

    /// The rules that nothing asks: they have no name of Weft's, and no other rule leads to them.
    #[must_use]
    pub fn unasked(&self) -> Vec<&str> {
        let known = Self::default();
        let mut led_to = BTreeSet::new();
        for check in self.0.values() {
            check.rules(&mut led_to);
        }
        let asked = |name: &str| {
            // A rule on an attribute begins with that on the resource.
            let resource = name.split(':').next().unwrap_or(name);
            known.has(name) || known.has(resource) || led_to.contains(name)
        };
        let mut unasked: Vec<&str> = self.0.keys().map(String::as_str).collect();
        unasked.retain(|name| !asked(name));
        unasked.sort_unstable();
        unasked
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

    /// The rules whose names begin with `prefix`, and what comes behind it.
    pub(super) fn attribute_rules<'a>(
        &'a self,
        prefix: &str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let rules = self.0.keys();
        rules.filter_map(move |rule| Some((rule.strip_prefix(prefix)?, rule.as_str())))
    }

    /// Whether the caller may, with this target.
    #[must_use]
    pub fn allows(&self, rule: &str, caller: &Caller, target: &dyn Target) -> bool {
        self.rule(rule, caller, Some(target), DEPTH_MAX) == Some(true)
    }

    /// Whether the caller may or may not whatever the target is; none if that depends on it.
    pub(super) fn settled(&self, rule: &str, caller: &Caller) -> Option<bool> {
        self.rule(rule, caller, None, DEPTH_MAX)
    }

    fn rule(
        &self,
        rule: &str,
        caller: &Caller,
        target: Option<&dyn Target>,
        depth: usize,
    ) -> Option<bool> {
        let Some(depth) = depth.checked_sub(1) else {
            return Some(false);
        };
        let Some(check) = self.0.get(rule) else {
            return Some(false);
        };
        self.check(check, caller, target, depth)
    }

    /// None if it depends on the target, and there is none.
    fn check(
        &self,
        check: &Check,
        caller: &Caller,
        target: Option<&dyn Target>,
        depth: usize,
    ) -> Option<bool> {
        let text = |key: &str| Some(target?.text(key));
        match check {
            Check::Always => Some(true),
            Check::Never => Some(false),
            Check::Role(role) => Some(caller.has_role(role)),
            Check::ServiceRole(role) => Some(caller.service_roles.contains(role)),
            Check::Rule(rule) => self.rule(rule, caller, target, depth),
            Check::Same(who, key) => match caller.id(*who) {
                "" => Some(false),
                id => Some(text(key)?.as_deref() == Some(id)),
            },
            Check::Is(who, id) => Some(!id.is_empty() && caller.id(*who) == id),
            Check::Field(key, value) => Some(text(key)?.as_deref() == Some(value)),
            Check::FieldPrefix(key, prefix) => {
                Some(text(key)?.is_some_and(|t| t.starts_with(prefix)))
            }
            Check::Not(inner) => Some(!self.check(inner, caller, target, depth)?),
            Check::And(all) => self.first(all, false, caller, target, depth),
            Check::Or(any) => self.first(any, true, caller, target, depth),
        }
    }

    /// `deciding` if one of the checks says so; the contrary if all say that.
    fn first(
        &self,
        checks: &[Check],
        deciding: bool,
        caller: &Caller,
        target: Option<&dyn Target>,
        depth: usize,
    ) -> Option<bool> {
        let mut all = Some(!deciding);
        for check in checks {
            match self.check(check, caller, target, depth) {
                Some(said) if said == deciding => return Some(deciding),
                Some(_) => {}
                None => all = None,
            }
        }
        all
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
    fn what_no_target_changes_is_settled_without_one() {
        let policy = Policy::overridden(
            "a: role:reader and project_id:%(project_id)s\nb: role:reader or field:networks:shared=True\n\
             c: not role:reader\nd: not project_id:%(project_id)s\n",
        );
        let policy = policy.unwrap();
        let (reader, admin) = (caller("p1", &["reader"]), caller("p1", &["admin"]));
        for (rule, of_reader, of_admin) in [
            ("a", None, Some(false)),
            ("b", Some(true), None),
            ("c", Some(false), Some(true)),
            ("d", None, None),
            ("nothing", Some(false), Some(false)),
        ] {
            assert_eq!(policy.settled(rule, &reader), of_reader, "{rule}");
            assert_eq!(policy.settled(rule, &admin), of_admin, "{rule}");
        }
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
    fn rules_that_nothing_asks_are_known() {
        let text =
            "create_rooter: rule:mine\nmine: role:a\n\"create_port:new\": role:a\nother: '@'";
        let policy = Policy::overridden(text).unwrap();
        assert_eq!(policy.unasked(), ["create_rooter", "other"]);
        assert!(Policy::default().unasked().is_empty());
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
            ("create_port: '@'\ncreate_port: '!'", "duplicate"),
            (
                "create_port: 'role:'",
                "at create_port: \"role:\": expected a name",
            ),
        ] {
            let refused = Policy::overridden(text).err().unwrap().to_string();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
    }
}
