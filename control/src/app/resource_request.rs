//! A port's `resource_request`: what Nova's scheduler must find room for, in Placement's words.

use super::qos_rule::{MinimumBandwidth, MinimumPacketRate, RuleKind};
use crate::store::port::Port;
use crate::store::qos_policy::QosRuleRow;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The request: null if the port's QoS policy promises nothing.
pub(super) fn view(port: &Port) -> Value {
    let vnic = trait_of("VNIC_TYPE", &port.row.binding_vnic_type);
    let network = match &port.guarantees.physical_network {
        Some(name) => trait_of("PHYSNET", name),
        None => "CUSTOM_NETWORK_TUNNEL_PROVIDER".to_owned(),
    };
    let bandwidth = group(port, MinimumBandwidth::TYPE, &[&network, &vnic]);
    let packet_rate = group(port, MinimumPacketRate::TYPE, &[&vnic]);
    let groups: Vec<Value> = bandwidth.into_iter().chain(packet_rate).collect();
    if groups.is_empty() {
        return Value::Null;
    }
    let ids: Vec<&Value> = groups.iter().map(|group| &group["id"]).collect();
    json!({ "same_subtree": ids, "request_groups": groups })
}

/// What the rules of one type ask of one provider of resources.
fn group(port: &Port, rule_type: &str, required: &[&str]) -> Option<Value> {
    let of_type = |rule: &&QosRuleRow| rule.rule_type == rule_type;
    let rules: Vec<&QosRuleRow> = port.guarantees.rules.iter().filter(of_type).collect();
    let resources: Map<String, Value> = rules.iter().map(|rule| resource(rule)).collect();
    if resources.is_empty() {
        return None;
    }
    // Neutron's: Nova writes it into the binding profile's allocation, so it must stay the same.
    let names: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    let namespace = Uuid::try_parse(&port.row.id).unwrap_or_default();
    let id = Uuid::new_v5(&namespace, names.join(":").as_bytes());
    Some(json!({ "id": id.to_string(), "required": required, "resources": resources }))
}

/// The class of the resource, and how much of it.
fn resource(rule: &QosRuleRow) -> (String, Value) {
    let direction = match rule.direction.as_str() {
        "ingress" => "IGR_",
        "egress" => "EGR_",
        _ => "",
    };
    match rule.min_kbps {
        Some(kbps) => (format!("NET_BW_{direction}KILOBIT_PER_SEC"), kbps.into()),
        None => (
            format!("NET_PACKET_RATE_{direction}KILOPACKET_PER_SEC"),
            rule.min_kpps.into(),
        ),
    }
}

/// A trait of the operator's own: upper case, and `_` for what Placement does not allow.
fn trait_of(kind: &str, name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("CUSTOM_{kind}_{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::port::{Guarantees, PortRow};

    fn rule(id: &str, direction: &str, min_kbps: Option<i64>, min_kpps: Option<i64>) -> QosRuleRow {
        let rule_type = match min_kbps {
            Some(_) => MinimumBandwidth::TYPE,
            None => MinimumPacketRate::TYPE,
        };
        QosRuleRow {
            id: id.to_owned(),
            rule_type: rule_type.to_owned(),
            direction: direction.to_owned(),
            min_kbps,
            min_kpps,
            ..QosRuleRow::default()
        }
    }

    #[test]
    fn a_group_for_bandwidth_and_one_for_packets() {
        let port = Port {
            row: PortRow {
                id: "6ba7b810-9dad-11d1-80b4-00c04fd430c8".to_owned(),
                binding_vnic_type: "direct-physical".to_owned(),
                ..PortRow::default()
            },
            guarantees: Guarantees {
                rules: vec![
                    rule("python.org", "egress", Some(7), None),
                    rule("p", "any", None, Some(5)),
                ],
                physical_network: Some("phys-net.1".to_owned()),
            },
            ..Port::default()
        };
        let request = view(&port);
        let [bandwidth, packets] = request["request_groups"].as_array().unwrap().as_slice() else {
            panic!("{request}");
        };
        // RFC 4122's namespace for names in DNS, and the result that Python's documentation gives.
        assert_eq!(bandwidth["id"], "886313e1-3b8a-5372-9b90-0c9aee199e5d");
        assert_eq!(
            bandwidth["required"],
            json!([
                "CUSTOM_PHYSNET_PHYS_NET_1",
                "CUSTOM_VNIC_TYPE_DIRECT_PHYSICAL"
            ])
        );
        assert_eq!(
            bandwidth["resources"],
            json!({ "NET_BW_EGR_KILOBIT_PER_SEC": 7 })
        );
        assert_eq!(
            packets["resources"],
            json!({ "NET_PACKET_RATE_KILOPACKET_PER_SEC": 5 })
        );
        assert_eq!(
            request["same_subtree"],
            json!([bandwidth["id"], packets["id"]])
        );
    }

    #[test]
    fn limits_are_no_request() {
        let mut port = Port::default();
        assert_eq!(view(&port), Value::Null);
        port.guarantees.rules.push(QosRuleRow {
            rule_type: "bandwidth_limit".to_owned(),
            max_kbps: Some(1),
            ..QosRuleRow::default()
        });
        assert_eq!(view(&port), Value::Null);
    }
}
