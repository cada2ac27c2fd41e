//! Subports: each leaves by the device of the port that carries it, with its tag.
//!
//! Guarantees: a subport's device is that of its trunk's port while a stub is on that one, and nothing otherwise. What an
//! earlier process wrote stays until the device is announced again.

use crate::device::Interface;
use crate::engine::Engine;
use crate::error::EngineError;
use std::collections::BTreeMap;
use weft_ebpf_common::constants::{device as flag, slot};
use weft_ebpf_common::layout::Device;
use weft_model::{PortId, PortInterface};
use zerocopy::{FromBytes, IntoBytes};

/// A subport's device.
fn device(interface: Option<Interface>, vlan_id: u16) -> Device {
    let peer = interface.is_some_and(|interface| interface.peer);
    Device {
        ifindex: interface.map_or(0, |interface| interface.ifindex),
        flags: u32::from(vlan_id) << flag::VLAN_SHIFT | if peer { flag::PEER } else { 0 },
    }
}

impl Engine {
    /// The port whose device a port's frames come and go by: its own, or its trunk's.
    pub(crate) fn carrier(&self, port: PortId) -> PortId {
        let port_there = self.snapshot.as_ref().and_then(|s| s.ports.get(&port));
        match port_there.map(|port| &port.interface) {
            Some(PortInterface::Subport { parent, .. }) => *parent,
            _ => port,
        }
    }

    fn subports_wanted(&self) -> BTreeMap<u32, (u32, u16)> {
        let ports = self.snapshot.iter().flat_map(|s| &s.ports);
        let wanted = ports.filter_map(|(id, port)| match port.interface {
            PortInterface::Subport { parent, vlan_id } => {
                let slots = &self.slots.ports;
                Some((slots.get(*id)?, (slots.get(parent)?, vlan_id)))
            }
            _ => None,
        });
        wanted.collect()
    }

    /// Clears the devices of what is no subport any more, before anything else gets its slot.
    pub(crate) fn subports_forget(&mut self) -> Result<(), EngineError> {
        let wanted = self.subports_wanted();
        let gone = self.devices.subports.keys().copied();
        let gone: Vec<u32> = gone.filter(|slot| !wanted.contains_key(slot)).collect();
        for slot in gone {
            self.subport_write(slot, Device::zero())?;
            self.devices.subports.remove(&slot);
        }
        Ok(())
    }

    /// Writes by which device each subport's frames leave, after stubs were put on devices.
    pub(crate) fn subports_settle(&mut self) -> Result<(), EngineError> {
        for (slot, (parent, vlan_id)) in self.subports_wanted() {
            let interface = self.devices.attached_interface(parent);
            let known = self.devices.subports.get(&slot);
            // A device that was not announced yet may still be.
            let open = known.is_some() && interface.is_none() && self.devices.is_pinned(parent);
            let device = device(interface, vlan_id);
            if !open && known != Some(&device) {
                self.subport_write(slot, device)?;
                self.devices.subports.insert(slot, device);
            }
        }
        Ok(())
    }

    fn subport_write(&self, slot: u32, device: Device) -> Result<(), EngineError> {
        let index = slot + slot::UPLINKS_MAX;
        self.loaded.maps.devices.set(index, device.as_bytes())?;
        Ok(())
    }

    /// Reads by which devices subports' frames left under an earlier process.
    pub(crate) fn subports_adopt(&mut self) -> Result<(), EngineError> {
        let slots: Vec<u32> = self.slots.ports.iter().map(|(_, slot)| slot).collect();
        for slot in slots {
            let index = slot + slot::UPLINKS_MAX;
            let device = self.loaded.maps.devices.lookup(&index.to_ne_bytes())?;
            let device = device.and_then(|bytes| Device::read_from_bytes(&bytes).ok());
            if let Some(device) = device.filter(|device| device.flags >> flag::VLAN_SHIFT != 0) {
                self.devices.subports.insert(slot, device);
            }
        }
        Ok(())
    }
}
