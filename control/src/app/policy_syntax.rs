//! Reading an expression in oslo.policy's syntax: `and`, `or`, `not`, brackets, `@`, `!`, and checks as `kind:what`.
//!
//! What cannot be read, or would mean nothing here, is refused with a reason: a rule that was meant to protect something must
//! not silently turn into another one.

use super::policy::{Check, Who};

/// Nested brackets and `not`s.
const DEPTH_MAX: usize = 32;

type Read<T> = Result<T, String>;

/// The words of an expression that are still to be read.
struct Words<'a>(&'a [&'a str]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Takes the next word if it is this one, in whatever case.
    fn take(&mut self, word: &str) -> bool {
        let taken = self
            .0
            .first()
            .is_some_and(|next| next.eq_ignore_ascii_case(word));
        if taken {
            self.next();
        }
        taken
    }
}

/// Reads an expression. An empty one allows.
pub(super) fn read(text: &str) -> Read<Check> {
    let mut tokens: Vec<&str> = Vec::new();
    for word in text.split_whitespace() {
        let opened = word.trim_start_matches('(');
        tokens.extend(std::iter::repeat_n("(", word.len() - opened.len()));
        // The bracket at the end of %(key)s stands before an s.
        let closed = opened.trim_end_matches(')');
        if !closed.is_empty() {
            tokens.push(closed);
        }
        tokens.extend(std::iter::repeat_n(")", opened.len() - closed.len()));
    }
    if tokens.is_empty() {
        return Ok(Check::Always);
    }
    let mut words = Words(&tokens);
    let check = any(&mut words, DEPTH_MAX)?;
    match words.next() {
        None => Ok(check),
        Some(word) => Err(format!("expected `and`, `or` or the end before {word:?}")),
    }
}

fn any(words: &mut Words, depth: usize) -> Read<Check> {
    let mut checks = vec![all(words, depth)?];
    while words.take("or") {
        checks.push(all(words, depth)?);
    }
    Ok(single(checks, Check::Or))
}

fn all(words: &mut Words, depth: usize) -> Read<Check> {
    let mut checks = vec![one(words, depth)?];
    while words.take("and") {
        checks.push(one(words, depth)?);
    }
    Ok(single(checks, Check::And))
}

fn single(mut checks: Vec<Check>, several: fn(Vec<Check>) -> Check) -> Check {
    match checks.pop() {
        Some(only) if checks.is_empty() => only,
        Some(last) => {
            checks.push(last);
            several(checks)
        }
        None => Check::Never,
    }
}

fn one(words: &mut Words, depth: usize) -> Read<Check> {
    let depth = depth
        .checked_sub(1)
        .ok_or_else(|| format!("more than {DEPTH_MAX} brackets deep"))?;
    if words.take("not") {
        return Ok(Check::Not(Box::new(one(words, depth)?)));
    }
    match words.next() {
        None => Err("it ends where a check is expected".to_owned()),
        Some("(") => {
            let check = any(words, depth)?;
            if words.take(")") {
                return Ok(check);
            }
            Err("a bracket is not closed".to_owned())
        }
        Some("@") => Ok(Check::Always),
        Some("!") => Ok(Check::Never),
        Some(word) => check(word),
    }
}

fn check(word: &str) -> Read<Check> {
    let Some((kind, what)) = word.split_once(':') else {
        return Err(format!(
            "{word:?} is no check such as role:admin or rule:admin_only"
        ));
    };
    if what.is_empty() {
        return Err(format!("{word:?}: expected a name behind the colon"));
    }
    match kind {
        "role" => Ok(Check::Role(what.to_owned())),
        "service_roles" => Ok(Check::ServiceRole(what.to_owned())),
        "rule" => Ok(Check::Rule(what.to_owned())),
        "project_id" | "tenant_id" => Ok(who(Who::Project, what)),
        "user_id" => Ok(who(Who::User, what)),
        "is_admin" => match what {
            "True" | "1" => Ok(Check::Rule("context_is_admin".to_owned())),
            _ => Err(format!("{word:?}: expected is_admin:True")),
        },
        // Tokens of the system are refused before any rule is asked.
        "system_scope" => Ok(Check::Never),
        "field" => field(word, what),
        _ => literal(word, kind, what),
    }
}

/// `%(key)s`, or none.
fn key(what: &str) -> Option<String> {
    let key = what.strip_prefix("%(")?.strip_suffix(")s")?;
    Some(key.replace("tenant_id", "project_id"))
}

