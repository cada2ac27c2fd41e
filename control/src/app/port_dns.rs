//! A port's names in DNS: what they may be, and what each address is called.

use super::attribute::text_of;
use super::error::{Error, Result, quote};
use super::view::View;
use crate::store::port::{FixedIpRow, Port};
use serde::Serialize;
use serde_json::Value;

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

/// What one address of a port is called.
#[derive(Serialize)]
struct Assigned {
    ip_address: String,
    hostname: String,
    fqdn: String,
}

/// Puts `dns_assignment` into a port's view: what each of its addresses is called. Of the domains of the port, of its
/// network and of the configuration the first that there is goes behind the name.
pub(super) fn add_view(port: &Port, configured: &str, view: &mut View) {
    let domains = [&port.row.dns_domain, &port.network_dns_domain, configured];
    let domain = domains
        .into_iter()
        .map(dotted)
        .find(|domain| !domain.is_empty());
    let assigned = |ip: &FixedIpRow| {
        let ip_address = ip.ip_address.clone();
        let hostname = match port.row.dns_name.as_str() {
            "" => format!("host-{}", ip_address.replace(['.', ':'], "-")),
            name => name.to_owned(),
        };
        let fqdn = match &domain {
            Some(domain) if !hostname.ends_with('.') => format!("{hostname}.{domain}"),
            _ => hostname.clone(),
        };
        Assigned {
            ip_address,
            hostname,
            fqdn,
        }
    };
    let all: Vec<Assigned> = port.fixed_ips.iter().map(assigned).collect();
    view.put("dns_assignment", &all);
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
        let ip = |address: &str| FixedIpRow {
            ip_address: address.to_owned(),
            ..FixedIpRow::default()
        };
        let mut port = Port {
            fixed_ips: vec![ip("192.0.2.5"), ip("2001:db8::5")],
            network_dns_domain: "example.org".to_owned(),
            ..Port::default()
        };
        let names = |port: &Port, configured: &str| {
            let mut view = View::new();
            add_view(port, configured, &mut view);
            view.attributes()["dns_assignment"].clone()
        };
        let shown = names(&port, "example.net");
        assert_eq!(shown[0]["fqdn"], "host-192-0-2-5.example.org.");
        assert_eq!(shown[1]["hostname"], "host-2001-db8--5");
        port.row.dns_name = "web".to_owned();
        port.row.dns_domain = "example.com.".to_owned();
        assert_eq!(names(&port, "")[0]["fqdn"], "web.example.com.");
        port.network_dns_domain = String::new();
        assert_eq!(names(&port, "")[0]["fqdn"], "web.example.com.");
        port.row.dns_domain = String::new();
        assert_eq!(names(&port, "")[0]["fqdn"], "web");
        assert_eq!(names(&port, "example.net")[0]["fqdn"], "web.example.net.");
    }
}
