//! libvirt's `<interface>` for a port, and finding it again in a domain's XML.
//!
//! A vhost-user port is `type='vhostuser'` (libvirt's formatdomain, "vhost-user interface"), another one `type='ethernet'` with
//! its tap's name, by which Weft knows it.

use roxmltree::{Document, Node};
use weft_agent::socket::PortState;
use weft_model::VhostUserMode;

/// The XML that plugs the port in.
pub(crate) fn xml(port: &PortState, queues: u8) -> String {
    let mac = port.mac_address;
    let interface = escaped(&port.interface);
    match port.vhost_user {
        Some(mode) => {
            let source = match mode {
                VhostUserMode::Client => format!(
                    "<source type='unix' path='{interface}' mode='client'>\n    \
                     <reconnect enabled='yes' timeout='1'/>\n  </source>"
                ),
                VhostUserMode::Server => {
                    format!("<source type='unix' path='{interface}' mode='server'/>")
                }
            };
            let driver = match queues {
                1 => String::new(),
                more => format!("  <driver queues='{more}'/>\n"),
            };
            format!(
                "<interface type='vhostuser'>\n  <mac address='{mac}'/>\n  {source}\n  \
                 <model type='virtio'/>\n{driver}</interface>\n"
            )
        }
        None => format!(
            "<interface type='ethernet'>\n  <mac address='{mac}'/>\n  <target dev='{interface}'/>\n  \
             <model type='virtio'/>\n</interface>\n"
        ),
    }
}

/// The socket's path or the device's name of each interface of a domain that could be a port's.
pub(crate) fn of_domain(domain: &str) -> Result<Vec<String>, roxmltree::Error> {
    let document = Document::parse(domain)?;
    let interfaces = document
        .descendants()
        .filter(|node| node.has_tag_name("interface"));
    Ok(interfaces.filter_map(name).collect())
}

/// Whether another process can be given the domain's memory, as vhost-user needs it.
pub(crate) fn shares_memory(domain: &str) -> Result<bool, roxmltree::Error> {
    let document = Document::parse(domain)?;
    let shared = |node: Node<'_, '_>| {
        let parent = node.parent_element();
        node.has_tag_name("access")
            && parent.is_some_and(|parent| parent.has_tag_name("memoryBacking"))
            && node.attribute("mode") == Some("shared")
            || node.has_tag_name("cell") && node.attribute("memAccess") == Some("shared")
    };
    Ok(document.descendants().any(shared))
}

fn name(interface: Node<'_, '_>) -> Option<String> {
    let (tag, attribute) = match interface.attribute("type")? {
        "vhostuser" => ("source", "path"),
        _ => ("target", "dev"),
    };
    let child = interface.children().find(|node| node.has_tag_name(tag))?;
    child.attribute(attribute).map(str::to_owned)
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '\'' => safe += "&apos;",
            '"' => safe += "&quot;",
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{NetworkId, PortId, PortStatus};

    fn port(interface: &str, vhost_user: Option<VhostUserMode>) -> PortState {
        PortState {
            port_id: PortId::random(),
            network_id: NetworkId::random(),
            interface: interface.to_owned(),
            vhost_user,
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            fixed_ips: Vec::new(),
            status: PortStatus::Active,
            reason: String::new(),
        }
    }

    #[test]
    fn what_is_plugged_in_is_found_again() {
        let socket = "/run/weft/a'b<c>&\"d.sock";
        for (port, queues) in [
            (port(socket, Some(VhostUserMode::Client)), 1),
            (port(socket, Some(VhostUserMode::Server)), 4),
            (port("tap0123", None), 1),
        ] {
            let xml = xml(&port, queues);
            let domain = format!("<domain><devices>{xml}</devices></domain>");
            assert_eq!(of_domain(&domain).unwrap(), [port.interface], "{xml}");
            assert_eq!(xml.contains("queues='4'"), queues == 4, "{xml}");
            assert!(xml.contains("fa:16:3e:00:00:01"));
        }
    }

    #[test]
    fn shared_memory_is_said_in_either_of_two_places() {
        let shares = |text: &str| shares_memory(&format!("<domain>{text}</domain>")).unwrap();
        assert!(shares(
            "<memoryBacking><access mode='shared'/></memoryBacking>"
        ));
        assert!(shares(
            "<cpu><numa><cell id='0' memAccess='shared'/></numa></cpu>"
        ));
        assert!(!shares(
            "<memoryBacking><access mode='private'/></memoryBacking>"
        ));
        assert!(!shares("<devices><access mode='shared'/></devices>"));
    }

    #[test]
    fn other_interfaces_and_broken_xml_are_no_ports() {
        let bridge = "<domain><interface type='bridge'><source bridge='b'/></interface></domain>";
        assert_eq!(of_domain(bridge).unwrap(), [""; 0]);
        assert!(of_domain("<domain>").is_err());
    }
}
