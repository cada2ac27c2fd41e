//! QoS policies (Neutron's bandwidth limit, packet rate limit and DSCP marking rules).
//!
//! [`QosPolicy::rates`] is how every engine reads the limits: docs/pipeline.md, section 6, says what it does with them.

use serde::{Deserialize, Serialize};

/// A direction as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QosDirection {
    /// To the guest.
    Ingress,
    /// From the guest.
    Egress,
}

/// A limit in kilobits a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosBandwidthLimit {
    /// Which way.
    pub direction: QosDirection,
    /// kbit/s.
    pub max_kbps: u32,
    /// kbit; 0 means Neutron's default of 80 % of the rate.
    pub max_burst_kbps: u32,
}

/// A limit in thousands of packets a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosPacketRateLimit {
    /// Which way.
    pub direction: QosDirection,
    /// Thousand packets a second.
    pub max_kpps: u32,
    /// Thousand packets; 0 means 80 % of the rate.
    pub max_burst_kpps: u32,
}

/// What a QoS policy asks of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QosPolicy {
    /// At most one a direction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bandwidth_limits: Vec<QosBandwidthLimit>,
    /// At most one a direction.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packet_rate_limits: Vec<QosPacketRateLimit>,
    /// One of Neutron's 22 valid marks, written into packets from the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dscp_mark: Option<u8>,
}

/// A limit as the engines count it: what each unit (a byte, a packet) takes of the time, and how far one may be ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds a unit, times 2^20; at least 1.
    pub per_unit: u64,
    /// Nanoseconds; at least 1.
    pub burst_ns: u64,
}

/// Bits behind the point of [`Rate::per_unit`].
pub const RATE_FRACTION_BITS: u32 = 20;

const NS_PER_S: u64 = 1_000_000_000;

impl Rate {
    /// Of a limit in thousands a second of units of `per_unit` (8 bits a byte, 1 packet a packet).
    fn new(thousands: u32, burst_thousands: u32, per_unit: u64) -> Self {
        let thousands = u64::from(thousands.max(1));
        // Neutron's default, of rates without a burst of their own.
        let burst = match u64::from(burst_thousands) {
            0 => thousands * 4 / 5,
            burst => burst,
        };
        Self {
            per_unit: (((per_unit * NS_PER_S / 1_000) << RATE_FRACTION_BITS) / thousands).max(1),
            burst_ns: (burst.saturating_mul(NS_PER_S) / thousands).max(1),
        }
    }

    /// Nanoseconds that so many units take.
    #[must_use]
    pub fn cost_ns(&self, units: u64) -> u64 {
        units.wrapping_mul(self.per_unit) >> RATE_FRACTION_BITS
    }

    /// Whether units may pass at `now_ns`, with `paid_ns` being up to when is paid: then they are paid for. They may if
    /// any of the burst is left; what they take beyond it is owed.
    pub fn take(&self, paid_ns: &mut u64, now_ns: u64, units: u64) -> bool {
        if *paid_ns >= now_ns.saturating_add(self.burst_ns) {
            return false;
        }
        *paid_ns = (*paid_ns).max(now_ns) + self.cost_ns(units);
        true
    }
}

impl QosPolicy {
    /// The limits of a direction: of bytes, of packets.
    #[must_use]
    pub fn rates(&self, direction: QosDirection) -> [Option<Rate>; 2] {
        let mut bandwidth = self.bandwidth_limits.iter();
        let bandwidth = bandwidth.find(|limit| limit.direction == direction);
        let mut packets = self.packet_rate_limits.iter();
        let packets = packets.find(|limit| limit.direction == direction);
        [
            bandwidth.map(|limit| Rate::new(limit.max_kbps, limit.max_burst_kbps, 8)),
            packets.map(|limit| Rate::new(limit.max_kpps, limit.max_burst_kpps, 1)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_run_is_the_rate_and_the_start_the_burst() {
        // 10 Mbit/s: 1,250,000 bytes a second; a burst of 2 Mbit: 250,000 bytes.
        let rate = Rate::new(10_000, 2_000, 8);
        assert_eq!(rate.burst_ns, 200_000_000);
        let mut paid = 0;
        let start = 1_000 * NS_PER_S;
        let at_once = (0..1_000)
            .filter(|_| rate.take(&mut paid, start, 1_500))
            .count();
        assert_eq!(at_once, 167);
        let later = (1..=10_000_u64)
            .filter(|n| rate.take(&mut paid, start + n * 1_000_000, 1_500))
            .count();
        // Ten seconds at the rate: 12,500,000 / 1,500 = 8,333.
        assert!((8_330..=8_336).contains(&later), "{later}");
    }

    #[test]
    fn extremes_do_not_overflow() {
        for thousands in [1, u32::MAX] {
            for per_unit in [1, 8] {
                let rate = Rate::new(thousands, u32::MAX, per_unit);
                let mut paid = 0;
                assert!(rate.take(&mut paid, u64::MAX / 2, 65_549));
                assert!(rate.per_unit > 0 && rate.burst_ns > 0);
            }
        }
        assert_eq!(Rate::new(1, 0, 8).cost_ns(1), 8_000_000);
    }
}