fn who(who: Who, what: &str) -> Check {
    match key(what) {
        Some(key) => Check::Same(who, key),
        None => Check::Is(who, what.to_owned()),
    }
}

/// `field:networks:router:external=True`: the attribute's name may hold a colon.
fn field(word: &str, what: &str) -> Read<Check> {
    let condition = what
        .split_once(':')
        .and_then(|(_resource, condition)| condition.split_once('='));
    let Some((attribute, value)) = condition else {
        return Err(format!("{word:?}: expected field:resource:attribute=value"));
    };
    let Some(pattern) = value.strip_prefix('~') else {
        return Ok(Check::Field(attribute.to_owned(), value.to_owned()));
    };
    match pattern.strip_prefix('^') {
        Some(prefix) if !prefix.contains(['.', '*', '[', '(', '$', '|', '+', '?', '\\']) => {
            Ok(Check::FieldPrefix(attribute.to_owned(), prefix.to_owned()))
        }
        _ => Err(format!(
            "{word:?}: of patterns only ~^ and the beginning of a text can be used"
        )),
    }
}

/// `'text':%(key)s` and `True:%(key)s`: the target's attribute is this.
fn literal(word: &str, kind: &str, what: &str) -> Read<Check> {
    let quoted = |quote: char| {
        kind.strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
    };
    let text = quoted('\'').or_else(|| quoted('"'));
    let text = text.or_else(|| ["True", "False"].into_iter().find(|truth| *truth == kind));
    match (text, key(what)) {
        (Some(text), Some(key)) => Ok(Check::Field(key, text.to_owned())),
        _ => Err(format!(
            "{word:?}: checks of the kind {kind:?} are not known here"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_bind_as_in_oslo() {
        let role = |name: &str| Check::Role(name.to_owned());
        assert_eq!(
            read("role:a or role:b and not role:c").unwrap(),
            Check::Or(vec![
                role("a"),
                Check::And(vec![role("b"), Check::Not(Box::new(role("c")))])
            ])
        );
        assert_eq!(read("((role:a))").unwrap(), role("a"));
        assert_eq!(
            read("(role:a OR role:b) And role:c").unwrap(),
            Check::And(vec![Check::Or(vec![role("a"), role("b")]), role("c")])
        );
        assert_eq!(
            (read("").unwrap(), read("@").unwrap(), read("!").unwrap()),
            (Check::Always, Check::Always, Check::Never)
        );
    }

    #[test]
    fn checks_are_read() {
        let text = |text: &str| text.to_owned();
        for (word, check) in [
            (
                "project_id:%(network:tenant_id)s",
                Check::Same(Who::Project, text("network:project_id")),
            ),
            ("tenant_id:0123", Check::Is(Who::Project, text("0123"))),
            (
                "user_id:%(user_id)s",
                Check::Same(Who::User, text("user_id")),
            ),
            (
                "field:networks:router:external=True",
                Check::Field(text("router:external"), text("True")),
            ),
            (
                "field:port:device_owner=~^network:",
                Check::FieldPrefix(text("device_owner"), text("network:")),
            ),
            (
                "'normal':%(binding:vnic_type)s",
                Check::Field(text("binding:vnic_type"), text("normal")),
            ),
            (
                "True:%(shared)s",
                Check::Field(text("shared"), text("True")),
            ),
            ("is_admin:True", Check::Rule(text("context_is_admin"))),
        ] {
            assert_eq!(read(word).unwrap(), check, "{word}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_reason() {
        for (word, reason) in [
            ("role:a and", "ends where"),
            ("(role:a", "not closed"),
            ("role:a)", "before \")\""),
            ("nonsense", "no check"),
            ("role:a role:b", "before \"role:b\""),
            ("or role:a", "no check"),
            ("http://policy.example.org/", "not known"),
            ("domain_id:%(domain_id)s", "not known"),
            ("field:port:device_owner=~.*", "patterns"),
            ("field:port", "field:resource"),
            ("is_admin:False", "is_admin:True"),
        ] {
            let refused = read(word).unwrap_err();
            assert!(refused.contains(reason), "{word}: {refused}");
        }
        let deep = format!("{}role:a{}", "(".repeat(40), ")".repeat(40));
        assert!(read(&deep).unwrap_err().contains("deep"));
    }
}
