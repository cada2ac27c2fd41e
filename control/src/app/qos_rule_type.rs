//! The types of QoS rules that can be asked for, and what each may say.

use super::App;
use super::attribute::{Attributes, bool_of};
use super::error::{Error, Result, quote};
use super::policy::Caller;
use super::qos_rule::{
    BandwidthLimit, DIRECTIONS, DIRECTIONS_AND_ANY, DSCP_MARKS, DscpMarking, MinimumBandwidth,
    MinimumPacketRate, NUMBER_MAX, PacketRateLimit, RuleKind,
};
use serde_json::{Value, json};

/// The name of the only driver there is.
const DRIVER: &str = "weft";

const TYPES: [&str; 5] = [
    BandwidthLimit::TYPE,
    DscpMarking::TYPE,
    MinimumBandwidth::TYPE,
    MinimumPacketRate::TYPE,
    PacketRateLimit::TYPE,
];

fn permit(app: &App, caller: &Caller) -> Result<()> {
    if app
        .policy
        .allows("get_rule_type", caller, &Attributes::new())
    {
        Ok(())
    } else {
        Err(Error::Forbidden("rule:get_rule_type".to_owned()))
    }
}

/// GET /v2.0/qos/rule-types. All types are supported, so that `all_rules` and `all_supported` ask for the same.
///
/// # Errors
/// [`Error::Forbidden`]; [`Error::Invalid`], naming the parameter.
pub fn list(app: &App, caller: &Caller, pairs: &[(String, String)]) -> Result<Value> {
    permit(app, caller)?;
    for (name, value) in pairs {
        match name.as_str() {
            "fields" | "sort_key" | "sort_dir" | "limit" | "marker" | "page_reverse" => {}
            "all_rules" | "all_supported" => {
                bool_of(&Value::from(value.as_str()))
                    .map_err(|reason| Error::attribute(name, reason))?;
            }
            _ => {
                return Err(Error::bad_request(format!(
                    "Invalid filters {} for resource",
                    quote(name)
                )));
            }
        }
    }
    let types = TYPES.map(|name| json!({ "type": name }));
    Ok(json!({ "rule_types": types }))
}

/// GET /v2.0/qos/rule-types/{type}: an administrator's, for it tells of the implementation.
///
/// # Errors
/// [`Error::Forbidden`], [`Error::NotFound`].
pub fn show(app: &App, caller: &Caller, name: &str) -> Result<Value> {
    permit(app, caller)?;
    if !caller.is_admin() {
        return Err(Error::Forbidden("rule:admin_only".to_owned()));
    }
    let range = |name: &str| {
        json!({
            "parameter_name": name,
            "parameter_type": "range",
            "parameter_values": { "start": 0, "end": NUMBER_MAX },
        })
    };
    let choices = |name: &str, values: Value| json!({ "parameter_name": name, "parameter_type": "choices", "parameter_values": values });
    let direction = choices("direction", json!(DIRECTIONS));
    let parameters = match name {
        BandwidthLimit::TYPE => vec![range("max_kbps"), range("max_burst_kbps"), direction],
        PacketRateLimit::TYPE => vec![range("max_kpps"), range("max_burst_kpps"), direction],
        DscpMarking::TYPE => vec![choices("dscp_mark", json!(DSCP_MARKS))],
        MinimumBandwidth::TYPE => vec![range("min_kbps"), direction],
        MinimumPacketRate::TYPE => vec![
            range("min_kpps"),
            choices("direction", json!(DIRECTIONS_AND_ANY)),
        ],
        _ => {
            return Err(Error::not_found(
                "QosRuleTypeNotFound",
                format!("QoS rule type {} could not be found.", quote(name)),
            ));
        }
    };
    let driver = json!({ "name": DRIVER, "supported_parameters": parameters });
    Ok(json!({ "rule_type": { "type": name, "drivers": [driver] } }))
}
