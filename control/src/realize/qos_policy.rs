//! A QoS policy's rows to what of it engines enforce.

use super::decode::{At, RowError};
use crate::store::Resource;
use crate::store::qos_policy::{QosPolicyRow, QosRuleRow};
use weft_model::{QosBandwidthLimit, QosPacketRateLimit, QosPolicy};

/// What of a policy an engine enforces; guarantees are the scheduler's. None if there is nothing.
pub(super) fn qos_policy(
    row: &QosPolicyRow,
    rules: &[QosRuleRow],
) -> Result<Option<QosPolicy>, RowError> {
    let at = At(Resource::QosPolicy, &row.id);
    let mut policy = QosPolicy::default();
    for rule in rules {
        let number = |column, value: Option<i64>| at.number(column, value.unwrap_or_default());
        match rule.rule_type.as_str() {
            "bandwidth_limit" => policy.bandwidth_limits.push(QosBandwidthLimit {
                direction: at.named("direction", &rule.direction)?,
                max_kbps: number("max_kbps", rule.max_kbps)?,
                max_burst_kbps: number("max_burst_kbps", rule.max_burst_kbps)?,
            }),
            "packet_rate_limit" => policy.packet_rate_limits.push(QosPacketRateLimit {
                direction: at.named("direction", &rule.direction)?,
                max_kpps: number("max_kpps", rule.max_kpps)?,
                max_burst_kpps: number("max_burst_kpps", rule.max_burst_kpps)?,
            }),
            "dscp_marking" => {
                policy.dscp_mark = rule
                    .dscp_mark
                    .map(|mark| at.number("dscp_mark", mark))
                    .transpose()?;
            }
            _ => {}
        }
    }
    Ok(Some(policy).filter(|policy| *policy != QosPolicy::default()))
}
