//! One copy of what many hosts are told alike: a guest is known to all hosts of its network.
//!
//! Guarantees: what is kept beside the hosts' own snapshots is at most as much as they hold, and a little.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use weft_model::{PortId, RemotePort};

/// Entries that are always let stand.
const FEW: usize = 1_024;

/// Guests as other hosts are told of them.
#[derive(Debug, Default)]
pub(super) struct Shared {
    ports: RefCell<HashMap<PortId, Arc<RemotePort>>>,
    /// Entries at the last sweep.
    swept: Cell<usize>,
}

impl Shared {
    /// What others were told of the port, if that is this; else this.
    pub(super) fn one(&self, id: PortId, port: RemotePort) -> Arc<RemotePort> {
        let mut ports = self.ports.borrow_mut();
        if let Some(known) = ports.get(&id).filter(|known| ***known == port) {
            return known.clone();
        }
        let port = Arc::new(port);
        ports.insert(id, port.clone());
        port
    }

    /// Forgets what no host is told any more, once there may be much of it.
    pub(super) fn sweep(&self) {
        let mut ports = self.ports.borrow_mut();
        if ports.len() > 2 * self.swept.get() + FEW {
            ports.retain(|_, port| Arc::strong_count(port) > 1);
            self.swept.set(ports.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_model::{MacAddress, NetworkId};

    fn port(mac: u8) -> RemotePort {
        RemotePort {
            network_id: NetworkId::random(),
            mac_address: MacAddress([2, 0, 0, 0, 0, mac]),
            fixed_ips: Vec::new(),
            claimed_ips: Vec::new(),
            host: "h1".parse().unwrap(),
            pvlan: None,
        }
    }

    #[test]
    fn what_is_alike_is_one_and_what_nobody_has_goes() {
        let shared = Shared::default();
        let (id, first) = (PortId::random(), port(1));
        let one = shared.one(id, first.clone());
        assert!(Arc::ptr_eq(&one, &shared.one(id, first.clone())));
        let changed = shared.one(id, port(2));
        assert!(!Arc::ptr_eq(&one, &changed));
        for _ in 0..FEW {
            drop(shared.one(PortId::random(), port(3)));
        }
        shared.sweep();
        assert_eq!(shared.ports.borrow().len(), 1, "the one that is held");
    }
}
