//! Names in DNS: what a name and a domain must look like (RFC 952, RFC 1123).

use super::attribute::text_of;
use super::error::quote;
use serde_json::Value;

/// Characters of a whole name.
const NAME_MAX: usize = 255;
/// Characters of one label.
const LABEL_MAX: usize = 63;

/// Reads a name without its domain, in lower case; empty for none.
pub(super) fn relative_name(value: &Value) -> Result<Value, String> {
    let text = text_of(value, NAME_MAX)?.to_ascii_lowercase();
    if text.ends_with('.') {
        return Err(format!(
            "{} is a FQDN. It should be a relative domain name",
            quote(&text)
        ));
    }
    labels_check(&text)?;
    // The shortest domain is a letter between two dots.
    if text.len() > NAME_MAX - 3 {
        return Err(format!("{} leaves no room for a domain", quote(&text)));
    }
    Ok(text.into())
}

/// Reads a domain, which ends in a dot, in lower case; empty for none.
pub(super) fn domain(value: &Value) -> Result<Value, String> {
    let text = text_of(value, NAME_MAX)?.to_ascii_lowercase();
    if !text.is_empty() && !text.ends_with('.') {
        return Err(format!("{} is not a FQDN", quote(&text)));
    }
    labels_check(text.trim_end_matches('.'))?;
    Ok(text.into())
}

/// Checks a domain that may lack the dot at its end.
pub(super) fn domain_or_relative(text: &str) -> Result<(), String> {
    if text.len() > NAME_MAX {
        return Err(format!("more than {NAME_MAX} characters"));
    }
    labels_check(text.strip_suffix('.').unwrap_or(text))
}

/// Checks every label of a name, which may have none.
fn labels_check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Ok(());
    }
    let labels: Vec<&str> = name.split('.').collect();
    for label in &labels {
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if label.is_empty() || label.len() > LABEL_MAX || !label.chars().all(letters) {
            return Err(format!(
                "{} is not 1 to {LABEL_MAX} characters, each alphanumeric or a hyphen",
                quote(label)
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!(
                "{} must not start or end with a hyphen",
                quote(label)
            ));
        }
    }
    let numeric = |label: &&str| label.chars().all(|c| c.is_ascii_digit());
    match labels.last() {
        Some(top) if labels.len() > 1 && numeric(top) => {
            Err(format!("the top label {} is all numeric", quote(top)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_domains() {
        for good in ["", "a", "A-1", "web.shop"] {
            assert!(relative_name(&good.into()).is_ok(), "{good}");
        }
        for bad in ["a.", "-a", "a-", "a..b", "a_b", "a.1", &"x".repeat(64)] {
            assert!(relative_name(&bad.into()).is_err(), "{bad}");
        }
        assert_eq!(domain(&"Example.ORG.".into()), Ok("example.org.".into()));
        for bad in ["example.org", "a b."] {
            assert!(domain(&bad.into()).is_err(), "{bad}");
        }
    }
}
