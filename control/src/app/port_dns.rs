//! A port's names in DNS: what they may be, and what each address is called.

use super::attribute::{Attributes, text_of};
use super::error::{Error, Result, quote};
use serde_json::{Value, json};

/// Characters of a whole name, and of one of its labels (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 255;
const LABEL_MAX: usize = 63;

/// Reads `dns_name`: empty, a host name, or a name that ends in a dot.
///
/// # Errors
/// The reason.
pub(super) fn dns_name(value: &Value) -> Result<Value, String> {
    let name = text_of(value, NAME_MAX)?.to_ascii_lowercase();
    check(&name)?;
    Ok(name.into())
}

/// Reads `dns_domain`: empty, or a name that ends in a dot.
///
/// # Errors
/// The reason.
pub(super) fn dns_domain(value: &Value) -> Result<Value, String> {
    let name = text_of(value, NAME_MAX)?.to_ascii_lowercase();
    if !name.is_empty() && !name.ends_with('.') {
        return Err(format!(
            "{} is not a FQDN: it must end in '.'",
            quote(&name)
        ));
    }
    check(&name)?;
    Ok(name.into())
}

fn check(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Ok(());
    }
    let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
    for label in &labels {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if label.is_empty() || label.len() > LABEL_MAX || !label.chars().all(good) {
            return Err(format!(
                "{} is not a valid PQDN or FQDN: a name's parts have 1 to {LABEL_MAX} letters, digits \
                 and hyphens",
                quote(name)
            ));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!(
                "{} is not a valid PQDN or FQDN: {} begins or ends with a hyphen",
                quote(name),
                quote(label)
            ));
        }
    }
    let top = labels.last().copied().unwrap_or_default();
    if labels.len() > 1 && top.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!(
            "{} is not a valid PQDN or FQDN: the top-level domain {} is all digits",
            quote(name),
            quote(top)
        ));
    }
    Ok(())
}

/// A name that ends in a dot must be within the domain that the server is configured with.
///
/// # Errors
/// [`Error::Invalid`].
pub(super) fn check_within(name: &str, domain: &str) -> Result<()> {
    let domain = dotted(domain);
    let within = name
        .strip_suffix(&domain)
        .is_some_and(|host| host.ends_with('.'));
    if name.ends_with('.') && !domain.is_empty() && !within {
        return Err(Error::attribute(
            "dns_name",
            format!(
                "{} is a FQDN, and does not end with the configured domain {}",
                quote(name),
                quote(&domain)
            ),
        ));
    }
    Ok(())
}

fn dotted(domain: &str) -> String {
    match domain.trim_end_matches('.') {
        "" => String::new(),
        domain => format!("{domain}."),
    }
}

/// Puts `dns_assignment` into a port's view: what each of its addresses is called. `domain` is of the port's network;
/// the port's own goes before.
pub(super) fn assign(view: &mut Attributes, domain: &str) {
    let text = |name: &str| view.get(name).and_then(Value::as_str).unwrap_or_default();
    let own = text("dns_domain");
    let domain = dotted(if own.is_empty() { domain } else { own });
    let name = text("dns_name");
    let ips = view.get("fixed_ips").and_then(Value::as_array);
    let assignment: Vec<Value> = ips
        .into_iter()
        .flatten()
        .filter_map(|ip| ip.get("ip_address")?.as_str())
        .map(|ip| {
            let host = match name {
                "" => format!("host-{}", ip.replace(['.', ':'], "-")),
                name => name.to_owned(),
            };
            let fqdn = if host.ends_with('.') || domain.is_empty() {
                host.clone()
            } else {
                format!("{host}.{domain}")
            };
            json!({ "ip_address": ip, "hostname": host, "fqdn": fqdn })
        })
        .collect();
    view.insert("dns_assignment".to_owned(), assignment.into());
}

/// Puts the configured domain behind names that have none of their own, nor of their network.
pub(super) fn finish(view: &mut Attributes, domain: &str) {
    let domain = dotted(domain);
    let assignment = view.get_mut("dns_assignment").and_then(Value::as_array_mut);
    for name in assignment.into_iter().flatten() {
        let fqdn = name.get("fqdn").and_then(Value::as_str).unwrap_or_default();
        if !domain.is_empty() && !fqdn.ends_with('.') {
            name["fqdn"] = format!("{fqdn}.{domain}").into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_labels() {
        for (name, good) in [
            ("", true),
            ("Web-1", true),
            ("web.example.org.", true),
            ("1", true),
            ("a.1", false),
            ("-a", false),
            ("a-", false),
            ("a..b", false),
            ("a_b", false),
            (&"a".repeat(63), true),
            (&"a".repeat(64), false),
        ] {
            assert_eq!(dns_name(&Value::from(name)).is_ok(), good, "{name}");
        }
        assert!(dns_domain(&Value::from("example.org")).is_err());
        assert_eq!(
            dns_domain(&Value::from("Example.org.")).unwrap(),
            "example.org."
        );
    }

    #[test]
    fn a_whole_name_is_within_the_domain() {
        assert!(check_within("a.example.org.", "example.org").is_ok());
        assert!(check_within("a", "example.org").is_ok());
        assert!(check_within("a.example.com.", "example.org.").is_err());
        assert!(check_within("example.org.", "example.org.").is_err());
        assert!(check_within("badexample.org.", "example.org.").is_err());
    }

    #[test]
    fn every_address_has_a_name() {
        let port = json!({
            "dns_name": "", "dns_domain": "",
            "fixed_ips": [{ "ip_address": "192.0.2.5" }, { "ip_address": "2001:db8::5" }],
        });
        let mut port = port.as_object().unwrap().clone();
        assign(&mut port, "example.org");
        assert_eq!(
            port["dns_assignment"][0]["fqdn"],
            "host-192-0-2-5.example.org."
        );
        assert_eq!(port["dns_assignment"][1]["hostname"], "host-2001-db8--5");
        port.insert("dns_name".to_owned(), "web".into());
        port.insert("dns_domain".to_owned(), "example.com.".into());
        assign(&mut port, "example.org");
        assert_eq!(port["dns_assignment"][0]["fqdn"], "web.example.com.");
        assign(&mut port, "");
        assert_eq!(port["dns_assignment"][0]["fqdn"], "web.example.com.");
        port.insert("dns_domain".to_owned(), "".into());
        assign(&mut port, "");
        assert_eq!(port["dns_assignment"][0]["fqdn"], "web");
        finish(&mut port, "example.net");
        assert_eq!(port["dns_assignment"][0]["fqdn"], "web.example.net.");
    }
}
