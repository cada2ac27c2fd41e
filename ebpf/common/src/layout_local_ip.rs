//! Local IPs as the programs see them.

use crate::layout;

layout! {
    /// The key of a local IP, or of one of its targets.
    struct LocalIpKey = "local_ip_key" {
        /// The target's network.
        network: u32,
        /// The address.
        address: u32,
        /// `slot::NONE`; or the port of a target, which does not use it.
        port: u32,
    }

    /// Where a local IP leads.
    struct LocalIp = "local_ip" {
        /// The port.
        port: u32,
        /// What the address is translated to; itself if it is not.
        fixed: u32,
        /// The port's MAC.
        mac: [u8; 6],
        /// Zero.
        reserved: u16,
    }
}
