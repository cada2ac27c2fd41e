//! Values of the maps of QoS, as those of `layout`.

use crate::layout;

layout! {
    /// A limit.
    struct QosRate = "qos_rate" {
        /// Nanoseconds a unit, times `1 << rate::FRACTION_BITS`; 0: no limit.
        per_unit: u64,
        /// Nanoseconds that it may be ahead.
        burst_ns: u64,
    }

    /// What a QoS policy asks.
    struct QosRecord = "qos_record" {
        /// QOS and DSCP of `session::*`.
        flags: u32,
        /// DSCP: the mark.
        dscp: u32,
        /// At `qos::*`.
        rates: [QosRate; 4],
    }

    /// Up to when a port's or an address's limits are paid, nanoseconds of the clock.
    struct QosPaid = "qos_paid" {
        /// At `qos::*`.
        paid_ns: [u64; 4],
    }
}
